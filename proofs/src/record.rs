//! What a version's tasks tree says: that a transition was opened, a round closed, a task decided.
//!
//! Records are canonical JSON under keys that begin with the transition's id, so that a proof for that
//! prefix shows a transition with all of its tasks. No record is believed for what it counts: evidence
//! recounts it.

use alloc::{
    string::{String, ToString},
    vec::Vec,
};

use crate::{
    Digest, Version,
    json::Json,
    members::{Members, version},
    spec::TransitionId,
};

/// The opening of a transition, under its id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenRecord {
    /// The transition.
    pub id: TransitionId,
    /// How many tasks it has.
    pub tasks: u32,
}

/// The end of the pledging of one round, under the id, the task's index and the round.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClosingRecord {
    /// The task.
    pub index: u32,
    /// The round.
    pub round: u32,
    /// How many nodes have pledged.
    pub pledges: u32,
    /// The root over their pledges.
    pub root: Digest,
}

/// The decision of a task, under the id and the task's index. Rounds whose reveals did not end are in
/// none of its numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskRecord {
    /// The task.
    pub index: u32,
    /// What became of it.
    pub status: Status,
    /// The first answer; none without votes.
    pub digest: Option<Digest>,
    /// The votes for it.
    pub agree: u32,
    /// The other answers with their votes, in rank order.
    pub dissent: Vec<(Digest, u32)>,
    /// The nodes drawn.
    pub drawn: u32,
    /// Those that did not pledge in time.
    pub missed: u32,
    /// Those that pledged and did not reveal.
    pub no_reveal: u32,
    /// Those whose reveal did not open their pledge.
    pub bad_reveal: u32,
    /// Those that signed two pledges.
    pub equivocated: u32,
    /// The version of each round's closing.
    pub closed: Vec<Version>,
    /// The root over the votes.
    pub votes: Digest,
}

/// The decision of a transition, under its id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransitionRecord {
    /// The transition.
    pub id: TransitionId,
    /// How the results were folded.
    pub fold: String,
    /// Where the value was written.
    pub into: String,
    /// The version that opened it.
    pub opened: Version,
    /// What became of it.
    pub outcome: Outcome,
    /// How many tasks it has.
    pub tasks: u32,
    /// The digest of the folded results, if they were applied.
    pub value: Option<Digest>,
}

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$said:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($(#[$said])* $variant,)* }

        impl $name {
            /// As records write it.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $($name::$variant => $word,)* }
            }

            pub(crate) fn parse(text: &str) -> Option<Self> {
                match text { $($word => Some($name::$variant),)* _ => None }
            }
        }
    };
}

words! {
    /// What became of a task.
    Status {
        /// The first answer is ahead by the lead.
        Final = "final",
        /// It could not be decided within the limits of the policy.
        NoAgreement = "no_agreement",
        /// Its transition failed first.
        Expired = "expired",
        /// Its transition was cancelled.
        Cancelled = "cancelled",
    }
}

words! {
    /// What became of a transition.
    Outcome {
        /// All tasks are final, and the folded results are in the state.
        Applied = "applied",
        /// A task has no agreement, or all are final and their fold or a write fails.
        Failed = "failed",
        /// It was withdrawn before the first pledge.
        Cancelled = "cancelled",
    }
}

/// The key of the record of a task.
#[must_use]
pub fn task_key(id: &TransitionId, index: u32) -> [u8; 36] {
    let mut key = [0; 36];
    key[..32].copy_from_slice(&id.0.0);
    key[32..].copy_from_slice(&index.to_be_bytes());
    key
}

/// The key of the record of a closing.
#[must_use]
pub fn closing_key(id: &TransitionId, index: u32, round: u32) -> [u8; 40] {
    let mut key = [0; 40];
    key[..36].copy_from_slice(&task_key(id, index));
    key[36..].copy_from_slice(&round.to_be_bytes());
    key
}

impl OpenRecord {
    /// The record as canonical JSON.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        object([
            ("id", text(&self.id)),
            ("outcome", Json::from("open")),
            ("tasks", Json::from(self.tasks)),
        ])
    }

    /// Reads it; `None` if it is anything else.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let mut members = Members::parse(bytes)?;
        let record =
            OpenRecord { id: TransitionId(members.digest("id")?), tasks: members.u32("tasks")? };
        let open = members.text("outcome")? == "open";
        members.finish().filter(|()| open).map(|()| record)
    }
}

