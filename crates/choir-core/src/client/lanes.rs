//! The actions that await their answers: one lane for each thread, numbered for the session (A2), resent until each has its final answer (A3, A4, A6).
//!
//! ```text
//!   lane:   [ 5 6 7 | 8 9 ]
//!             wired   waiting: not sent on this connection, or sent and dropped by the server
//! ```
//!
//! What is wired is always the front of its lane, in the order of its numbers. A refusal that may be tried again, and a gap, move the bar back.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::string::String;
use alloc::vec::Vec;

use choir_protocol::action::SignedAction;
use choir_protocol::ids::{ActionSeq, Cursor, Id, ThreadId};
use choir_protocol::json::Object;

/// On how many connections in a row the first action of the queue may be sent in vain (R2).
const MAX_STRIKES: u8 = 3;

/// An action on its way.
#[derive(Debug)]
pub(super) struct Queued {
    /// Its name: what answers bear in `reply_to`.
    pub(super) id: Id,
    /// The thread.
    pub(super) thread_id: ThreadId,
    /// Its type.
    pub(super) action_type: String,
    /// What it says.
    pub(super) payload: Object,
    /// Bytes of its canonical payload, as it counts against the bounds.
    pub(super) bytes: usize,
    /// What its author had applied when they acted (K4).
    pub(super) seen: Option<Cursor>,
    /// Signed once, unless the server wants another time or another cursor (K3, K4).
    pub(super) signed: Option<SignedAction>,
    /// How often in a row it was refused, and may be tried again.
    pub(super) refusals: u32,
    /// The order in which it was handed over, over all threads.
    order: u64,
    /// Its number in the session and thread, once it was sent there.
    seq: Option<ActionSeq>,
    /// On how many connections it was sent as the first of all, and they ended before its answer.
    strikes: u8,
}

impl Queued {
    pub(super) fn new(
        id: Id,
        thread_id: ThreadId,
        action_type: String,
        payload: Object,
        bytes: usize,
        seen: Option<Cursor>,
    ) -> Self {
        Self {
            id,
            thread_id,
            action_type,
            payload,
            bytes,
            seen,
            signed: None,
            refusals: 0,
            order: 0,
            seq: None,
            strikes: 0,
        }
    }
}

#[derive(Debug, Default)]
struct Lane {
    actions: VecDeque<Queued>,
    /// How many of them, from the front, are on the wire.
    wired: usize,
    /// Nothing is sent before this time (monotonic).
    hold_until: u64,
    /// Nothing is sent before the thread's replica is level again (K4).
    hold_for_sync: bool,
    /// The last refusal that consumed no number: that number, and what had been sent behind it. A gap that repeats it is no news (A4).
    refused: Option<(ActionSeq, BTreeSet<Id>)>,
}

impl Lane {
    fn position(&self, id: Id) -> Option<usize> {
        self.actions.iter().position(|action| action.id == id)
    }

    /// Takes everything from this place on off the wire, to be numbered anew.
    fn unwire_from(&mut self, at: usize) {
        self.wired = self.wired.min(at);
        for action in self.actions.iter_mut().skip(at) {
            action.seq = None;
        }
    }

    fn head_waiting(&self) -> Option<&Queued> {
        self.actions.get(self.wired)
    }
}

/// All lanes.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    /// Those that aren't empty.
    lanes: BTreeMap<ThreadId, Lane>,
    /// The number that the next action gets, in each thread of this session. It can't be forgotten while the session lives: a number below the expected one is a
    /// conflict (A5).
    numbers: BTreeMap<ThreadId, ActionSeq>,
    /// In which thread an action is.
    threads: BTreeMap<Id, ThreadId>,
    handed_over: u64,
    wired: usize,
    bytes: usize,
}

/// What became of an answer's action.
#[derive(Debug)]
pub(super) enum Refusal {
    /// It stays in its lane and is sent again.
    Again,
    /// It left its lane.
    GivenUp,
}

impl Lanes {
    /// How many actions await their answers.
    pub(super) fn len(&self) -> usize {
        self.threads.len()
    }

    /// How many bytes their payloads have.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many of them are on the wire (A2).
    pub(super) const fn wired(&self) -> usize {
        self.wired
    }

    pub(super) fn contains(&self, id: Id) -> bool {
        self.threads.contains_key(&id)
    }

    pub(super) fn thread_of(&self, id: Id) -> Option<ThreadId> {
        self.threads.get(&id).copied()
    }

