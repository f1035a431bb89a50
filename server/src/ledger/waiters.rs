//! Nodes that wait for something to do, woken by one who looks for all of them.
//!
//! News do not say for whom they are. If everyone looked who waits, each version would cost as many looks as
//! there are nodes; so one task looks, for all at once and not too often, and wakes those it is for.

use std::{
    collections::HashSet,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anwansi_proofs::NodeKey;
use tokio::{sync::oneshot, time::sleep};

use crate::state::App;

/// How long after news they are looked at: what comes meanwhile costs no look of its own.
const PAUSE: Duration = Duration::from_millis(5);

/// For whom something is awaited: a node, and the programs that it runs, or none if it runs any.
pub(crate) type Asking = (NodeKey, Vec<String>);

/// Those who wait.
#[derive(Debug, Default)]
pub(crate) struct Waiters(Mutex<Vec<Waiter>>);

#[derive(Debug)]
struct Waiter {
    asking: Asking,
    wake: oneshot::Sender<()>,
}

impl Waiters {
    /// Adds one who waits until there is something to do; whoever drops the answer waits no more.
    ///
    /// What is to be done already wakes nobody: look after this.
    pub(crate) fn add(&self, asking: Asking) -> oneshot::Receiver<()> {
        let (wake, woken) = oneshot::channel();
        let mut waiters = self.lock();
        // So that there are never more than there are requests.
        waiters.retain(|waiter| !waiter.wake.is_closed());
        waiters.push(Waiter { asking, wake });
        woken
    }

    fn asking(&self) -> HashSet<Asking> {
        self.lock().iter().map(|waiter| waiter.asking.clone()).collect()
    }

    fn wake(&self, found: &HashSet<Asking>) {
        for waiter in self.lock().extract_if(.., |waiter| found.contains(&waiter.asking)) {
            // Who waits no more needs no waking.
            let _ = waiter.wake.send(());
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Waiter>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Wakes those who have something to do, until the server ends.
pub(crate) async fn wake(app: App) {
    let mut news = app.news.listen();
    while news.changed().await.is_ok() {
        sleep(PAUSE).await;
        loop {
            let mut asking = app.waiters.asking();
            if asking.is_empty() {
                break;
            }
            let look = app.read(move |store| {
                let ledger = store.ledger();
                asking.retain(|(node, programs)| !ledger.assignments(node, programs).is_empty());
                Ok(asking)
            });
            if let Ok(found) = look.await {
                app.waiters.wake(&found);
                break;
            }
            // There was no room to look: nobody else does it for them.
            sleep(PAUSE).await;
        }
    }
}
