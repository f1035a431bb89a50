//! commonware-storage: a Merkle structure over a log of operations, with an index of keys in memory.
//!
//! `current` proves what the value of a key is; `any` only that it was set to it at some time. Both are
//! opened as the library's own bench of a million keys opens them.

use std::{
    num::{NonZeroU16, NonZeroU64, NonZeroUsize},
    thread,
};

use anyhow::{Context as _, Result};
use commonware_codec::{
    Copying, Decode as _, DecodeExt as _, Encode as _, Read as _, ReadExt as _, Write as _,
};
use commonware_cryptography::{Sha256, sha256::Digest};
use commonware_parallel::Rayon;
use commonware_runtime::{
    BLOB_PAGE_SIZE, Runner as _, Strategizer as _, Supervisor as _,
    buffer::paged::{CacheRef, page_size},
    tokio,
};
use commonware_storage::{
    journal::contiguous::fixed,
    merkle::{Location, MAX_PROOF_DIGESTS_PER_ELEMENT, Proof, full, mmb},
    qmdb::{
        any::{self, value::FixedEncoding},
        current::{self, ordered::proof::constant::KeyValueProof},
        floor::Proportional,
        verify_proof,
    },
    translator::EightCap,
};
use commonware_utils::{NZU64, NZUsize, sequence::FixedBytes};

use super::Peer;
use crate::workload::{Key, Measured, Place, Shape, Value, measure};

/// What must be known to compare the numbers of `current`.
pub(super) const NOTE_CURRENT: &str = "Keeps the log of all operations, which is not pruned here. A commit syncs the \
    log; the rest is synced by the close. The index of keys is in memory, and is made again from the log by opening. \
    The page cache takes its 512 MiB at once. A proof holds the next key in order, 32 bytes, and neither the key nor \
    the value, in the library's own encoding.";

/// What must be known to compare the numbers of `any`.
pub(super) const NOTE_ANY: &str = "As `current`, but a proof shows only that some operation set the key to the value, \
    not that it still has it. To make one the operation is looked up first. A proof holds the operation: key, next key \
    and value, 164 bytes.";

/// Bytes of a bit map's chunk, in `current`.
const CHUNK_BYTES: usize = 32;
/// 512 MiB in pages of 4 KiB.
const CACHE_PAGES: NonZeroUsize = NZUsize!(131_072);
const PAGE_BYTES: NonZeroU16 = page_size(BLOB_PAGE_SIZE);
const ITEMS_PER_BLOB: NonZeroU64 = NZU64!(10_000_000);
const BUFFER_BYTES: NonZeroUsize = NZUsize!(2 << 20);
const INIT_CACHE: NonZeroUsize = NZUsize!(1 << 18);

type StoredKey = FixedBytes<32>;
type StoredValue = FixedBytes<100>;
type Context = tokio::Context;
type CurrentDb = current::ordered::fixed::Db<
    mmb::Family,
    Context,
    StoredKey,
    StoredValue,
    Sha256,
    EightCap,
    CHUNK_BYTES,
    Rayon,
>;
type AnyDb =
    any::ordered::fixed::Db<mmb::Family, Context, StoredKey, StoredValue, Sha256, EightCap, Rayon>;
type Operation = any::ordered::fixed::Operation<mmb::Family, StoredKey, StoredValue>;

/// An open store of the kind `current`. A commit takes it and gives it back.
pub(super) struct Current(Option<CurrentDb>);

/// An open store of the kind `any`, likewise.
pub(super) struct Any(Option<AnyDb>);

/// Takes `current` through the workload.
pub(super) fn run_current(place: &Place, shape: Shape) -> Result<Measured> {
    runner(place).start(async |context| measure::<Current>(&context, place, shape).await)
}

/// Takes `any` through the workload.
pub(super) fn run_any(place: &Place, shape: Shape) -> Result<Measured> {
    runner(place).start(async |context| measure::<Any>(&context, place, shape).await)
}

fn runner(place: &Place) -> tokio::Runner {
    tokio::Runner::new(tokio::Config::new().with_storage_directory(&place.directory))
}

