//! One thread that is followed: its replica, how far the subscription has come, and what was acknowledged (Y3 to Y9).

use alloc::sync::Arc;
use alloc::vec::Vec;

use choir_protocol::ids::{Cursor, Id, Seq, ThreadId};
use choir_protocol::message::{Ack, Mode, SubscribeThread};
use choir_protocol::range::Hidden;
use choir_protocol::thread::Stream;

use super::replica::{Finding, Replica};
use super::streams::Streams;
use super::types::SubscribeOptions;

/// After how many entries an acknowledgement doesn't wait (Y9).
const ACK_ENTRIES: u64 = 256;
/// Every how many acknowledgements the root goes with them (Y9).
const ACKS_PER_ROOT: u32 = 16;
/// How often a thread may go wrong before the client was level (R2).
const MAX_DESYNCS: u8 = 2;

/// How far a subscription has come on this connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// It is to be asked for, not before a time.
    Wanted {
        /// That time (monotonic).
        not_before: u64,
    },
    /// The server was asked; until it answers, the thread's updates are of an earlier subscription, and ignored (Y6).
    Asked {
        /// The message that asked.
        request: Id,
    },
    /// The server sends.
    Following {
        /// The head that it named.
        head: Seq,
        /// Whether the replica has reached it.
        level: bool,
    },
}

/// A thread that is followed.
#[derive(Debug)]
pub(super) struct Subscription {
    pub(super) options: SubscribeOptions,
    pub(super) phase: Phase,
    /// Whether the server has taken it up on this connection. It stays so while it is asked for again.
    pub(super) taken_up: bool,
    pub(super) replica: Option<Arc<Replica>>,
    /// What didn't agree with the server's log (Y6).
    pub(super) aside: Option<Arc<Replica>>,
    /// How often it went wrong since the client was level (R2).
    desyncs: u8,
    /// Since entries were hidden out of order: what still is when the head is reached goes to the caller (L8).
    pub(super) suspects: Option<Vec<Hidden>>,
    pub(super) streams: Streams,
    acks: Acks,
}

#[derive(Debug, Clone, Copy, Default)]
struct Acks {
    acknowledged: Seq,
    sent: u32,
}

impl Subscription {
    pub(super) fn new(options: SubscribeOptions, phase: Phase) -> Self {
        Self {
            options,
            phase,
            taken_up: false,
            replica: None,
            aside: None,
            desyncs: 0,
            suspects: None,
            streams: Streams::default(),
            acks: Acks::default(),
        }
    }

    /// The cursor that the replica holds, in a thread that is followed whole.
    pub(super) fn cursor(&self) -> Option<Cursor> {
        self.replica.as_ref().map(|replica| replica.cursor())
    }

    /// The thread's line in a `control.subscribe` (Y3).
    pub(super) fn line(&self, thread_id: ThreadId) -> SubscribeThread {
        let full = self.options.mode == Mode::Full;
        let cursor = match self.cursor() {
            // Who asks for more than the replica holds sends no cursor (Y8).
            Some(cursor) if self.replica_holds_enough() => Some(cursor),
            Some(_) => None,
            None => self.options.complete.then_some(Cursor::START),
        };
        SubscribeThread {
            thread_id,
            cursor: cursor.filter(|_| full),
            streams: self.options.streams.clone(),
            mode: (!full).then_some(self.options.mode),
            history: self.options.history,
            verify: full.then_some(true),
            complete: self.options.complete.then_some(true),
        }
    }

    fn replica_holds_enough(&self) -> bool {
        let Some(replica) = &self.replica else {
            return false;
        };
        let all = [Stream::Specs, Stream::Approvals];
        let held = replica.viewer().streams.as_deref().unwrap_or(&all);
        let wanted = self.options.streams.as_deref().unwrap_or(&all);
        wanted
            .iter()
            .all(|stream| *stream == Stream::Updates || held.contains(stream))
    }

    /// The connection is gone: the thread is asked for again on the next one.
    pub(super) fn connection_lost(&mut self) {
        self.phase = Phase::Wanted { not_before: 0 };
        self.taken_up = false;
        self.suspects = None;
        // To who comes back they are sent from their beginning (V4).
        self.streams = Streams::default();
    }

    /// Something went wrong. Whether it did so too often for another try (R2).
    pub(super) fn desynced(&mut self) -> bool {
        self.desyncs = self.desyncs.saturating_add(1);
        self.desyncs >= MAX_DESYNCS
    }

    /// The server has taken the subscription up (Y4).
    pub(super) fn begun(&mut self, seq: Seq, head: Seq) {
        self.phase = Phase::Following { head, level: false };
        self.taken_up = true;
        self.acks = Acks {
            acknowledged: match self.cursor() {
                Some(cursor) if cursor.seq == seq => seq,
                _ => Seq::ZERO,
            },
            sent: 0,
        };
    }

    /// Whether the replica has just reached the head that the server named (Y4). Says then what is still hidden out of order (L8).
    pub(super) fn reached_head(&mut self) -> Option<(Seq, Vec<Finding>)> {
        let cursor = self.cursor()?.seq;
        match &mut self.phase {
            Phase::Following { head, level } if !*level && cursor >= *head => *level = true,
            _ => return None,
        }
        self.desyncs = 0;
        let suspects = self.suspects.take().unwrap_or_default();
        let replica = self.replica.as_ref()?;
        let findings = suspects
            .into_iter()
            .filter(|Hidden(seq, stream, _)| !replica.may_hide(*seq, *stream))
            .map(|Hidden(seq, stream, _)| Finding::Hidden { seq, stream })
            .collect();
        Some((cursor, findings))
    }

    /// How many entries the server doesn't know to be applied.
    fn unacknowledged(&self) -> u64 {
        match (self.phase, self.cursor()) {
            (Phase::Following { .. }, Some(cursor)) => cursor.seq.get().saturating_sub(self.acks.acknowledged.get()),
            _ => 0,
        }
    }

    /// Whether there is something to acknowledge, when the time has come.
    pub(super) fn ack_due(&self) -> bool {
        self.unacknowledged() > 0
    }

    /// Whether there is so much that it doesn't wait.
    pub(super) fn ack_urgent(&self) -> bool {
        self.unacknowledged() >= ACK_ENTRIES
    }

    /// The line of a `control.ack` that says where the replica is (Y9).
    pub(super) fn ack(&mut self, thread_id: ThreadId) -> Option<Ack> {
        if !self.ack_due() {
            return None;
        }
        let cursor = self.cursor()?;
        let with_root = self.acks.sent.is_multiple_of(ACKS_PER_ROOT);
        self.acks = Acks {
            acknowledged: cursor.seq,
            sent: self.acks.sent.wrapping_add(1),
        };
        Some(Ack {
            thread_id,
            seq: cursor.seq,
            root: with_root.then_some(cursor.root),
        })
    }
}
