//! One subscription of a connection: a cursor, and what is due next (Y3 to Y8). It holds no entries and no queue.

use choir_protocol::ids::{Cursor, Seq, ThreadId};
use choir_protocol::message::{Mode, SnapshotReason, Subscribe, SubscribeThread};

use crate::view::Streams;

/// A subscription's options with every default filled in (Y3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Which streams.
    pub streams: Streams,
    /// Snapshots and updates, or only events.
    pub mode: Mode,
    /// How many messages a snapshot carries.
    pub history: u64,
    /// Whether ranges carry what it takes to verify them.
    pub verify: bool,
    /// Whether every entry is sent, however many.
    pub complete: bool,
}

/// The default of `history` for threads that are named, and the most (Y3).
const HISTORY_DEFAULT: u64 = 50;
const HISTORY_MAX: u64 = 500;

impl Options {
    /// The options of one thread that a message names.
    pub fn of(thread: &SubscribeThread, message: &Subscribe) -> Self {
        Self {
            streams: Streams::of(thread.streams.as_deref().or(message.streams.as_deref())),
            mode: thread.mode.or(message.mode).unwrap_or_default(),
            history: thread
                .history
                .or(message.history)
                .unwrap_or(HISTORY_DEFAULT)
                .min(HISTORY_MAX),
            verify: thread.verify.or(message.verify).unwrap_or(false),
            complete: thread.complete.or(message.complete).unwrap_or(false),
        }
    }

    /// The options of a thread that only `all: true` names: without history, unless the message says otherwise.
    pub fn of_all(message: &Subscribe) -> Self {
        Self {
            streams: Streams::of(message.streams.as_deref()),
            mode: message.mode.unwrap_or_default(),
            history: message.history.unwrap_or(0).min(HISTORY_MAX),
            verify: message.verify.unwrap_or(false),
            complete: message.complete.unwrap_or(false),
        }
    }
}

/// What the log says of the cursor that a client came with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CursorCheck {
    /// There was none.
    Absent,
    /// It stands in the log.
    Holds(Cursor),
    /// It is above the head, or its root isn't the log's (Y7).
    Foreign,
}

/// A thread as its subscriber may see it now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sight {
    /// The head.
    pub head: Seq,
    /// Whether the user may read.
    pub may_read: bool,
    /// The last entry that widened the user's view (Y8).
    pub widened_at: Seq,
}

/// What is due for a subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// Nothing: the client is level.
    Nothing,
    /// A snapshot.
    Snapshot(SnapshotReason),
    /// The entries (after, to], as far as they fit.
    Range {
        /// The client's cursor.
        after: Seq,
        /// Where to stop.
        to: Seq,
    },
    /// The right to read is gone (Y8): where the entry that took it is the next one, it goes out first.
    Lost {
        /// The client's cursor.
        after: Seq,
    },
}

/// One subscription of a connection.
#[derive(Debug, Clone)]
pub struct Subscription {
    /// The thread.
    pub thread_id: ThreadId,
    /// Its options.
    pub options: Options,
    /// Whether `all: true` made it, and not a name.
    pub by_all: bool,
    cursor: Seq,
    acknowledged: Seq,
    /// The last widening that the client's replica has in it (Y8).
    widening_held: Seq,
    snapshot_due: Option<SnapshotReason>,
    /// Whether the client was brought to a head since the subscription began (Y4).
    level_once: bool,
}

