//! A log that fails as it is told to, over one that doesn't.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use choir_core::record::{Facts, Record};
use choir_log::memory::MemoryLog;
use choir_log::{AppendError, Found, Head, Health, Log, Pending, ReadError, ReadLimit, Stats, ThreadPage};
use choir_protocol::hash::Hash;
use choir_protocol::ids::{Id, LogId, Seq, ThreadId, Timestamp, UserId};
use choir_protocol::merkle::Peaks;
use tokio::sync::watch;

/// What happens to an append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It isn't appended.
    Busy,
    Broken,
    /// It is appended, and nobody knows.
    UnknownDone,
    /// It isn't appended, and nobody knows.
    UnknownLost,
    /// It panics.
    Panic,
}

/// Faults of the next appends, in order; and a gate that appends wait at.
pub(crate) struct FaultyLog {
    inner: MemoryLog,
    faults: Mutex<VecDeque<Fault>>,
    open: watch::Sender<bool>,
    /// How many appends have come to the gate.
    pub(crate) come: watch::Sender<usize>,
    /// Whether what wasn't known to be appended can't be read either, nor lists.
    pub(crate) blind: Mutex<bool>,
    figures_open: watch::Sender<bool>,
    /// How many reads of peaks and of numbers of messages have come to their gate.
    pub(crate) figures_come: watch::Sender<usize>,
    /// How many entries were read.
    pub(crate) entries_read: AtomicUsize,
    /// An entry that is damaged: reads end before it, or fail.
    pub(crate) damaged: Mutex<Option<Seq>>,
}

impl FaultyLog {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            inner: MemoryLog::new(LogId::v7(1, [7; 10])),
            faults: Mutex::default(),
            open: watch::Sender::new(true),
            come: watch::Sender::new(0),
            blind: Mutex::new(false),
            figures_open: watch::Sender::new(true),
            figures_come: watch::Sender::new(0),
            entries_read: AtomicUsize::new(0),
            damaged: Mutex::default(),
        })
    }

    pub(crate) fn fail_next(&self, faults: &[Fault]) {
        self.faults.lock().unwrap().extend(faults);
    }

    /// Appends wait from now on.
    pub(crate) fn shut(&self) {
        self.open.send_replace(false);
    }

    pub(crate) fn open(&self) {
        self.open.send_replace(true);
    }

    /// Whether reads of peaks and of numbers of messages wait from now on.
    pub(crate) fn shut_figures(&self, shut: bool) {
        self.figures_open.send_replace(!shut);
    }

    async fn figures(&self) {
        self.figures_come.send_modify(|come| *come += 1);
        let mut open = self.figures_open.subscribe();
        open.wait_for(|open| *open).await.unwrap();
    }

    /// Waits until so many appends have been asked for in all.
    pub(crate) async fn asked(&self, count: usize) {
        let mut come = self.come.subscribe();
        crate::world::must(come.wait_for(|come| *come >= count)).await.unwrap();
    }
}

