//! The default engine: one directory, one process.
//!
//! An own log in segments is the only truth; an index beside it (fjall) follows from it and may be lost. `format.rs` describes the files, byte by byte.
//!
//! - **One thread writes** (`writer.rs`): it takes whatever is queued, checks it against the heads, writes it as one frame with one call, makes it durable with one
//!   fdatasync, and then answers all. The next batch fills while the disk works.
//! - **One thread indexes** (`indexer.rs`), off the way of receipts. What is durable and not indexed yet is kept in memory (`overlay.rs`), so that reads see it at
//!   once; where that grows too large, the writer waits.
//! - **A few threads read** (`pool.rs`); what memory holds is answered without them.
//! - **A failed write or fsync latches** the log: it is never tried again, since the system may have dropped the data and say that all is well the next time.
//! - **Opening** replays what the index lacks (`recovery.rs`). It doesn't read the rest of the log: damage there is noticed when it is read, or by [`check`].
//!
//! Segments grow with what is written to them. Preparing them with zeros in the background was measured and brought nothing where it was tried (276 fdatasyncs a
//! second either way), and would make the end of a log harder to tell.

use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use choir_core::record::{Facts, Record};
use choir_protocol::hash::Hash;
use choir_protocol::ids::{Id, LogId, Seq, ThreadId, Timestamp, UserId};
use choir_protocol::merkle::{self, PathError, Peaks};

mod check;
mod directory;
pub mod disk;
mod format;
mod index;
mod indexer;
mod oneshot;
mod open;
mod overlay;
mod pool;
mod reader;
mod recovery;
mod shared;
mod states;
#[cfg(test)]
mod tests;
mod writer;

pub use check::{Damage, Report, check};

use crate::listing::Place;
use crate::rules::check_put;
use crate::{AppendError, Found, Head, Health, Log, OpenError, Pending, ReadError, ReadLimit, Stats, ThreadPage};
use disk::{Disk, SystemDisk};
use oneshot::oneshot;
use shared::{Shared, StoredNodes};
use writer::{CLOSED, Request, Tail};

/// How a log is kept. The defaults suit a server with some GB of memory.
#[derive(Clone)]
pub struct Options {
    /// How large a segment grows; one batch that is larger gets a segment of its own. 4 KiB to 1 GiB.
    pub segment_bytes: u32,
    /// How large one append may be. At most 256 MiB.
    pub max_append_bytes: usize,
    /// How much is written with one fsync, unless one append is larger. At most 256 MiB.
    pub max_batch_bytes: usize,
    /// How many appends and puts may wait; above that they are answered [`AppendError::Busy`].
    pub max_queued_appends: usize,
    /// How much may wait.
    pub max_queued_bytes: usize,
    /// How much may be durable and not in the index yet; above that appends wait.
    pub max_unindexed_bytes: usize,
    /// How many threads' heads are kept in memory. More are active threads whose first append reads the index.
    pub cached_heads: usize,
    /// How many threads read.
    pub readers: usize,
    /// The index's cache.
    pub index_cache_bytes: u64,
    /// Told while the index is brought up to the log at opening: bytes of the log that are done, and in all.
    pub progress: Option<Arc<dyn Fn(u64, u64) + Send + Sync>>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            segment_bytes: 64 * 1024 * 1024,
            max_append_bytes: 16 * 1024 * 1024,
            max_batch_bytes: 8 * 1024 * 1024,
            max_queued_appends: 8192,
            max_queued_bytes: 64 * 1024 * 1024,
            max_unindexed_bytes: 32 * 1024 * 1024,
            cached_heads: 65_536,
            readers: 2,
            index_cache_bytes: 32 * 1024 * 1024,
            progress: None,
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            segment_bytes,
            max_append_bytes,
            max_batch_bytes,
            max_queued_appends,
            max_queued_bytes,
            ..
        } = self;
        let Self {
            max_unindexed_bytes,
            cached_heads,
            readers,
            index_cache_bytes,
            ..
        } = self;
        f.debug_struct("Options")
            .field("segment_bytes", segment_bytes)
            .field("max_append_bytes", max_append_bytes)
            .field("max_batch_bytes", max_batch_bytes)
            .field("max_queued_appends", max_queued_appends)
            .field("max_queued_bytes", max_queued_bytes)
            .field("max_unindexed_bytes", max_unindexed_bytes)
            .field("cached_heads", cached_heads)
            .field("readers", readers)
            .field("index_cache_bytes", index_cache_bytes)
            .finish_non_exhaustive()
    }
}

