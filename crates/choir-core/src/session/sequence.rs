//! The sequence of a session's actions, and the answers that it keeps (A2 to A7). A plain value: no I/O, no clock.

use alloc::collections::{BTreeMap, VecDeque};

use choir_protocol::action::SignedAction;
use choir_protocol::hash::Hash;
use choir_protocol::ids::{ActionSeq, Id, ThreadId};
use choir_protocol::message::{ErrorPayload, Receipt, ReceiptStatus};

/// How an action ended: what is sent as `control.receipt` or `error.state`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Applied, now or before.
    Receipt(Receipt),
    /// Refused; where it is retryable, the `seq` isn't consumed (A3).
    Refused(ErrorPayload),
}

impl Answer {
    /// Whether the action may be sent again, with the `seq` that it had (A3).
    pub const fn is_retryable(&self) -> bool {
        match self {
            Self::Receipt(_) => false,
            Self::Refused(error) => error.retryable,
        }
    }

    /// The answer as it is given again (A5): a receipt as `duplicate`, an error as it was.
    fn again(&self) -> Self {
        match self {
            Self::Receipt(receipt) => Self::Receipt(Receipt {
                status: ReceiptStatus::Duplicate,
                ..receipt.clone()
            }),
            Self::Refused(error) => Self::Refused(error.clone()),
        }
    }
}

/// What distinguishes one sending of an action from another of the same id (A5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Identity {
    id: Id,
    thread_id: ThreadId,
    type_name: &'static str,
    payload_hash: Hash,
}

impl Identity {
    const fn of(action: &SignedAction) -> Self {
        Self {
            id: action.id,
            thread_id: action.thread_id,
            type_name: action.action.type_name(),
            payload_hash: action.payload_hash,
        }
    }
}

/// A thread's actions are decided in generations: a retryable refusal ends one, and what was taken up in it and not yet decided is dropped (A3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Generation(u64);

#[derive(Debug, Clone)]
enum Progress {
    UnderDecision(Generation),
    Answered(Answer),
}

#[derive(Debug, Clone)]
struct Kept {
    identity: Identity,
    seq: ActionSeq,
    /// Whether it was below the expected number, so that nothing of it is decided (A5) and no number hangs on its answer.
    looked_up: bool,
    progress: Progress,
}

#[derive(Debug, Clone)]
struct Lane {
    expected: ActionSeq,
    generation: Generation,
    /// Whether a gap was answered since an action was taken up (A4).
    gap_answered: bool,
    last_used: u64,
}

/// What to do with an action that has arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TakeUp {
    /// It has the expected `seq`: decide it.
    Decide(Generation),
    /// Below the expected `seq` and not kept: answered by the log (A8), else `conflict` (A5).
    LookUp(Generation),
    /// It was answered before (A5).
    Answer(Answer),
    /// Above the expected `seq`, for the first time: `sequence_gap` (A4).
    Gap {
        /// The `seq` that is expected.
        expected: ActionSeq,
    },
    /// Nothing is to be said: a further gap (A4), or it is under decision and will be answered once (A5).
    Ignore,
}

/// How many threads' numbers a session keeps (A2 demands 1,000).
const MAX_LANES: usize = 1_024;

/// The sequence of one session's actions.
#[derive(Debug, Clone)]
pub struct Sequence {
    lanes: BTreeMap<ThreadId, Lane>,
    kept: VecDeque<Kept>,
    max_kept: usize,
    uses: u64,
}

impl Sequence {
    /// The sequence of a new session. The answers of at least `max_in_flight` actions are kept.
    pub fn new(max_in_flight: usize) -> Self {
        Self {
            lanes: BTreeMap::new(),
            kept: VecDeque::new(),
            max_kept: max_in_flight.max(64),
            uses: 0,
        }
    }

    /// A connection resumes the session: what is answered once for each connection may be answered again (A4).
    pub fn resume(&mut self) {
        for lane in self.lanes.values_mut() {
            lane.gap_answered = false;
        }
    }

    /// How many actions were taken up and have no answer yet (A2).
    pub fn in_flight(&self) -> usize {
        self.kept
            .iter()
            .filter(|kept| matches!(kept.progress, Progress::UnderDecision(_)))
            .count()
    }

    /// Takes up an action, or says why not (A2, A4, A5).
    pub fn take_up(&mut self, seq: ActionSeq, action: &SignedAction) -> TakeUp {
        let identity = Identity::of(action);
        let known = self
            .kept
            .iter()
            .find(|kept| kept.identity == identity)
            .map(|kept| kept.progress.clone());
        let (generation, is_expected) = match self.place(action.thread_id, seq) {
            TakeUp::Decide(generation) => (generation, true),
            TakeUp::LookUp(generation) => (generation, false),
            above => return above,
        };
        if is_expected {
            let lane = self.lane(action.thread_id);
            lane.expected = lane.expected.next();
            lane.gap_answered = false;
        }
        match known {
            Some(Progress::Answered(answer)) => return TakeUp::Answer(answer.again()),
            Some(Progress::UnderDecision(_)) => return TakeUp::Ignore,
            None => {}
        }
        self.keep(Kept {
            identity,
            seq,
            looked_up: !is_expected,
            progress: Progress::UnderDecision(generation),
        });
        if is_expected {
            TakeUp::Decide(generation)
        } else {
            TakeUp::LookUp(generation)
        }
    }

