//! The engine that forgets: everything in ordered maps behind one lock, so that the same calls give the same answers in every run. For tests and simulations.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::ready;
use std::sync::{Mutex, MutexGuard, PoisonError};

use choir_core::record::{Facts, MemberFact, Record, Summary};
use choir_protocol::entry::{Body, Kind};
use choir_protocol::hash::Hash;
use choir_protocol::ids::{Cursor, Id, LogId, Seq, ThreadId, Timestamp, UserId};
use choir_protocol::merkle::{self, Nodes, PathError, Peaks};
use choir_protocol::thread::Visibility;

use crate::listing::{Page, Place};
use crate::rules::{check_append, check_put};
use crate::{
    AppendError, Found, Head, Health, Log, MAX_ROWS, Pending, ReadError, ReadLimit, Stats, ThreadPage, ThreadRow,
};

/// A log in memory. Every call is done when it returns.
#[derive(Debug)]
pub struct MemoryLog {
    log_id: LogId,
    store: Mutex<Store>,
}

impl MemoryLog {
    /// An empty log with this name.
    pub fn new(log_id: LogId) -> Self {
        Self {
            log_id,
            store: Mutex::default(),
        }
    }

    fn store(&self) -> MutexGuard<'_, Store> {
        // A panic of another holder can't have left an append half done: each one is checked first and then only inserts.
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reading<'a, T: Send + 'a>(&'a self, answer: impl FnOnce(&Store) -> T) -> Pending<'a, Result<T, ReadError>> {
        Box::pin(ready(Ok(answer(&self.store()))))
    }
}

#[derive(Debug, Default)]
struct Store {
    threads: BTreeMap<ThreadId, Thread>,
    puts: BTreeMap<Vec<u8>, Vec<u8>>,
    stats: Stats,
    closed: bool,
}

#[derive(Debug)]
struct Thread {
    records: Vec<Record>,
    ids: BTreeMap<Id, Vec<Seq>>,
    members: BTreeMap<UserId, MemberFact>,
    summary: Summary,
    state: Option<(Seq, Vec<u8>)>,
    last_redaction: Seq,
}

impl Thread {
    fn record(&self, seq: Seq) -> Option<&Record> {
        self.records.get(usize::try_from(seq.get().checked_sub(1)?).ok()?)
    }

    fn head(&self) -> Option<Head> {
        let last = self.records.last()?;
        Some(Head {
            cursor: Cursor {
                seq: last.seq,
                root: last.root,
            },
            messages: last.messages,
            timestamp: last.timestamp,
        })
    }

    fn head_seq(&self) -> Seq {
        self.records.last().map_or(Seq::ZERO, |last| last.seq)
    }

    fn bearing(&self, id: Id, kind: &Kind) -> Option<Seq> {
        let seqs = self.ids.get(&id)?;
        seqs.iter().copied().find(|seq| {
            self.record(*seq)
                .is_some_and(|record| record.id == id && record.kind == *kind)
        })
    }

    fn row(&self, thread: ThreadId, member: Option<MemberFact>) -> ThreadRow {
        ThreadRow {
            thread,
            head: self.head_seq(),
            summary: self.summary.clone(),
            member,
        }
    }
}

/// The tree's nodes stand with the entries that complete them.
struct StoredNodes<'a>(&'a Thread);

impl Nodes for StoredNodes<'_> {
    type Error = Infallible;
    fn node(&mut self, completed_by: u64, height: u32) -> Result<Hash, Infallible> {
        let record = Seq::new(completed_by).and_then(|seq| self.0.record(seq));
        // Appends are refused unless each entry brings all nodes that it completes, so that what is asked for within the head is there.
        Ok(record
            .and_then(|record| record.nodes.get(height as usize))
            .copied()
            .unwrap_or(Hash::EMPTY))
    }
}

impl Store {
    fn append(
        &mut self,
        thread_id: ThreadId,
        expected: Seq,
        records: Vec<Record>,
        facts: Facts,
    ) -> Result<(), AppendError> {
        self.open()?;
        let head = self.threads.get(&thread_id).and_then(Thread::head);
        check_append(head.as_ref(), expected, &records, &facts)?;
        if let Some(thread) = self.threads.get(&thread_id)
            && let Some(seq) = records
                .iter()
                .find_map(|record| thread.bearing(record.id, &record.kind))
        {
            return Err(AppendError::Taken { seq });
        }
        self.stats.appends += 1;
        self.stats.batches += 1;
        self.stats.entries += records.len() as u64;
        let thread = self.threads.entry(thread_id).or_insert_with(|| Thread {
            records: Vec::new(),
            ids: BTreeMap::new(),
            members: BTreeMap::new(),
            summary: facts.summary.clone(),
            state: None,
            last_redaction: Seq::ZERO,
        });
        for record in records {
            thread.ids.entry(record.id).or_default().push(record.seq);
            if let Some(about) = record.about.filter(|about| *about != record.id) {
                thread.ids.entry(about).or_default().push(record.seq);
            }
            thread.records.push(record);
        }
        for (erased, by) in facts.erase {
            let record = usize::try_from(erased.get() - 1)
                .ok()
                .and_then(|at| thread.records.get_mut(at));
            if let Some(record) = record.filter(|record| matches!(record.body, Body::Present(_))) {
                record.body = Body::Erased(by);
            }
            thread.last_redaction = thread.last_redaction.max(by);
        }
        if thread
            .state
            .as_ref()
            .is_some_and(|(seq, _)| *seq < thread.last_redaction)
        {
            thread.state = None;
        }
        for (user, row) in facts.members {
            match row {
                Some(row) => thread.members.insert(user, row),
                None => thread.members.remove(&user),
            };
        }
        thread.summary = facts.summary;
        Ok(())
    }

