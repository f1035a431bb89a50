//! HTTP: bytes from anyone, never more of them than was said.

use std::{
    fmt,
    io::{BufRead, BufReader, Read},
    time::Duration,
};

use ureq::{
    Agent, Body, RequestBuilder,
    http::{HeaderMap, Response, StatusCode},
    typestate::WithBody,
};

use crate::{
    Error,
    error::{Fault, Problem},
};

/// How long to wait for a connection.
const CONNECT: Duration = Duration::from_secs(10);
/// How long to wait for the first byte of an answer: commits wait for the disk.
const ANSWER: Duration = Duration::from_secs(60);
/// How long an answer may take to come in as a whole.
const BODY: Duration = Duration::from_secs(600);
/// The longest that a server may tell to wait before the next question.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(600);
/// The longest problem document that is read.
const PROBLEM_BYTES_MAX: u64 = 64 << 10;
/// The longest token.
const TOKEN_BYTES_MAX: usize = 4096;
/// The longest URL of a server.
const URL_BYTES_MAX: usize = 2048;

/// A server, and how to talk to it.
pub(crate) struct Transport {
    agent: Agent,
    base: String,
    token: Option<Token>,
}

/// Lets its holder write. Never shown.
struct Token(String);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

/// An answer that was read to its end.
pub(crate) struct Answer {
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Transport {
    /// Talks to the server at `url`, `http://` or `https://`.
    pub(crate) fn new(url: &str) -> Result<Self, Error> {
        let refused =
            |why| Err(Error::Usage(format!("{:?}: {why}", crate::escape(url.as_bytes()))));
        let base = url.trim_end_matches('/');
        let Some(("http" | "https", rest)) = base.split_once("://") else {
            return refused("a server's URL begins with http:// or https://");
        };
        let host = rest.split('/').next().unwrap_or_default();
        if host.is_empty() || url.len() > URL_BYTES_MAX {
            return refused("a server's URL names a host");
        }
        if host.contains('@') {
            return refused("a server's URL holds no password: give a token");
        }
        if !rest.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'?' | b'#' | b'%'))
        {
            return refused("a server's URL is plain ASCII without query and fragment");
        }
        let config = Agent::config_builder()
            .http_status_as_error(false)
            // A token and a commit go where they were sent, and nowhere else.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_connect(Some(CONNECT))
            .timeout_recv_response(Some(ANSWER))
            .timeout_recv_body(Some(BODY))
            .user_agent(concat!("anwansi/", env!("CARGO_PKG_VERSION")));
        Ok(Transport { agent: config.build().new_agent(), base: base.into(), token: None })
    }

    /// Sends this token with every write.
    pub(crate) fn set_token(&mut self, token: &str) -> Result<(), Error> {
        if !token.bytes().all(|byte| byte.is_ascii_graphic())
            || !(1..=TOKEN_BYTES_MAX).contains(&token.len())
        {
            return Err(Error::Usage("a token is printable ASCII without spaces".into()));
        }
        self.token = Some(Token(token.into()));
        Ok(())
    }

    pub(crate) fn base(&self) -> &str {
        &self.base
    }

    /// What is under `path`, at most `max` bytes.
    pub(crate) fn get(&self, path: &str, max: u64) -> Result<Answer, Error> {
        let url = self.url(path);
        let answer = self.agent.get(&url).call().map_err(unreachable(&url))?;
        read(&url, accepted(&url, answer)?, max)
    }

    /// What is under `path`, line by line, at most `max` bytes in all.
    pub(crate) fn lines(&self, path: &str, max: u64) -> Result<Lines, Error> {
        let url = self.url(path);
        let answer = self.agent.get(&url).call().map_err(unreachable(&url))?;
        let body = accepted(&url, answer)?.into_body();
        // One byte more than allowed tells a long answer from one that ends there.
        let body = body.into_with_config().limit(u64::MAX).reader().take(max + 1);
        Ok(Lines { url, body: BufReader::new(Box::new(body)), left: max, max })
    }

    /// The answer to `body`, which is JSON. A write carries the token.
    pub(crate) fn post(
        &self,
        path: &str,
        body: &[u8],
        write: Option<Idempotency<'_>>,
        max: u64,
    ) -> Result<Answer, Error> {
        let url = self.url(path);
        let mut request = self.agent.post(&url).header("Content-Type", "application/json");
        if let Some(Idempotency(key)) = write {
            request = self.with_token(request);
            if let Some(key) = key {
                request = request.header("Idempotency-Key", key);
            }
        }
        let answer = request.send(body).map_err(unreachable(&url))?;
        read(&url, accepted(&url, answer)?, max)
    }

    /// Puts `body` under `path`, with the token.
    pub(crate) fn put(&self, path: &str, kind: &str, body: &[u8], max: u64) -> Result<(), Error> {
        let url = self.url(path);
        let request = self.with_token(self.agent.put(&url)).header("Content-Type", kind);
        let answer = request.send(body).map_err(unreachable(&url))?;
        read(&url, accepted(&url, answer)?, max).map(drop)
    }

    fn with_token(&self, request: RequestBuilder<WithBody>) -> RequestBuilder<WithBody> {
        match &self.token {
            Some(Token(token)) => request.header("Authorization", format!("Bearer {token}")),
            None => request,
        }
    }

    fn url(&self, path: &str) -> String {
        format!("{}/{path}", self.base)
    }
}

