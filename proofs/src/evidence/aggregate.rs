//! Aggregate: the outputs behind the answers, folded again, and found in the state that they were written to.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    format,
    string::String,
    vec::Vec,
};

use super::{Agreed, CheckedVersion, Earlier, Evidence, Misfold, form::Named};
use crate::{Apply, Digest, Fold, Json, Shown, Version, path::KEY_BYTES_MAX, record::Outcome};

/// The most bytes of outputs that are folded again; an output counts once for each task that it is the
/// answer of.
pub const FOLDED_BYTES_MAX: usize = 64 << 20;

/// Folds the outputs of a transition that was applied, and finds them in the state of `main`; `None` if the
/// level is not there.
pub(super) fn check(
    evidence: &Evidence,
    agreed: &Agreed,
    main: &CheckedVersion<'_>,
    earlier: &Earlier<'_>,
) -> Result<Option<Json>, Misfold> {
    let Some(Named(outputs)) = &evidence.outputs else { return Ok(None) };
    all_voted_for(agreed, outputs)?;
    let fold = agreed.spec.fold.parse::<Fold>();
    let (Outcome::Applied, Ok(fold)) = (agreed.record.outcome, fold) else { return Ok(None) };

    let mut bytes = 0_usize;
    let answers = (0..).zip(&agreed.tasks).map(|(task, recounted)| {
        let output = recounted.digest.and_then(|digest| outputs.get(&digest));
        let output = output.ok_or(Misfold::Missing { task })?.as_slice();
        bytes = bytes.saturating_add(output.len());
        if bytes <= FOLDED_BYTES_MAX { Ok(output) } else { Err(Misfold::TooLong) }
    });
    let answers = answers.collect::<Result<Vec<_>, _>>()?;
    let value = fold.fold(answers)?;
    let computed = Digest::of(&value.to_bytes());
    if agreed.record.value != Some(computed) {
        return Err(Misfold::OtherValue { computed });
    }
    all_written(fold, &value, agreed, main, earlier)?;
    Ok(Some(value))
}

/// Every output is the one that its name says, and some node voted for it.
fn all_voted_for(agreed: &Agreed, outputs: &BTreeMap<Digest, Vec<u8>>) -> Result<(), Misfold> {
    let answers = agreed.tasks.iter().flat_map(|task| {
        task.digest.into_iter().chain(task.dissent.iter().map(|(digest, _)| *digest))
    });
    let answers = answers.collect::<BTreeSet<_>>();
    for (name, output) in outputs {
        if !answers.contains(name) {
            return Err(Misfold::NotVotedFor { name: *name });
        }
        let computed = Digest::of(output);
        if computed != *name {
            return Err(Misfold::Misnamed { name: *name });
        }
    }
    Ok(())
}

/// The state has under each key what `apply` and `spread` make of the folded value.
fn all_written(
    fold: Fold,
    value: &Json,
    agreed: &Agreed,
    main: &CheckedVersion<'_>,
    earlier: &Earlier<'_>,
) -> Result<(), Misfold> {
    let version = main.header().version();
    // It was opened in a version below: this one is not the first.
    let before = Version(version.0 - 1);
    let state = main.state().ok_or(Misfold::NoState { version })?;
    let state_before = earlier.get(&before).and_then(CheckedVersion::state);
    let old = |key: &str| get(state_before.ok_or(Misfold::NoState { version: before })?, key);
    let written = |key: &str, new: &Json| match get(state, key)? {
        Some(value) if value == new.to_bytes() => Ok(()),
        _ => Err(Misfold::NotWritten { key: key.into() }),
    };
    let into = &agreed.spec.into;
    if !agreed.spec.spread {
        return match agreed.spec.apply {
            Apply::Replace => written(into, value),
            Apply::Add => written(into, &fold.add(old(into)?, value)?),
        };
    }
    for (name, member) in fold.spread(value)? {
        if into.len() + 1 + name.len() > KEY_BYTES_MAX {
            return Err(Misfold::KeyTooLong);
        }
        let key = format!("{into}/{name}");
        match agreed.spec.apply {
            Apply::Replace => written(&key, member)?,
            Apply::Add => written(&key, &fold.add_member(old(&key)?, name, member)?)?,
        }
    }
    Ok(())
}

fn get<'a>(state: &Shown<'a>, key: &str) -> Result<Option<&'a [u8]>, Misfold> {
    let refused = |error| Misfold::Unproven { key: String::from(key), error };
    state.get(key.as_bytes()).map_err(refused)
}