/// Implements the calls that have the same names in both kinds, with the same types around them.
macro_rules! same_in_both {
    ($db:ty) => {
        type Home = Context;
        type Batch = Vec<(StoredKey, StoredValue)>;
        type Root = Digest;
        type Read = StoredValue;

        async fn open(context: &Context) -> Result<Self> {
            let db = <$db>::init(context.child("db"), config(context), None).await?;
            Ok(Self(Some(db)))
        }

        fn batch(entries: impl Iterator<Item = (Key, Value)>) -> Self::Batch {
            entries.map(|(key, value)| (StoredKey::new(key), StoredValue::new(value))).collect()
        }

        async fn commit(&mut self, batch: Self::Batch) -> Result<()> {
            let db = self.0.take().context("an earlier commit failed")?;
            let mut changes = db.new_batch();
            for (key, value) in batch {
                changes = changes.write(key, Some(value));
            }
            let changes = changes.merkleize(&db, None, &mut Proportional).await?;
            self.0 = Some(db.apply_batch(changes).await?.commit().await?);
            Ok(())
        }

        fn root(&self) -> Result<Digest> {
            Ok(self.db()?.root())
        }

        async fn get(&mut self, key: &Key) -> Result<Option<StoredValue>> {
            Ok(self.db()?.get(&StoredKey::new(*key)).await?)
        }

        async fn close(mut self) -> Result<()> {
            self.0.take().context("an earlier commit failed")?.sync().await?;
            Ok(())
        }
    };
}

impl Peer for Current {
    same_in_both!(CurrentDb);

    async fn prove(&mut self, key: &Key) -> Result<Vec<u8>> {
        let proof = self.db()?.key_value_proof(StoredKey::new(*key)).await?;
        Ok(proof.encode().to_vec())
    }

    fn verify(root: &Digest, key: &Key, value: &Value, proof: &[u8]) -> bool {
        type Shown = KeyValueProof<mmb::Family, StoredKey, Digest, CHUNK_BYTES>;
        let proof = Shown::decode_cfg(Copying(proof), &(MAX_PROOF_DIGESTS_PER_ELEMENT, ()));
        let (key, value) = (StoredKey::new(*key), StoredValue::new(*value));
        proof
            .is_ok_and(|proof| proof.verify::<Sha256, FixedEncoding<StoredValue>>(key, value, root))
    }
}

impl Peer for Any {
    same_in_both!(AnyDb);

    async fn prove(&mut self, key: &Key) -> Result<Vec<u8>> {
        let db = self.db()?;
        let span = db.get_span(&StoredKey::new(*key)).await?;
        let (location, _) = span.context("a loaded key has no operation")?;
        let (proof, operations) = db.proof(location, NZU64!(1)).await?;
        let operation = operations.first().context("the proof is of no operation")?;
        let mut bytes = Vec::new();
        location.write(&mut bytes);
        proof.write(&mut bytes);
        operation.write(&mut bytes);
        Ok(bytes)
    }

    fn verify(root: &Digest, key: &Key, value: &Value, proof: &[u8]) -> bool {
        shown(proof).is_ok_and(|(location, proof, operation)| {
            let Operation::Update(update) = &operation else { return false };
            update.key.as_ref() == key
                && update.value.as_ref() == value
                && verify_proof::<Sha256, _, _>(&proof, location, &[operation], root)
        })
    }
}

/// What [`Any::prove`](Peer::prove) encoded.
fn shown(proof: &[u8]) -> Result<(Location<mmb::Family>, Proof<mmb::Family, Digest>, Operation)> {
    let mut bytes = Copying(proof);
    let location = Location::read(&mut bytes)?;
    let proof = Proof::read_cfg(&mut bytes, &MAX_PROOF_DIGESTS_PER_ELEMENT)?;
    Ok((location, proof, Operation::decode(bytes)?))
}

impl Current {
    fn db(&self) -> Result<&CurrentDb> {
        self.0.as_ref().context("an earlier commit failed")
    }
}

impl Any {
    fn db(&self) -> Result<&AnyDb> {
        self.0.as_ref().context("an earlier commit failed")
    }
}

/// The same for both kinds: the second is the first with one more file.
fn config<C: From<CurrentConfig>>(context: &Context) -> C {
    let threads = thread::available_parallelism().unwrap_or(NZUsize!(1));
    let page_cache = CacheRef::new(PAGE_BYTES, CACHE_PAGES);
    let config = CurrentConfig {
        merkle_config: full::Config {
            journal_partition: "merkle-journal".into(),
            metadata_partition: "merkle-metadata".into(),
            items_per_blob: ITEMS_PER_BLOB,
            write_buffer: BUFFER_BYTES,
            replay_buffer: BUFFER_BYTES,
            strategy: context.strategy(threads),
            page_cache: page_cache.clone(),
        },
        journal_config: fixed::Config {
            partition: "log-journal".into(),
            items_per_blob: ITEMS_PER_BLOB,
            page_cache,
            write_buffer: BUFFER_BYTES,
            replay_buffer: BUFFER_BYTES,
        },
        grafted_metadata_partition: "grafted-metadata".into(),
        translator: EightCap,
        init_cache: Some(INIT_CACHE),
        init_buffer: BUFFER_BYTES,
        init_concurrency: (),
    };
    config.into()
}

type CurrentConfig = current::FixedConfig<EightCap, Rayon>;
