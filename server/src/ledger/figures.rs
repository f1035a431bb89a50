//! What the ledger does, counted: what nodes sent, and what versions decided since the server runs.

use anwansi_proofs::{
    Digest, Root, Version,
    record::{ClosingRecord, OpenRecord, TaskRecord, TransitionRecord},
};
use anwansi_store::{Load, Store};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

use crate::{news::Ending, problem::Problem, state::App};

/// Versions that are counted at once.
const VERSIONS_AT_ONCE: usize = 256;

/// The ledger's counters.
#[derive(Clone, Default)]
pub(crate) struct Figures {
    sent: Family<SentLabels, Counter>,
    open: Gauge,
    open_tasks: Gauge,
    opened: Counter,
    tasks_opened: Counter,
    closed: Counter,
    decided: Family<OutcomeLabels, Counter>,
    tasks_decided: Family<StatusLabels, Counter>,
    faults: Family<FaultLabels, Counter>,
}

/// What a node sends.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Sent {
    Pledge,
    Reveal,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SentLabels {
    kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StatusLabels {
    status: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FaultLabels {
    fault: &'static str,
}

impl Figures {
    pub(crate) fn register(&self, registry: &mut Registry) {
        registry.register(
            "votes_taken",
            "Pledges and reveals answered as durable",
            self.sent.clone(),
        );
        registry.register("open_transitions", "Transitions not decided", self.open.clone());
        registry.register("open_tasks", "Tasks of them", self.open_tasks.clone());
        registry.register("transitions_opened", "Transitions opened", self.opened.clone());
        registry.register("tasks_opened", "Tasks of them", self.tasks_opened.clone());
        registry.register("rounds_closed", "Rounds whose pledging was closed", self.closed.clone());
        registry.register(
            "transitions_decided",
            "Transitions decided, by outcome",
            self.decided.clone(),
        );
        registry.register("tasks_decided", "Tasks decided, by status", self.tasks_decided.clone());
        registry.register(
            "node_faults",
            "What drawn nodes did wrong in tasks that were decided",
            self.faults.clone(),
        );
    }

    /// Notes how much is open.
    pub(crate) fn note_load(&self, load: Load) {
        let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        self.open.set(number(load.transitions));
        self.open_tasks.set(number(load.tasks));
    }

    /// Counts what a node sent, and was taken.
    pub(crate) fn taken(&self, sent: Sent) {
        let kind = match sent {
            Sent::Pledge => "pledge",
            Sent::Reveal => "reveal",
        };
        self.sent.get_or_create(&SentLabels { kind }).inc();
    }

    /// Counts what a version records.
    fn record(&self, key: &[u8], record: &[u8]) {
        const TASK: usize = Digest::LEN + size_of::<u32>();
        const CLOSING: usize = TASK + size_of::<u32>();
        match key.len() {
            Digest::LEN => {
                if let Some(record) = TransitionRecord::parse(record) {
                    let outcome = record.outcome.as_str();
                    self.decided.get_or_create(&OutcomeLabels { outcome }).inc();
                } else if let Some(record) = OpenRecord::parse(record) {
                    self.opened.inc();
                    self.tasks_opened.inc_by(record.tasks.into());
                }
            }
            TASK => {
                if let Some(record) = TaskRecord::parse(record) {
                    self.task(&record);
                }
            }
            CLOSING if ClosingRecord::parse(record).is_some() => {
                self.closed.inc();
            }
            _ => {}
        }
    }

    fn task(&self, record: &TaskRecord) {
        let status = record.status.as_str();
        self.tasks_decided.get_or_create(&StatusLabels { status }).inc();
        let faults = [
            ("missed", record.missed),
            ("no_reveal", record.no_reveal),
            ("bad_reveal", record.bad_reveal),
            ("equivocated", record.equivocated),
        ];
        for (fault, count) in faults {
            self.faults.get_or_create(&FaultLabels { fault }).inc_by(count.into());
        }
    }
}

/// Follows the versions and counts what they record, until the server ends.
pub(crate) async fn count(app: App) {
    let mut news = app.news.listen();
    let mut next = app.store.latest().version().0 + 1;
    loop {
        let figures = app.metrics.ledger.clone();
        let counted = app.read(move |store| records(store, next, &figures)).await;
        match counted {
            Ok(counted) if counted > next => next = counted,
            // Nothing is new, or there is no room to look now: figures may come late.
            Ok(_) | Err(_) => match news.changed().await {
                Ok(()) => {}
                Err(Ending) => return,
            },
        }
    }
}

/// Counts some versions from `next` on, and returns which comes after them.
fn records(store: &Store, mut next: u64, figures: &Figures) -> Result<u64, Problem> {
    for header in store.headers(Version(next), VERSIONS_AT_ONCE)? {
        let header: anwansi_proofs::Header =
            header.parse().expect("the store's headers are headers");
        if header.tasks() != Root::empty() {
            for (key, record) in store.tasks(header.version())? {
                figures.record(&key, &record);
            }
        }
        next += 1;
    }
    Ok(next)
}
