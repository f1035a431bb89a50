//! The demo: real data goes in over HTTP, proofs come out, a client accepts them and refuses a forgery.
//!
//! Everything here goes through the HTTP interface and is verified by the client library, under the log's key,
//! which is the only thing that the client takes on trust.

use std::{
    fmt,
    io::{BufRead as _, BufReader, IsTerminal as _, Write as _},
    time::Instant,
};

use anwansi_client::{
    Asked, At, Client, InMemory, Write,
    proofs::{Error as ProofError, Evidence, Version},
    trust,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use flate2::read::GzDecoder;
use indicatif::{ProgressBar, ProgressStyle};

/// The cities of the world: `city/<country>/<region>/<name>`, and where they lie (data/README.md).
const CITIES: &[u8] = include_bytes!("../data/cities.tsv.gz");
/// How many cities go into one commit.
const BATCH: usize = 5_000;
/// A country to be listed whole, a city in it, and one that is not.
const COUNTRY: &str = "city/NG/";
const PRESENT: &str = "city/NG/47/Enugu";
const ABSENT: &str = "city/NG/47/Atlantis";
/// How many cities are read, one by one, for the figures.
const READS: usize = 2_000;

/// Why the demo stopped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DemoError {
    /// The client did not get what it asked for, or could not believe it.
    #[error("the client: {0}")]
    Client(#[from] anwansi_client::Error),
    /// A step answered something else than it must.
    #[error("{0}")]
    Unexpected(String),
    /// The terminal is gone.
    #[error("cannot print: {0}")]
    Output(#[from] std::io::Error),
}

/// Runs the demo against the server at `url`, whose log has the key `vkey`, with a token that may write.
/// Prints what happens to standard output. It blocks.
///
/// # Errors
/// [`DemoError`] at the first step that does not end as it must.
pub fn demo(url: &str, vkey: &str, token: &str) -> Result<(), DemoError> {
    let client = Client::connect(url, trust::of_vkey(vkey)?, InMemory::default())?;
    let client = client.with_token(token)?;
    let cities = cities();
    let mut out = std::io::stdout().lock();
    writeln!(out, "server   {url}")?;
    writeln!(out, "trusted  {vkey}")?;
    writeln!(out, "         (this key, and nothing else, is what the client takes on trust)\n")?;

    load(&client, &cities, &mut out)?;
    let version = client.get(PRESENT.as_bytes(), At::Newest)?.version();
    read(&client, &cities, version, &mut out)?;
    list(&client, &cities, version, &mut out)?;
    absent(&client, version, &mut out)?;
    audit(&client, &mut out)?;
    tamper(&client, version, &mut out)?;
    figures(&client, &cities, version, &mut out)
}

type City = (String, String);

/// The cities that ship with the program, in the order of the file.
fn cities() -> Vec<City> {
    let lines = BufReader::new(GzDecoder::new(CITIES)).lines();
    let city = |line: std::io::Result<String>| {
        let line = line.expect("the file in the program is whole");
        let (key, value) = line.split_once('\t').expect("each line has a key and a value");
        (key.to_owned(), value.to_owned())
    };
    lines.map(city).collect()
}

fn load(client: &Client, cities: &[City], out: &mut impl std::io::Write) -> Result<(), DemoError> {
    let (key, value) = cities.last().expect("there are cities");
    let last = client.get(key.as_bytes(), At::Newest)?;
    if last.value.as_deref() == Some(value.as_bytes()) {
        writeln!(
            out,
            "load     {} cities are here already, from an earlier run",
            grouped(cities.len())
        )?;
        return Ok(());
    }
    let bar = if std::io::stderr().is_terminal() {
        ProgressBar::new(cities.len() as u64)
    } else {
        ProgressBar::hidden()
    };
    let style = "load     [{bar:40}] {human_pos} of {human_len} cities, {per_sec}";
    bar.set_style(ProgressStyle::with_template(style).expect("the template is right"));
    let start = Instant::now();
    let mut versions = 0;
    for batch in cities.chunks(BATCH) {
        let write = |(key, value): &City| Write {
            key: key.clone().into(),
            value: Some(value.clone().into()),
        };
        let writes = batch.iter().map(write).collect::<Vec<_>>();
        // Returns when the version is durable, signed, and every entry of it proven to be in it.
        client.commit(&writes, None)?;
        versions += 1;
        bar.inc(batch.len() as u64);
    }
    bar.finish_and_clear();
    let seconds = start.elapsed().as_secs_f64();
    writeln!(
        out,
        "load     {} cities in {versions} versions, each durable and read back with proofs: {seconds:.1} s",
        grouped(cities.len()),
    )?;
    Ok(())
}

fn read(
    client: &Client,
    cities: &[City],
    version: Version,
    out: &mut impl std::io::Write,
) -> Result<(), DemoError> {
    let picked = [PRESENT, "city/FR/11/Paris", "city/JP/40/Tokyo"];
    for key in picked {
        let answer = client.get(key.as_bytes(), At::Version(version))?;
        let expected =
            cities.iter().find(|(city, _)| city == key).map(|(_, value)| value.as_bytes());
        expect(answer.value.as_deref() == expected, || format!("{key} has another value"))?;
        let value = answer.value.as_deref().map_or("proven absent".into(), String::from_utf8_lossy);
        writeln!(out, "get      {key} = {value}   (version {version}, verified)")?;
    }
    Ok(())
}

fn list(
    client: &Client,
    cities: &[City],
    version: Version,
    out: &mut impl std::io::Write,
) -> Result<(), DemoError> {
    let (mut found, mut from) = (Vec::new(), None);
    loop {
        let page =
            client.prefix(COUNTRY.as_bytes(), from.as_deref(), None, At::Version(version))?;
        found.extend(page.value.entries);
        from = page.value.next;
        if from.is_none() {
            break;
        }
    }
    let expected = cities.iter().filter(|(key, _)| key.starts_with(COUNTRY)).count();
    expect(found.len() == expected, || format!("{} entries below {COUNTRY}", found.len()))?;
    writeln!(
        out,
        "prefix   {COUNTRY} has {} cities   (complete: the proof shows that none was left out)",
        grouped(found.len()),
    )?;
    Ok(())
}

fn absent(
    client: &Client,
    version: Version,
    out: &mut impl std::io::Write,
) -> Result<(), DemoError> {
    let answer = client.get(ABSENT.as_bytes(), At::Version(version))?;
    expect(answer.value.is_none(), || format!("{ABSENT} has a value"))?;
    writeln!(out, "get      {ABSENT} is absent   (proven, not just missing)")?;
    Ok(())
}

fn audit(client: &Client, out: &mut impl std::io::Write) -> Result<(), DemoError> {
    let audited = client.audit(|_, _| {})?;
    writeln!(
        out,
        "audit    {} versions, {} changes: each follows from the one before, checked without any state",
        audited.versions,
        grouped(usize::try_from(audited.changes).unwrap_or(usize::MAX)),
    )?;
    Ok(())
}

/// Changes one digit of a true answer, and shows that it is refused.
fn tamper(
    client: &Client,
    version: Version,
    out: &mut impl std::io::Write,
) -> Result<(), DemoError> {
    let value = client.get(PRESENT.as_bytes(), At::Version(version))?.value.unwrap_or_default();
    let mut evidence: serde_json::Value =
        serde_json::from_str(&evidence(client, version)?.to_json())
            .map_err(|error| DemoError::Unexpected(error.to_string()))?;
    let mut proof =
        STANDARD.decode(evidence["state"].as_str().unwrap_or_default()).unwrap_or_default();
    let at = proof.windows(value.len()).position(|bytes| bytes == value);
    let at = at.ok_or_else(|| DemoError::Unexpected("the value is not in its proof".into()))?;
    proof[at] ^= 1;
    let forged = String::from_utf8_lossy(&proof[at..at + value.len()]).into_owned();
    evidence["state"] = STANDARD.encode(proof).into();
    let refusal = Evidence::parse(evidence.to_string().as_bytes())
        .and_then(|evidence| evidence.check(client.policy()).map(drop));
    writeln!(out, "\nforged   {PRESENT} = {forged}   (one digit changed on the way)")?;
    match refusal {
        Err(error @ ProofError::RootMismatch { .. }) => writeln!(out, "REFUSED  {error}\n")?,
        other => {
            return Err(DemoError::Unexpected(format!("the forged answer came to {other:?}")));
        }
    }
    Ok(())
}

/// Evidence for [`PRESENT`], as the client has verified it.
fn evidence(client: &Client, version: Version) -> Result<Evidence, DemoError> {
    let asked = Asked { keys: vec![PRESENT.into()], prefixes: Vec::new() };
    Ok(client.evidence(&asked, At::Version(version))?.value)
}

fn figures(
    client: &Client,
    cities: &[City],
    version: Version,
    out: &mut impl std::io::Write,
) -> Result<(), DemoError> {
    let start = Instant::now();
    for (key, value) in cities.iter().step_by(cities.len() / READS).take(READS) {
        let answer = client.get(key.as_bytes(), At::Version(version))?;
        expect(answer.value.as_deref() == Some(value.as_bytes()), || format!("{key} differs"))?;
    }
    let seconds = start.elapsed().as_secs_f64();
    writeln!(
        out,
        "{} reads over HTTP, one after the other, each verified: {seconds:.2} s",
        grouped(READS),
    )?;
    let json = evidence(client, version)?.to_json();
    let proof = json.split("\"state\":\"").nth(1).and_then(|rest| rest.split('"').next());
    writeln!(
        out,
        "evidence for one key: {} bytes, of which {} are its proof in base64",
        json.len(),
        proof.map_or(0, str::len),
    )?;
    Ok(())
}

fn expect(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), DemoError> {
    if holds { Ok(()) } else { Err(DemoError::Unexpected(otherwise())) }
}

/// An integer with its thousands apart.
fn grouped(number: usize) -> impl fmt::Display {
    indicatif::HumanCount(number as u64)
}