impl Subscription {
    /// Begins a subscription (Y4, Y5, Y7, Y8). `before` is the one that it replaces.
    pub fn begin(
        thread_id: ThreadId,
        options: Options,
        by_all: bool,
        check: CursorCheck,
        sight: Sight,
        before: Option<&Self>,
        max_replay: u64,
    ) -> Self {
        let asks_more = before.is_some_and(|before| options.streams.exceeds(before.options.streams));
        let (cursor, snapshot_due) = match check {
            CursorCheck::Absent => (Seq::ZERO, Some(SnapshotReason::Initial)),
            CursorCheck::Foreign => (Seq::ZERO, Some(SnapshotReason::StateDesync)),
            CursorCheck::Holds(cursor) if cursor.seq == Seq::ZERO => {
                (cursor.seq, too_far(cursor.seq, sight.head, options, max_replay))
            }
            // Every entry is sent: first those up to the widening, then the snapshot that stands there.
            CursorCheck::Holds(cursor) if options.complete && cursor.seq < sight.widened_at && !asks_more => {
                (cursor.seq, None)
            }
            CursorCheck::Holds(cursor) if cursor.seq < sight.widened_at || asks_more => {
                (cursor.seq, Some(SnapshotReason::ViewChanged))
            }
            CursorCheck::Holds(cursor) => (cursor.seq, too_far(cursor.seq, sight.head, options, max_replay)),
        };
        Self {
            thread_id,
            options,
            by_all,
            cursor,
            acknowledged: cursor,
            widening_held: if options.complete && cursor > Seq::ZERO {
                sight.widened_at.min(cursor)
            } else {
                sight.widened_at
            },
            snapshot_due: snapshot_due.filter(|_| options.mode == Mode::Full),
            level_once: snapshot_due.is_none() && cursor >= sight.head,
        }
    }

    /// What is due, given the thread as it is now. In mode `events` nothing ever is: events are sent as entries come.
    pub fn due(&self, sight: Sight, max_replay: u64) -> Due {
        if !sight.may_read {
            return Due::Lost { after: self.cursor };
        }
        if self.options.mode == Mode::Events {
            return Due::Nothing;
        }
        if let Some(reason) = self.snapshot_due {
            return Due::Snapshot(reason);
        }
        if sight.widened_at > self.widening_held {
            return if self.cursor < sight.widened_at {
                Due::Range {
                    after: self.cursor,
                    to: sight.widened_at,
                }
            } else {
                Due::Snapshot(SnapshotReason::ViewChanged)
            };
        }
        if let Some(reason) = too_far(self.cursor, sight.head, self.options, max_replay) {
            return Due::Snapshot(reason);
        }
        if self.cursor < sight.head {
            return Due::Range {
                after: self.cursor,
                to: sight.head,
            };
        }
        Due::Nothing
    }

    /// A range was sent, and the client's cursor becomes its end.
    pub fn sent_range(&mut self, to: Seq, head: Seq) {
        self.cursor = self.cursor.max(to);
        self.level_once |= self.cursor >= head;
    }

    /// As of which entry a snapshot is due: the head, but where every entry is sent the one that the client has come to (Y8).
    pub fn snapshot_at(&self, reason: SnapshotReason, head: Seq) -> Seq {
        if self.options.complete && reason == SnapshotReason::ViewChanged {
            self.cursor
        } else {
            head
        }
    }

    /// A snapshot was sent, as of `at`.
    pub fn sent_snapshot(&mut self, at: Seq, head: Seq) {
        self.cursor = at;
        self.snapshot_due = None;
        self.widening_held = self.widening_held.max(at);
        self.level_once |= at >= head;
    }

    /// What the client would have to be sent is too much (Y5's 4 MiB): a snapshot is due instead, unless every entry is to be sent.
    pub fn fell_behind(&mut self) {
        if !self.options.complete && self.options.mode == Mode::Full {
            self.snapshot_due = Some(SnapshotReason::TooFarBehind);
        }
    }

    /// The client's cursor, as far as was sent.
    pub const fn cursor(&self) -> Seq {
        self.cursor
    }

    /// Whether the client was brought to a head yet: until then an empty update may be needed (Y4).
    pub const fn was_level(&self) -> bool {
        self.level_once
    }

    /// The client says that it applied everything up to here (Y9). None where that is beyond what was sent.
    pub fn acknowledge(&mut self, seq: Seq) -> Option<Seq> {
        if seq > self.cursor {
            return None;
        }
        self.acknowledged = self.acknowledged.max(seq);
        Some(self.acknowledged)
    }

    /// How many sent entries the client hasn't acknowledged: its lag.
    pub fn lag(&self) -> u64 {
        self.cursor.get() - self.acknowledged.get()
    }
}

fn too_far(cursor: Seq, head: Seq, options: Options, max_replay: u64) -> Option<SnapshotReason> {
    (!options.complete && head.get().saturating_sub(cursor.get()) > max_replay).then_some(SnapshotReason::TooFarBehind)
}
