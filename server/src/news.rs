//! What those who wait are told: that something may have changed, and that the server ends.

use anwansi_store::Store;
use tokio::sync::watch;

/// The source of news. It says that, not what: whoever waits looks again.
#[derive(Clone, Debug)]
pub(crate) struct News(watch::Sender<Bulletin>);

#[derive(Clone, Copy, Debug, Default)]
struct Bulletin {
    changes: u64,
    ending: bool,
}

/// Ends the server's news when it is dropped.
#[derive(Debug)]
pub(crate) struct EndsNews(pub(crate) News);

impl Drop for EndsNews {
    fn drop(&mut self) {
        self.0.0.send_modify(|bulletin| bulletin.ending = true);
    }
}

/// One who waits.
#[derive(Debug)]
pub(crate) struct Listener(watch::Receiver<Bulletin>);

/// The server ends: nobody waits any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ending;

impl News {
    /// The news of a store: its versions, and all that its ledger is told.
    pub(crate) fn of(store: &Store) -> Self {
        let news = News(watch::Sender::default());
        let told = news.clone();
        store.listen(move || told.0.send_modify(|bulletin| bulletin.changes += 1));
        news
    }

    /// One who has heard all news so far: to miss none, listen first and look then.
    pub(crate) fn listen(&self) -> Listener {
        Listener(self.0.subscribe())
    }
}

impl Listener {
    /// Waits for news since the last call.
    ///
    /// # Errors
    /// [`Ending`], then at each call.
    pub(crate) async fn changed(&mut self) -> Result<(), Ending> {
        if self.0.borrow().ending || self.0.changed().await.is_err() {
            return Err(Ending);
        }
        if self.0.borrow_and_update().ending { Err(Ending) } else { Ok(()) }
    }

    /// Waits until the server ends, whatever else is new.
    pub(crate) async fn ended(&mut self) {
        // An error says that the source is gone, which is the end too.
        let _ = self.0.wait_for(|bulletin| bulletin.ending).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_end_is_heard_also_by_those_who_listen_later() {
        let news = News(watch::Sender::default());
        let mut early = news.listen();
        news.0.send_modify(|bulletin| bulletin.changes += 1);
        assert_eq!(early.changed().await, Ok(()));
        drop(EndsNews(news.clone()));
        assert_eq!(early.changed().await, Err(Ending));
        assert_eq!(early.changed().await, Err(Ending));
        let mut late = news.listen();
        assert_eq!(late.changed().await, Err(Ending));
        late.ended().await;
    }
}
