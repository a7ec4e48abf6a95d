//! G3 and G4 under faults, in many random runs: a model of the server's sequence (A2 to A8) on the other side of a wire that is cut at any place. Whatever
//! happens, each action is applied at most once, those of a thread in their order, and each gets one answer that is true.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use choir_core::client::{Event, Input};
use choir_protocol::action::SignedAction;
use choir_protocol::entry::Kind;
use choir_protocol::error::ErrorCode;
use choir_protocol::hash::Hash;
use choir_protocol::ids::{ActionSeq, Id, Seq, ThreadId};
use choir_protocol::message::{
    ClientMessage, ErrorPayload, FromClient, FromServer, Receipt, ReceiptStatus, ServerMessage,
};

use crate::support::*;

/// A small generator of random numbers (xorshift): the runs need variety, not secrecy.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.roll(n) == 0
    }
}

/// What a server knows of one session and thread.
#[derive(Default)]
struct Lane {
    expected: u64,
    gap_answered: bool,
    /// Taken up and not decided, in order.
    waiting: VecDeque<(u64, SignedAction)>,
}

/// The other side.
#[derive(Default)]
struct Server {
    /// The durable truth: what was applied, in its order.
    logs: BTreeMap<ThreadId, Vec<Id>>,
    /// This session's lanes, and the final answers that it keeps (A5).
    lanes: BTreeMap<ThreadId, Lane>,
    kept: BTreeMap<Id, ServerMessage>,
    /// Refused for good: never applied.
    refused: BTreeSet<Id>,
}

impl Server {
    fn receipt(&self, thread_id: ThreadId, id: Id, status: ReceiptStatus) -> Option<ServerMessage> {
        let at = self.logs.get(&thread_id)?.iter().position(|of| *of == id)?;
        Some(ServerMessage::Receipt(Receipt {
            status,
            seq: Seq::saturating(at as u64 + 1),
            kind: Kind::MessagePosted,
            root: Hash::EMPTY,
        }))
    }

    /// Takes up what has arrived (A2, A4, A5).
    fn receive(&mut self, seq: ActionSeq, action: SignedAction, out: &mut Vec<(ThreadId, Id, ServerMessage)>) {
        let (thread_id, id, seq) = (action.thread_id, action.id, seq.get());
        let lane = self.lanes.entry(thread_id).or_insert_with(|| Lane {
            expected: 1,
            ..Lane::default()
        });
        if seq > lane.expected {
            if !lane.gap_answered {
                lane.gap_answered = true;
                let mut gap = ErrorPayload::new(ErrorCode::SequenceGap, "gap");
                gap.expected = ActionSeq::new(lane.expected);
                out.push((thread_id, id, ServerMessage::StateError(gap)));
            }
            return;
        }
        let at_expected = seq == lane.expected;
        if at_expected {
            lane.expected += 1;
            lane.gap_answered = false;
        }
        let under_decision = lane.waiting.iter().any(|(_, waiting)| waiting.id == id);
        if let Some(kept) = self.kept.get(&id) {
            out.push((thread_id, id, kept.clone()));
        } else if under_decision {
            // Answered once.
        } else if at_expected {
            lane.waiting.push_back((seq, action));
        } else {
            let answer = self
                .receipt(thread_id, id, ReceiptStatus::Duplicate)
                .unwrap_or_else(|| ServerMessage::StateError(error(ErrorCode::Conflict)));
            out.push((thread_id, id, answer));
        }
    }

    /// Decides the next action of a thread (A3, A8).
    fn decide(
        &mut self,
        thread_id: ThreadId,
        dice: &mut Dice,
        faults: bool,
        out: &mut Vec<(ThreadId, Id, ServerMessage)>,
    ) {
        let Some((seq, action)) = self.lanes.get_mut(&thread_id).and_then(|lane| lane.waiting.pop_front()) else {
            return;
        };
        let id = action.id;
        if let Some(duplicate) = self.receipt(thread_id, id, ReceiptStatus::Duplicate) {
            self.kept.insert(id, duplicate.clone());
            out.push((thread_id, id, duplicate));
        } else if faults && dice.one_in(6) {
            let refusal = if dice.one_in(2) {
                error(ErrorCode::RateLimited).with_retry_after(dice.roll(300))
            } else {
                error(ErrorCode::MessageDeliveryFailed)
            };
            if let Some(lane) = self.lanes.get_mut(&thread_id) {
                lane.expected = seq;
                lane.waiting.clear();
            }
            out.push((thread_id, id, ServerMessage::StateError(refusal)));
        } else if self.refused.contains(&id) || dice.one_in(10) {
            // Once for good, always: a refusal whose answer was lost with its session could otherwise turn into an approval behind what followed it, which
            // G4 allows, since it speaks of one session.
            let refusal = ServerMessage::StateError(error(ErrorCode::PermissionDenied));
            self.refused.insert(id);
            self.kept.insert(id, refusal.clone());
            out.push((thread_id, id, refusal));
        } else {
            self.logs.entry(thread_id).or_default().push(id);
            let receipt = self.receipt(thread_id, id, ReceiptStatus::Committed).unwrap();
            self.kept.insert(id, receipt.clone());
            out.push((thread_id, id, receipt));
        }
    }
}

struct Run {
    world: World,
    server: Server,
    dice: Dice,
    to_server: VecDeque<FromClient>,
    to_client: VecDeque<(ThreadId, Id, ServerMessage)>,
    handed_over: BTreeMap<ThreadId, Vec<Id>>,
    answers: BTreeMap<Id, &'static str>,
    cuts: u32,
}

