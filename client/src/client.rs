//! The client: asks, verifies, remembers, and only then answers.

use std::{
    sync::Mutex,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anwansi_proofs::{
    Checked, Checkpoint, Evidence, Header, NOTE_BYTES_MAX, Part, Policy, Shown, Version,
    path::{after_prefix, is_key},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Deserialize;
use serde_json::json;

use crate::{
    Error, Fault,
    memory::Memory,
    transport::{Answer, Idempotency, Transport},
};

/// The longest evidence that is read from a server: one value of 16 MiB in base64 is 22 MiB of it.
pub(crate) const ANSWER_BYTES_MAX: u64 = 64 << 20;
/// The longest answer to a commit, and of a header with its finality.
pub(crate) const SHORT_BYTES_MAX: u64 = 1 << 20;
/// Keys in one question; longer lists are asked in parts.
const KEYS_MAX: usize = 512;
/// Bytes of values that were sent and are asked back in one question, unless one alone has more.
const VALUES_BYTES_MAX: usize = 4 << 20;

/// Talks to one server, and believes it only what is proven.
///
/// Safe to share between threads; several, also in several processes, may share a memory.
pub struct Client {
    pub(crate) transport: Transport,
    pub(crate) policy: Policy,
    /// The policy without its witnesses: what is remembered was accepted under the policy of its day.
    pub(crate) log: Policy,
    pub(crate) memory: Box<dyn Memory>,
    /// What was last recalled, so that its signature is checked once.
    pub(crate) recalled: Mutex<Option<Checkpoint>>,
    age_max: Option<Duration>,
}

/// Which version is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum At {
    /// The newest: never one older than was seen before, nor than the checkpoint that comes with it.
    #[default]
    Newest,
    /// This one and no other.
    Version(Version),
}

/// What was proven, and of which version.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct Verified<T> {
    /// The header of the version that it is from.
    pub header: Header,
    /// What was asked for.
    pub value: T,
}

/// Evidence that was checked here, to be kept and checked elsewhere.
pub type Proven = Verified<Evidence>;

impl<T> Verified<T> {
    /// The version that it is from.
    #[must_use]
    pub fn version(&self) -> Version {
        self.header.version()
    }
}

/// Some entries of a range: all of them from its start to `next`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// Keys and values, in key order.
    pub entries: Vec<(Vec<u8>, Vec<u8>)>,
    /// Where to go on; `None` if this was all.
    pub next: Option<Vec<u8>>,
}

/// A new value for a key, or `None`: the key is removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// 1 to 1024 bytes, of which the first is not 0.
    pub key: Vec<u8>,
    /// 0 to 16 MiB.
    pub value: Option<Vec<u8>>,
}

/// Which of a version's trees is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tree {
    /// All entries that there are.
    State,
    /// What happened to tasks, in this version alone.
    Tasks,
}

/// What evidence shall answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// Single keys.
    pub keys: Vec<Vec<u8>>,
    /// All entries whose keys start with one of these.
    pub prefixes: Vec<Vec<u8>>,
}

impl Client {
    /// A client of the server at `url`, under `policy`, with what is remembered of the policy's log. No
    /// request is made.
    ///
    /// # Errors
    /// [`Error::Usage`] if the URL is none, [`Error::Forked`] if the log is known to be, and those of
    /// the memory.
    pub fn connect(
        url: &str,
        policy: Policy,
        memory: impl Memory + 'static,
    ) -> Result<Self, Error> {
        let client = Client {
            transport: Transport::new(url)?,
            log: Policy::of_log(policy.log().clone())?,
            policy,
            memory: Box::new(memory),
            recalled: Mutex::default(),
            age_max: None,
        };
        client.remembered()?;
        Ok(client)
    }

    /// Sends this token with writes.
    ///
    /// # Errors
    /// [`Error::Usage`] if it cannot be sent.
    pub fn with_token(mut self, token: &str) -> Result<Self, Error> {
        self.transport.set_token(token)?;
        Ok(self)
    }

