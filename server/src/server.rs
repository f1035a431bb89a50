//! A server from start to end: engine, key, tokens, store, connections; and back.

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use anwansi_proofs::Vkey;
use anwansi_store::{Keep, LogKey, Options, Receipt, Report, Store, engine};
use tempfile::TempDir;
use tokio::{
    net::TcpListener,
    sync::oneshot,
    task::{JoinHandle, spawn_blocking},
};

use crate::{
    Config,
    auth::{TOKEN_FILE, Tokens},
    ledger::{figures, waiters},
    listen,
    metrics::Prunings,
    news::EndsNews,
    routes,
    state::Shared,
};

/// The file of the log's key, in the data directory.
const KEY_FILE: &str = "log.key";

/// Why a server did not start, or a check could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The address is not to be had.
    #[error("cannot listen on {addr}: {source}")]
    Listen {
        /// The address.
        addr: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// The store cannot be opened.
    #[error("cannot open {engine}: {source}")]
    Store {
        /// The URL of its engine.
        engine: String,
        /// Why not.
        source: anwansi_store::Error,
    },
    /// The log's key cannot be read or made.
    #[error("the log's key: {0}")]
    Key(io::Error),
    /// The tokens cannot be read or made.
    #[error("the tokens: {0}")]
    Tokens(io::Error),
    /// There is no store to be checked or pruned.
    #[error("there is no store in {0}")]
    Nothing(String),
}

/// A server that runs.
#[derive(Debug)]
pub struct Server {
    addr: SocketAddr,
    store: Store,
    news: EndsNews,
    token_file: PathBuf,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<()>,
    /// Where an engine without a directory has its key and token; gone when the server is.
    _directory: Option<TempDir>,
}

/// What lies on disk, opened.
struct Opened {
    store: Store,
    tokens: Tokens,
    directory: PathBuf,
    temporary: Option<TempDir>,
}

impl Server {
    /// Opens the store, or makes one, and serves it until [`shutdown`](Self::shutdown).
    ///
    /// # Errors
    /// [`StartError`]; then nothing listens.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        let refused = |source| StartError::Listen { addr: config.listen, source };
        let listener = TcpListener::bind(config.listen).await.map_err(refused)?;
        let addr = listener.local_addr().map_err(refused)?;
        let limits = config.limits.clone();
        let prunings = Prunings::default();
        let noted = prunings.clone();
        let opening = spawn_blocking(move || open(&config, config.keep, noted));
        let Opened { store, tokens, directory, temporary } =
            opening.await.expect("opening does not panic")?;
        let token_file = directory.join(TOKEN_FILE);
        let app = Arc::new(Shared::new(store.clone(), tokens, limits.clone(), prunings));
        let news = EndsNews(app.news.clone());
        tokio::spawn(figures::count(app.clone()));
        tokio::spawn(waiters::wake(app.clone()));
        let (stop, stopped) = oneshot::channel();
        let serving = tokio::spawn(listen::serve(listener, routes(app), limits, stopped));
        tracing::info!(
            address = %format_args!("http://{addr}"),
            version = store.latest().version().0,
            token_file = %token_file.display(),
            vkey = %store.vkey(),
            "listening"
        );
        Ok(Server { addr, store, news, token_file, stop, serving, _directory: temporary })
    }

    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The key that the log's checkpoints are verified with.
    #[must_use]
    pub fn vkey(&self) -> &Vkey {
        self.store.vkey()
    }

    /// The file that holds the first token, unless its owner has removed it.
    #[must_use]
    pub fn token_file(&self) -> &Path {
        &self.token_file
    }

    /// The store behind it.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Takes no more requests, finishes those that were begun, and closes the store.
    ///
    /// # Errors
    /// Why the store's last writes failed, if they did.
    pub async fn shutdown(self) -> Result<(), anwansi_store::Error> {
        let Server { store, news, stop, serving, .. } = self;
        // First those who wait: nobody else would end them.
        drop(news);
        // An error here says that serving has ended already.
        let _ = stop.send(());
        if let Err(error) = serving.await {
            tracing::error!(error = error.to_string(), "serving ended in a panic");
        }
        spawn_blocking(move || store.close()).await.expect("closing does not panic")
    }
}

/// Serves until `shutdown` is there, and ends in good order.
///
/// # Errors
/// [`StartError`]; at the end what closing the store answered.
pub async fn serve(
    config: Config,
    shutdown: impl Future<Output = ()>,
) -> Result<Result<(), anwansi_store::Error>, StartError> {
    let server = Server::start(config).await?;
    shutdown.await;
    tracing::info!("ending: finishing what was accepted");
    let closed = server.shutdown().await;
    match &closed {
        Ok(()) => tracing::info!("ended"),
        Err(error) => tracing::error!(error = error.to_string(), "the store did not close well"),
    }
    Ok(closed)
}

/// Reads and hashes again everything that a store holds; it must not be open elsewhere.
///
/// # Errors
/// [`StartError`] if there is no store, or it cannot be read.
pub fn check(config: &Config, progress: impl FnMut(u64, u64) + Send) -> Result<Report, StartError> {
    let store = open_there(config)?;
    let failed = |source| StartError::Store { engine: config.engine.clone(), source };
    let report = store.check(progress).map_err(failed)?;
    store.close().map_err(failed)?;
    Ok(report)
}

/// Prunes a store as the configuration says; it must not be open elsewhere.
///
/// # Errors
/// [`StartError`] if there is no store, or it cannot be read or written.
pub fn prune(config: &Config) -> Result<Receipt, StartError> {
    let store = open_there(config)?;
    let failed = |source| StartError::Store { engine: config.engine.clone(), source };
    let receipt = store.prune(config.keep).map_err(failed)?;
    store.close().map_err(failed)?;
    Ok(receipt)
}

/// Opens a store that is there, which does nothing by itself.
fn open_there(config: &Config) -> Result<Store, StartError> {
    let is_there = config.directory().is_some_and(|directory| directory.join(KEY_FILE).exists());
    if !is_there {
        return Err(StartError::Nothing(config.engine.clone()));
    }
    Ok(open(config, Keep::default(), Prunings::default())?.store)
}

/// Opens the store, which keeps what `keep` says.
fn open(config: &Config, keep: Keep, prunings: Prunings) -> Result<Opened, StartError> {
    let failed = |source| StartError::Store { engine: config.engine.clone(), source };
    // First the engine: it refuses a directory that is someone else's, and locks ours.
    let engine = engine::open(&config.engine).map_err(|error| failed(error.into()))?;
    let (directory, temporary) = if let Some(directory) = config.directory() {
        (directory.to_owned(), None)
    } else {
        let made = tempfile::Builder::new().prefix("anwansi-").tempdir();
        let made = made.map_err(StartError::Key)?;
        (made.path().to_owned(), Some(made))
    };
    let key = LogKey::load_or_create(&directory.join(KEY_FILE), config.origin.clone());
    let key = key.map_err(StartError::Key)?;
    let mut tokens = Tokens::load_or_create(&directory).map_err(StartError::Tokens)?;
    if let Some(token) = &config.token {
        tokens.allow(token).map_err(StartError::Tokens)?;
    }
    let options = Options {
        cache_bytes: config.cache_bytes,
        retention: keep.versions,
        keep_decided: keep.decided,
        pruned: Arc::new(move |receipt| prunings.note(receipt)),
        ..Options::default()
    };
    let store = Store::open(engine, key, &options).map_err(failed)?;
    Ok(Opened { store, tokens, directory, temporary })
}
