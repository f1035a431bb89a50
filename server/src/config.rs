//! What a server is told: flags, then `ANWANSI_...` in the environment, then a file, then defaults.

use std::{
    fs, io,
    net::{SocketAddr, ToSocketAddrs as _},
    num::NonZeroU64,
    path::{Path, PathBuf},
    time::Duration,
};

use anwansi_proofs::Origin;
use anwansi_store::{Keep, Retention};
use serde::Deserialize;

use crate::state::Limits;

const ENGINE: &str = "fjall:./anwansi-data";
const LISTEN: &str = "127.0.0.1:7171";
/// The cache where the size of memory is not known, and the largest and smallest that can be asked for.
const CACHE_MIB: u64 = 1024;
const CACHE_MIB_MIN: u64 = 8;
const CACHE_MIB_MAX: u64 = 1 << 24;
/// The longest file of settings.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Settings as they are given on the command line, in the environment and in a file; each may be missing.
#[derive(Clone, Debug, Default, clap::Args, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Where the data is: fjall:PATH, sled:PATH, or memory: (gone when the server ends)
    /// [default: fjall:./anwansi-data]
    #[arg(long, env = "ANWANSI_ENGINE", value_name = "URL")]
    pub engine: Option<String>,

    /// The address and port to listen on; port 0 takes a free one [default: 127.0.0.1:7171]
    #[arg(long, env = "ANWANSI_LISTEN", value_name = "ADDR")]
    pub listen: Option<String>,

    /// The name of the log, best the server's URL without https://; fixed once there is data
    /// [default: localhost:7171/ and eight digits of the key]
    #[arg(long, env = "ANWANSI_ORIGIN", value_name = "NAME")]
    pub origin: Option<String>,

    /// Memory for the state's pages [default: a quarter of the machine's]
    #[arg(long, env = "ANWANSI_CACHE_MIB", value_name = "N")]
    pub cache_mib: Option<u64>,

    /// Keep the last N versions, and those that are pinned; others are pruned in the background
    /// [default: all versions are kept]
    #[arg(long, env = "ANWANSI_KEEP_LAST", value_name = "N")]
    pub keep_last: Option<u64>,

    /// With --keep-last, keep each version that is a multiple of N, too
    #[arg(long, env = "ANWANSI_KEEP_EVERY", value_name = "N")]
    pub keep_every: Option<u64>,

    /// Keep what led to the decisions of the last N versions: specifications, votes, results. Of others
    /// only the records and the state stay [default: all is kept]
    #[arg(long, env = "ANWANSI_KEEP_DECIDED", value_name = "N")]
    pub keep_decided: Option<u64>,

    /// The longest body of a commit [default: 32]
    #[arg(long, env = "ANWANSI_BODY_MIB", value_name = "N")]
    pub body_mib: Option<u64>,

    /// Reads that are worked on at once; more wait a little and are then refused
    /// [default: 16]
    #[arg(long, env = "ANWANSI_READS", value_name = "N")]
    pub reads: Option<u64>,

    /// Connections that are open at once; more wait to be accepted [default: 1024]
    #[arg(long, env = "ANWANSI_CONNECTIONS", value_name = "N")]
    pub connections: Option<u64>,

    /// How long a request may take, in seconds [default: 60]
    #[arg(long, env = "ANWANSI_TIMEOUT_S", value_name = "N")]
    pub timeout_s: Option<u64>,

    /// How the log is written: text or json [default: text]
    #[arg(long, env = "ANWANSI_LOG", value_name = "FORMAT")]
    pub log: Option<String>,

    /// What is logged: error, warn, info, debug or trace [default: info]
    #[arg(long, env = "ANWANSI_LOG_LEVEL", value_name = "LEVEL")]
    pub log_level: Option<String>,
}

/// How the log is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One object a line.
    Json,
}

/// What a server needs to start. `Config::default()` is that of `anwansi-server` without settings.
#[derive(Clone, Debug)]
pub struct Config {
    /// The engine's URL.
    pub engine: String,
    /// Where to listen.
    pub listen: SocketAddr,
    /// The name of the log; none: that of its key.
    pub origin: Option<Origin>,
    /// The budget for the state's pages.
    pub cache_bytes: usize,
    /// Which versions are kept, and how much of the ledger, if not all.
    pub keep: Keep,
    /// A token of every scope, beside those in the data directory.
    pub token: Option<String>,
    /// The bounds on what callers may ask for.
    pub limits: Limits,
    /// How the log is written; the library itself installs no log.
    pub log: LogFormat,
    /// What is logged.
    pub log_level: tracing::Level,
}

/// A setting that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the settings in {}: {source}", file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The file is no TOML, or has names that are no settings.
    #[error("the settings in {}: {what}", file.display())]
    File {
        /// The file.
        file: PathBuf,
        /// What is wrong, with the place.
        what: String,
    },
    /// A setting has a value that it cannot have.
    #[error("{name} is {given:?}: {wanted}")]
    Value {
        /// The setting.
        name: &'static str,
        /// What was given.
        given: String,
        /// What could be.
        wanted: String,
    },
}

impl Settings {
    /// Reads settings from a TOML file, whose names are those of the fields.
    ///
    /// # Errors
    /// [`ConfigError::Unreadable`] and [`ConfigError::File`].
    pub fn read(file: &Path) -> Result<Self, ConfigError> {
        let unreadable = |source| ConfigError::Unreadable { file: file.to_owned(), source };
        let refused = |what| ConfigError::File { file: file.to_owned(), what };
        if fs::metadata(file).map_err(unreadable)?.len() > FILE_BYTES_MAX {
            return Err(refused(format!("longer than {FILE_BYTES_MAX} bytes")));
        }
        let text = fs::read_to_string(file).map_err(unreadable)?;
        toml::from_str(&text).map_err(|error| refused(error.to_string()))
    }