    /// Where an action stands that couldn't be read beyond its thread and number, without taking it up: at the expected number ([`TakeUp::Decide`]), above it
    /// ([`TakeUp::Gap`], [`TakeUp::Ignore`]) or below it ([`TakeUp::LookUp`]).
    pub fn place(&mut self, thread_id: ThreadId, seq: ActionSeq) -> TakeUp {
        let lane = self.lane(thread_id);
        if seq > lane.expected {
            if lane.gap_answered {
                return TakeUp::Ignore;
            }
            lane.gap_answered = true;
            return TakeUp::Gap {
                expected: lane.expected,
            };
        }
        if seq == lane.expected {
            TakeUp::Decide(lane.generation)
        } else {
            TakeUp::LookUp(lane.generation)
        }
    }

    /// Takes an action's answer. False where it was dropped meanwhile and nothing is to be sent (A3).
    pub fn answered(&mut self, thread_id: ThreadId, id: Id, generation: Generation, answer: &Answer) -> bool {
        let Some(position) = self.under_decision(thread_id, id, generation) else {
            return false;
        };
        if answer.is_retryable() {
            let Some(refused) = self.kept.remove(position) else {
                return false;
            };
            if !refused.looked_up {
                self.step_back(thread_id, refused.seq);
            }
        } else if let Some(kept) = self.kept.get_mut(position) {
            kept.progress = Progress::Answered(answer.clone());
        }
        true
    }

    /// Takes an action back that was just taken up and handed to nobody: it is refused retryably before anything above it could be taken up (A3), so that no
    /// generation ends. False where it isn't under decision.
    pub fn declined(&mut self, thread_id: ThreadId, id: Id, generation: Generation) -> bool {
        let Some(position) = self.under_decision(thread_id, id, generation) else {
            return false;
        };
        let Some(declined) = self.kept.remove(position) else {
            return false;
        };
        if !declined.looked_up {
            self.lane(thread_id).expected = declined.seq;
        }
        true
    }

    fn under_decision(&self, thread_id: ThreadId, id: Id, generation: Generation) -> Option<usize> {
        self.kept.iter().position(|kept| {
            kept.identity.id == id
                && kept.identity.thread_id == thread_id
                && matches!(kept.progress, Progress::UnderDecision(of) if of == generation)
        })
    }

    /// The expected `seq` is again `refused`; what was taken up above it is forgotten (A3).
    fn step_back(&mut self, thread_id: ThreadId, refused: ActionSeq) {
        let lane = self.lane(thread_id);
        lane.expected = refused;
        lane.generation = Generation(lane.generation.0 + 1);
        self.kept.retain(|kept| {
            kept.identity.thread_id != thread_id
                || kept.looked_up
                || kept.seq < refused
                || matches!(kept.progress, Progress::Answered(_))
        });
    }

    fn lane(&mut self, thread_id: ThreadId) -> &mut Lane {
        self.uses += 1;
        let now = self.uses;
        if !self.lanes.contains_key(&thread_id) && self.lanes.len() >= MAX_LANES {
            self.forget_oldest_lane();
        }
        let lane = self.lanes.entry(thread_id).or_insert(Lane {
            expected: ActionSeq::FIRST,
            // Numbers of a forgotten lane must not come back while its actions are under decision.
            generation: Generation(now),
            gap_answered: false,
            last_used: now,
        });
        lane.last_used = now;
        lane
    }

    fn forget_oldest_lane(&mut self) {
        let busy = |thread: &ThreadId| {
            self.kept
                .iter()
                .any(|kept| kept.identity.thread_id == *thread && matches!(kept.progress, Progress::UnderDecision(_)))
        };
        let oldest = self
            .lanes
            .iter()
            .filter(|(thread, _)| !busy(thread))
            .min_by_key(|(_, lane)| lane.last_used)
            .map(|(thread, _)| *thread);
        if let Some(thread) = oldest {
            self.lanes.remove(&thread);
        }
    }

    fn keep(&mut self, kept: Kept) {
        self.kept.push_back(kept);
        while self.kept.len() > self.max_kept.saturating_mul(2) {
            // The oldest answer goes; what is under decision is bounded by `max_in_flight` and stays.
            let oldest = self
                .kept
                .iter()
                .position(|kept| matches!(kept.progress, Progress::Answered(_)));
            match oldest {
                Some(position) => self.kept.remove(position),
                None => return,
            };
        }
    }
}
