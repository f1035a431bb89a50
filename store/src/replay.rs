//! From the tree of one version to that of a later one, by the changes in storage.

use anwansi_proofs::{Header, Version};

use crate::{
    Damage, Error,
    engine::Engine,
    group::merge,
    record::ChunkKind,
    snapshot::At,
    tree::{Pages, Tree, Write},
    version,
};

/// Writes that are gathered before the tree is updated, at least: a page that many versions change is made
/// once for all of them. With short values they take some 50 MB.
const GATHERED_WRITES: usize = 1 << 18;
/// The same in bytes of keys and values.
const GATHERED_BYTES: u64 = 32 << 20;

/// Makes version `to` again from `tree`, which is that of version `from`. `seen` hears of the changes of each
/// version.
///
/// # Errors
/// If what is stored is damaged: roots are compared with their headers before the first change, after the
/// last, and each time that enough are gathered.
pub(crate) fn replay(
    engine: &dyn Engine,
    pages: &Pages,
    (from, mut tree): (Version, Tree),
    to: Version,
    mut seen: impl FnMut(&[Write]),
) -> Result<At, Error> {
    let mut header = version::read(engine, from)?.0;
    compare(&tree, &header)?;
    let (mut gathered, mut bytes) = (Vec::new(), 0);
    for version in from.0 + 1..=to.0 {
        let record;
        (header, record) = version::read(engine, Version(version))?;
        let changes = version::read_chunks(engine, Version(version), ChunkKind::State, &record)?;
        seen(&changes);
        bytes += version::bytes_of(&changes);
        gathered.extend(changes);
        if version == to.0 || gathered.len() >= GATHERED_WRITES || bytes >= GATHERED_BYTES {
            tree = tree.update(pages, &merge(gathered))?;
            compare(&tree, &header)?;
            (gathered, bytes) = (Vec::new(), 0);
        }
    }
    Ok(At { header, tree })
}

fn compare(tree: &Tree, header: &Header) -> Result<(), Error> {
    let computed = tree.root();
    let same = computed == header.state();
    same.then_some(()).ok_or(Error::Damaged(Damage::State { version: header.version(), computed }))
}
