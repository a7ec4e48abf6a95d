//! What is durable and not in the index yet, kept in memory so that reads see it at once; and the heads of the threads that were appended to lately.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use choir_core::record::Record;
use choir_protocol::entry::Body;
use choir_protocol::ids::{Id, Seq, ThreadId};

use super::index::{Change, Committed, IdRow, Location, ThreadHead};

/// See above. It only ever holds what is durable.
#[derive(Debug)]
pub(crate) struct Overlay {
    threads: HashMap<ThreadId, LiveThread>,
    ids: HashMap<(ThreadId, Id), Vec<IdRow>>,
    erased: HashMap<(ThreadId, Seq), Seq>,
    /// Each with the batch that brought it.
    puts: HashMap<Vec<u8>, (u64, Vec<u8>)>,
    waiting: VecDeque<Arc<Committed>>,
    waiting_bytes: usize,
    heads: HeadCache,
    published: u64,
    indexed: u64,
}

#[derive(Debug)]
struct LiveThread {
    head: ThreadHead,
    // Without a gap up to the head.
    entries: VecDeque<LiveEntry>,
}

/// An entry that is durable and not in the index yet.
#[derive(Debug, Clone)]
pub(crate) struct LiveEntry {
    /// With its body, also where that has been erased since.
    record: Arc<Record>,
    location: Location,
    /// What erased it, as of when this was asked for.
    erased_by: Option<Seq>,
}

impl LiveEntry {
    pub(crate) fn seq(&self) -> Seq {
        self.record.seq
    }

    /// As it stands in the log, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.location.extent.bytes()
    }

    /// The entry with its body, or erased.
    pub(crate) fn to_record(&self) -> Record {
        let mut record = Record::clone(&self.record);
        if let Some(by) = self.erased_by {
            record.body = Body::Erased(by);
        }
        record
    }

    /// The entry for those who don't look at its body.
    pub(crate) fn into_head(self) -> Arc<Record> {
        self.record
    }
}

impl Overlay {
    /// Of a log whose index has taken up everything up to a batch.
    pub(crate) fn new(batch: u64, cached_heads: usize) -> Self {
        Self {
            threads: HashMap::new(),
            ids: HashMap::new(),
            erased: HashMap::new(),
            puts: HashMap::new(),
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            heads: HeadCache {
                young: HashMap::new(),
                old: HashMap::new(),
                capacity: cached_heads.max(2),
            },
            published: batch,
            indexed: batch,
        }
    }

    /// Makes a batch that has become durable visible. `heads` are the threads' heads after it.
    pub(crate) fn publish(&mut self, committed: Arc<Committed>, heads: HashMap<ThreadId, ThreadHead>) {
        for change in &committed.changes {
            match change {
                Change::Append { records, facts } => {
                    let Some(head) = heads.get(&facts.thread) else { continue };
                    let live = self.threads.entry(facts.thread).or_insert_with(|| LiveThread {
                        head: head.clone(),
                        entries: VecDeque::new(),
                    });
                    live.head = head.clone();
                    for (record, location) in records {
                        live.entries.push_back(LiveEntry {
                            record: Arc::clone(record),
                            location: *location,
                            erased_by: None,
                        });
                        for (id, row) in IdRow::of(record) {
                            self.ids.entry((facts.thread, id)).or_default().push(row);
                        }
                    }
                    for (erased, by) in &facts.erase {
                        self.erased.entry((facts.thread, *erased)).or_insert(*by);
                    }
                }
                Change::Put { key, value } => {
                    self.puts.insert(key.clone(), (committed.position.batch, value.clone()));
                }
            }
        }
        self.published = committed.position.batch;
        self.waiting_bytes += committed.bytes;
        self.waiting.push_back(committed);
    }

    /// The oldest batches that aren't in the index yet, about as many as `max_bytes`.
    pub(crate) fn to_index(&self, max_bytes: usize) -> Vec<Arc<Committed>> {
        let mut bytes = 0;
        let fits = |committed: &&Arc<Committed>| {
            let first = bytes == 0;
            bytes += committed.bytes;
            first || bytes <= max_bytes
        };
        self.waiting.iter().take_while(fits).map(Arc::clone).collect()
    }