impl Options {
    /// What a frame, a segment and the fields of both can hold.
    fn within_bounds(mut self) -> Self {
        const MOST: usize = 256 * 1024 * 1024;
        self.segment_bytes = self.segment_bytes.clamp(4096, 1024 * 1024 * 1024);
        self.max_append_bytes = self.max_append_bytes.min(MOST);
        self.max_batch_bytes = self.max_batch_bytes.min(MOST);
        self.readers = self.readers.max(1);
        self
    }
}

/// The log in one directory. Dropping it closes it in order, which waits for the disk, but not for ever.
pub struct EmbeddedLog {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl fmt::Debug for EmbeddedLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmbeddedLog")
            .field("log_id", &self.shared.log_id)
            .field("health", &self.health())
            .finish_non_exhaustive()
    }
}

impl EmbeddedLog {
    /// Opens the log in a directory, and begins one where the directory is empty or missing. Blocks while it reads.
    ///
    /// # Errors
    /// [`OpenError`]: nothing that was in the directory has been changed then, but for the index and for erasures that were done once more.
    pub fn open(directory: &Path, options: Options) -> Result<Self, OpenError> {
        Self::open_on(Arc::new(SystemDisk), directory, options)
    }

    /// The same on another disk, for tests.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_on(disk: Arc<dyn Disk>, directory: &Path, options: Options) -> Result<Self, OpenError> {
        let (shared, tail) = open::open(disk, directory, options.within_bounds())?;
        let shared = Arc::new(shared);
        let log = Self {
            shared: Arc::clone(&shared),
            threads: Mutex::default(),
        };
        let spawned = log.spawn(tail);
        if let Err(source) = spawned {
            // Those that run end; what is missing is done here.
            shared.latch("its threads could not be started");
            shared.queue.close();
            shared.finish_index();
            shared.finish();
            return Err(OpenError::Io {
                file: directory.into(),
                doing: "start the threads for",
                source,
            });
        }
        Ok(log)
    }

    fn spawn(&self, tail: Tail) -> std::io::Result<()> {
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        for n in 0..self.shared.options.readers {
            let shared = Arc::clone(&self.shared);
            threads.push(
                thread::Builder::new()
                    .name(format!("log-read-{n}"))
                    .spawn(move || shared.pool.work())?,
            );
        }
        let shared = Arc::clone(&self.shared);
        threads.push(
            thread::Builder::new()
                .name("log-index".into())
                .spawn(move || indexer::run(&shared))?,
        );
        let shared = Arc::clone(&self.shared);
        threads.push(
            thread::Builder::new()
                .name("log-write".into())
                .spawn(move || writer::run(&shared, tail))?,
        );
        Ok(())
    }

    fn hand_over(&self, request: Request) -> Pending<'_, Result<(), AppendError>> {
        let (sender, receiver) = oneshot();
        let pushed = match self.shared.latched() {
            Some(reason) => Err(AppendError::Broken { reason }),
            None => self.shared.queue.push(request, sender),
        };
        Box::pin(async move {
            pushed?;
            receiver.await.unwrap_or_else(|| {
                Err(AppendError::Unknown {
                    reason: "the log ended before it answered".into(),
                })
            })
        })
    }

    /// Reads on one of the threads for it.
    fn reading<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Shared) -> Result<T, ReadError> + Send + 'static,
    ) -> Pending<'_, Result<T, ReadError>> {
        let (sender, receiver) = oneshot();
        let shared = Arc::clone(&self.shared);
        self.shared.pool.submit(Box::new(move || {
            if !sender.is_abandoned() {
                sender.send(read(&shared));
            }
        }));
        Box::pin(async move { receiver.await.unwrap_or(Err(ReadError::Closed)) })
    }

    /// Reads what may lag behind in the index, once that has caught up.
    fn listing<T: Send + 'static>(
        &self,
        read: impl FnOnce(&index::Index) -> Result<T, index::IndexError> + Send + 'static,
    ) -> Pending<'_, Result<T, ReadError>> {
        // Not on one of the threads that read: those who need no index would wait behind it.
        let (sender, caught_up) = oneshot();
        let target = self.shared.when_indexed(sender);
        Box::pin(async move {
            caught_up.await;
            let reading = self.reading(move |shared| {
                shared.is_indexed(target)?;
                shared.with_index(|index| Ok(read(index)?))
            });
            reading.await
        })
    }
}

