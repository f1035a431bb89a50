//! Lineages: which frames the trees that live still need.
//!
//! Trees of one lineage follow one another. A page lives from the tree that it was made for up to the tree that
//! replaced it, that one excluded: its frame is free when no tree between the two is held any more. So a tree that
//! goes need not be walked, only the list of what was replaced behind it.
//!
//! ```text
//! trees     4       7   8       9        7 goes: of the pages replaced for 8, those made behind 4 go too;
//! pages     a-------------|              a stays for 4, b was for 7 alone
//!                   b---|
//! ```
//!
//! A tree that is made from another than the newest one begins a lineage of its own, which holds that other tree.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

use super::{FrameId, Page, PageId, Pages, frames::Frames, memory::Spare};
use crate::{
    Error,
    record::{self, StoredValue},
};

/// Trees that follow one another.
#[derive(Debug)]
struct Lineage {
    frames: Arc<Frames>,
    /// The tree of another lineage from which this one began.
    base: Option<Arc<Lease>>,
    trees: Mutex<Trees>,
    /// Held while frames are made free, before `trees` is.
    dead: Mutex<Dead>,
}

/// The stored pages that trees have replaced, as far as nobody was told.
#[derive(Debug, Default)]
struct Dead {
    /// Each with the number of the tree that has replaced it.
    pages: Vec<(u64, PageId)>,
    /// What trees up to this one have replaced was told.
    told: u64,
}

#[derive(Debug, Default)]
struct Trees {
    /// The numbers of those that are held.
    living: BTreeSet<u64>,
    /// What each of them, or one that is gone, has replaced of those before it, if that is still needed.
    replaced: BTreeMap<u64, Vec<FrameId>>,
}

impl Lineage {
    fn trees(&self) -> MutexGuard<'_, Trees> {
        self.trees.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn dead(&self) -> MutexGuard<'_, Dead> {
        self.dead.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of the tree from which it began: all frames up to it belong to others.
    fn start(&self) -> u64 {
        self.base.as_ref().map_or(0, |base| base.number)
    }
}

/// A tree's hold on its frames: dropped, it makes those free that were for this tree alone.
#[derive(Debug)]
pub(crate) struct Lease {
    number: u64,
    top: Option<FrameId>,
    /// The page in that frame, once it was read: all readers of a tree begin there, and need not wait for one another.
    top_page: OnceLock<Page>,
    /// Bytes of the pages that were made for it; and of those that it replaced, as far as they were in memory.
    made_bytes: usize,
    replaced_bytes: usize,
    /// The values on their own that it replaced or removed.
    replaced_values: Vec<StoredValue>,
    lineage: Arc<Lineage>,
}

impl Lease {
    /// Of a tree whose pages are all in storage, the top one at `top`; and the frame of that one.
    pub(super) fn of_stored(pages: &Pages, top: PageId) -> (Arc<Self>, FrameId) {
        let draft = Draft::begin(pages, None, 0);
        let top = pages.frames().stored(top, draft.number);
        (draft.finish(Some(top)).0, top)
    }

    /// The top page, which `open` reads if need be.
    pub(super) fn top_page(
        &self,
        open: impl FnOnce() -> Result<Page, Error>,
    ) -> Result<&Page, Error> {
        match self.top_page.get() {
            Some(page) => Ok(page),
            None => open().map(|page| self.top_page.get_or_init(|| page)),
        }
    }

    /// The top page, if it was read before.
    pub(super) fn top_page_near(&self) -> Option<&Page> {
        self.top_page.get()
    }

    /// Bytes of the pages that were made for it.
    pub(super) fn made_bytes(&self) -> usize {
        self.made_bytes
    }

    /// Bytes of the pages that it replaced, as far as they were in memory.
    pub(super) fn replaced_bytes(&self) -> usize {
        self.replaced_bytes
    }

    /// The values on their own that the tree before it had and it has not, in no order.
    pub(super) fn replaced_values(&self) -> &[StoredValue] {
        &self.replaced_values
    }

    /// The number of its tree, which is larger than those of all before it.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// The number of the oldest tree of its lineage that is held.
    pub(super) fn oldest(&self) -> u64 {
        *self.lineage.trees().living.first().expect("its own is")
    }