    /// Demands that the policy's witnesses cosigned each checkpoint within this time before now.
    ///
    /// # Errors
    /// [`Error::Usage`] if the policy names no witness: then nobody vouches for a time.
    pub fn with_age_max(mut self, age_max: Duration) -> Result<Self, Error> {
        if self.policy.witnesses().next().is_none() {
            let why = "an age limit needs a policy with witnesses: only they say when";
            return Err(Error::Usage(why.into()));
        }
        self.age_max = Some(age_max);
        Ok(self)
    }

    /// The policy.
    #[must_use]
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// The server's URL.
    #[must_use]
    pub fn url(&self) -> &str {
        self.transport.base()
    }

    /// The value of `key`; `None` if it is proven absent.
    ///
    /// # Errors
    /// As of [`evidence`](Self::evidence).
    pub fn get(&self, key: &[u8], at: At) -> Result<Verified<Option<Vec<u8>>>, Error> {
        check_key(key)?;
        let query = format!("v1/state?key_hex={}", hex::encode(key));
        let fetch = |at| self.fetch(&with_version(&query, at)).map(|(evidence, _)| (evidence, ()));
        let read = |shown: &Shown<'_>, ()| Ok(shown.get(key)?.map(<[u8]>::to_vec));
        self.ask(at, fetch, read)
    }

    /// The values of `keys`, in their order, all from one version.
    ///
    /// # Errors
    /// As of [`evidence`](Self::evidence).
    pub fn get_many<K: AsRef<[u8]>>(
        &self,
        keys: &[K],
        at: At,
    ) -> Result<Verified<Vec<Option<Vec<u8>>>>, Error> {
        let mut values = Vec::with_capacity(keys.len());
        let mut parts = keys.chunks(KEYS_MAX);
        let mut at = at;
        loop {
            // No keys are a question too: which version it is.
            let part = parts.next().unwrap_or_default();
            let asked = part.iter().map(|key| key.as_ref().to_vec()).collect();
            let answer = self.question(
                Tree::State,
                &Asked { keys: asked, prefixes: Vec::new() },
                at,
                |shown| {
                    let value = |key: &K| Ok(shown.get(key.as_ref())?.map(<[u8]>::to_vec));
                    part.iter().map(value).collect::<Result<Vec<_>, Fault>>()
                },
            )?;
            at = At::Version(answer.version());
            values.extend(answer.value);
            if parts.len() == 0 {
                return Ok(Verified { header: answer.header, value: values });
            }
        }
    }

    /// The entries from `start`, inclusive, to `end`, exclusive (none: to the last), in key order: as
    /// many as the server likes, at most `limit` if that is given, and where to go on.
    ///
    /// To go on, ask from [`Page::next`] at the version that was answered.
    ///
    /// # Errors
    /// As of [`evidence`](Self::evidence).
    pub fn range(
        &self,
        start: &[u8],
        end: Option<&[u8]>,
        limit: Option<usize>,
        at: At,
    ) -> Result<Verified<Page>, Error> {
        if end.is_some_and(|end| start > end) {
            return Err(Error::Usage(
                "the range is reversed: give the smaller key as start".into(),
            ));
        }
        let mut query = format!("v1/state/range?start_hex={}", hex::encode(start));
        if let Some(end) = end {
            query = format!("{query}&end_hex={}", hex::encode(end));
        }
        if let Some(limit) = limit {
            query = format!("{query}&limit={limit}");
        }
        let fetch = |at| {
            let (evidence, answer) = self.fetch(&with_version(&query, at))?;
            Ok((evidence, next_of(&answer)?))
        };
        self.ask(at, fetch, |shown, next: Option<Vec<u8>>| {
            // The server's word on where it stopped is a hint: what is covered, the proof says.
            let inside =
                |next: &Vec<u8>| start < &next[..] && end.is_none_or(|end| &next[..] < end);
            if next.as_ref().is_some_and(|next| !inside(next)) {
                return Err(Fault::Form("the next key lies outside of the range".into()));
            }
            let entries = shown.range(start, next.as_deref().or(end))?;
            let owned =
                |entry: anwansi_proofs::Entry<'_>| (entry.key.to_vec(), entry.value.to_vec());
            Ok(Page { entries: entries.into_iter().map(owned).collect(), next })
        })
    }

