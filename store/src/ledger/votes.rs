//! Pledges and reveals: checked on the caller's thread, taken under the lock, answered when durable.

use std::sync::MutexGuard;

use anwansi_proofs::{Digest, NodeKey, Place, Pledge, TransitionId};
use bytes::Bytes;

use super::{
    Ledger, RESULT_BYTES_MAX, Refusal,
    book::Book,
    journal::{self, Reveal, RoundId},
    task::Taken,
};
use crate::{Error, engine::Batch};

impl Ledger<'_> {
    /// Takes a node's pledge, and waits until it is durable.
    ///
    /// # Errors
    /// [`Error::Refused`]: for a second pledge of a round [`Refusal::Equivocated`], when both are kept.
    ///
    /// # Cost
    /// One signature check, on this thread.
    pub fn pledge(
        &self,
        id: &TransitionId,
        index: u32,
        round: u32,
        pledge: &Pledge,
    ) -> Result<(), Error> {
        let at = RoundId { transition: *id, task: index, round };
        let opened = self.known(id)?;
        let place = Place { opened, transition: *id, task: index, round };
        if !pledge.is_signed(&place) {
            return Err(Refusal::BadSignature.into());
        }
        let writer = self.store.writer()?;
        let mut book = self.desk().book();
        let (taken, first) = match book.pledge(&at, pledge) {
            Ok(taken) => taken,
            Err(refusal) => {
                drop(book);
                let before = journal::pledged(self.engine(), &at, &pledge.node)?;
                return self.again(refusal, before == Some(pledge.pledge));
            }
        };
        let mut batch = Batch::new();
        match taken {
            Taken::Equivocation => journal::put_pledge(&mut batch, &at, &first, Some(pledge)),
            // An empty batch is durable when all before it are.
            Taken::Known => {}
            _ => journal::put_pledge(&mut batch, &at, &first, None),
        }
        // Under the lock, so that what follows from it is written behind it.
        let ticket = writer.write(batch);
        self.wake(book);
        ticket.wait()?;
        if taken == Taken::Equivocation { Err(Refusal::Equivocated.into()) } else { Ok(()) }
    }

    /// Takes what opens a node's pledge, and waits until it is durable. The result is sealed until the
    /// transition is decided.
    ///
    /// # Errors
    /// [`Error::Refused`]: [`Refusal::BadReveal`] is recorded, and a right reveal may still follow.
    pub fn reveal(
        &self,
        id: &TransitionId,
        index: u32,
        round: u32,
        node: &NodeKey,
        salt: [u8; 32],
        result: Bytes,
    ) -> Result<(), Error> {
        let (length, max) = (result.len(), RESULT_BYTES_MAX);
        if length > max {
            return Err(Refusal::TooLong { length, max }.into());
        }
        self.known(id)?;
        let at = RoundId { transition: *id, task: index, round };
        let reveal = Reveal { salt, digest: Digest::of(&result) };
        let writer = self.store.writer()?;
        let mut batch = Batch::new();
        let mut book = self.desk().book();
        let taken = match book.reveal(&at, node, &reveal) {
            Ok(taken) => taken,
            Err(refusal) => {
                drop(book);
                let before = journal::revealed(self.engine(), &at, node)?;
                return self.again(refusal, before == Some(reveal));
            }
        };
        match taken {
            Taken::Known => {}
            Taken::BadReveal => journal::put_bad_reveal(&mut batch, &at, node, &reveal),
            _ => {
                journal::put_blob(&mut batch, &reveal.digest, result);
                journal::put_reveal(&mut batch, &at, node, &reveal);
            }
        }
        let ticket = writer.write(batch);
        self.wake(book);
        ticket.wait()?;
        if taken == Taken::BadReveal { Err(Refusal::BadReveal.into()) } else { Ok(()) }
    }

    /// Wakes the clerk, if something is due.
    fn wake(&self, book: MutexGuard<'_, Book>) {
        let due = book.has_due();
        drop(book);
        if due {
            self.desk().due.notify_all();
        }
    }

    /// Answers something that came too late as its first was, if that came in time.
    fn again(&self, refusal: Refusal, is_same: bool) -> Result<(), Error> {
        if refusal != Refusal::TooLate || !is_same {
            return Err(refusal.into());
        }
        // What is there may be on its way still.
        Ok(self.store.writer()?.write(Batch::new()).wait()?)
    }
}