    /// These settings, and where there is none, that of `other`.
    #[must_use]
    pub fn or(self, other: Settings) -> Settings {
        Settings {
            engine: self.engine.or(other.engine),
            listen: self.listen.or(other.listen),
            origin: self.origin.or(other.origin),
            cache_mib: self.cache_mib.or(other.cache_mib),
            keep_last: self.keep_last.or(other.keep_last),
            keep_every: self.keep_every.or(other.keep_every),
            keep_decided: self.keep_decided.or(other.keep_decided),
            body_mib: self.body_mib.or(other.body_mib),
            reads: self.reads.or(other.reads),
            connections: self.connections.or(other.connections),
            timeout_s: self.timeout_s.or(other.timeout_s),
            log: self.log.or(other.log),
            log_level: self.log_level.or(other.log_level),
        }
    }

    /// Checks the settings, and puts defaults where there are none.
    ///
    /// # Errors
    /// [`ConfigError::Value`] for the first that cannot be used.
    pub fn check(self) -> Result<Config, ConfigError> {
        let listen = self.listen.unwrap_or_else(|| LISTEN.to_owned());
        let listen =
            listen.to_socket_addrs().ok().and_then(|mut found| found.next()).ok_or_else(|| {
                refused("listen", &listen, "give an address and a port, as 127.0.0.1:7171")
            })?;
        let origin = |text: String| {
            let wanted = "give 1 to 255 printable ASCII characters without space and '+'";
            text.parse::<Origin>().map_err(|_| refused("origin", &text, wanted))
        };
        let cache_mib = self.cache_mib.unwrap_or_else(quarter_of_memory);
        let cache_mib = within("cache_mib", cache_mib, CACHE_MIB_MIN, CACHE_MIB_MAX)?;
        let log = match self.log.as_deref() {
            None | Some("text") => LogFormat::Text,
            Some("json") => LogFormat::Json,
            Some(other) => return Err(refused("log", other, "give text or json")),
        };
        let level = self.log_level.unwrap_or_else(|| "info".to_owned());
        let log_level = level
            .parse()
            .map_err(|_| refused("log_level", &level, "give error, warn, info, debug or trace"))?;
        let mut limits = Limits::default();
        if let Some(mib) = self.body_mib {
            limits.body_bytes = within("body_mib", mib, 1, 128)? << 20;
        }
        if let Some(reads) = self.reads {
            limits.reads = within("reads", reads, 1, 512)?;
        }
        if let Some(connections) = self.connections {
            limits.connections = within("connections", connections, 1, 65_536)?;
        }
        if let Some(seconds) = self.timeout_s {
            limits.timeout = Duration::from_secs(within("timeout_s", seconds, 1, 3600)? as u64);
        }
        let keep = keep(self.keep_last, self.keep_every, self.keep_decided)?;
        Ok(Config {
            engine: self.engine.unwrap_or_else(|| ENGINE.to_owned()),
            listen,
            origin: self.origin.map(origin).transpose()?,
            cache_bytes: cache_mib << 20,
            keep,
            token: None,
            limits,
            log,
            log_level,
        })
    }
}

impl Default for Config {
    fn default() -> Self {
        Settings::default().check().expect("the defaults can be used")
    }
}

impl Config {
    /// A server of its own for tests: in memory, on a free port of this machine, with a small cache.
    #[must_use]
    pub fn in_memory() -> Self {
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        Config { engine: "memory:".into(), listen, cache_bytes: 64 << 20, ..Config::default() }
    }

    /// The data directory, where the key and the tokens are too; none for an engine without one.
    #[must_use]
    pub fn directory(&self) -> Option<&Path> {
        let (_, path) = self.engine.split_once(':')?;
        (!path.is_empty()).then(|| Path::new(path))
    }
}

fn keep(last: Option<u64>, every: Option<u64>, decided: Option<u64>) -> Result<Keep, ConfigError> {
    let wanted = "give the number of versions, at least 1";
    let number =
        |name, given: u64| NonZeroU64::new(given).ok_or_else(|| refused(name, &given, wanted));
    let every = every.map(|every| number("keep_every", every)).transpose()?;
    let decided = decided.map(|decided| number("keep_decided", decided)).transpose()?;
    let versions = match (last, every) {
        (Some(last), every) => Some(Retention { last: number("keep_last", last)?, every }),
        (None, Some(every)) => {
            let wanted = "give keep_last too: how many of the newest versions are kept";
            return Err(refused("keep_every", &every, wanted));
        }
        (None, None) => None,
    };
    Ok(Keep { versions, decided })
}

fn refused(
    name: &'static str,
    given: &(impl ToString + ?Sized),
    wanted: impl Into<String>,
) -> ConfigError {
    ConfigError::Value { name, given: given.to_string(), wanted: wanted.into() }
}

fn within(name: &'static str, given: u64, min: u64, max: u64) -> Result<usize, ConfigError> {
    let value = usize::try_from(given).ok().filter(|_| (min..=max).contains(&given));
    value.ok_or_else(|| refused(name, &given, format!("give {min} to {max}")))
}

/// In MiB, of what the machine has or the process group may take.
fn quarter_of_memory() -> u64 {
    let number = |text: &str| text.trim().parse::<u64>().ok();
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
        number(line.strip_suffix("kB")?).map(|kib| kib << 10)
    });
    let group = fs::read_to_string("/sys/fs/cgroup/memory.max").ok().and_then(|text| number(&text));
    let bytes = machine.into_iter().chain(group).min();
    bytes.map_or(CACHE_MIB, |bytes| (bytes / 4) >> 20).clamp(CACHE_MIB_MIN, CACHE_MIB_MAX)
}
