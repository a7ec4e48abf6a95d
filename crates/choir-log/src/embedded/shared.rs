//! What the threads of an open log share, and how it is read.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use choir_core::record::Record;
use choir_protocol::entry::Kind;
use choir_protocol::hash::Hash;
use choir_protocol::ids::{Id, LogId, Seq, ThreadId};
use choir_protocol::merkle::Nodes;

use super::Options;
use super::directory::{Directory, Paths};
use super::disk::Disk;
use super::index::{Committed, IdRow, Index, IndexError, ThreadHead};
use super::oneshot::Sender;
use super::overlay::{LiveEntry, Overlay};
use super::pool::Pool;
use super::reader::Segments;
use super::states::States;
use super::writer::Queue;
use crate::{Found, Head, ReadError, ReadLimit, Stats};

/// For how long a write that was refused for want of room says something of the next.
const FULL_COUNTS_FOR: Duration = Duration::from_secs(10);

/// An open log.
pub(crate) struct Shared {
    pub(crate) options: Options,
    pub(crate) log_id: LogId,
    pub(crate) paths: Paths,
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) segments: Segments,
    pub(crate) queue: Queue,
    pub(crate) pool: Pool,
    pub(crate) states: States,
    pub(crate) counters: Counters,
    // None once the log is closed. Reads hold it for as long as they use it.
    index: RwLock<Option<Index>>,
    live: Mutex<Live>,
    // Something for the indexer.
    work: Condvar,
    // The index has come further, or never will.
    progress: Condvar,
    latch: Mutex<Option<String>>,
    /// Why the last write was refused for want of room, and when; none once one succeeded.
    full: Mutex<Option<(String, Instant)>>,
    end: Mutex<Ending>,
}

/// What the indexer and those who wait for it look at.
pub(crate) struct Live {
    pub(crate) overlay: Overlay,
    pub(crate) saves: HashMap<ThreadId, (Seq, Vec<u8>)>,
    saves_bytes: usize,
    /// Nothing more will be published.
    finished: bool,
    /// Nothing more will be indexed.
    stuck: Option<String>,
    /// Who waits for the index to have come so far.
    waiting: Vec<(u64, Sender<()>)>,
}

#[derive(Default)]
struct Ending {
    // The lock on the directory, until the end.
    directory: Option<Directory>,
    over: bool,
    waiting: Vec<Sender<()>>,
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) appends: AtomicU64,
    pub(crate) entries: AtomicU64,
    pub(crate) puts: AtomicU64,
    pub(crate) batches: AtomicU64,
    pub(crate) fsyncs: AtomicU64,
    pub(crate) bytes: AtomicU64,
}

/// What the indexer does next.
pub(crate) enum Work {
    Index(Vec<Arc<Committed>>),
    Save(ThreadId, Seq, Vec<u8>),
    Nothing,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic under one of these locks latches the log (see the ends of writer and indexer), and reads go on with what is consistent.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub(crate) fn new(options: Options, directory: Directory, disk: Arc<dyn Disk>, index: Index, batch: u64) -> Self {
        let paths = directory.paths().clone();
        Self {
            log_id: directory.log_id(),
            segments: Segments::new(paths.clone(), Arc::clone(&disk)),
            queue: Queue::new(options.max_queued_appends, options.max_queued_bytes),
            pool: Pool::new(),
            states: States::new(paths.states()),
            counters: Counters::default(),
            index: RwLock::new(Some(index)),
            live: Mutex::new(Live {
                overlay: Overlay::new(batch, options.cached_heads),
                saves: HashMap::new(),
                saves_bytes: 0,
                finished: false,
                stuck: None,
                waiting: Vec::new(),
            }),
            work: Condvar::new(),
            progress: Condvar::new(),
            latch: Mutex::default(),
            full: Mutex::default(),
            end: Mutex::new(Ending {
                directory: Some(directory),
                ..Ending::default()
            }),
            options,
            paths,
            disk,
        }
    }