    /// Puts an action behind all others of its thread.
    pub(super) fn push(&mut self, mut action: Queued) {
        self.handed_over += 1;
        action.order = self.handed_over;
        self.bytes += action.bytes;
        self.threads.insert(action.id, action.thread_id);
        self.lanes
            .entry(action.thread_id)
            .or_default()
            .actions
            .push_back(action);
    }

    /// Takes an action out that has its final answer, or gets it here. What is behind it keeps its number.
    pub(super) fn remove(&mut self, id: Id) -> Option<Queued> {
        let lane = self.lanes.get_mut(&self.thread_of(id)?)?;
        // An answer to what was sent after the last refusal: what the server said to earlier sendings has all come, so the next gap is news even where it
        // names the same number, as when the server forgot the thread's (A2).
        lane.refused.take_if(|(_, sent)| sent.contains(&id));
        self.take(id)
    }

    fn take(&mut self, id: Id) -> Option<Queued> {
        let thread_id = self.threads.remove(&id)?;
        let lane = self.lanes.get_mut(&thread_id)?;
        let at = lane.position(id)?;
        let action = lane.actions.remove(at)?;
        if at < lane.wired {
            lane.wired -= 1;
            self.wired -= 1;
        }
        self.bytes = self.bytes.saturating_sub(action.bytes);
        if lane.actions.is_empty() {
            self.lanes.remove(&thread_id);
        }
        Some(action)
    }

    /// The action that is due next, whose number is then its own: the oldest of those whose lanes aren't held. The caller signs and sends it, or removes it.
    pub(super) fn next_due(&self, now: u64) -> Option<(ThreadId, Id)> {
        self.lanes
            .iter()
            .filter(|(_, lane)| lane.hold_until <= now && !lane.hold_for_sync)
            .filter_map(|(thread_id, lane)| Some((*thread_id, lane.head_waiting()?)))
            .min_by_key(|(_, action)| action.order)
            .map(|(thread_id, action)| (thread_id, action.id))
    }

    /// When a held lane may send again.
    pub(super) fn wake_at(&self, now: u64) -> Option<u64> {
        self.lanes
            .values()
            .filter(|lane| lane.hold_until > now && !lane.hold_for_sync && lane.head_waiting().is_some())
            .map(|lane| lane.hold_until)
            .min()
    }

    /// The action at the bar of a lane, to be signed.
    pub(super) fn waiting_mut(&mut self, thread_id: ThreadId) -> Option<&mut Queued> {
        let lane = self.lanes.get_mut(&thread_id)?;
        lane.actions.get_mut(lane.wired)
    }

    /// Moves the bar behind the action that is due, and gives it its number: the old one where it has one in this session (A6), else the next.
    pub(super) fn wire(&mut self, thread_id: ThreadId) -> Option<(ActionSeq, &Queued)> {
        let lane = self.lanes.get_mut(&thread_id)?;
        let action = lane.actions.get_mut(lane.wired)?;
        let seq = match action.seq {
            Some(seq) => seq,
            None => {
                let next = self.numbers.entry(thread_id).or_insert(ActionSeq::FIRST);
                let seq = *next;
                *next = seq.next();
                action.seq = Some(seq);
                seq
            }
        };
        let at = lane.wired;
        lane.wired += 1;
        self.wired += 1;
        lane.actions.get(at).map(|action| (seq, action))
    }

    /// A refusal that consumed no number (A3): the refused action and all behind it are sent again from its number on, not before `until`. With `keep` it stays,
    /// else it leaves its lane and the next one gets its number. None where the action isn't on the wire: then the refusal is of an earlier sending.
    pub(super) fn refused(&mut self, id: Id, keep: bool, until: u64) -> Option<Refusal> {
        let thread_id = self.thread_of(id)?;
        let lane = self.lanes.get_mut(&thread_id)?;
        let at = lane.position(id).filter(|at| *at < lane.wired)?;
        let seq = lane.actions.get(at)?.seq?;
        let sent: BTreeSet<Id> = lane
            .actions
            .iter()
            .take(lane.wired)
            .skip(at)
            .map(|action| action.id)
            .collect();
        self.wired -= lane.wired - at;
        lane.unwire_from(at);
        lane.hold_until = until;
        lane.refused = Some((seq, sent));
        self.numbers.insert(thread_id, seq);
        if keep {
            if let Some(action) = lane.actions.get_mut(at) {
                action.refusals = action.refusals.saturating_add(1);
            }
            Some(Refusal::Again)
        } else {
            self.take(id).map(|_| Refusal::GivenUp)
        }
    }