    /// Forgets the oldest `count` batches, which the index has taken up.
    pub(crate) fn retire(&mut self, count: usize) {
        for committed in self.waiting.drain(..count.min(self.waiting.len())) {
            self.waiting_bytes -= committed.bytes;
            self.indexed = committed.position.batch;
            for change in &committed.changes {
                match change {
                    Change::Append { records, facts } => {
                        for (record, _) in records {
                            for (id, row) in IdRow::of(record) {
                                if let Some(rows) = self.ids.get_mut(&(facts.thread, id)) {
                                    rows.retain(|other| other.seq != row.seq);
                                    if rows.is_empty() {
                                        self.ids.remove(&(facts.thread, id));
                                    }
                                }
                            }
                        }
                        for (erased, _) in &facts.erase {
                            self.erased.remove(&(facts.thread, *erased));
                        }
                        if let Some(live) = self.threads.get_mut(&facts.thread) {
                            live.entries.drain(..records.len().min(live.entries.len()));
                            if live.entries.is_empty()
                                && let Some(live) = self.threads.remove(&facts.thread)
                            {
                                self.heads.insert(facts.thread, live.head);
                            }
                        }
                    }
                    Change::Put { key, .. } => {
                        if self
                            .puts
                            .get(key)
                            .is_some_and(|(batch, _)| *batch == committed.position.batch)
                        {
                            self.puts.remove(key);
                        }
                    }
                }
            }
        }
    }

    /// The thread's head, where it is in memory.
    pub(crate) fn head(&mut self, thread: ThreadId) -> Option<ThreadHead> {
        match self.threads.get(&thread) {
            Some(live) => Some(live.head.clone()),
            None => self.heads.get(thread),
        }
    }

    /// Remembers a head that stands in the index. Only the writer may call this: nobody else knows that it isn't an old one.
    pub(crate) fn remember_head(&mut self, thread: ThreadId, head: ThreadHead) {
        self.heads.insert(thread, head);
    }

    /// The thread's entries above `after` that are in memory; without a gap up to its head.
    pub(crate) fn entries(&self, thread: ThreadId, after: Seq, limit: usize) -> Vec<LiveEntry> {
        let Some(live) = self.threads.get(&thread) else {
            return Vec::new();
        };
        let first = live.entries.front().map_or(0, |entry| entry.record.seq.get());
        let skip = usize::try_from((after.get() + 1).saturating_sub(first)).unwrap_or(usize::MAX);
        let with_erasure = |entry: &LiveEntry| LiveEntry {
            erased_by: self.erased_by(thread, entry.record.seq),
            ..entry.clone()
        };
        live.entries.iter().skip(skip).take(limit).map(with_erasure).collect()
    }

    /// The rows of an id that aren't in the index yet, in order.
    pub(crate) fn ids(&self, thread: ThreadId, id: Id) -> Vec<IdRow> {
        self.ids.get(&(thread, id)).cloned().unwrap_or_default()
    }

    /// What erased the entry, where the index may not know it yet.
    pub(crate) fn erased_by(&self, thread: ThreadId, seq: Seq) -> Option<Seq> {
        self.erased.get(&(thread, seq)).copied()
    }

    pub(crate) fn put_value(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.puts.get(key).map(|(_, value)| value.clone())
    }

    /// How much memory waits for the index.
    pub(crate) fn waiting_bytes(&self) -> usize {
        self.waiting_bytes
    }

    /// Whether the index has taken up everything.
    pub(crate) fn is_indexed(&self) -> bool {
        self.waiting.is_empty()
    }

    /// The last batch that is visible.
    pub(crate) fn published(&self) -> u64 {
        self.published
    }

    /// The last batch that the index has taken up.
    pub(crate) fn indexed(&self) -> u64 {
        self.indexed
    }
}

/// Heads of threads that were used lately, in two generations: when the young one is full it becomes the old one, and what wasn't used since is forgotten.
#[derive(Debug)]
struct HeadCache {
    young: HashMap<ThreadId, ThreadHead>,
    old: HashMap<ThreadId, ThreadHead>,
    capacity: usize,
}

impl HeadCache {
    fn get(&mut self, thread: ThreadId) -> Option<ThreadHead> {
        if let Some(head) = self.young.get(&thread) {
            return Some(head.clone());
        }
        let head = self.old.remove(&thread)?;
        self.insert(thread, head.clone());
        Some(head)
    }

    fn insert(&mut self, thread: ThreadId, head: ThreadHead) {
        if self.young.len() >= self.capacity / 2 {
            self.old = std::mem::take(&mut self.young);
        }
        self.old.remove(&thread);
        self.young.insert(thread, head);
    }
}