    /// Where pages were stored that this tree and those before it have replaced, each told once; those that older trees
    /// are held for are told too.
    pub(super) fn take_dead(&self) -> Vec<PageId> {
        let mut dead = self.lineage.dead();
        let gone = dead.pages.extract_if(.., |(number, _)| *number <= self.number);
        let mut pages = gone.map(|(_, id)| id).collect::<Vec<_>>();
        if dead.told < self.number {
            let trees = self.lineage.trees();
            let frames = &self.lineage.frames;
            for (_, replaced) in trees.replaced.range(dead.told + 1..=self.number) {
                frames.touch(replaced);
                pages.extend(replaced.iter().filter_map(|frame| frames.lock(*frame).id));
            }
            dead.told = self.number;
        }
        pages
    }

    /// How many lineages its own is away from the first.
    pub(super) fn depth(&self) -> usize {
        std::iter::successors(Some(self), |lease| lease.lineage.base.as_deref()).count() - 1
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        // Its memory is for the next page of the frame.
        self.top_page.take();
        let mut dead = self.lineage.dead();
        let mut trees = self.lineage.trees();
        trees.living.remove(&self.number);
        let before = trees.living.range(..self.number).next_back().copied();
        let behind = trees.living.range(self.number..).next().copied();
        let before_is_held = before.is_some();
        let before = before.unwrap_or_else(|| self.lineage.start());
        let frames = &*self.lineage.frames;
        // The frames that go, by the tree that has replaced their pages; by none, if those go with this tree.
        let mut gone = Vec::new();
        if let Some(behind) = behind {
            let numbers = trees.replaced.range(self.number + 1..=behind).map(|(number, _)| *number);
            for number in numbers.collect::<Vec<_>>() {
                let mut replaced = trees.replaced.remove(&number).expect("it was found");
                if before_is_held {
                    frames.touch(&replaced);
                    let is_gone = |frame: &mut FrameId| frames.lock(*frame).born > before;
                    gone.push((number, replaced.extract_if(.., is_gone).collect()));
                    if !replaced.is_empty() {
                        replaced.shrink_to_fit();
                        trees.replaced.insert(number, replaced);
                    }
                } else {
                    gone.push((number, replaced));
                }
            }
        } else {
            // What it replaced is in place again in the tree before it.
            trees.replaced.split_off(&(before + 1));
            dead.pages.retain(|(number, _)| *number <= before);
            let made = self.top.into_iter().flat_map(|top| frames.made_after(top, before));
            gone.push((0, made.collect()));
        }
        drop(trees);
        for (number, gone) in gone {
            let stored = frames.release(&gone);
            if number > dead.told {
                dead.pages.extend(stored.into_iter().map(|id| (number, id)));
            }
        }
    }
}

/// A tree that is being made. Dropped before it is finished, it leaves nothing behind.
pub(super) struct Draft<'a> {
    pages: &'a Pages,
    number: u64,
    lineage: Arc<Lineage>,
    /// One for each thread of the pool, and one for those that are none of it.
    shares: Vec<Share>,
    /// How many free frames, and how much memory of one size, are taken at once.
    taken: usize,
    /// In how many bytes it is noted what the keys that are written had before, if it is.
    undo_bytes_max: Option<usize>,
    finished: bool,
}

/// What one thread has done; no two of them share a line of the cache.
#[repr(align(128))]
#[derive(Default)]
struct Share(Mutex<Done>);

#[derive(Default)]
struct Done {
    /// Free frames and memory at hand.
    free: Vec<FrameId>,
    spare: Spare,
    /// The frames of the pages that were made; and the bytes of memory that these have.
    made: Vec<FrameId>,
    made_bytes: usize,
    /// Those of the pages that the tree has no more need of; and the bytes of memory that these had.
    replaced: Vec<FrameId>,
    replaced_bytes: usize,
    /// The values on their own that it has no more need of.
    replaced_values: Vec<StoredValue>,
    /// What leads back to the tree before, in no order; or nothing, since it was too much.
    undo: Vec<u8>,
    is_too_much: bool,
}

