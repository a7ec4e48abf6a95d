//! The storage of Choir: one small trait, [`Log`], and its engines. It knows no rules of threads, no sockets and no runtime: it stores what the core has
//! decided, in the order in which it was decided, and never says that something is durable before it is (G2).
//!
//! - [`Log`] is the waist that everything durable goes through. Its compare-and-set on a thread's head arbitrates between all who would append (G1, A10).
//! - [`memory::MemoryLog`] forgets when it is dropped: for tests and simulations.
//! - [`embedded::EmbeddedLog`] keeps one directory, for one process: the default.
//! - [`conformance`] is the contract as a function that every engine runs.
//!
//! ```
//! use choir_log::conformance::{Chain, wait};
//! use choir_log::{Log, ReadLimit, memory::MemoryLog};
//! use choir_protocol::entry::Kind;
//! use choir_protocol::ids::{LogId, Seq, ThreadId};
//!
//! let log = MemoryLog::new(LogId::v7(1_764_000_000_000, [1; 10]));
//! let thread = ThreadId::v7(1_764_000_000_000, [2; 10]);
//!
//! // The core decides what is appended; here a chain of sample entries stands in for it.
//! let mut chain = Chain::new(thread);
//! let (expected, records, facts) = chain.append(&[Kind::ThreadCreated, Kind::MessagePosted]);
//! wait(log.append(thread, expected, records, facts)).unwrap();
//!
//! let head = wait(log.head(thread)).unwrap().unwrap();
//! assert_eq!((head.cursor.seq.get(), head.messages), (2, 1));
//! let run = wait(log.read(thread, Seq::ZERO, ReadLimit::default())).unwrap();
//! assert_eq!(run.len(), 2);
//! ```

use std::future::Future;
use std::pin::Pin;

pub use choir_core::record::Found;
use choir_core::record::{Facts, MemberFact, Record, Summary};
use choir_protocol::hash::Hash;
use choir_protocol::ids::{Cursor, Id, LogId, Seq, ThreadId, Timestamp, UserId};
use choir_protocol::merkle::Peaks;

pub mod conformance;
pub mod embedded;
mod error;
mod listing;
pub mod memory;
mod rules;

pub use error::{AppendError, OpenError, ReadError};

/// What an engine answers later: a future that needs no particular runtime.
pub type Pending<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Everything durable of a node: the threads' entries (section 6), what lists need of them (Y1), and small records beside them.
///
/// **Order.** [`append`](Log::append) and [`put`](Log::put) are handed over in the order of the calls, at the call, not when the future is first polled.
/// Dropping the future doesn't take them back.
///
/// **Visibility.** Nothing of an append is seen by any read before it is durable; everything of it is seen by every read that begins after it has resolved
/// (G2, A10).
///
/// **Reads** never block the caller's thread for longer than a look into memory. They may be dropped at any time.
pub trait Log: Send + Sync {
    /// The name of this history (C1), made when it began. A restored backup must be given another one (G1r).
    fn log_id(&self) -> LogId;

    /// Appends entries to a thread, all or nothing, where its head is still `expected`; 0 begins the thread. Durable and visible when it resolves with `Ok`.
    ///
    /// `records` go on without a gap from `expected` + 1, with roots, nodes and counts already computed. `facts.erase` takes effect with the append: from
    /// then on, no read serves those bodies (L6).
    ///
    /// # Errors
    /// [`AppendError`] says whether it is known that nothing was appended.
    fn append(
        &self,
        thread: ThreadId,
        expected: Seq,
        records: Vec<Record>,
        facts: Facts,
    ) -> Pending<'_, Result<(), AppendError>>;

    /// The thread's head; none where there is no such thread.
    ///
    /// # Errors
    /// [`ReadError`], as with every read.
    fn head(&self, thread: ThreadId) -> Pending<'_, Result<Option<Head>, ReadError>>;

    /// A run without gaps of the entries above `after`: as many as there are and `limit` allows, at least one where there is one. Only an empty run says that
    /// there are no more.
    ///
    /// # Errors
    /// [`ReadError::Damaged`] where one of them can't be proved to be what was appended: it is never served.
    fn read(&self, thread: ThreadId, after: Seq, limit: ReadLimit) -> Pending<'_, Result<Vec<Record>, ReadError>>;

    /// Every entry of the thread that bears this id or is about it, in order: what A8 and L6 ask for, without reading bodies.
    ///
    /// # Errors
    /// [`ReadError`], as with every read.
    fn find(&self, thread: ThreadId, id: Id) -> Pending<'_, Result<Vec<Found>, ReadError>>;