    /// The entries whose keys start with `prefix`: as of [`range`](Self::range), from `from` on, or from
    /// the first.
    ///
    /// # Errors
    /// As of [`evidence`](Self::evidence).
    pub fn prefix(
        &self,
        prefix: &[u8],
        from: Option<&[u8]>,
        limit: Option<usize>,
        at: At,
    ) -> Result<Verified<Page>, Error> {
        self.range(from.unwrap_or(prefix), after_prefix(prefix).as_deref(), limit, at)
    }

    /// Evidence that answers `asked`, checked, for others to check again.
    ///
    /// # Errors
    /// [`Error::NotProven`], [`Error::Unreachable`], [`Error::Refused`], [`Error::Forked`], and those of
    /// the memory: then nothing was answered, and nothing new is remembered.
    pub fn evidence(&self, asked: &Asked, at: At) -> Result<Proven, Error> {
        let fetch = |at| {
            let evidence = self.post_question(Tree::State, asked, at)?;
            Ok((evidence.clone(), evidence))
        };
        self.ask(at, fetch, |shown, evidence| {
            for key in &asked.keys {
                shown.get(key)?;
            }
            for prefix in &asked.prefixes {
                shown.prefix(prefix)?;
            }
            Ok(evidence)
        })
    }

    /// The header of `version`.
    ///
    /// # Errors
    /// As of [`evidence`](Self::evidence).
    pub fn header(&self, version: Version) -> Result<Header, Error> {
        #[derive(Deserialize)]
        struct Final {
            header: String,
            finality: String,
        }
        let before = self.remembered()?;
        let answer = self.transport.get(&format!("v1/versions/{version}"), SHORT_BYTES_MAX)?;
        let Final { header, finality } =
            serde_json::from_slice(&answer.body).map_err(Error::form)?;
        let evidence = Evidence::new(Part { header, finality, state: None, tasks: None });
        let (header, checkpoint, ()) =
            self.check(&evidence, At::Version(version), before.as_ref(), |_| Ok(()))?;
        self.remember(&checkpoint)?;
        Ok(header)
    }

    /// The newest checkpoint. It is remembered.
    ///
    /// # Errors
    /// As of [`evidence`](Self::evidence).
    pub fn checkpoint(&self) -> Result<Checkpoint, Error> {
        let before = self.remembered()?;
        let answer = self.transport.get("checkpoint", NOTE_BYTES_MAX as u64)?;
        let note = String::from_utf8(answer.body).map_err(Error::form)?;
        let checkpoint = self.policy.verify(&note)?;
        self.check_age(&checkpoint)?;
        self.remember(&checkpoint)?;
        // Measured by what was known before the question: meanwhile others may have learned more.
        not_behind(checkpoint.size(), before.as_ref())?;
        Ok(checkpoint)
    }

    /// Gives `key` a value, and returns once it is proven that it has it, with the version.
    ///
    /// # Errors
    /// As of [`commit`](Self::commit).
    pub fn put(&self, key: &[u8], value: &[u8]) -> Result<Version, Error> {
        self.commit(&[Write { key: key.into(), value: Some(value.into()) }], None)
    }

    /// Removes `key`, and returns once it is proven that it is absent, with the version.
    ///
    /// # Errors
    /// As of [`commit`](Self::commit).
    pub fn remove(&self, key: &[u8]) -> Result<Version, Error> {
        self.commit(&[Write { key: key.into(), value: None }], None)
    }