/// How many free frames, and memory for how many pages of one size, a thread takes at once, at most.
const TAKEN_MAX: usize = 16;
/// How many bytes of memory, at most, if for more than one page.
const TAKEN_BYTES_MAX: usize = 64 << 10;

impl<'a> Draft<'a> {
    /// Begins a tree that follows the one of `base`, which must be held meanwhile, after so many writes.
    pub(super) fn begin(pages: &'a Pages, base: Option<&Arc<Lease>>, writes: usize) -> Self {
        let (number, lineage) = Self::follow(pages.frames(), base);
        let shares =
            (0..=pages.threads().current_num_threads()).map(|_| Share::default()).collect();
        let taken = (writes / 64).clamp(1, TAKEN_MAX);
        Draft { pages, number, lineage, shares, taken, undo_bytes_max: None, finished: false }
    }

    /// The same, which is going to tell what leads back, if that takes no more than so many bytes.
    pub(super) fn undoable(mut self, bytes_max: usize) -> Self {
        self.undo_bytes_max = Some(bytes_max);
        self
    }

    /// The number and the lineage of a tree that follows that of `base`.
    fn follow(frames: &Arc<Frames>, base: Option<&Arc<Lease>>) -> (u64, Arc<Lineage>) {
        if let Some(Lease { number: newest, lineage, .. }) = base.map(|base| &**base) {
            let mut trees = lineage.trees();
            if trees.living.last() == Some(newest) {
                let number = frames.next_tree();
                trees.living.insert(number);
                return (number, lineage.clone());
            }
        }
        let number = frames.next_tree();
        let trees = Trees { living: [number].into(), replaced: BTreeMap::new() };
        let (trees, dead, base) = (trees.into(), Mutex::default(), base.cloned());
        (number, Lineage { frames: frames.clone(), base, trees, dead }.into())
    }

    pub(super) fn pages(&self) -> &'a Pages {
        self.pages
    }

    fn share(&self) -> MutexGuard<'_, Done> {
        let thread = rayon::current_thread_index().map_or(0, |thread| thread + 1);
        // A thread of another pool shares with others.
        let share = &self.shares[thread.min(self.shares.len() - 1)];
        share.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a page of so many bytes.
    pub(super) fn page(&self, length: usize, write: impl FnOnce(Arc<[u8]>) -> Page) -> FrameId {
        let (frame, memory) = self.place(length);
        let bytes = memory.len();
        self.pages.frames().put(frame, write(memory), self.number);
        let mut share = self.share();
        share.made.push(frame);
        share.made_bytes += bytes;
        frame
    }

    /// A free frame, and memory for a page of so many bytes.
    fn place(&self, length: usize) -> (FrameId, Arc<[u8]>) {
        let mut share = self.share();
        let memory = share.spare.pop(length).unwrap_or_else(|| {
            let count = self.taken.min(TAKEN_BYTES_MAX / length).max(1);
            let mut taken = self.pages.memory(length, count).into_iter();
            let first = taken.next().expect("at least one is taken");
            taken.for_each(|memory| share.spare.push(memory));
            first
        });
        let frame = share.free.pop().unwrap_or_else(|| {
            share.free = self.pages.frames().take(self.taken);
            share.free.pop().expect("at least one is taken")
        });
        (frame, memory)
    }

    /// Notes that the tree has no more need of a page of the one before it, which has so many bytes of memory.
    pub(super) fn replace(&self, frame: FrameId, bytes: usize) {
        let mut share = self.share();
        share.replaced.push(frame);
        share.replaced_bytes += bytes;
    }

    /// Notes that the tree has no more need of a value on its own.
    pub(super) fn replace_value(&self, value: StoredValue) {
        self.share().replaced_values.push(value);
    }

    /// Notes what a key that is written has in the tree before.
    pub(super) fn undo(&self, key: &[u8], before: Option<record::Value<'_>>) {
        let Some(bytes_max) = self.undo_bytes_max else { return };
        let mut share = self.share();
        if !share.is_too_much {
            record::append_change(&mut share.undo, &record::Change { key, value: before });
            if share.undo.len() > bytes_max {
                (share.undo, share.is_too_much) = (Vec::new(), true);
            }
        }
    }

    /// Gives back the free frames and the memory that are left, and tells what was done.
    fn end(&mut self) -> impl Iterator<Item = Done> {
        let frames = self.pages.frames();
        self.shares.drain(..).map(|Share(done)| {
            let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
            frames.give_back(&done.free);
            frames.memory().give_back(std::mem::take(&mut done.spare));
            done
        })
    }

    /// Finishes the tree, whose top page is in the frame `top`. Gives also what leads back, if that was asked for
    /// and is not too much: changes, one behind the other.
    pub(super) fn finish(mut self, top: Option<FrameId>) -> (Arc<Lease>, Option<Vec<u8>>) {
        self.finished = true;
        let (mut replaced, mut replaced_values) = (Vec::new(), Vec::new());
        let (mut made_bytes, mut replaced_bytes) = (0, 0);
        let mut undo = self.undo_bytes_max.map(|_| Vec::new());
        for done in self.end() {
            replaced.extend(done.replaced);
            replaced_values.extend(done.replaced_values);
            match &mut undo {
                Some(_) if done.is_too_much => undo = None,
                Some(undo) if undo.is_empty() => *undo = done.undo,
                Some(undo) => undo.extend(done.undo),
                None => {}
            }
            made_bytes += done.made_bytes;
            replaced_bytes += done.replaced_bytes;
        }
        let start = self.lineage.start();
        if start > 0 {
            // Those of other lineages are theirs.
            replaced.retain(|frame| self.pages.frames().lock(*frame).born > start);
        }
        if !replaced.is_empty() {
            self.lineage.trees().replaced.insert(self.number, replaced);
        }
        let (number, lineage, top_page) = (self.number, self.lineage.clone(), OnceLock::new());
        let lease =
            Lease { number, top, top_page, made_bytes, replaced_bytes, replaced_values, lineage };
        let fits = |undo: &Vec<u8>| self.undo_bytes_max.is_some_and(|max| undo.len() <= max);
        (lease.into(), undo.filter(fits))
    }
}