    /// `root(seq)` (L7): of 0 the empty tree's; none above the head, or where there is no such thread.
    ///
    /// # Errors
    /// [`ReadError`], as with every read.
    fn root_at(&self, thread: ThreadId, seq: Seq) -> Pending<'_, Result<Option<Hash>, ReadError>>;

    /// `peaks(seq)` (L7), from the stored nodes; none above the head, or where there is no such thread.
    ///
    /// # Errors
    /// [`ReadError`], as with every read.
    fn peaks_at(&self, thread: ThreadId, seq: Seq) -> Pending<'_, Result<Option<Peaks>, ReadError>>;

    /// The inclusion path of entry `seq` in the tree of the first `size` entries (K7); none where the thread has no such tree or the tree no such entry.
    ///
    /// # Errors
    /// [`ReadError`], as with every read.
    fn inclusion_path(
        &self,
        thread: ThreadId,
        seq: Seq,
        size: Seq,
    ) -> Pending<'_, Result<Option<Vec<Hash>>, ReadError>>;

    /// How many messages the thread holds up to and with entry `seq` (Y1, Y2); above the head, how many it holds; 0 where there is no such thread.
    ///
    /// # Errors
    /// [`ReadError`], as with every read.
    fn messages_at(&self, thread: ThreadId, seq: Seq) -> Pending<'_, Result<u64, ReadError>>;

    /// The number of the entry that is the thread's `n`-th message, counted from 1 (Y3's `history`); none where it holds fewer.
    ///
    /// # Errors
    /// [`ReadError`], as with every read.
    fn message_seq(&self, thread: ThreadId, n: u64) -> Pending<'_, Result<Option<Seq>, ReadError>>;

    /// Keeps a thread's folded state as of entry `seq`: a cache, whose loss costs time only. Never blocks; may forget at will.
    fn save_state(&self, thread: ThreadId, seq: Seq, state: Vec<u8>);

    /// The newest state that was kept and is still at hand. Never one from before a redaction, which might hold what was erased (L6).
    ///
    /// # Errors
    /// [`ReadError`], as with every read.
    #[allow(clippy::type_complexity, reason = "it is what it says: perhaps a number and a state")]
    fn load_state(&self, thread: ThreadId) -> Pending<'_, Result<Option<(Seq, Vec<u8>)>, ReadError>>;

    /// The threads that the user is a member of, newest activity first (Y1, scope `mine`). `after` is the `next` of the page before.
    ///
    /// A thread that becomes active between two pages moves to the front, and may then be missing from the second.
    ///
    /// # Errors
    /// [`ReadError::After`] where `after` isn't such a `next`.
    fn threads_of(
        &self,
        user: &UserId,
        after: Option<&str>,
        limit: usize,
    ) -> Pending<'_, Result<ThreadPage, ReadError>>;

    /// The public threads, newest activity first (Y1, scope `public`); otherwise as [`threads_of`](Log::threads_of), without members' rows.
    ///
    /// # Errors
    /// [`ReadError::After`] where `after` isn't such a `next`.
    fn public_threads(&self, after: Option<&str>, limit: usize) -> Pending<'_, Result<ThreadPage, ReadError>>;

    /// The threads above `after` that the user has joined, in the order of their ids (Y3's `all`).
    ///
    /// # Errors
    /// [`ReadError`], as with every read.
    fn joined_threads(
        &self,
        user: &UserId,
        after: Option<ThreadId>,
        limit: usize,
    ) -> Pending<'_, Result<Vec<ThreadId>, ReadError>>;

    /// The threads with a spec that expires at or before `before` (S8), soonest first.
    ///
    /// # Errors
    /// [`ReadError`], as with every read.
    fn due(&self, before: Timestamp, limit: usize) -> Pending<'_, Result<Vec<ThreadId>, ReadError>>;

    /// The threads in which specs await this user's decision, and how many (Y1, V2), in the order of the threads' ids.
    ///
    /// # Errors
    /// [`ReadError`], as with every read.
    fn awaiting(&self, user: &UserId, limit: usize) -> Pending<'_, Result<Vec<(ThreadId, u32)>, ReadError>>;

