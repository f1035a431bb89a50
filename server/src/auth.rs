//! Who may write: bearer tokens, of which the server keeps digests only.
//!
//! ```text
//! admin-token    the first token, in clear, for the owner of the data directory to read     0600
//! tokens.json    {"tokens":[{"digest":"<hex of H(token)>","scopes":["write","submit","admin"]}]}   0600
//! ```
//!
//! Digests are compared, not tokens: how long a comparison takes tells only of digests, from which
//! nobody finds a token of 32 random bytes.

use std::{
    fs,
    io::{self, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::Path,
};

use anwansi_proofs::Digest;
use axum::http::{HeaderMap, header};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};

use crate::problem::{Kind, Problem};

/// The file of the first token, in the data directory.
pub const TOKEN_FILE: &str = "admin-token";
const DIGESTS_FILE: &str = "tokens.json";
/// The longest file of digests that is read.
const DIGESTS_BYTES_MAX: u64 = 1 << 20;
/// What tokens that we make start with, so that a leaked one is recognised.
const PREFIX: &str = "anwansi_";
/// Bytes of randomness in a token.
const SECRET_BYTES: usize = 32;
/// The longest token that is looked at.
const TOKEN_BYTES_MAX: usize = 1024;
/// The shortest token that is accepted from the operator.
const TOKEN_BYTES_MIN: usize = 16;

/// What a token allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Scope {
    /// To commit.
    Write,
    /// To submit transitions.
    Submit,
    /// Everything.
    Admin,
}

/// The tokens that are known.
#[derive(Debug, Default)]
pub(crate) struct Tokens(Vec<Token>);

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Token {
    digest: String,
    scopes: Vec<Scope>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    tokens: Vec<Token>,
}

impl Tokens {
    /// Reads the tokens of a data directory; a fresh one gets a first token, which is written to
    /// [`TOKEN_FILE`].
    ///
    /// # Errors
    /// If the file cannot be read or written, can be read by others, or holds something else.
    pub(crate) fn load_or_create(directory: &Path) -> io::Result<Self> {
        let file = directory.join(DIGESTS_FILE);
        let metadata = match fs::metadata(&file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Self::create(directory);
            }
            metadata => metadata?,
        };
        let mode = metadata.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(invalid(&file, &format!("has mode {mode:o}: make it 600")));
        }
        if metadata.len() > DIGESTS_BYTES_MAX {
            return Err(invalid(&file, "is longer than any file of tokens"));
        }
        let File { tokens } = serde_json::from_slice(&fs::read(&file)?)
            .map_err(|error| invalid(&file, &format!("is no file of tokens: {error}")))?;
        match tokens.iter().find(|token| token.digest.parse::<Digest>().is_err()) {
            Some(_) => Err(invalid(&file, "holds a digest that is not 64 lower-case hex digits")),
            None => Ok(Tokens(tokens)),
        }
    }

    fn create(directory: &Path) -> io::Result<Self> {
        let mut secret = [0; SECRET_BYTES];
        getrandom::fill(&mut secret).map_err(io::Error::other)?;
        let token = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(secret));
        write_private(&directory.join(TOKEN_FILE), &format!("{token}\n"))?;
        // A crash here leaves a token that nothing knows: the next start makes another.
        let tokens = vec![Token::new(&token, Scope::Admin)];
        let file = File { tokens };
        let text = serde_json::to_string(&file).expect("digests and scopes are always JSON");
        write_private(&directory.join(DIGESTS_FILE), &format!("{text}\n"))?;
        Ok(Tokens(file.tokens))
    }

    /// Adds a token of every scope, for as long as the server runs.
    ///
    /// # Errors
    /// If it is too short to be a secret, or no header could carry it.
    pub(crate) fn allow(&mut self, token: &str) -> io::Result<()> {
        let length = TOKEN_BYTES_MIN..=TOKEN_BYTES_MAX;
        if !length.contains(&token.len()) || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!(
                    "the given token is not {TOKEN_BYTES_MIN} to {TOKEN_BYTES_MAX} printable ASCII \
                     characters without space"
                ),
            ));
        }
        self.0.push(Token::new(token, Scope::Admin));
        Ok(())
    }

    /// Checks that a request carries a token of this scope.
    ///
    /// # Errors
    /// [`Kind::Unauthorized`] without a token that is known, [`Kind::Forbidden`] if it does not reach.
    pub(crate) fn check(&self, headers: &HeaderMap, scope: Scope) -> Result<(), Problem> {
        let refused = |what| Err(Problem::new(Kind::Unauthorized, what));
        let mut given = headers.get_all(header::AUTHORIZATION).iter();
        let (Some(given), None) = (given.next(), given.next()) else {
            return refused("send one header `Authorization: Bearer <token>`");
        };
        let Some((scheme, token)) = given.to_str().ok().and_then(|given| given.split_once(' '))
        else {
            return refused("the Authorization header is not `Bearer <token>`");
        };
        if !scheme.eq_ignore_ascii_case("bearer") || token.len() > TOKEN_BYTES_MAX {
            return refused("the Authorization header is not `Bearer <token>`");
        }
        let digest = Digest::of(token.as_bytes()).to_string();
        let Some(known) = self.0.iter().find(|known| known.digest == digest) else {
            return refused("the server does not know this token");
        };
        if known.scopes.iter().any(|has| *has == scope || *has == Scope::Admin) {
            return Ok(());
        }
        let scope = format!("{scope:?}").to_lowercase();
        let detail = format!("the token has not the scope {scope}: use one that has");
        Err(Problem::new(Kind::Forbidden, detail))
    }
}

impl Token {
    fn new(token: &str, scope: Scope) -> Self {
        Token { digest: Digest::of(token.as_bytes()).to_string(), scopes: vec![scope] }
    }
}

/// Writes a file that only its owner can read, and makes it durable before it has its name.
fn write_private(file: &Path, text: &str) -> io::Result<()> {
    let directory = file.parent().expect("the file was named in a directory");
    // Made with mode 0600.
    let mut written = tempfile::NamedTempFile::new_in(directory)?;
    written.write_all(text.as_bytes())?;
    written.as_file().sync_all()?;
    // A crash here leaves a temporary file, which nothing reads.
    written.persist(file)?;
    fs::File::open(directory)?.sync_all()
}

fn invalid(file: &Path, what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{} {what}", file.display()))
}
