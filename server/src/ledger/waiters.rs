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

/// Those who wait.
#[derive(Debug, Default)]
pub(crate) struct Waiters(Mutex<Vec<Waiter>>);

#[derive(Debug)]
struct Waiter {
    node: NodeKey,
    wake: oneshot::Sender<()>,
}

impl Waiters {
    /// Adds one who waits until `node` has something to do; whoever drops the answer waits no more.
    ///
    /// What the node has to do already wakes nobody: look after this.
    pub(crate) fn add(&self, node: NodeKey) -> oneshot::Receiver<()> {
        let (wake, woken) = oneshot::channel();
        let mut waiters = self.lock();
        // So that there are never more than there are requests.
        waiters.retain(|waiter| !waiter.wake.is_closed());
        waiters.push(Waiter { node, wake });
        woken
    }

    fn nodes(&self) -> HashSet<NodeKey> {
        self.lock().iter().map(|waiter| waiter.node).collect()
    }

    fn wake(&self, nodes: &HashSet<NodeKey>) {
        for waiter in self.lock().extract_if(.., |waiter| nodes.contains(&waiter.node)) {
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
            let mut nodes = app.waiters.nodes();
            if nodes.is_empty() {
                break;
            }
            let look = app.read(move |store| {
                let ledger = store.ledger();
                nodes.retain(|node| !ledger.assignments(node).is_empty());
                Ok(nodes)
            });
            if let Ok(nodes) = look.await {
                app.waiters.wake(&nodes);
                break;
            }
            // There was no room to look: nobody else does it for them.
            sleep(PAUSE).await;
        }
    }
}