impl Log for FaultyLog {
    fn append(
        &self,
        thread: ThreadId,
        expected: Seq,
        records: Vec<Record>,
        facts: Facts,
    ) -> Pending<'_, Result<(), AppendError>> {
        self.come.send_modify(|come| *come += 1);
        Box::pin(async move {
            let mut open = self.open.subscribe();
            open.wait_for(|open| *open).await.unwrap();
            let fault = self.faults.lock().unwrap().pop_front();
            let unknown = || {
                Err(AppendError::Unknown {
                    reason: "a test said so".into(),
                })
            };
            match fault {
                None => self.inner.append(thread, expected, records, facts).await,
                Some(Fault::Busy) => Err(AppendError::Busy),
                Some(Fault::Broken) => Err(AppendError::Broken {
                    reason: "a test said so".into(),
                }),
                Some(Fault::UnknownLost) => unknown(),
                Some(Fault::UnknownDone) => {
                    self.inner.append(thread, expected, records, facts).await.unwrap();
                    unknown()
                }
                Some(Fault::Panic) => panic!("a test said so"),
            }
        })
    }

    fn root_at(&self, thread: ThreadId, seq: Seq) -> Pending<'_, Result<Option<Hash>, ReadError>> {
        if *self.blind.lock().unwrap() {
            return unreadable();
        }
        self.inner.root_at(thread, seq)
    }

    fn log_id(&self) -> LogId {
        self.inner.log_id()
    }

    fn head(&self, thread: ThreadId) -> Pending<'_, Result<Option<Head>, ReadError>> {
        self.inner.head(thread)
    }

    fn read(&self, thread: ThreadId, after: Seq, limit: ReadLimit) -> Pending<'_, Result<Vec<Record>, ReadError>> {
        Box::pin(async move {
            let mut records = self.inner.read(thread, after, limit).await?;
            if let Some(damaged) = *self.damaged.lock().unwrap() {
                records.retain(|record| record.seq < damaged);
                if records.is_empty() && after.next() >= damaged {
                    return Err(ReadError::Damaged {
                        file: "segment".into(),
                        offset: 0,
                        thread,
                        seq: damaged,
                        what: "a flipped bit",
                    });
                }
            }
            self.entries_read.fetch_add(records.len(), Ordering::Relaxed);
            Ok(records)
        })
    }

    fn find(&self, thread: ThreadId, id: Id) -> Pending<'_, Result<Vec<Found>, ReadError>> {
        self.inner.find(thread, id)
    }

    fn peaks_at(&self, thread: ThreadId, seq: Seq) -> Pending<'_, Result<Option<Peaks>, ReadError>> {
        Box::pin(async move {
            self.figures().await;
            self.inner.peaks_at(thread, seq).await
        })
    }

    fn inclusion_path(
        &self,
        thread: ThreadId,
        seq: Seq,
        size: Seq,
    ) -> Pending<'_, Result<Option<Vec<Hash>>, ReadError>> {
        self.inner.inclusion_path(thread, seq, size)
    }

    fn messages_at(&self, thread: ThreadId, seq: Seq) -> Pending<'_, Result<u64, ReadError>> {
        Box::pin(async move {
            self.figures().await;
            self.inner.messages_at(thread, seq).await
        })
    }

    fn message_seq(&self, thread: ThreadId, n: u64) -> Pending<'_, Result<Option<Seq>, ReadError>> {
        self.inner.message_seq(thread, n)
    }

    fn save_state(&self, thread: ThreadId, seq: Seq, state: Vec<u8>) {
        self.inner.save_state(thread, seq, state);
    }

    fn load_state(&self, thread: ThreadId) -> Pending<'_, Result<Option<(Seq, Vec<u8>)>, ReadError>> {
        self.inner.load_state(thread)
    }

    fn threads_of(
        &self,
        user: &UserId,
        after: Option<&str>,
        limit: usize,
    ) -> Pending<'_, Result<ThreadPage, ReadError>> {
        self.inner.threads_of(user, after, limit)
    }

    fn public_threads(&self, after: Option<&str>, limit: usize) -> Pending<'_, Result<ThreadPage, ReadError>> {
        self.inner.public_threads(after, limit)
    }

    fn joined_threads(
        &self,
        user: &UserId,
        after: Option<ThreadId>,
        limit: usize,
    ) -> Pending<'_, Result<Vec<ThreadId>, ReadError>> {
        if *self.blind.lock().unwrap() {
            return unreadable();
        }
        self.inner.joined_threads(user, after, limit)
    }

    fn due(&self, before: Timestamp, limit: usize) -> Pending<'_, Result<Vec<ThreadId>, ReadError>> {
        self.inner.due(before, limit)
    }

    fn awaiting(&self, user: &UserId, limit: usize) -> Pending<'_, Result<Vec<(ThreadId, u32)>, ReadError>> {
        self.inner.awaiting(user, limit)
    }

    fn put(&self, key: &[u8], value: Vec<u8>) -> Pending<'_, Result<(), AppendError>> {
        self.inner.put(key, value)
    }

    fn get(&self, key: &[u8]) -> Pending<'_, Result<Option<Vec<u8>>, ReadError>> {
        self.inner.get(key)
    }

    fn health(&self) -> Health {
        self.inner.health()
    }

    fn stats(&self) -> Stats {
        self.inner.stats()
    }

    fn close(&self) -> Pending<'_, ()> {
        self.inner.close()
    }
}

fn unreadable<T: Send + 'static>() -> Pending<'static, Result<T, ReadError>> {
    Box::pin(std::future::ready(Err(ReadError::Index {
        reason: "a test said so".into(),
    })))
}