    /// Keeps a small record beside the threads under `key` (marks, a server's keys), in place of the one before. Durable and visible when it resolves with
    /// `Ok`. A key has at most [`MAX_KEY_BYTES`], a value at most [`MAX_VALUE_BYTES`].
    ///
    /// # Errors
    /// As [`append`](Log::append), without conflicts.
    fn put(&self, key: &[u8], value: Vec<u8>) -> Pending<'_, Result<(), AppendError>>;

    /// The record under `key`.
    ///
    /// # Errors
    /// [`ReadError`], as with every read.
    fn get(&self, key: &[u8]) -> Pending<'_, Result<Option<Vec<u8>>, ReadError>>;

    /// Whether appends can still succeed.
    fn health(&self) -> Health;

    /// What has been done since it was opened.
    fn stats(&self) -> Stats;

    /// The orderly end: what was handed over is finished, nothing more is taken, files are closed. Saying it twice is fine.
    fn close(&self) -> Pending<'_, ()>;
}

/// The longest key of [`Log::put`].
pub const MAX_KEY_BYTES: usize = 1024;

/// The longest value of [`Log::put`].
pub const MAX_VALUE_BYTES: usize = 1024 * 1024;

/// The most rows that any list answers at once, whatever its `limit`.
pub const MAX_ROWS: usize = 1000;

/// The most entries that a read answers at once, whatever its limit (`max_replay` of section 12).
pub const MAX_RUN_ENTRIES: usize = 10_000;

/// The most bytes that a read answers at once, whatever its limit, unless one entry has more.
pub const MAX_RUN_BYTES: usize = 16 * 1024 * 1024;

/// The last entry of a thread, as far as those who go on from it need it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Its number, and the root there.
    pub cursor: Cursor,
    /// How many messages the thread holds (Y1).
    pub messages: u64,
    /// Its time, which none after it may be before.
    pub timestamp: Timestamp,
}

/// How much a [`Log::read`] may answer. One entry is always answered where there is one, and never more than [`MAX_RUN_ENTRIES`] or about
/// [`MAX_RUN_BYTES`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadLimit {
    /// How many entries at most.
    pub max_entries: usize,
    /// How many bytes at most, counted as the engine stores them: never less than the bodies.
    pub max_bytes: usize,
}

impl ReadLimit {
    /// The limit that is kept.
    pub(crate) fn bounded(self) -> Self {
        Self {
            max_entries: self.max_entries.clamp(1, MAX_RUN_ENTRIES),
            max_bytes: self.max_bytes.min(MAX_RUN_BYTES),
        }
    }
}

/// A page of a range (Y11's greatest `limit`), and no more memory than a few of them.
impl Default for ReadLimit {
    fn default() -> Self {
        Self {
            max_entries: 1000,
            max_bytes: 1024 * 1024,
        }
    }
}

/// A page of a list of threads.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ThreadPage {
    /// Newest activity first.
    pub rows: Vec<ThreadRow>,
    /// Where the next page goes on; none where this is the last.
    pub next: Option<String>,
}

/// A thread in a list (Y1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ThreadRow {
    /// Which.
    pub thread: ThreadId,
    /// The number of its last entry.
    pub head: Seq,
    /// As of that entry.
    pub summary: Summary,
    /// The membership of the user whose list it is; none in the list of public threads.
    pub member: Option<MemberFact>,
}

/// Whether appends can still succeed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// They can.
    Ready,
    /// There is no room: appends are refused, with nothing written, until there is some; then they go on by themselves.
    Full {
        /// What happened, for the operator.
        reason: String,
    },
    /// Durability can't be promised any more: every append is answered [`AppendError::Broken`] until the log is reopened. Reads go on with what is durable.
    Latched {
        /// What happened, for the operator.
        reason: String,
    },
}

/// What a log has done since it was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Appends that became durable.
    pub appends: u64,
    /// Their entries.
    pub entries: u64,
    /// Puts that became durable.
    pub puts: u64,
    /// Batches written, each made durable by one fsync.
    pub batches: u64,
    /// All calls of fsync and fdatasync, also those for new files and erasures.
    pub fsyncs: u64,
    /// Bytes written to the log.
    pub bytes: u64,
}

impl Stats {
    /// How many fsyncs 1,000 appended entries took; none before the first entry.
    pub fn fsyncs_per_1000_entries(&self) -> Option<f64> {
        // Counters are far below 2^52, where doubles begin to skip integers.
        #[allow(clippy::cast_precision_loss, reason = "see above")]
        (self.entries > 0).then(|| self.fsyncs as f64 * 1000.0 / self.entries as f64)
    }
}