/// How long dropping the log waits for its threads, one of which may hang in a failing disk.
const END_WITHIN: Duration = Duration::from_secs(30);
const END_PAUSE: Duration = Duration::from_millis(1);

impl Drop for EmbeddedLog {
    fn drop(&mut self) {
        self.shared.queue.close();
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        let until = Instant::now() + END_WITHIN;
        while threads.iter().any(|thread| !thread.is_finished()) {
            if Instant::now() >= until {
                tracing::error!("the log's threads didn't end; everything that was acknowledged is durable");
                return;
            }
            thread::sleep(END_PAUSE);
        }
        for thread in threads {
            // One that panicked has latched the log and said so.
            let _ = thread.join();
        }
    }
}

/// Gives the history in a directory another name, as a restored backup must have before it is served (G1r). Returns the new name.
///
/// # Errors
/// [`OpenError`], also where a process holds the log.
pub fn renew_log_id(directory: &Path) -> Result<LogId, OpenError> {
    directory::Directory::open(directory)?.renew_log_id(&SystemDisk)
}

fn ready<'a, T: Send + 'a>(answer: T) -> Pending<'a, T> {
    Box::pin(std::future::ready(answer))
}

impl Log for EmbeddedLog {
    fn log_id(&self) -> LogId {
        self.shared.log_id
    }