impl Drop for Draft<'_> {
    fn drop(&mut self) {
        if !self.finished {
            self.lineage.trees().living.remove(&self.number);
            let frames = self.pages.frames();
            self.end().for_each(|done| drop(frames.release(&done.made)));
        }
    }
}

#[cfg(test)]
mod tests {
    //! Trees that come and go in any order, beside a map of each: all their pages are there, and no frame is in
    //! use in the end.

    use std::collections::BTreeMap;

    use anwansi_proofs::{Question, prove};
    use bytes::Bytes;
    use fastrand::Rng;

    use super::*;
    use crate::{
        engine::{Batch, Direction, Engine, Keyspace, Memory},
        record,
        segments::Image,
        tree::{Near, Slot, Source, Tree, Value, Write},
    };

    type Model = BTreeMap<Bytes, Bytes>;

    /// Stores the pages of a tree that are not, each in a chunk of its own, and gives the record of that.
    fn flush(engine: &Memory, pages: &Pages, tree: &Tree, chunk: &mut u32) -> Vec<u8> {
        fn store(engine: &Memory, pages: &Pages, frame: FrameId, chunk: &mut u32) {
            let Some(page) = pages.unstored(frame) else { return };
            page.frames().for_each(|below| store(engine, pages, below, chunk));
            let bytes = page.encode(&|frame| pages.id(frame).unwrap());
            *chunk += 1;
            let length = u32::try_from(bytes.len()).unwrap();
            let mut batch = Batch::new();
            batch.put(Keyspace::Pages, PageId::chunk_key(1, *chunk).to_vec(), bytes);
            engine.write(batch).unwrap();
            pages.stored(frame, PageId { epoch: 1, chunk: *chunk, offset: 0, length });
        }
        let top = tree.top.as_ref();
        top.and_then(Slot::frame).into_iter().for_each(|top| store(engine, pages, top, chunk));
        let top = top.map(|top| top.to_record(|frame| pages.id(frame).unwrap()));
        let (entries, bytes) = (tree.entries, tree.bytes);
        let image = Image { epoch: 1, chunks: *chunk };
        record::encode(&record::Flush { top, entries, bytes, image, since: 0 })
    }