impl ClosingRecord {
    /// The record as canonical JSON.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        object([
            ("index", Json::from(self.index)),
            ("pledges", Json::from(self.pledges)),
            ("root", text(&self.root)),
            ("round", Json::from(self.round)),
        ])
    }

    /// Reads it; `None` if it is anything else.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let mut members = Members::parse(bytes)?;
        let record = ClosingRecord {
            index: members.u32("index")?,
            round: members.u32("round")?,
            pledges: members.u32("pledges")?,
            root: members.digest("root")?,
        };
        members.finish().map(|()| record)
    }
}

impl TaskRecord {
    /// How many have voted.
    #[must_use]
    pub fn votes(&self) -> u64 {
        let others = self.dissent.iter().map(|(_, votes)| u64::from(*votes));
        u64::from(self.agree) + others.sum::<u64>()
    }

    /// The record as canonical JSON.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let closed = self.closed.iter().map(|version| Json::from(version.0));
        let dissent = self.dissent.iter();
        let dissent =
            dissent.map(|(digest, votes)| Json::Array([text(digest), Json::from(*votes)].into()));
        let rounds = u32::try_from(self.closed.len()).expect("a round has a node or more");
        object([
            ("agree", Json::from(self.agree)),
            ("bad_reveal", Json::from(self.bad_reveal)),
            ("closed", Json::Array(closed.collect())),
            ("digest", self.digest.as_ref().map_or(Json::Null, text)),
            ("dissent", Json::Array(dissent.collect())),
            ("drawn", Json::from(self.drawn)),
            ("equivocated", Json::from(self.equivocated)),
            ("index", Json::from(self.index)),
            ("missed", Json::from(self.missed)),
            ("no_reveal", Json::from(self.no_reveal)),
            ("rounds", Json::from(rounds)),
            ("status", Json::from(self.status.as_str())),
            ("votes", text(&self.votes)),
        ])
    }

    /// Reads it; `None` if it is anything else.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let mut members = Members::parse(bytes)?;
        let closed = members.array("closed")?.iter().map(version).collect::<Option<Vec<_>>>()?;
        let dissent = members.array("dissent")?.into_iter().map(|answer| match answer {
            Json::Array(answer) => match &answer[..] {
                [Json::String(digest), votes] => Some((digest.parse().ok()?, votes.as_u32()?)),
                _ => None,
            },
            _ => None,
        });
        let record = TaskRecord {
            dissent: dissent.collect::<Option<Vec<_>>>()?,
            index: members.u32("index")?,
            status: Status::parse(&members.text("status")?)?,
            digest: members.maybe_digest("digest")?,
            agree: members.u32("agree")?,
            drawn: members.u32("drawn")?,
            missed: members.u32("missed")?,
            no_reveal: members.u32("no_reveal")?,
            bad_reveal: members.u32("bad_reveal")?,
            equivocated: members.u32("equivocated")?,
            votes: members.digest("votes")?,
            closed,
        };
        let rounds = members.u32("rounds")?;
        members.finish()?;
        usize::try_from(rounds).is_ok_and(|rounds| rounds == record.closed.len()).then_some(record)
    }
}

impl TransitionRecord {
    /// The record as canonical JSON.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        object([
            ("fold", Json::from(self.fold.as_str())),
            ("id", text(&self.id)),
            ("into", Json::from(self.into.as_str())),
            ("opened", Json::from(self.opened.0)),
            ("outcome", Json::from(self.outcome.as_str())),
            ("tasks", Json::from(self.tasks)),
            ("value", self.value.as_ref().map_or(Json::Null, text)),
        ])
    }

    /// Reads it; `None` if it is anything else.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let mut members = Members::parse(bytes)?;
        let record = TransitionRecord {
            id: TransitionId(members.digest("id")?),
            fold: members.text("fold")?,
            into: members.text("into")?,
            opened: members.version("opened")?,
            outcome: Outcome::parse(&members.text("outcome")?)?,
            tasks: members.u32("tasks")?,
            value: members.maybe_digest("value")?,
        };
        members.finish().map(|()| record)
    }
}

/// An object of these members, as canonical JSON.
pub(crate) fn object<const N: usize>(members: [(&str, Json); N]) -> Vec<u8> {
    Json::from(members).to_bytes()
}

fn text(value: &impl ToString) -> Json {
    Json::String(value.to_string())
}