    fn append(
        &self,
        thread: ThreadId,
        expected: Seq,
        records: Vec<Record>,
        facts: Facts,
    ) -> Pending<'_, Result<(), AppendError>> {
        let request = Request::Append {
            thread,
            expected,
            records,
            facts,
        };
        let (bytes, most) = (request.bytes(), self.shared.options.max_append_bytes);
        if bytes > most {
            return ready(Err(AppendError::Refused {
                why: format!("an append of {bytes} bytes is above {most}"),
            }));
        }
        self.hand_over(request)
    }

    fn head(&self, thread: ThreadId) -> Pending<'_, Result<Option<Head>, ReadError>> {
        let live = self.shared.live().overlay.head(thread);
        match live {
            Some(head) => ready(Ok(Some(head.head))),
            None => self.reading(move |shared| shared.head(thread)),
        }
    }

    fn read(&self, thread: ThreadId, after: Seq, limit: ReadLimit) -> Pending<'_, Result<Vec<Record>, ReadError>> {
        let limit = limit.bounded();
        match self.shared.live_run(thread, after, limit) {
            Some(run) => ready(Ok(run)),
            None => self.reading(move |shared| shared.run(thread, after, limit)),
        }
    }

    fn find(&self, thread: ThreadId, id: Id) -> Pending<'_, Result<Vec<Found>, ReadError>> {
        self.reading(move |shared| shared.find(thread, id))
    }

    fn root_at(&self, thread: ThreadId, seq: Seq) -> Pending<'_, Result<Option<Hash>, ReadError>> {
        self.reading(move |shared| {
            if seq == Seq::ZERO {
                return Ok(shared.head(thread)?.map(|_| Hash::EMPTY));
            }
            Ok(shared.entry(thread, seq)?.map(|record| record.root))
        })
    }

    fn peaks_at(&self, thread: ThreadId, seq: Seq) -> Pending<'_, Result<Option<Peaks>, ReadError>> {
        self.reading(move |shared| {
            let Some(head) = shared.head(thread)? else {
                return Ok(None);
            };
            if seq > head.cursor.seq {
                return Ok(None);
            }
            merkle::peaks_at(seq.get(), &mut StoredNodes { shared, thread }).map(Some)
        })
    }

    fn inclusion_path(
        &self,
        thread: ThreadId,
        seq: Seq,
        size: Seq,
    ) -> Pending<'_, Result<Option<Vec<Hash>>, ReadError>> {
        self.reading(move |shared| {
            let (Some(head), Some(index)) = (shared.head(thread)?, seq.get().checked_sub(1)) else {
                return Ok(None);
            };
            if size > head.cursor.seq {
                return Ok(None);
            }
            match merkle::inclusion_path(index, size.get(), &mut StoredNodes { shared, thread }) {
                Ok(path) => Ok(Some(path)),
                Err(PathError::OutOfRange) => Ok(None),
                Err(PathError::Nodes(error)) => Err(error),
            }
        })
    }

    fn messages_at(&self, thread: ThreadId, seq: Seq) -> Pending<'_, Result<u64, ReadError>> {
        self.reading(move |shared| shared.messages_at(thread, seq))
    }

    fn message_seq(&self, thread: ThreadId, n: u64) -> Pending<'_, Result<Option<Seq>, ReadError>> {
        self.reading(move |shared| shared.message_seq(thread, n))
    }

    fn save_state(&self, thread: ThreadId, seq: Seq, state: Vec<u8>) {
        self.shared.save_state(thread, seq, state);
    }

    fn load_state(&self, thread: ThreadId) -> Pending<'_, Result<Option<(Seq, Vec<u8>)>, ReadError>> {
        self.reading(move |shared| shared.load_state(thread))
    }

    fn threads_of(
        &self,
        user: &UserId,
        after: Option<&str>,
        limit: usize,
    ) -> Pending<'_, Result<ThreadPage, ReadError>> {
        let user = user.clone();
        match Place::parse(after) {
            Ok(after) => self.listing(move |index| index.threads_of(&user, after, limit)),
            Err(error) => ready(Err(error)),
        }
    }

    fn public_threads(&self, after: Option<&str>, limit: usize) -> Pending<'_, Result<ThreadPage, ReadError>> {
        match Place::parse(after) {
            Ok(after) => self.listing(move |index| index.public_threads(after, limit)),
            Err(error) => ready(Err(error)),
        }
    }

    fn joined_threads(
        &self,
        user: &UserId,
        after: Option<ThreadId>,
        limit: usize,
    ) -> Pending<'_, Result<Vec<ThreadId>, ReadError>> {
        let user = user.clone();
        self.listing(move |index| index.joined_threads(&user, after, limit))
    }

    fn due(&self, before: Timestamp, limit: usize) -> Pending<'_, Result<Vec<ThreadId>, ReadError>> {
        self.listing(move |index| index.due(before, limit))
    }

    fn awaiting(&self, user: &UserId, limit: usize) -> Pending<'_, Result<Vec<(ThreadId, u32)>, ReadError>> {
        let user = user.clone();
        self.listing(move |index| index.awaiting(&user, limit))
    }

    fn put(&self, key: &[u8], value: Vec<u8>) -> Pending<'_, Result<(), AppendError>> {
        match check_put(key, &value) {
            Ok(()) => self.hand_over(Request::Put {
                key: key.to_vec(),
                value,
            }),
            Err(error) => ready(Err(error)),
        }
    }

    fn get(&self, key: &[u8]) -> Pending<'_, Result<Option<Vec<u8>>, ReadError>> {
        let live = self.shared.live().overlay.put_value(key);
        if live.is_some() {
            return ready(Ok(live));
        }
        let key = key.to_vec();
        self.reading(move |shared| shared.with_index(|index| Ok(index.put_value(&key)?)))
    }

    fn health(&self) -> Health {
        let closed = || self.shared.queue.is_closing().then(|| CLOSED.into());
        match self.shared.latched().or_else(closed) {
            Some(reason) => Health::Latched { reason },
            None => self
                .shared
                .full()
                .map_or(Health::Ready, |reason| Health::Full { reason }),
        }
    }

    fn stats(&self) -> Stats {
        self.shared.stats()
    }

    fn close(&self) -> Pending<'_, ()> {
        self.shared.queue.close();
        let (sender, receiver) = oneshot();
        self.shared.when_over(sender);
        Box::pin(async move {
            receiver.await;
        })
    }
}