/// Marks a write, and names it if it has a name.
#[derive(Clone, Copy)]
pub(crate) struct Idempotency<'a>(pub(crate) Option<&'a str>);

/// Lines of an answer as they come in.
pub(crate) struct Lines {
    url: String,
    body: BufReader<Box<dyn Read>>,
    left: u64,
    max: u64,
}

impl Lines {
    /// The next line without its newline; `None` after the last one.
    ///
    /// An answer that ends within a line ends before it.
    pub(crate) fn next(&mut self) -> Result<Option<Vec<u8>>, Error> {
        let mut line = Vec::new();
        let read = self.body.read_until(b'\n', &mut line);
        let read = read.map_err(|error| unreachable(&self.url)(error.into()))? as u64;
        self.left = self.left.checked_sub(read).ok_or(Fault::TooLong { max: self.max })?;
        Ok(line.pop_if(|last| *last == b'\n').map(|_| line))
    }
}

fn unreachable(url: &str) -> impl FnOnce(ureq::Error) -> Error + '_ {
    move |error| Error::Unreachable {
        url: url.into(),
        reason: crate::escape(error.to_string().as_bytes()),
        retry_after: None,
    }
}

/// Passes on an answer that says yes.
fn accepted(url: &str, answer: Response<Body>) -> Result<Response<Body>, Error> {
    let status = answer.status();
    if status.is_success() {
        return Ok(answer);
    }
    let retry_after = answer.headers().get("Retry-After").and_then(|after| after.to_str().ok());
    let retry_after = retry_after.and_then(|seconds| seconds.parse().ok());
    let retry_after = retry_after.map(|after| Duration::from_secs(after).min(RETRY_AFTER_MAX));
    let body = answer.into_body().into_with_config().limit(PROBLEM_BYTES_MAX).read_to_vec();
    let problem = Problem::read(status.as_u16(), &body.unwrap_or_default());
    let later = [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_MANY_REQUESTS].contains(&status);
    if status.is_client_error() && !later {
        return Err(Error::Refused(problem));
    }
    let reason = if status.is_redirection() {
        format!("status {status}: give the URL that it leads to")
    } else {
        problem.to_string()
    };
    Err(Error::Unreachable { url: url.into(), reason, retry_after })
}

fn read(url: &str, answer: Response<Body>, max: u64) -> Result<Answer, Error> {
    let (parts, body) = answer.into_parts();
    let body = body.into_with_config().limit(max).read_to_vec().map_err(|error| match error {
        ureq::Error::BodyExceedsLimit(_) => Fault::TooLong { max }.into(),
        error => unreachable(url)(error),
    })?;
    Ok(Answer { headers: parts.headers, body })
}
