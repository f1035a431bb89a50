//! From the tree of one version to that of another, by what is in storage: forwards by changes, backwards by undo.

use anwansi_proofs::{Header, Version};

use crate::{
    Damage, Error,
    engine::Engine,
    group::merge,
    record::ChunkKind,
    tree::{Pages, Tree, Write},
    version,
};

/// Memory for the changes that are gathered, at least, in bytes.
pub(crate) const GATHERED_BYTES: usize = 64 << 20;
/// What a write takes beside its key and value, about: half of it while writes are sorted.
const WRITE_BYTES: usize = size_of::<Write>() / 2 * 3;

/// Makes version `to` again from `tree`, which is that of version `from`. `seen` hears of the writes of each
/// step. Those of many steps are gathered in about `gathered_max` bytes of memory before the tree is updated: a page that
/// several of them change is made once. Gives its header, its tree, and the bytes of the pages that were made.
///
/// # Errors
/// If what is stored is damaged: roots are compared with their headers before the first change, after the
/// last, and each time that enough are gathered.
pub(crate) fn replay(
    engine: &dyn Engine,
    pages: &Pages,
    (from, mut tree): (Version, Tree),
    to: Version,
    gathered_max: usize,
    mut seen: impl FnMut(&[Write]),
) -> Result<(Header, Tree, usize), Error> {
    let mut header = version::read(engine, from)?.0;
    compare(&tree, &header)?;
    let (mut gathered, mut bytes, mut made) = (Vec::new(), 0, 0);
    let mut at = from;
    while at != to {
        let writes;
        if at < to {
            at.0 += 1;
            let record;
            (header, record) = version::read(engine, at)?;
            writes = version::read_chunks(engine, at, ChunkKind::State, &record)?;
        } else {
            writes = version::read_undo(engine, at)?;
            at.0 -= 1;
            header = version::read(engine, at)?.0;
        }
        seen(&writes);
        bytes += writes.iter().map(|write| write.bytes() + WRITE_BYTES).sum::<usize>();
        gathered.extend(writes);
        if at == to || bytes >= gathered_max {
            tree = tree.update(pages, &merge(gathered))?;
            made += tree.made_bytes();
            compare(&tree, &header)?;
            (gathered, bytes) = (Vec::new(), 0);
        }
    }
    Ok((header, tree, made))
}

fn compare(tree: &Tree, header: &Header) -> Result<(), Error> {
    let computed = tree.root();
    let same = computed == header.state();
    same.then_some(()).ok_or(Error::Damaged(Damage::State { version: header.version(), computed }))
}
