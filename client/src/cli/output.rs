//! What is printed: text for people, one JSON object a line for programs.

use anwansi_client::{
    Error, Fault, escape,
    proofs::{Level, Version},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};

use super::print;

pub(super) struct Output {
    json: bool,
}

impl Output {
    pub(super) fn new(json: bool) -> Self {
        Output { json }
    }

    /// Prints one thing, in the form that was asked for.
    pub(super) fn line(
        &self,
        text: impl FnOnce() -> String,
        json: impl FnOnce() -> Value,
    ) -> Result<(), Error> {
        let line = if self.json { json().to_string() } else { text() };
        print(format!("{line}\n").as_bytes())
    }

    /// Prints an entry, or that there is none.
    pub(super) fn entry(
        &self,
        version: Version,
        key: &[u8],
        value: Option<&[u8]>,
        form: Form,
    ) -> Result<(), Error> {
        self.line(
            || match (form, value) {
                (Form::Value, Some(value)) => escape(value),
                (Form::Value, None) => format!("absent in version {version}"),
                (Form::Entry, value) => {
                    format!("{}\t{}", escape(key), value.map_or("-".into(), escape))
                }
                (Form::HexValue, Some(value)) => hex::encode(value),
                (Form::HexValue, None) => format!("absent in version {version}"),
                (Form::HexEntry, value) => {
                    format!("{}\t{}", hex::encode(key), value.map_or("-".into(), hex::encode))
                }
            },
            || entry_json(version, key, value),
        )
    }

    /// Says what went wrong, on standard error.
    pub(super) fn error(&self, error: &Error, code: u8) {
        let text = error.to_string();
        if self.json {
            let mut told = json!({ "error": text, "kind": kind(error), "exit": code });
            if let Error::NotProven { fault: Fault::Evidence(refused), .. } = error {
                told["level"] = json!(level_name(refused.level()));
            }
            eprintln!("{told}");
        } else {
            eprintln!("anwansi: {text}");
        }
    }

    /// A progress bar of `total` steps; none for programs.
    pub(super) fn progress(&self, total: u64, what: &'static str) -> ProgressBar {
        let bar = ProgressBar::new(total);
        if self.json {
            bar.set_draw_target(ProgressDrawTarget::hidden());
        }
        let template =
            format!("{{bar:40}} {{human_pos}} / {{human_len}} {what} {{per_sec}} {{eta}}");
        bar.set_style(ProgressStyle::with_template(&template).expect("the template is one"));
        bar
    }
}

/// How an entry is shown to people.
#[derive(Clone, Copy)]
pub(super) enum Form {
    /// The value alone.
    Value,
    /// Key, tab, value.
    Entry,
    /// The value's hex digits.
    HexValue,
    /// Both in hex digits.
    HexEntry,
}

fn entry_json(version: Version, key: &[u8], value: Option<&[u8]>) -> Value {
    let mut entry = json!({
        "version": version.0,
        "key_hex": hex::encode(key),
        "value": value.map(|value| STANDARD.encode(value)),
    });
    if let Ok(key) = str::from_utf8(key) {
        entry["key"] = json!(key);
    }
    entry
}

/// What a level of evidence is called.
pub(super) fn level_name(level: Level) -> &'static str {
    match level {
        Level::Finality => "finality",
        Level::Inclusion => "inclusion",
        Level::Agreement => "agreement",
        Level::Aggregate => "aggregate",
    }
}

fn kind(error: &Error) -> &'static str {
    match error {
        Error::NotProven { .. } => "not-proven",
        Error::Unreachable { .. } => "unreachable",
        Error::Refused(_) => "refused",
        Error::Forked { .. } => "forked",
        Error::NoTrust { .. } => "no-trust",
        Error::Usage(_) => "usage",
        Error::NotDone(_) => "not-done",
        _ => "file",
    }
}
