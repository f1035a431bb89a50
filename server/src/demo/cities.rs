//! State: the cities of the world are loaded, read with proofs, and one of them forged.

use std::{
    io::{BufRead as _, BufReader},
    time::Instant,
};

use anwansi_client::{
    Asked, At, Client, Write,
    proofs::{Error as ProofError, Evidence, Refused, Version},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use flate2::read::GzDecoder;

use super::{DemoError, bar, expect, grouped};

/// The cities of the world: `city/<country>/<region>/<name>`, and where they lie (data/README.md).
const CITIES: &[u8] = include_bytes!("../../data/cities.tsv.gz");
/// How many cities go into one commit.
const BATCH: usize = 5_000;
/// A country to be listed whole, a city in it, and one that is not.
const COUNTRY: &str = "city/NG/";
const PRESENT: &str = "city/NG/47/Enugu";
const ABSENT: &str = "city/NG/47/Atlantis";
/// How many cities are read, one by one, for the figures.
const READS: usize = 2_000;

/// Shows what there is to show of state.
pub(super) fn show(client: &Client, out: &mut impl std::io::Write) -> Result<(), DemoError> {
    let cities = cities();
    load(client, &cities, out)?;
    let version = client.get(PRESENT.as_bytes(), At::Newest)?.version();
    read(client, &cities, version, out)?;
    list(client, &cities, version, out)?;
    absent(client, version, out)?;
    audit(client, out)?;
    tamper(client, version, out)?;
    figures(client, &cities, version, out)
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
    let style = "load     [{bar:40}] {human_pos} of {human_len} cities, {per_sec}";
    let bar = bar(cities.len(), style);
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
    let evidence = Evidence::parse(evidence.to_string().as_bytes())
        .map_err(|error| DemoError::Unexpected(error.to_string()))?;
    let refusal = evidence.check(client.policy()).map(drop);
    writeln!(out, "\nforged   {PRESENT} = {forged}   (one digit changed on the way)")?;
    match refusal {
        Err(error @ Refused::Inclusion { error: ProofError::RootMismatch { .. }, .. }) => {
            writeln!(out, "REFUSED  {error}\n")?;
        }
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