impl Run {
    fn new(seed: u64) -> Self {
        let mut world = World::with(|config| config.max_refusals = 1_000);
        world.hello.limits.max_in_flight = 5;
        world.hello.limits.max_actions_per_second = 1_000;
        world.opens();
        world.sent();
        Self {
            world,
            server: Server::default(),
            dice: Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1),
            to_server: VecDeque::new(),
            to_client: VecDeque::new(),
            handed_over: BTreeMap::new(),
            answers: BTreeMap::new(),
            cuts: 0,
        }
    }

    fn collect(&mut self) {
        self.to_server.extend(self.world.sent());
        for event in self.world.events() {
            if let Event::Answered { id, result } = event {
                let answer = result.map_or_else(|error| error.code.as_str(), |_| "ok");
                assert_eq!(self.answers.insert(id, answer), None, "answered twice");
            }
        }
    }

    fn server_receives(&mut self) {
        if let Some(message) = self.to_server.pop_front()
            && let ClientMessage::Action(seq, action) = message.message
        {
            let mut out = Vec::new();
            self.server.receive(seq, action, &mut out);
            self.to_client.extend(out);
        }
    }

    fn server_decides(&mut self, faults: bool) {
        let thread_id = thread(self.dice.roll(3));
        let mut out = Vec::new();
        self.server.decide(thread_id, &mut self.dice, faults, &mut out);
        self.to_client.extend(out);
    }

    fn client_receives(&mut self) {
        if let Some((thread_id, reply_to, message)) = self.to_client.pop_front() {
            let text = FromServer {
                id: id(77),
                timestamp: self.world.now.wall,
                thread_id: Some(thread_id),
                reply_to: Some(reply_to),
                message,
            }
            .to_text();
            self.world.input(Input::Text(&text));
            self.collect();
        }
    }

    /// The wire is cut: of what was on its way to the server a part arrives, of what was on its way back nothing. Then the session goes on, or a new one begins.
    fn cut(&mut self) {
        self.cuts += 1;
        let arrives = self.dice.roll(self.to_server.len() as u64 + 1);
        for _ in 0..arrives {
            self.server_receives();
        }
        self.to_server.clear();
        // What was received is decided before the next session (A7).
        for _ in 0..20 {
            for n in 0..3 {
                let mut out = Vec::new();
                self.server.decide(thread(n), &mut self.dice, true, &mut out);
            }
        }
        self.to_client.clear();
        self.world.loses(None);
        self.collect();
        self.world.redials();
        if self.dice.one_in(2) {
            for lane in self.server.lanes.values_mut() {
                lane.gap_answered = false;
            }
            self.world.resumes();
        } else {
            self.server.lanes.clear();
            self.server.kept.clear();
            self.world.opens();
        }
        self.collect();
        self.to_server
            .retain(|message| matches!(message.message, ClientMessage::Action(..)));
    }

    fn step(&mut self) {
        match self.dice.roll(20) {
            0..3 => {
                let thread_id = thread(self.dice.roll(3));
                let id = self.world.acts(thread_id, "x");
                self.handed_over.entry(thread_id).or_default().push(id);
                self.collect();
            }
            3..8 => self.server_receives(),
            8..12 => self.server_decides(true),
            12..17 => self.client_receives(),
            17..19 => {
                let ms = self.dice.roll(200);
                self.world.pass(ms);
                self.collect();
            }
            // The server forgets a number that nothing hangs on (A2).
            _ if self.dice.one_in(4) => {
                let thread_id = thread(self.dice.roll(3));
                if self
                    .server
                    .lanes
                    .get(&thread_id)
                    .is_some_and(|lane| lane.waiting.is_empty())
                {
                    self.server.lanes.remove(&thread_id);
                }
            }
            // Twice in a row the same action would be a strike (R2), which is another test's story.
            _ if self.cuts < 2 => self.cut(),
            _ => {}
        }
    }

    /// No more faults: everything comes to its end.
    fn settle(&mut self) {
        for _ in 0..20_000 {
            self.server_receives();
            for n in 0..3 {
                let mut out = Vec::new();
                self.server.decide(thread(n), &mut self.dice, false, &mut out);
                self.to_client.extend(out);
            }
            self.client_receives();
            self.world.pass(5);
            self.collect();
            if self.world.machine.unanswered() == 0 && self.to_client.is_empty() {
                return;
            }
        }
        panic!("{} actions have no answer", self.world.machine.unanswered());
    }

    fn check(&self) {
        for (thread_id, handed_over) in &self.handed_over {
            let nothing = Vec::new();
            let log = self.server.logs.get(thread_id).unwrap_or(&nothing);
            let once: BTreeSet<&Id> = log.iter().collect();
            assert_eq!(once.len(), log.len(), "G3: applied twice");
            let in_order: Vec<Id> = handed_over.iter().copied().filter(|id| once.contains(id)).collect();
            assert_eq!(&in_order, log, "G4: out of order");
            for id in handed_over {
                let answer = self.answers.get(id).copied();
                let expected = if once.contains(id) { "ok" } else { "permission_denied" };
                assert_eq!(answer, Some(expected), "{id}: the answer is true");
                assert_eq!(self.server.refused.contains(id), !once.contains(id));
            }
        }
    }
}

#[test]
fn g3_g4_each_action_is_applied_once_and_in_order_whatever_the_wire_does() {
    let (mut actions, mut cuts) = (0, 0);
    for seed in 1..=100 {
        let mut run = Run::new(seed);
        for _ in 0..400 {
            run.step();
        }
        run.settle();
        run.check();
        actions += run.answers.len();
        cuts += run.cuts;
    }
    // The runs did something.
    assert!(actions > 3_000, "{actions}");
    assert!(cuts > 100, "{cuts}");
}