    pub(crate) fn live(&self) -> MutexGuard<'_, Live> {
        lock(&self.live)
    }

    /// Why no append can succeed any more.
    pub(crate) fn latched(&self) -> Option<String> {
        lock(&self.latch).clone()
    }

    /// Why writes are refused at the moment, for want of room. Who looks at that may be who sends the writes, so it counts for a while only: then it is tried again.
    pub(crate) fn full(&self) -> Option<String> {
        let full = lock(&self.full);
        full.as_ref()
            .filter(|(_, at)| at.elapsed() < FULL_COUNTS_FOR)
            .map(|(reason, _)| reason.clone())
    }

    /// A write was refused for want of room, or succeeded.
    pub(crate) fn note_room(&self, refused: Option<&str>) {
        *lock(&self.full) = refused.map(|reason| (reason.to_owned(), Instant::now()));
    }

    /// Takes no more appends until the log is reopened.
    pub(crate) fn latch(&self, reason: &str) {
        let mut latch = lock(&self.latch);
        if latch.is_none() {
            tracing::error!(reason, "the log takes no more appends until it is reopened");
            *latch = Some(reason.into());
        }
    }

    /// Makes a batch that is durable visible.
    pub(crate) fn publish(&self, committed: Committed, heads: HashMap<ThreadId, ThreadHead>) {
        self.live().overlay.publish(Arc::new(committed), heads);
        self.work.notify_one();
    }

    /// Holds the writer back while too much waits for the index.
    pub(crate) fn wait_for_index(&self, max_bytes: usize) {
        let mut live = self.live();
        while live.overlay.waiting_bytes() > max_bytes && live.stuck.is_none() {
            live = self.progress.wait(live).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Drops `waiting` once the index has taken up everything that is visible now, or never will. Returns how far it is to come: [`Shared::is_indexed`].
    pub(crate) fn when_indexed(&self, waiting: Sender<()>) -> u64 {
        let mut live = self.live();
        let target = live.overlay.published();
        if live.overlay.indexed() < target && live.stuck.is_none() {
            live.waiting.push((target, waiting));
        }
        target
    }

    /// Whether the index has come that far.
    pub(crate) fn is_indexed(&self, target: u64) -> Result<(), ReadError> {
        let live = self.live();
        if live.overlay.indexed() >= target {
            return Ok(());
        }
        let reason = live.stuck.clone().unwrap_or_else(|| "the index is behind".into());
        Err(ReadError::Index { reason })
    }

    /// Says that nothing more will be published: the indexer finishes and ends.
    pub(crate) fn finish_index(&self) {
        self.live().finished = true;
        self.work.notify_all();
    }

    /// Waits for something for the indexer to do.
    pub(crate) fn next_work(&self) -> Work {
        let mut live = self.live();
        loop {
            if !live.overlay.is_indexed() {
                return Work::Index(live.overlay.to_index(INDEX_BYTES));
            }
            if let Some(thread) = live.saves.keys().next().copied()
                && let Some((seq, state)) = live.saves.remove(&thread)
            {
                live.saves_bytes -= state.len();
                return Work::Save(thread, seq, state);
            }
            if live.finished {
                return Work::Nothing;
            }
            live = self.work.wait(live).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Waits until nothing more will be published.
    pub(crate) fn wait_for_end(&self) {
        let mut live = self.live();
        while !live.finished {
            live = self.work.wait(live).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The index has taken up the oldest batches.
    pub(crate) fn indexed(&self, count: usize) {
        let mut live = self.live();
        live.overlay.retire(count);
        let indexed = live.overlay.indexed();
        let (done, waiting) = std::mem::take(&mut live.waiting)
            .into_iter()
            .partition(|(target, _)| *target <= indexed);
        live.waiting = waiting;
        drop(live);
        self.progress.notify_all();
        // Whoever waits is woken by that, and without the lock.
        let _: Vec<_> = done;
    }

    /// The index can't go on.
    pub(crate) fn stuck(&self, reason: &str) {
        let mut live = self.live();
        live.stuck = Some(reason.into());
        let waiting = std::mem::take(&mut live.waiting);
        drop(live);
        self.progress.notify_all();
        drop(waiting);
    }

    /// Hands a state to the indexer, which has time for it when it has nothing else; forgets it where too much waits.
    pub(crate) fn save_state(&self, thread: ThreadId, seq: Seq, state: Vec<u8>) {
        let mut live = self.live();
        let replaced = live.saves.get(&thread).map_or(0, |(_, state)| state.len());
        let bytes = live.saves_bytes - replaced + state.len();
        if live.finished || bytes > MAX_SAVES_BYTES {
            return;
        }
        live.saves_bytes = bytes;
        live.saves.insert(thread, (seq, state));
        drop(live);
        self.work.notify_one();
    }

    /// Says that the index must be rebuilt when the log is opened next.
    pub(crate) fn distrust_index(&self, reason: &str) {
        tracing::error!(
            reason,
            "the index is damaged; it will be rebuilt from the log when that is opened next"
        );
        // How far it had come still tells a torn tail from damage.
        if let Err(error) = fs::write(self.paths.index_rebuild(), self.live().overlay.indexed().to_string()) {
            tracing::error!(%error, "the index could not be marked; delete the directory `index` before the next start");
        }
    }

    /// Reads with the index.
    pub(crate) fn with_index<T>(&self, read: impl FnOnce(&Index) -> Result<T, ReadError>) -> Result<T, ReadError> {
        let index = self.index.read().unwrap_or_else(PoisonError::into_inner);
        let answer = read(index.as_ref().ok_or(ReadError::Closed)?);
        if let Err(ReadError::Index { reason }) = &answer {
            self.distrust_index(reason);
        }
        answer
    }

    /// Closes everything. Called by the last thread to end.
    pub(crate) fn finish(&self) {
        self.pool.close();
        let index = self.index.write().unwrap_or_else(PoisonError::into_inner).take();
        drop(index);
        self.segments.close();
        let stats = self.stats();
        let per_1000 = stats.fsyncs_per_1000_entries().unwrap_or_default();
        tracing::info!(
            entries = stats.entries,
            fsyncs = stats.fsyncs,
            fsyncs_per_1000_entries = per_1000,
            "the log is closed"
        );
        let waiting = {
            let mut end = lock(&self.end);
            end.over = true;
            end.directory = None;
            std::mem::take(&mut end.waiting)
        };
        for waiting in waiting {
            waiting.send(());
        }
    }

    /// Tells `waiting` when the log is closed.
    pub(crate) fn when_over(&self, waiting: Sender<()>) {
        let mut end = lock(&self.end);
        if end.over {
            drop(end);
            waiting.send(());
        } else {
            end.waiting.push(waiting);
        }
    }

    pub(crate) fn stats(&self) -> Stats {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let Counters {
            appends,
            entries,
            puts,
            batches,
            fsyncs,
            bytes,
        } = &self.counters;
        Stats {
            appends: count(appends),
            entries: count(entries),
            puts: count(puts),
            batches: count(batches),
            fsyncs: count(fsyncs),
            bytes: count(bytes),
        }
    }

    /// A thread's head for the writer, which remembers it. Checked against the log where it comes from the index.
    pub(crate) fn head_for_append(&self, thread: ThreadId) -> Result<Option<ThreadHead>, ReadError> {
        if let Some(head) = self.live().overlay.head(thread) {
            return Ok(Some(head));
        }
        let head = self.with_index(|index| {
            let Some(head) = index.head(thread)? else {
                return Ok(None);
            };
            let seq = head.head.cursor.seq;
            let row = index.entry(thread, seq)?.ok_or_else(|| missing(thread, seq))?;
            let record = self.segments.head(thread, seq, row.location)?;
            // An index that has lost rows must not make the log branch.
            if record.root != head.head.cursor.root || index.entry(thread, seq.next())?.is_some() {
                return Err(IndexError(format!("the head of thread {thread} is not {seq}")).into());
            }
            Ok(Some(head))
        })?;
        if let Some(head) = &head {
            self.live().overlay.remember_head(thread, head.clone());
        }
        Ok(head)
    }

    /// The rows of an id, in order.
    pub(crate) fn ids(&self, thread: ThreadId, id: Id) -> Result<Vec<IdRow>, ReadError> {
        // In this order: what leaves the overlay meanwhile is in the index by then.
        let live = self.live().overlay.ids(thread, id);
        let mut rows: BTreeMap<Seq, IdRow> = live.into_iter().map(|row| (row.seq, row)).collect();
        self.with_index(|index| {
            rows.extend(index.ids(thread, id)?.into_iter().map(|row| (row.seq, row)));
            Ok(())
        })?;
        Ok(rows.into_values().collect())
    }

    /// A thread's head.
    pub(crate) fn head(&self, thread: ThreadId) -> Result<Option<Head>, ReadError> {
        let live = self.live().overlay.head(thread);
        match live {
            Some(head) => Ok(Some(head.head)),
            None => self.with_index(|index| Ok(index.head(thread)?.map(|head| head.head))),
        }
    }

    /// A run, where memory holds all of it that may be answered.
    pub(crate) fn live_run(&self, thread: ThreadId, after: Seq, limit: ReadLimit) -> Option<Vec<Record>> {
        let mut live = self.live();
        if live.overlay.head(thread)?.head.cursor.seq <= after {
            return Some(Vec::new());
        }
        let entries = live.overlay.entries(thread, after, limit.max_entries);
        drop(live);
        let follows = entries.first()?.seq() == after.next();
        let mut run = Vec::new();
        add_live(&mut run, 0, &entries, limit);
        follows.then_some(run)
    }

    /// A run. The index has everything below what memory has.
    pub(crate) fn run(&self, thread: ThreadId, after: Seq, limit: ReadLimit) -> Result<Vec<Record>, ReadError> {
        let max_entries = limit.max_entries;
        let (live, head) = {
            let mut live = self.live();
            (
                live.overlay.entries(thread, after, max_entries),
                live.overlay.head(thread),
            )
        };
        let below = live
            .first()
            .map(|entry| entry.seq().previous())
            .or(head.map(|head| head.head.cursor.seq));
        let wanted = below
            .map_or(max_entries, |below| {
                usize::try_from(below.get().saturating_sub(after.get())).unwrap_or(max_entries)
            })
            .min(max_entries);
        let (mut run, bytes) = if wanted == 0 {
            (Vec::new(), 0)
        } else {
            self.indexed_run(thread, after, wanted, limit.max_bytes)?
        };
        if run.is_empty() && wanted > 0 && below.is_some() {
            return self.with_index(|_| Err(missing(thread, after.next())));
        }
        if run.len() == wanted {
            add_live(&mut run, bytes, &live, limit);
        }
        Ok(run)
    }

    fn indexed_run(
        &self,
        thread: ThreadId,
        after: Seq,
        wanted: usize,
        max_bytes: usize,
    ) -> Result<(Vec<Record>, usize), ReadError> {
        let first = after.next();
        // In this order: what leaves the overlay meanwhile is in the index by then.
        let erased: Vec<_> = {
            let live = self.live();
            (first.get()..)
                .take(wanted)
                .map(|seq| live.overlay.erased_by(thread, Seq::saturating(seq)))
                .collect()
        };
        let mut rows = self.with_index(|index| Ok(index.run(thread, first, wanted, max_bytes)?))?;
        for (row, erased_by) in rows.iter_mut().zip(erased) {
            row.erased_by = row.erased_by.or(erased_by);
        }
        let bytes = rows.iter().map(|row| row.location.extent.bytes()).sum();
        loop {
            match self.segments.run(thread, first, &rows) {
                Err(ReadError::Damaged {
                    file,
                    offset,
                    thread,
                    seq,
                    what,
                }) => {
                    // A body that was overwritten since the rows were read doesn't hold. By now it is known to be erased, and this goes on for as long as it is
                    // another one each time.
                    let row = usize::try_from(seq.get() - first.get())
                        .ok()
                        .and_then(|at| rows.get_mut(at))
                        .filter(|row| row.erased_by.is_none());
                    match (row, self.erased_by(thread, seq)?) {
                        (Some(row), Some(by)) => row.erased_by = Some(by),
                        _ => {
                            return Err(ReadError::Damaged {
                                file,
                                offset,
                                thread,
                                seq,
                                what,
                            });
                        }
                    }
                }
                records => return Ok((records?, bytes)),
            }
        }
    }

    /// What has erased an entry by now.
    fn erased_by(&self, thread: ThreadId, seq: Seq) -> Result<Option<Seq>, ReadError> {
        let live = self.live().overlay.erased_by(thread, seq);
        if live.is_some() {
            return Ok(live);
        }
        self.with_index(|index| Ok(index.entry(thread, seq)?.and_then(|row| row.erased_by)))
    }

    /// An entry, perhaps without its body; none above the head.
    pub(crate) fn entry(&self, thread: ThreadId, seq: Seq) -> Result<Option<Arc<Record>>, ReadError> {
        if seq == Seq::ZERO {
            return Ok(None);
        }
        if let Some(live) = self.live_entry(thread, seq) {
            return Ok(Some(live.into_head()));
        }
        let row = self.with_index(|index| Ok(index.entry(thread, seq)?))?;
        row.map(|row| self.segments.head(thread, seq, row.location).map(Arc::new))
            .transpose()
    }

    fn live_entry(&self, thread: ThreadId, seq: Seq) -> Option<LiveEntry> {
        self.live()
            .overlay
            .entries(thread, seq.previous(), 1)
            .into_iter()
            .find(|entry| entry.seq() == seq)
    }

    pub(crate) fn find(&self, thread: ThreadId, id: Id) -> Result<Vec<Found>, ReadError> {
        let found = self.ids(thread, id)?.into_iter().map(|row| {
            let record = self.entry(thread, row.seq)?.ok_or_else(|| missing(thread, row.seq))?;
            if record.id != id && record.about != Some(id) {
                return self.with_index(|_| {
                    Err(IndexError(format!("entry {} of thread {thread} is not about {id}", row.seq)).into())
                });
            }
            Ok(Found::of(&record))
        });
        found.collect()
    }

    /// How many messages the thread holds up to an entry that it has.
    fn messages(&self, thread: ThreadId, seq: Seq) -> Result<u64, ReadError> {
        if let Some(live) = self.live_entry(thread, seq) {
            return Ok(live.into_head().messages);
        }
        self.with_index(|index| Ok(index.entry(thread, seq)?.ok_or_else(|| missing(thread, seq))?.messages))
    }

    pub(crate) fn messages_at(&self, thread: ThreadId, seq: Seq) -> Result<u64, ReadError> {
        let Some(head) = self.head(thread)? else { return Ok(0) };
        if seq >= head.cursor.seq {
            return Ok(head.messages);
        }
        Ok(self.entry(thread, seq)?.map_or(0, |record| record.messages))
    }

    /// The first entry up to which there are `n` messages.
    pub(crate) fn message_seq(&self, thread: ThreadId, n: u64) -> Result<Option<Seq>, ReadError> {
        let Some(head) = self.head(thread)?.filter(|head| n > 0 && n <= head.messages) else {
            return Ok(None);
        };
        // Below `low` there are fewer, at `high` there are as many.
        let (mut low, mut high) = (n, head.cursor.seq.get());
        while low < high {
            let middle = low + (high - low) / 2;
            if self.messages(thread, Seq::saturating(middle))? < n {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        let seq = Seq::saturating(high);
        // The index led here; what counts is what the entry says.
        let record = self.entry(thread, seq)?.ok_or_else(|| missing(thread, seq))?;
        if record.messages != n || record.kind != Kind::MessagePosted {
            return self
                .with_index(|_| Err(IndexError(format!("message {n} of thread {thread} is not entry {seq}")).into()));
        }
        Ok(Some(seq))
    }

    pub(crate) fn load_state(&self, thread: ThreadId) -> Result<Option<(Seq, Vec<u8>)>, ReadError> {
        let Some((seq, root, state)) = self.states.load(thread) else {
            return Ok(None);
        };
        let live = self.live().overlay.head(thread);
        let head = if live.is_some() {
            live
        } else {
            self.with_index(|index| Ok(index.head(thread)?))?
        };
        let fresh = head.is_some_and(|head| seq >= head.last_redaction && seq <= head.head.cursor.seq);
        // It must be of this history: another one may have been restored beside it.
        let ours = fresh && self.entry(thread, seq)?.is_some_and(|record| record.root == root);
        Ok(ours.then_some((seq, state)))
    }
}

/// The most that the index takes up at once.
const INDEX_BYTES: usize = 4 * 1024 * 1024;
/// The most that waits to be saved.
const MAX_SAVES_BYTES: usize = 16 * 1024 * 1024;

fn missing(thread: ThreadId, seq: Seq) -> ReadError {
    IndexError(format!("entry {seq} of thread {thread} is missing")).into()
}

/// Adds entries that memory holds to a run, as far as its limit allows.
fn add_live(run: &mut Vec<Record>, mut bytes: usize, live: &[LiveEntry], limit: ReadLimit) {
    for entry in live {
        bytes = bytes.saturating_add(entry.bytes());
        if !run.is_empty() && (run.len() >= limit.max_entries || bytes > limit.max_bytes) {
            return;
        }
        run.push(entry.to_record());
    }
}

/// The tree's nodes, which stand with the entries that complete them.
pub(crate) struct StoredNodes<'a> {
    pub(crate) shared: &'a Shared,
    pub(crate) thread: ThreadId,
}

impl Nodes for StoredNodes<'_> {
    type Error = ReadError;
    fn node(&mut self, completed_by: u64, height: u32) -> Result<Hash, ReadError> {
        let seq = Seq::saturating(completed_by);
        let record = self
            .shared
            .entry(self.thread, seq)?
            .ok_or_else(|| missing(self.thread, seq))?;
        record
            .nodes
            .get(height as usize)
            .copied()
            .ok_or_else(|| missing(self.thread, seq))
    }
}