    /// A gap (A4): what has no final answer is numbered anew from `expected` on. Whether it was news.
    pub(super) fn gap(&mut self, thread_id: ThreadId, answered: Option<Id>, expected: ActionSeq) -> bool {
        let Some(lane) = self.lanes.get_mut(&thread_id) else {
            return false;
        };
        if let (Some((refused, sent)), Some(id)) = (&lane.refused, answered)
            && *refused == expected
            && sent.contains(&id)
        {
            return false;
        }
        self.wired -= lane.wired;
        lane.unwire_from(0);
        self.numbers.insert(thread_id, expected);
        true
    }

    /// How often in a row an action was refused, and may be tried again.
    pub(super) fn refusals(&self, id: Id) -> u32 {
        self.thread_of(id)
            .and_then(|thread_id| self.lanes.get(&thread_id))
            .and_then(|lane| lane.actions.iter().find(|action| action.id == id))
            .map_or(0, |action| action.refusals)
    }

    /// Holds a thread's lane until its replica is level again (K4).
    pub(super) fn hold_for_sync(&mut self, thread_id: ThreadId) {
        if let Some(lane) = self.lanes.get_mut(&thread_id) {
            lane.hold_for_sync = true;
        }
    }

    /// Lets a lane go on that was held: its replica is level again, or there is none any longer.
    pub(super) fn release_after_sync(&mut self, thread_id: ThreadId, seen: Option<Cursor>) {
        if let Some(lane) = self.lanes.get_mut(&thread_id)
            && core::mem::take(&mut lane.hold_for_sync)
        {
            self.sign_anew(thread_id, Some(seen));
        }
    }

    /// Every action is signed anew: there is another key.
    pub(super) fn sign_all_anew(&mut self) {
        for action in self.lanes.values_mut().flat_map(|lane| &mut lane.actions) {
            action.signed = None;
        }
    }

    /// Everything of a thread that isn't on the wire is signed anew: by another time (K3), or with another cursor (K4).
    pub(super) fn sign_anew(&mut self, thread_id: ThreadId, seen: Option<Option<Cursor>>) {
        if let Some(lane) = self.lanes.get_mut(&thread_id) {
            for action in lane.actions.iter_mut().skip(lane.wired) {
                action.signed = None;
                if let Some(seen) = seen {
                    action.seen = seen;
                }
            }
        }
    }

    /// The connection is gone: nothing is on the wire any longer. Returns the first of all actions where it was sent in vain too often (R2).
    pub(super) fn connection_lost(&mut self) -> Option<Queued> {
        let mut given_up = None;
        let first = self
            .lanes
            .iter()
            .filter_map(|(thread_id, lane)| Some((lane.actions.front()?.order, *thread_id)))
            .min()
            .and_then(|(_, thread_id)| self.lanes.get_mut(&thread_id));
        if let Some(lane) = first
            && lane.wired > 0
            && let Some(action) = lane.actions.front_mut()
        {
            action.strikes += 1;
            if action.strikes >= MAX_STRIKES {
                given_up = Some(action.id);
            }
        }
        for lane in self.lanes.values_mut() {
            lane.wired = 0;
            lane.refused = None;
            lane.hold_for_sync = false;
        }
        self.wired = 0;
        given_up.and_then(|id| self.remove(id))
    }

    /// The longest action on the wire: what a server that closed with 1009 most likely choked on (R2).
    pub(super) fn longest_wired(&self) -> Option<Id> {
        self.lanes
            .values()
            .flat_map(|lane| lane.actions.iter().take(lane.wired))
            .max_by_key(|action| action.bytes)
            .map(|action| action.id)
    }

    /// A new session counts from 1 (A6).
    pub(super) fn new_session(&mut self) {
        self.numbers.clear();
        for action in self.lanes.values_mut().flat_map(|lane| &mut lane.actions) {
            action.seq = None;
        }
    }

    /// Empties all lanes, in the order in which the actions were handed over.
    pub(super) fn drain(&mut self) -> Vec<Queued> {
        let mut all: Vec<Queued> = core::mem::take(&mut self.lanes)
            .into_values()
            .flat_map(|lane| lane.actions)
            .collect();
        all.sort_unstable_by_key(|action| action.order);
        *self = Self::default();
        all
    }
}