    fn any_writes(rng: &mut Rng) -> Vec<Write> {
        let most = *rng.choice(&[2, 20, 200]).unwrap();
        let writes = (0..rng.usize(0..most)).map(|_| {
            let key = Bytes::from(rng.u16(0..400).to_be_bytes().to_vec());
            let value = rng.u8(..).checked_sub(100).map(|byte| vec![byte; rng.usize(0..40)].into());
            (key, value)
        });
        let writes = writes.collect::<BTreeMap<_, Option<Bytes>>>().into_iter();
        writes.map(|(key, value)| Write { key, value: value.map(Value::Inline) }).collect()
    }

    fn after(model: &Model, writes: &[Write]) -> Model {
        let mut model = model.clone();
        for write in writes {
            match &write.value {
                Some(Value::Inline(value)) => drop(model.insert(write.key.clone(), value.clone())),
                Some(Value::Stored(_)) => unreachable!("values are short"),
                None => drop(model.remove(&write.key)),
            }
        }
        model
    }

    fn content(pages: &Pages, tree: &Tree) -> Model {
        let entries = tree.range(pages, Bytes::new(), None, Direction::Ascending);
        let entry = |entry: crate::tree::Entry| match entry.value {
            Value::Inline(value) => (entry.key, value),
            Value::Stored(_) => unreachable!("values are short"),
        };
        entries.map(|read| entry(read.unwrap())).collect()
    }

    #[test]
    fn trees_have_their_pages_until_they_go_and_no_longer() {
        for seed in 0..150 {
            let mut rng = Rng::with_seed(seed);
            let engine = Arc::new(Memory::new());
            // With little memory pages are dropped as soon as they are stored.
            let bytes_max = *rng.choice(&[4 << 10, 64 << 10, 16 << 20]).unwrap();
            let pages = Pages::on_two_threads(engine.clone(), bytes_max);
            let (mut chunk, mut flushes) = (0, Vec::new());
            let mut trees = vec![(Tree::default(), Model::new())];
            for _ in 0..120 {
                let at = if rng.bool() { trees.len() - 1 } else { rng.usize(..trees.len()) };
                match rng.u8(..12) {
                    0..5 => {
                        let writes = any_writes(&mut rng);
                        let (tree, model) = &trees[at];
                        let next = tree.update(&pages, &writes).unwrap();
                        trees.push((next, after(model, &writes)));
                    }
                    5..7 if trees.len() > 1 => drop(trees.swap_remove(at)),
                    7 if trees.len() > 1 => drop(trees.remove(0)),
                    8 => {
                        let record = flush(&engine, &pages, &trees[at].0, &mut chunk);
                        flushes.push((record, trees[at].1.clone()));
                    }
                    9 if !flushes.is_empty() => {
                        let (record, model) = &flushes[rng.usize(..flushes.len())];
                        let record = record::decode(record, crate::Damage::Manifest).unwrap();
                        trees.push((Tree::stored(&pages, &record).unwrap(), model.clone()));
                    }
                    _ => {
                        let (tree, model) = &trees[at];
                        assert_eq!(content(&pages, tree), *model, "seed {seed}");
                    }
                }
            }
            for (tree, model) in &trees {
                assert_eq!(content(&pages, tree), *model, "seed {seed}");
            }
            rng.shuffle(&mut trees);
            trees.clear();
            assert_eq!(pages.frames().in_use(), 0, "seed {seed}");
            assert_eq!(pages.frames().droppable(), 0, "seed {seed}");
            let memory = pages.frames().memory();
            assert_eq!(memory.used(), 0, "seed {seed}");
            assert!(memory.spare() <= bytes_max, "seed {seed}");
        }
    }