    /// Commits `writes`, all at once, and returns once it is proven that the returned version holds
    /// them.
    ///
    /// With an `idempotency_key`, of 1 to 255 printable ASCII characters, the same writes may be sent
    /// again for a day, and take effect once.
    ///
    /// # Errors
    /// [`Error::Refused`]: nothing happened. Any other: it may have; send it again under its key.
    pub fn commit(
        &self,
        writes: &[Write],
        idempotency_key: Option<&str>,
    ) -> Result<Version, Error> {
        #[derive(Deserialize)]
        struct Committed {
            version: u64,
        }
        for write in writes {
            check_key(&write.key)?;
        }
        let legal = |key: &str| {
            (1..=255).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic())
        };
        if idempotency_key.is_some_and(|key| !legal(key)) {
            let why = "an idempotency key is 1 to 255 printable ASCII characters without spaces";
            return Err(Error::Usage(why.into()));
        }
        // A server that knows an older log would take the writes into a history that nobody believes.
        self.remembered()?;
        let body = commit_body(writes);
        let answer = self.transport.post(
            "v1/commits",
            body.as_bytes(),
            Some(Idempotency(idempotency_key)),
            SHORT_BYTES_MAX,
        )?;
        let Committed { version } = serde_json::from_slice(&answer.body).map_err(Error::form)?;
        let version = Version(version);
        for part in in_parts(writes) {
            let keys = part.iter().map(|write| &write.key).collect::<Vec<_>>();
            let found = self.get_many(&keys, At::Version(version))?;
            for (write, found) in part.iter().zip(found.value) {
                if write.value != found {
                    let fault = Fault::NotWhatWasSent { key: write.key.clone() };
                    return Err(Error::at(version, fault));
                }
            }
        }
        Ok(version)
    }

    /// Asks one question and reads the verified answer.
    pub(crate) fn question<T>(
        &self,
        tree: Tree,
        asked: &Asked,
        at: At,
        read: impl Fn(&Shown<'_>) -> Result<T, Fault>,
    ) -> Result<Verified<T>, Error> {
        for key in &asked.keys {
            check_key(key)?;
        }
        let fetch = |at| Ok((self.post_question(tree, asked, at)?, ()));
        self.ask_tree(tree, at, fetch, |shown, ()| read(shown))
    }

    fn post_question(&self, tree: Tree, asked: &Asked, at: At) -> Result<Evidence, Error> {
        let all = |bytes: &[Vec<u8>]| bytes.iter().map(hex::encode).collect::<Vec<_>>();
        let mut body = json!({ "keys_hex": all(&asked.keys) });
        if !asked.prefixes.is_empty() {
            body["prefixes_hex"] = json!(all(&asked.prefixes));
        }
        if tree == Tree::Tasks {
            body["tree"] = json!("tasks");
        }
        if let At::Version(version) = at {
            body["version"] = json!(version.0);
        }
        let body = body.to_string();
        let answer = self.transport.post("v1/proofs", body.as_bytes(), None, ANSWER_BYTES_MAX)?;
        Ok(Evidence::parse(&answer.body)?)
    }

    fn fetch(&self, path: &str) -> Result<(Evidence, Answer), Error> {
        let answer = self.transport.get(path, ANSWER_BYTES_MAX)?;
        Ok((Evidence::parse(&answer.body)?, answer))
    }

    fn ask<T, X>(
        &self,
        at: At,
        fetch: impl Fn(At) -> Result<(Evidence, X), Error>,
        read: impl Fn(&Shown<'_>, X) -> Result<T, Fault>,
    ) -> Result<Verified<T>, Error> {
        self.ask_tree(Tree::State, at, fetch, read)
    }

    /// Has evidence fetched, checks it, reads from it, and remembers its checkpoint. Nothing is
    /// remembered of evidence that does not answer the question.
    fn ask_tree<T, X>(
        &self,
        tree: Tree,
        at: At,
        fetch: impl Fn(At) -> Result<(Evidence, X), Error>,
        read: impl Fn(&Shown<'_>, X) -> Result<T, Fault>,
    ) -> Result<Verified<T>, Error> {
        let before = self.remembered()?;
        let once = |at| -> Result<_, Error> {
            let (evidence, extra) = fetch(at)?;
            let (header, checkpoint, value) =
                self.check(&evidence, at, before.as_ref(), |checked| {
                    let shown = match tree {
                        Tree::State => checked.version().state(),
                        Tree::Tasks => checked.version().tasks(),
                    };
                    // Evidence without a proof of a tree answers no question about it.
                    read(shown.ok_or(anwansi_proofs::Error::NotCovered { depth: 0 })?, extra)
                })?;
            self.remember(&checkpoint)?;
            Ok((Verified { header, value }, checkpoint.size()))
        };
        let (answer, size) = once(at)?;
        if at == At::Newest && answer.version().0 + 1 < size {
            // It became old while it was made, or the server prefers an old one: now it has no choice.
            return Ok(once(At::Version(Version(size - 1)))?.0);
        }
        Ok(answer)
    }

    /// Checks evidence by the policy, the version asked for, and what was remembered before it was
    /// asked for, and reads from it.
    pub(crate) fn check<T>(
        &self,
        evidence: &Evidence,
        at: At,
        before: Option<&Checkpoint>,
        read: impl FnOnce(&Checked<'_>) -> Result<T, Fault>,
    ) -> Result<(Header, Checkpoint, T), Error> {
        let asked = match at {
            At::Version(version) => Some(version),
            At::Newest => None,
        };
        let refused = |fault| Error::NotProven { version: asked, fault };
        let checked = evidence.check(&self.policy).map_err(|error| refused(error.into()))?;
        let header = checked.version().header().clone();
        let answered = header.version();
        match asked {
            Some(asked) if asked != answered => {
                return Err(refused(Fault::OtherVersion { asked, answered }));
            }
            Some(_) => {}
            None => not_behind(answered.0 + 1, before)?,
        }
        self.check_age(checked.checkpoint())?;
        let value = read(&checked).map_err(|fault| Error::at(answered, fault))?;
        Ok((header, checked.checkpoint().clone(), value))
    }

    fn check_age(&self, checkpoint: &Checkpoint) -> Result<(), Fault> {
        let Some(age_max) = self.age_max else { return Ok(()) };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let fresh = self.policy.fresh_since(checkpoint, now.saturating_sub(age_max).as_secs());
        if fresh { Ok(()) } else { Err(Fault::Stale { seconds: age_max.as_secs() }) }
    }
}

/// Refuses what knows fewer versions than were seen before.
fn not_behind(answered: u64, before: Option<&Checkpoint>) -> Result<(), Fault> {
    let remembered = before.map_or(0, Checkpoint::size);
    if answered < remembered { Err(Fault::WentBack { remembered, answered }) } else { Ok(()) }
}

fn check_key(key: &[u8]) -> Result<(), Error> {
    let length = key.len();
    let why = || Error::Usage(format!("a key has {length} bytes: keys have 1 to 1024"));
    if is_key(key) { Ok(()) } else { Err(why()) }
}

fn with_version(query: &str, at: At) -> String {
    match at {
        At::Newest => query.into(),
        At::Version(version) => format!("{query}&version={version}"),
    }
}

/// Where the server says that it cut a range.
fn next_of(answer: &Answer) -> Result<Option<Vec<u8>>, Error> {
    let next = answer.headers.get("Anwansi-Next");
    next.map(|next| hex::decode(next).map_err(Error::form)).transpose()
}

fn commit_body(writes: &[Write]) -> String {
    let writes = writes.iter().map(|Write { key, value }| {
        let value = value.as_ref().map(|value| STANDARD.encode(value));
        json!({ "key_hex": hex::encode(key), "value": value })
    });
    json!({ "writes": writes.collect::<Vec<_>>() }).to_string()
}

/// Cuts writes into parts of which each fits into one question.
fn in_parts(mut writes: &[Write]) -> impl Iterator<Item = &[Write]> {
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fit = writes.iter().take(KEYS_MAX).take_while(|write| {
            bytes += write.value.as_ref().map_or(0, Vec::len);
            bytes <= VALUES_BYTES_MAX
        });
        let count = fit.count().max(1).min(writes.len());
        let (part, rest) = writes.split_at(count);
        writes = rest;
        (!part.is_empty()).then_some(part)
    })
}