    fn open(&self) -> Result<(), AppendError> {
        if self.closed {
            Err(AppendError::Broken {
                reason: "it was closed".into(),
            })
        } else {
            Ok(())
        }
    }

    fn page<'a>(
        &'a self,
        of: impl Iterator<Item = (ThreadId, &'a Thread)>,
        after: Option<Place>,
        limit: usize,
        user: Option<&UserId>,
    ) -> ThreadPage {
        let mut page = Page::new(after, limit);
        for (id, thread) in of {
            page.offer(Place::new(thread.summary.last_activity, id));
        }
        let (places, next) = page.finish();
        let row = |place: Place| {
            let thread = self.threads.get(&place.thread())?;
            Some(thread.row(place.thread(), user.and_then(|user| thread.members.get(user)).copied()))
        };
        ThreadPage {
            rows: places.into_iter().filter_map(row).collect(),
            next,
        }
    }
}

impl Log for MemoryLog {
    fn log_id(&self) -> LogId {
        self.log_id
    }

    fn append(
        &self,
        thread: ThreadId,
        expected: Seq,
        records: Vec<Record>,
        facts: Facts,
    ) -> Pending<'_, Result<(), AppendError>> {
        Box::pin(ready(self.store().append(thread, expected, records, facts)))
    }

    fn head(&self, thread: ThreadId) -> Pending<'_, Result<Option<Head>, ReadError>> {
        self.reading(|store| store.threads.get(&thread).and_then(Thread::head))
    }

    fn read(&self, thread: ThreadId, after: Seq, limit: ReadLimit) -> Pending<'_, Result<Vec<Record>, ReadError>> {
        self.reading(|store| {
            let records = store.threads.get(&thread).map_or(&[][..], |thread| &thread.records);
            let above = usize::try_from(after.get())
                .ok()
                .and_then(|after| records.get(after..))
                .unwrap_or_default();
            let (limit, mut bytes) = (limit.bounded(), 0_usize);
            let fits = |(at, record): &(usize, &Record)| {
                bytes = bytes.saturating_add(record.body.text().map_or(0, str::len) + RECORD_OVERHEAD);
                *at == 0 || (*at < limit.max_entries && bytes <= limit.max_bytes)
            };
            above
                .iter()
                .enumerate()
                .take_while(fits)
                .map(|(_, record)| record.clone())
                .collect()
        })
    }

    fn find(&self, thread: ThreadId, id: Id) -> Pending<'_, Result<Vec<Found>, ReadError>> {
        self.reading(|store| {
            let Some(thread) = store.threads.get(&thread) else {
                return Vec::new();
            };
            let seqs = thread.ids.get(&id).map_or(&[][..], Vec::as_slice);
            seqs.iter()
                .filter_map(|seq| thread.record(*seq))
                .map(Found::of)
                .collect()
        })
    }

    fn root_at(&self, thread: ThreadId, seq: Seq) -> Pending<'_, Result<Option<Hash>, ReadError>> {
        self.reading(|store| {
            let thread = store.threads.get(&thread)?;
            if seq == Seq::ZERO {
                Some(Hash::EMPTY)
            } else {
                thread.record(seq).map(|record| record.root)
            }
        })
    }

    fn peaks_at(&self, thread: ThreadId, seq: Seq) -> Pending<'_, Result<Option<Peaks>, ReadError>> {
        self.reading(|store| {
            let thread = store.threads.get(&thread).filter(|thread| seq <= thread.head_seq())?;
            let Ok(peaks) = merkle::peaks_at(seq.get(), &mut StoredNodes(thread));
            Some(peaks)
        })
    }

    fn inclusion_path(
        &self,
        thread: ThreadId,
        seq: Seq,
        size: Seq,
    ) -> Pending<'_, Result<Option<Vec<Hash>>, ReadError>> {
        self.reading(|store| {
            let thread = store.threads.get(&thread).filter(|thread| size <= thread.head_seq())?;
            match merkle::inclusion_path(seq.get().checked_sub(1)?, size.get(), &mut StoredNodes(thread)) {
                Ok(path) => Some(path),
                Err(PathError::OutOfRange) => None,
                Err(PathError::Nodes(never)) => match never {},
            }
        })
    }

    fn messages_at(&self, thread: ThreadId, seq: Seq) -> Pending<'_, Result<u64, ReadError>> {
        self.reading(|store| {
            let Some(thread) = store.threads.get(&thread) else {
                return 0;
            };
            thread
                .record(seq.min(thread.head_seq()))
                .map_or(0, |record| record.messages)
        })
    }

    fn message_seq(&self, thread: ThreadId, n: u64) -> Pending<'_, Result<Option<Seq>, ReadError>> {
        self.reading(|store| {
            let thread = store.threads.get(&thread).filter(|_| n > 0)?;
            let at = thread.records.partition_point(|record| record.messages < n);
            thread.records.get(at).map(|record| record.seq)
        })
    }

    fn save_state(&self, thread: ThreadId, seq: Seq, state: Vec<u8>) {
        let mut store = self.store();
        if let Some(thread) = store.threads.get_mut(&thread)
            && seq <= thread.head_seq()
            && seq >= thread.last_redaction
            && thread.state.as_ref().is_none_or(|(kept, _)| *kept <= seq)
        {
            thread.state = Some((seq, state));
        }
    }

    fn load_state(&self, thread: ThreadId) -> Pending<'_, Result<Option<(Seq, Vec<u8>)>, ReadError>> {
        self.reading(|store| store.threads.get(&thread)?.state.clone())
    }

    fn threads_of(
        &self,
        user: &UserId,
        after: Option<&str>,
        limit: usize,
    ) -> Pending<'_, Result<ThreadPage, ReadError>> {
        let answer = Place::parse(after).map(|after| {
            let store = self.store();
            let theirs = store
                .threads
                .iter()
                .filter(|(_, thread)| thread.members.contains_key(user))
                .map(|(id, thread)| (*id, thread));
            store.page(theirs, after, limit, Some(user))
        });
        Box::pin(ready(answer))
    }

    fn public_threads(&self, after: Option<&str>, limit: usize) -> Pending<'_, Result<ThreadPage, ReadError>> {
        let answer = Place::parse(after).map(|after| {
            let store = self.store();
            let public = store
                .threads
                .iter()
                .filter(|(_, thread)| thread.summary.visibility == Visibility::Public);
            store.page(public.map(|(id, thread)| (*id, thread)), after, limit, None)
        });
        Box::pin(ready(answer))
    }

    fn joined_threads(
        &self,
        user: &UserId,
        after: Option<ThreadId>,
        limit: usize,
    ) -> Pending<'_, Result<Vec<ThreadId>, ReadError>> {
        self.reading(|store| {
            let joined = |thread: &Thread| thread.members.get(user).is_some_and(|member| member.joined);
            let above = store
                .threads
                .iter()
                .filter(|(id, thread)| after.is_none_or(|after| **id > after) && joined(thread));
            above.map(|(id, _)| *id).take(limit.clamp(1, MAX_ROWS)).collect()
        })
    }

    fn due(&self, before: Timestamp, limit: usize) -> Pending<'_, Result<Vec<ThreadId>, ReadError>> {
        self.reading(|store| {
            let mut due: Vec<_> = store
                .threads
                .iter()
                .filter_map(|(id, thread)| Some((thread.summary.due?, *id)))
                .collect();
            due.sort_unstable();
            due.into_iter()
                .take_while(|(at, _)| *at <= before)
                .map(|(_, id)| id)
                .take(limit.clamp(1, MAX_ROWS))
                .collect()
        })
    }

    fn awaiting(&self, user: &UserId, limit: usize) -> Pending<'_, Result<Vec<(ThreadId, u32)>, ReadError>> {
        self.reading(|store| {
            let counted = store.threads.iter().filter_map(|(id, thread)| {
                let (_, count) = thread
                    .summary
                    .awaiting
                    .iter()
                    .find(|(who, count)| who == user && *count > 0)?;
                Some((*id, *count))
            });
            counted.take(limit.clamp(1, MAX_ROWS)).collect()
        })
    }

    fn put(&self, key: &[u8], value: Vec<u8>) -> Pending<'_, Result<(), AppendError>> {
        let mut store = self.store();
        let done = store.open().and_then(|()| check_put(key, &value));
        if done.is_ok() {
            store.stats.puts += 1;
            store.stats.batches += 1;
            store.puts.insert(key.to_vec(), value);
        }
        Box::pin(ready(done))
    }

    fn get(&self, key: &[u8]) -> Pending<'_, Result<Option<Vec<u8>>, ReadError>> {
        self.reading(|store| store.puts.get(key).cloned())
    }

    fn health(&self) -> Health {
        if self.store().closed {
            Health::Latched {
                reason: "it was closed".into(),
            }
        } else {
            Health::Ready
        }
    }

    fn stats(&self) -> Stats {
        self.store().stats
    }

    fn close(&self) -> Pending<'_, ()> {
        self.store().closed = true;
        Box::pin(ready(()))
    }
}

/// What a record counts beside its body against a read's limit: about what the embedded engine stores of one.
const RECORD_OVERHEAD: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::{self, Durability, Opener};
    use std::sync::Arc;

    #[test]
    fn the_memory_engine_keeps_the_contract() {
        let place = || -> Opener { Box::new(|| Arc::new(MemoryLog::new(LogId::v7(1, [7; 10])))) };
        conformance::run(place, Durability::Forgets);
    }
}
