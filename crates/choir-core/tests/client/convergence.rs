//! G1 and G6 in many random runs: updates that overlap, repeat or are missing, cuts and snapshots at any place, a replica that holds little. In the end it is
//! what it would be had it followed the log from entry 1 on, and history brings the rest.

use choir_core::client::keys::KeyRing;
use choir_core::client::replica::{Replica, Retain, Viewer};
use choir_core::client::view::Message;
use choir_core::client::{Event, Reply, Request, Update};
use choir_protocol::ids::Id;
use choir_protocol::message::{ClientMessage, ServerMessage, SnapshotReason};
use choir_protocol::thread::Role;

use crate::support::*;

struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

struct Run {
    log: Log,
    posted: Vec<(u8, Id)>,
    redacted: Vec<Id>,
    world: World,
    dice: Dice,
    /// Up to where the server has sent on this connection; none before the client asked.
    sent_to: Option<u64>,
    /// The head that was named when the subscription began.
    named: u64,
    snapshots: u32,
    gaps: u32,
}

impl Run {
    fn new(seed: u64) -> Self {
        let mut world = World::with(|config| {
            config.retain = Retain {
                messages: 40,
                entries: 200,
            };
        });
        world.opens();
        world.subscribes(Default::default());
        Self {
            log: Log::new(&[(2, Role::CoAuthor)]),
            posted: Vec::new(),
            redacted: Vec::new(),
            world,
            dice: Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1),
            sent_to: None,
            named: 0,
            snapshots: 0,
            gaps: 0,
        }
    }

    fn head(&self) -> u64 {
        self.log.head().get()
    }

    fn appends(&mut self) {
        let author = 1 + self.dice.roll(2) as u8;
        let some = self.dice.roll(self.posted.len().max(1) as u64) as usize;
        let target = self
            .posted
            .get(some)
            .copied()
            .filter(|(_, message)| !self.redacted.contains(message));
        match (self.dice.roll(6), target) {
            (0 | 1, Some((author, message))) => {
                let text = self.head().to_string();
                self.log.edit(author, message, &text);
            }
            (2, Some((author, message))) => {
                self.log.redact(author, message);
                self.redacted.push(message);
            }
            _ => {
                let text = self.head().to_string();
                let message = self.log.post(author, &text);
                self.posted.push((author, message));
            }
        }
    }

    /// Answers what the client asked for.
    fn answers(&mut self) {
        let asked = self.world.sent().into_iter().rev().find_map(|sent| match sent.message {
            ClientMessage::Subscribe(subscribe) => Some((sent.id, subscribe.threads.unwrap()[0].cursor)),
            _ => None,
        });
        let Some((id, cursor)) = asked else { return };
        let head = self.head();
        let by_cursor = cursor.filter(|_| self.dice.roll(4) > 0);
        let seq = by_cursor.map_or(head, |cursor| cursor.seq.get());
        // The helper answers the newest subscribe, which was just taken out.
        self.world.sent.push(choir_protocol::message::FromClient {
            id,
            timestamp: self.world.now.wall,
            message: ClientMessage::Subscribe(Default::default()),
        });
        self.named = head;
        self.world.answers_subscribe(seq, head);
        self.world
            .sent
            .retain(|sent| !matches!(&sent.message, ClientMessage::Subscribe(s) if s.threads.is_none()));
        if by_cursor.is_none() {
            self.snapshots += 1;
            let from = head.saturating_sub(self.dice.roll(10));
            let snapshot = self.log.snapshot(from, SnapshotReason::TooFarBehind);
            self.world
                .says_of(Some(self.log.thread_id), None, ServerMessage::Snapshot(snapshot));
        }
        self.sent_to = Some(seq);
    }

    fn updates(&mut self, lossy: bool) {
        let Some(sent_to) = self.sent_to else { return };
        let head = self.head();
        let mut from = sent_to.saturating_sub(self.dice.roll(5));
        // A second gap before the client was level would be the last (R2).
        let level = self.world.cursor() >= self.named;
        if lossy && level && self.dice.roll(6) == 0 && sent_to + 1 < head {
            from = sent_to + 1;
            self.gaps += 1;
        }
        let to = (from + self.dice.roll(12)).min(head).max(from);
        self.world.updates(self.log.range(from, to));
        self.sent_to = Some(sent_to.max(to));
    }

    fn step(&mut self) {
        match self.dice.roll(20) {
            0..7 => self.appends(),
            7..11 => self.answers(),
            11..18 => self.updates(true),
            18 => self.world.pass(100),
            _ => {
                self.world.loses(None);
                self.sent_to = None;
                self.world.redials();
                self.world.resumes();
            }
        }
    }

    fn settle(&mut self) {
        for _ in 0..1_000 {
            self.answers();
            self.updates(false);
            if self.world.cursor() == self.head() {
                return;
            }
        }
        panic!("the replica stays at {} of {}", self.world.cursor(), self.head());
    }

    fn messages_of(replica: &Replica) -> Vec<Message> {
        replica.view().messages().cloned().collect()
    }

    /// What a replica holds that followed the log from its beginning.
    fn whole(&self) -> Replica {
        let viewer = Viewer {
            user_id: user(1),
            audience: audience(),
            streams: None,
            retain: Retain {
                messages: 10_000,
                entries: 10_000,
            },
        };
        let mut replica = Replica::new(self.log.thread_id, viewer);
        replica.apply(self.log.range(0, self.head()), &mut KeyRing::default());
        replica
    }

    fn check(&mut self) {
        let told: Vec<_> = self
            .world
            .thread_updates()
            .into_iter()
            .filter(|update| match update {
                Update::Entries { findings, .. }
                | Update::Snapshot { findings, .. }
                | Update::Level { findings, .. } => !findings.is_empty(),
                Update::Desync { .. } => true,
                _ => false,
            })
            .collect();
        assert!(told.is_empty(), "an honest server gives no cause: {told:?}");
        let whole = self.whole();
        let held = self.world.machine.replica(thread(1)).unwrap();
        assert_eq!(held.cursor(), self.log.cursor(self.head()));
        let floor = held.floor().seq;
        let expected: Vec<_> = Self::messages_of(&whole)
            .into_iter()
            .filter(|message| message.seq > floor)
            .collect();
        assert_eq!(Self::messages_of(held), expected);
        assert!(expected.len() <= 40);
    }

    /// History, page by page, for a replica that has room for it.
    fn walks_back(&mut self) {
        if self.posted.len() > 20 {
            return;
        }
        loop {
            let request = Request::Earlier {
                thread_id: thread(1),
                limit: None,
            };
            self.world.machine.request(self.world.now, request).unwrap();
            self.world.collect();
            let asked = self.world.sent().into_iter().rev().find_map(|sent| match sent.message {
                ClientMessage::History(_, request) => Some((sent.id, request.before.get() - 1)),
                _ => None,
            });
            let Some((id, to)) = asked else {
                self.world.pass(100);
                continue;
            };
            let from = to.saturating_sub(1 + self.dice.roll(9));
            let page = self.log.page(from, to);
            self.world
                .says_of(Some(thread(1)), Some(id), ServerMessage::History(page));
            let replied = self.world.events().into_iter().find_map(|event| match event {
                Event::Replied { result, .. } => Some(result),
                _ => None,
            });
            match replied {
                Some(Ok(Reply::Earlier {
                    kept: true,
                    at_start: false,
                    ..
                })) => {}
                Some(Ok(Reply::Earlier {
                    kept: true,
                    at_start: true,
                    ..
                })) => break,
                other => panic!("a page that fits is taken, not {other:?}"),
            }
        }
        let held = self.world.machine.replica(thread(1)).unwrap();
        assert_eq!(Self::messages_of(held), Self::messages_of(&self.whole()));
    }
}

#[test]
fn g1_g6_a_replica_becomes_what_the_log_is_whatever_the_wire_does() {
    let (mut snapshots, mut gaps) = (0, 0);
    for seed in 1..=60 {
        let mut run = Run::new(seed);
        let steps = 40 + (seed % 4) * 100;
        for _ in 0..steps {
            run.step();
        }
        run.settle();
        run.check();
        run.walks_back();
        snapshots += run.snapshots;
        gaps += run.gaps;
    }
    // The runs did something.
    assert!(snapshots > 100, "{snapshots}");
    assert!(gaps > 30, "{gaps}");
}