    #[test]
    fn pages_and_what_is_spare_keep_to_the_budget() {
        let (engine, bytes_max) = (Arc::new(Memory::new()), 512 << 10);
        let pages = Pages::on_two_threads(engine.clone(), bytes_max);
        let mut rng = Rng::with_seed(4);
        let write = |key: u16, length: usize| {
            let value = Value::Inline(vec![7; length].into());
            Write { key: key.to_be_bytes().to_vec().into(), value: Some(value) }
        };
        let (mut tree, mut chunk) = (Tree::default(), 0);
        let (mut bytes_seen, mut tree_bytes) = (0, 0);
        for round in 0..400 {
            // First it grows beyond twice the budget, with ever longer values; then these become short again.
            let length = if round < 300 { round } else { 20 };
            let keys =
                (0..32).map(|_| rng.u16(..10_000)).collect::<std::collections::BTreeSet<_>>();
            let writes = keys.into_iter().map(|key| write(key, length)).collect::<Vec<_>>();
            tree = tree.update(&pages, &writes).unwrap();
            for _ in 0..20 {
                tree.find(&pages, &rng.u16(..10_000).to_be_bytes()).unwrap();
            }
            let memory = pages.frames().memory();
            let bytes = memory.used() + memory.spare();
            assert!(bytes <= bytes_max, "{bytes} in round {round}");
            (bytes_seen, tree_bytes) = (bytes_seen.max(bytes), tree.bytes.max(tree_bytes));
            flush(&engine, &pages, &tree, &mut chunk);
        }
        assert!(tree_bytes > 2 * bytes_max as u64 && bytes_seen > bytes_max / 10 * 9);
    }

    #[test]
    fn tree_is_near_though_its_top_page_has_left_its_frame() {
        let engine = Arc::new(Memory::new());
        let pages = Pages::on_two_threads(engine.clone(), 1 << 20);
        let write = |key: u16| {
            let key = Bytes::from(key.to_be_bytes().to_vec());
            Write { value: Some(Value::Inline(key.clone())), key }
        };
        let writes = (0..2000).map(write).collect::<Vec<_>>();
        let tree = Tree::default().update(&pages, &writes).unwrap();
        flush(&engine, &pages, &tree, &mut 0);
        let question = Question::default().key(&writes[7].key);
        let near = || prove(&Near::new(Source { tree: &tree, pages: &pages }, 64), &question).ok();
        let evict = |frame| {
            let mut spare = Spare::default();
            pages.frames().evict(&mut pages.frames().lock(frame), &mut spare);
            pages.frames().memory().give_back(spare);
        };
        let top = tree.top.as_ref().and_then(Slot::frame).unwrap();
        evict(top);
        assert_eq!(near(), None);
        let proof = prove(&Source { tree: &tree, pages: &pages }, &question).unwrap();
        evict(top);
        assert_eq!(near(), Some(proof));
    }

    #[test]
    fn update_that_fails_leaves_no_frame_and_the_tree_as_it_was() {
        let engine = Arc::new(Memory::new());
        let pages = Pages::on_two_threads(engine.clone(), 1 << 20);
        let write = |key: u16, value: &'static str| {
            let (key, value) = (Bytes::from(key.to_be_bytes().to_vec()), Bytes::from(value));
            Write { key, value: Some(Value::Inline(value)) }
        };
        let writes = (0..2000).map(|key| write(key, "old")).collect::<Vec<_>>();
        let tree = Tree::default().update(&pages, &writes).unwrap();
        let record = flush(&engine, &pages, &tree, &mut 0);
        drop(tree);
        let read = |pages| {
            let record = record::decode(&record, crate::Damage::Manifest).unwrap();
            Tree::stored(pages, &record).unwrap()
        };
        let tree = read(&pages);
        let whole = content(&pages, &tree);
        let in_use = pages.frames().in_use();
        // The first page that was stored is one of the lowest.
        let mut batch = Batch::new();
        batch.delete(Keyspace::Pages, PageId::chunk_key(1, 1).to_vec());
        engine.write(batch).unwrap();
        let damaged = Pages::on_two_threads(engine.clone(), 1 << 20);
        let again = read(&damaged);
        let all = (0..2000).map(|key| write(key, "new")).collect::<Vec<_>>();
        assert!(again.update(&damaged, &all).is_err());
        let next = again.update(&damaged, &all[1990..]).unwrap();
        assert!(next.find(&damaged, &all[1999].key).unwrap().is_some());
        drop((next, again));
        assert_eq!(damaged.frames().in_use(), 0);
        // What is in memory needs no storage.
        assert_eq!(content(&pages, &tree), whole);
        assert_eq!(pages.frames().in_use(), in_use);
    }
}
