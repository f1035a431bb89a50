//! The folds that a store knows: those of the format, and an embedding program's own.

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use anwansi_proofs::{Fold, Json, NESTING_MAX, Spec};
use bytes::Bytes;

use super::Refusal;

/// The longest reason that is kept.
const REASON_CHARS_MAX: usize = 200;

/// A fold that an embedding program brings with it. Clients recount the votes of its transitions; that
/// its value was computed rightly they cannot check.
pub trait OwnFold: Send + Sync {
    /// The name that specifications call it by; one of the format's own names is never asked for.
    fn name(&self) -> &str;

    /// The value of the outputs of all tasks, in task order. The same outputs give the same value, now
    /// and after a restart.
    ///
    /// # Errors
    /// Why there is none, in words: the transition fails with them.
    fn fold(&self, outputs: &[Bytes]) -> Result<Json, String>;

    /// What is written where `old` stands and `new` is to be added. All commits wait meanwhile.
    ///
    /// # Errors
    /// As of [`fold`](Self::fold).
    fn add(&self, old: &[u8], new: &Json) -> Result<Json, String>;
}

/// A fold, of either kind.
#[derive(Clone)]
pub(crate) enum Folding {
    Format(Fold),
    Own(Arc<dyn OwnFold>),
}

impl Folding {
    /// The fold of this name, if there is one here.
    pub(crate) fn find(name: &str, own: &[Arc<dyn OwnFold>]) -> Option<Self> {
        if let Ok(fold) = name.parse() {
            return Some(Folding::Format(fold));
        }
        own.iter().find(|fold| fold.name() == name).cloned().map(Folding::Own)
    }

    /// Checks that it can be used as `spec` wants.
    pub(crate) fn check(&self, spec: &Spec) -> Result<(), Refusal> {
        let refused = |with| Err(Refusal::FoldUse { name: spec.fold.clone(), with });
        let (adds, spreads) = match self {
            Folding::Format(fold) => (fold.adds(), fold.spreads()),
            Folding::Own(_) => (true, false),
        };
        match spec.apply {
            anwansi_proofs::Apply::Add if !adds => refused("\"apply\": \"add\""),
            _ if spec.spread && !spreads => refused("\"spread\": true"),
            _ => Ok(()),
        }
    }

    pub(crate) fn fold(&self, outputs: &[Bytes]) -> Result<Json, String> {
        match self {
            Folding::Format(fold) => {
                fold.fold(outputs.iter().map(|output| &output[..])).map_err(|it| it.to_string())
            }
            Folding::Own(own) => guarded(|| own.fold(outputs)),
        }
    }

    /// What is written where `old` stands: of a spread value one member, by its name.
    pub(crate) fn add(
        &self,
        old: Option<&[u8]>,
        member: Option<&str>,
        new: &Json,
    ) -> Result<Json, String> {
        match (self, member, old) {
            (Folding::Format(fold), Some(name), _) => {
                fold.add_member(old, name, new).map_err(|it| it.to_string())
            }
            (Folding::Format(fold), None, _) => fold.add(old, new).map_err(|it| it.to_string()),
            (Folding::Own(own), _, Some(old)) => guarded(|| own.add(old, new)),
            (Folding::Own(_), _, None) => Ok(new.clone()),
        }
    }
}

/// Runs a fold of somebody's own: a panic fails its transition, as an error does, and a reason is short.
fn guarded(fold: impl FnOnce() -> Result<Json, String>) -> Result<Json, String> {
    let folded = catch_unwind(AssertUnwindSafe(fold));
    let value = folded.unwrap_or_else(|_| Err("the fold panicked".into()));
    let value =
        value.map_err(|reason| reason.chars().take(REASON_CHARS_MAX).collect::<String>())?;
    // What cannot be read again could never be added to.
    if value.fits(NESTING_MAX) {
        Ok(value)
    } else {
        Err("the value is beyond JSON's limits".into())
    }
}

impl fmt::Debug for Folding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Folding::Format(fold) => fold.name(),
            Folding::Own(fold) => fold.name(),
        })
    }
}
