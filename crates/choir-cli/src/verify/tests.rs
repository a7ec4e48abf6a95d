//! Threads that the core made, and threads that somebody bent: what holds must be proved, what doesn't must be named.

use choir_core::batch::{Batch, Step};
use choir_core::decide::{Context, Lookups, ThreadLimits, targets};
use choir_core::record::{Found, Record};
use choir_core::thread::Thread;
use choir_core::view::view;
use choir_protocol::action::{SignedAction, Unsigned};
use choir_protocol::canonical::Canonical;
use choir_protocol::entry::entry_leaf;
use choir_protocol::hash::Hash;
use choir_protocol::ids::{Id, Salt, Timestamp};
use choir_protocol::json::{Object, Value};
use choir_protocol::key::SecretKey;
use choir_protocol::merkle::Peaks;
use choir_protocol::object;
use choir_protocol::range::Hidden;

use super::*;

const ALICE: u8 = 1;
const BOB: u8 = 2;
const CAROL: u8 = 3;

fn user(seed: u8) -> UserId {
    UserId::of_key(&SecretKey::from_seed(&[seed; 32]).public())
}

fn audience() -> Audience {
    "https://choir.example".parse().unwrap()
}

/// A thread, and the log of it that a server would keep.
struct World {
    thread: ThreadId,
    state: Option<Thread>,
    records: Vec<Record>,
    now: u64,
    acted: u64,
}

impl World {
    fn new() -> Self {
        Self {
            thread: ThreadId::from_bytes([9; 16]),
            state: None,
            records: Vec::new(),
            now: 1_764_000_000_000,
            acted: 0,
        }
    }

    /// A thread of Alice's, with Bob as a co-author and Carol as a reader.
    fn begun(policy: &str) -> Self {
        let mut world = Self::new();
        let text = format!(
            r#"{{"title":"t","audience":"https://choir.example","policy":{policy},"members":[
                {{"user_id":"{}","role":"co_author"}},{{"user_id":"{}","role":"reader"}}]}}"#,
            user(BOB),
            user(CAROL)
        );
        world.does(
            ALICE,
            "action.create_thread",
            choir_protocol::json::parse(&text).unwrap().into_object().unwrap(),
        );
        world
    }

    /// Acts; the action's id, or none where the core refuses it.
    fn tries(&mut self, who: u8, action_type: &str, mut payload: Object) -> Option<Id> {
        self.acted += 1;
        self.now += 1_000;
        let now = Timestamp::saturating(self.now);
        let id = Id::v7(self.now, [who; 10]);
        if !matches!(
            action_type,
            "action.join"
                | "action.add_member"
                | "action.remove_member"
                | "action.redact_message"
                | "action.withdraw_spec"
        ) {
            payload.insert("salt", Salt::from_bytes([who; 16]).to_string());
        }
        let (secret, author, audience) = (SecretKey::from_seed(&[who; 32]), user(who), audience());
        let seen = self.state.as_ref().map(Thread::head);
        let unsigned = Unsigned {
            audience: &audience,
            user_id: &author,
            id,
            action_type,
            thread_id: self.thread,
            timestamp: now,
            seen,
            payload: &payload,
        };
        let action = SignedAction::sign(unsigned, &secret).unwrap();
        let limits = ThreadLimits::default();
        loop {
            let context = Context {
                author: &author,
                key: &secret.public(),
                audience: &audience,
                now,
                limits: &limits,
                audiences: std::slice::from_ref(&audience),
                agent_issuers: &[],
            };
            let found = targets(&action).into_iter().map(|id| (id, self.find(id))).collect();
            let lookups = Lookups {
                found,
                seen_root: seen.map(|seen| seen.root),
            };
            let mut batch = Batch::on(self.thread, self.state.clone());
            let step = batch.decide(&action, &context, lookups);
            if let Some(append) = batch.finish() {
                self.records.extend(append.records);
                for (seq, by) in append.facts.erase {
                    self.records[seq.get() as usize - 1].body = Body::Erased(by);
                }
                self.state = Some(append.next);
            }
            match step {
                Step::Committed { .. } => return Some(id),
                Step::Later => {}
                _ => return None,
            }
        }
    }

    fn does(&mut self, who: u8, action_type: &str, payload: Object) -> Id {
        self.tries(who, action_type, payload)
            .unwrap_or_else(|| panic!("{action_type} was refused"))
    }

    fn says(&mut self, who: u8, text: &str) -> Id {
        self.does(who, "action.submit_message", object! { "content": text })
    }

    fn decides(&mut self, who: u8, spec: Id, decision: &str) {
        assert!(self.tries_to_decide(who, spec, decision));
    }

    fn tries_to_decide(&mut self, who: u8, spec: Id, decision: &str) -> bool {
        let Some(hash) = self
            .state
            .as_ref()
            .and_then(|thread| thread.spec(spec))
            .map(|spec| spec.revision.content_hash)
        else {
            return false;
        };
        let payload = object! { "spec": spec.to_string(), "content_hash": hash.to_string(), "decision": decision, "reason": "so" };
        self.tries(who, "action.process_approval", payload).is_some()
    }

    fn find(&self, id: Id) -> Vec<Found> {
        self.records
            .iter()
            .filter(|record| record.id == id || record.about == Some(id))
            .map(Found::of)
            .collect()
    }

    fn entries(&self) -> Vec<Entry> {
        self.records.iter().map(|record| record.to_entry(true)).collect()
    }

    /// What a server would send this user, in pages of `size`, newest first.
    fn pages(&self, who: u8, size: usize) -> Vec<Range> {
        let view = view(self.state.as_ref().unwrap(), &user(who)).unwrap();
        let (mut peaks, mut pages) = (Peaks::new(), Vec::new());
        for chunk in self.records.chunks(size) {
            let from = peaks.clone();
            for record in chunk {
                peaks.push(record.leaf(self.thread));
            }
            let (seen, hidden): (Vec<&Record>, Vec<&Record>) =
                chunk.iter().partition(|record| view.sees_record(record));
            pages.insert(
                0,
                Range {
                    from: Seq::saturating(from.size()),
                    to: chunk.last().unwrap().seq,
                    root: peaks.root(),
                    entries: seen.into_iter().map(|record| record.to_entry(true)).collect(),
                    hidden: Some(
                        hidden
                            .into_iter()
                            .map(|record| Hidden(record.seq, record.stream(), record.inner()))
                            .collect(),
                    ),
                    peaks: Some(from.as_slice().to_vec()),
                },
            );
        }
        pages
    }

    fn checked(&self, who: u8) -> Report {
        check_pages(self.thread, who, self.pages(who, 3))
    }
}

fn check_pages(thread: ThreadId, who: u8, pages: Vec<Range>) -> Report {
    let head = pages.first().map(Range::end).unwrap();
    let signed = Checkpoint {
        origin: String::new(),
        size: head.seq.get(),
        root: head.root,
        time_ms: 0,
    };
    check(thread, &user(who), &audience(), pages, &signed)
}

/// A log of these entries whose tree is right, whatever they say: what a server could make that lies.
fn forged_log(thread: ThreadId, mut entries: Vec<Entry>) -> Vec<Range> {
    let mut peaks = Peaks::new();
    for (n, entry) in entries.iter_mut().enumerate() {
        entry.seq = Seq::saturating(n as u64 + 1);
        peaks.push(entry_leaf(thread, entry.seq, entry.stream, &entry.inner().unwrap()));
    }
    let to = Seq::saturating(entries.len() as u64);
    vec![Range {
        from: Seq::ZERO,
        to,
        root: peaks.root(),
        entries,
        hidden: None,
        peaks: Some(Vec::new()),
    }]
}

fn first(report: &Report) -> (u64, &str) {
    let problem = report.problems.first().expect("it should have been noticed");
    (problem.seq.unwrap().get(), &problem.why)
}

#[track_caller]
fn holds(report: &Report) {
    assert_eq!(report.problems, [], "{report:#?}");
}

#[test]
fn a_thread_with_everything_in_it_is_proved() {
    let mut world = World::begun(r#"{"approval":"majority","admit_authors":true}"#);
    world.says(ALICE, "hello");
    let spec = world.says(CAROL, "an idea");
    world.does(
        CAROL,
        "action.revise_spec",
        object! { "spec": spec.to_string(), "content": "a better idea" },
    );
    world.decides(ALICE, spec, "request_changes");
    world.decides(ALICE, spec, "approve");
    holds(&world.checked(ALICE));
}

#[test]
fn outcomes_erasures_and_members_are_recomputed() {
    let mut world = World::begun(r#"{"approval":{"at_least":2},"admit_authors":true,"expires_ms":60000}"#);
    world.does(BOB, "action.join", object! {});
    let one = world.says(CAROL, "one");
    let two = world.says(CAROL, "two");
    world.decides(ALICE, one, "approve");
    world.does(
        CAROL,
        "action.revise_spec",
        object! { "spec": one.to_string(), "content": "one, better" },
    );
    world.decides(ALICE, one, "approve");
    world.decides(BOB, one, "approve");
    world.decides(ALICE, two, "deny");
    world.does(ALICE, "action.redact_message", object! { "message": one.to_string() });
    let late = world.says(BOB, "by a co-author, at once");
    world.does(
        BOB,
        "action.edit_message",
        object! { "message": late.to_string(), "content": "edited" },
    );
    let report = world.checked(ALICE);
    holds(&report);
    let row = |what: &str| report.checks.iter().find(|check| check.what == what).unwrap();
    assert_eq!(row("outcomes of specs").count, 1);
    assert_eq!(row("erased bodies").count, 3, "submission, revision and message");
    assert_eq!(row("messages").count, 2);
    assert!(
        report.checks.iter().all(|check| check.state == State::Proved),
        "{report:#?}"
    );
    // The second one expires before anything later is decided.
    world.now += 120_000;
    world.says(ALICE, "later");
    let report = world.checked(ALICE);
    holds(&report);
    assert_eq!(
        report
            .checks
            .iter()
            .find(|check| check.what == "outcomes of specs")
            .unwrap()
            .count,
        2
    );
}

#[test]
fn who_may_not_see_specs_is_told_what_could_not_be_proved() {
    let mut world = World::begun(r#"{"approval":"any"}"#);
    world.does(
        ALICE,
        "action.add_member",
        object! { "user_id": user(4).to_string(), "role": "reader" },
    );
    let spec = world.says(CAROL, "one");
    world.decides(ALICE, spec, "approve");
    let own = world.checked(CAROL);
    holds(&own);
    let other = world.checked(4);
    holds(&other);
    let row = other
        .checks
        .iter()
        .find(|check| check.what == "hidden entries")
        .unwrap();
    assert_eq!((row.state, row.count), (State::Partly, 3));
    assert_eq!(
        other
            .checks
            .iter()
            .find(|check| check.what == "outcomes of specs")
            .unwrap()
            .state,
        State::Partly
    );
}

#[test]
fn a_changed_body_is_named() {
    let mut world = World::begun("{}");
    world.says(ALICE, "I owe Bob 10");
    let mut entries = world.entries();
    let changed = Canonical::of(&Value::Object(
        object! { "content": "I owe Bob 1000", "salt": Salt::from_bytes([1; 16]).to_string() },
    ));
    // With the old hash it isn't what was hashed; with a new one it isn't what was signed.
    entries[1].body = Body::Present(changed.clone());
    let report = check_pages(world.thread, BOB, forged_log(world.thread, entries.clone()));
    assert!(
        first(&report).1.contains("isn't the one that was hashed"),
        "{report:#?}"
    );
    entries[1].content_hash = Some(changed.hash());
    let report = check_pages(world.thread, BOB, forged_log(world.thread, entries));
    assert_eq!(first(&report).0, 2);
    assert_eq!(
        report
            .checks
            .iter()
            .find(|check| check.what == "signatures")
            .unwrap()
            .state,
        State::Failed
    );
}

#[test]
fn a_left_out_entry_is_noticed() {
    let mut world = World::begun("{}");
    world.says(ALICE, "one");
    world.says(ALICE, "two");
    let mut pages = world.pages(BOB, 10);
    pages[0].entries.remove(1);
    let report = check_pages(world.thread, BOB, pages);
    assert!(first(&report).1.contains("doesn't say what stands at 2"), "{report:#?}");
    // A log that was made anew without it contradicts what its authors had seen.
    let mut entries = world.entries();
    entries.remove(1);
    let report = check_pages(world.thread, BOB, forged_log(world.thread, entries));
    assert!(first(&report).1.contains("had seen 2 entries"), "{report:#?}");
}

#[test]
fn another_history_than_the_signed_one_is_noticed() {
    let mut world = World::begun("{}");
    world.says(ALICE, "one");
    let pages = world.pages(BOB, 10);
    let signed = Checkpoint {
        origin: String::new(),
        size: 2,
        root: Hash::of(b"other"),
        time_ms: 0,
    };
    let report = check(world.thread, &user(BOB), &audience(), pages, &signed);
    assert!(first(&report).1.contains("signed another root"), "{report:#?}");
}

#[test]
fn what_is_hidden_without_right_is_named() {
    let mut world = World::begun("{}");
    world.says(ALICE, "one");
    world.says(CAROL, "a spec");
    let mut pages = world.pages(ALICE, 10);
    let taken = pages[0].entries.remove(2);
    pages[0].hidden = Some(vec![Hidden(taken.seq, taken.stream, taken.inner().unwrap())]);
    let report = check_pages(world.thread, ALICE, pages);
    assert_eq!(first(&report).0, 3);
    assert!(first(&report).1.contains("hidden"), "{report:#?}");
}

#[test]
fn an_outcome_that_does_not_follow_is_named() {
    let mut world = World::begun(r#"{"approval":"unanimous"}"#);
    world.does(BOB, "action.join", object! {});
    let spec = world.says(CAROL, "one");
    world.decides(ALICE, spec, "approve");
    world.decides(BOB, spec, "approve");
    world.says(ALICE, "on");
    holds(&world.checked(ALICE));
    let entries = world.entries();
    let audit = |entries: Vec<Entry>| {
        Audit::run(&entries, [])
            .findings()
            .iter()
            .map(|f| (f.seq.get(), f.why.clone()))
            .collect::<Vec<_>>()
    };
    let kinds: Vec<&str> = entries.iter().map(|entry| entry.kind.as_str()).collect();
    assert_eq!(
        kinds[4..8],
        ["approval_given", "spec_resolved", "message_posted", "message_posted"]
    );

    // Bob's approval never was: published all the same.
    let mut bent = entries.clone();
    bent.remove(4);
    assert!(audit(bent)[0].1.contains("by the decisions and the policy it is open"));
    // It was approved, and said to be denied.
    let mut bent = entries.clone();
    bent[5].body = Body::Present(Canonical::of(&Value::Object(
        object! { "spec": spec.to_string(), "outcome": "denied" },
    )));
    bent.remove(6);
    assert!(audit(bent)[0].1.contains("said to be denied"));
    // It was approved, and kept back.
    let mut bent = entries.clone();
    bent.drain(5..7);
    assert!(audit(bent)[0].1.contains("which had to stand before this"));
    // It was approved, and its message kept back.
    let mut bent = entries.clone();
    bent.remove(6);
    assert!(audit(bent)[0].1.contains("the message of the approved spec"));
    // Something else was published than what was approved.
    let mut bent = entries.clone();
    bent[6].content_hash = Some(Hash::of(b"other"));
    assert!(audit(bent)[0].1.contains("isn't what was approved"));
    // It was published before anybody approved.
    let mut bent = entries.clone();
    bent.drain(3..6);
    assert!(audit(bent)[0].1.contains("no co-author"));
    // It expired too early.
    let mut bent = entries;
    bent[5].body = Body::Present(Canonical::of(&Value::Object(
        object! { "spec": spec.to_string(), "outcome": "expired" },
    )));
    bent.remove(6);
    assert!(audit(bent).iter().any(|(_, why)| why.contains("hadn't expired")));
}

#[test]
fn whatever_the_core_decides_follows() {
    let mut refused = 0;
    for seed in 0..40_u64 {
        let mut chance = Chance(seed + 1);
        let policy = chance.pick(&[
            r#"{"approval":"unanimous"}"#,
            r#"{"approval":"majority","admit_authors":true}"#,
            r#"{"approval":"any","agents_decide":true}"#,
            r#"{"approval":{"at_least":2},"admit_authors":true,"expires_ms":60000}"#,
        ]);
        let mut world = World::begun(policy);
        let mut messages: Vec<Id> = Vec::new();
        for _ in 0..60 {
            refused += u32::from(!random_step(&mut world, &mut chance, &mut messages));
        }
        for who in [ALICE, BOB, CAROL, 4] {
            if view(world.state.as_ref().unwrap(), &user(who)).is_some() {
                let report = world.checked(who);
                assert_eq!(
                    report.problems,
                    [],
                    "seed {seed}, as {who}: {:#?}",
                    world
                        .entries()
                        .iter()
                        .map(|e| (e.seq, e.kind.clone()))
                        .collect::<Vec<_>>()
                );
            }
        }
    }
    assert!(refused > 100, "the walks try what isn't allowed, too");
}

/// A cheap generator, so that a seed replays.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }
}

/// One step of somebody; whether the core took it.
fn random_step(world: &mut World, chance: &mut Chance, messages: &mut Vec<Id>) -> bool {
    let who = chance.pick(&[ALICE, ALICE, BOB, CAROL, 4]);
    let whom = user(chance.pick(&[ALICE, BOB, CAROL, 4])).to_string();
    let open: Vec<Id> = world
        .state
        .iter()
        .flat_map(Thread::open_specs)
        .map(|spec| spec.id)
        .collect();
    let spec = if open.is_empty() {
        Id::from_bytes([1; 16])
    } else {
        chance.pick(&open)
    };
    if chance.below(25) == 0 {
        world.now += 61_000;
    }
    let (action, payload) = match chance.below(16) {
        0..=3 => ("action.submit_message", object! { "content": "text" }),
        4..=7 => {
            let decision = chance.pick(&["approve", "approve", "deny", "request_changes"]);
            return world.tries_to_decide(who, spec, decision);
        }
        8 => (
            "action.revise_spec",
            object! { "spec": spec.to_string(), "content": "revised" },
        ),
        9 => ("action.withdraw_spec", object! { "spec": spec.to_string() }),
        10 => {
            let role = chance.pick(&["owner", "co_author", "co_author", "reader"]);
            (
                "action.add_member",
                object! { "user_id": whom, "role": role, "agent": chance.below(4) == 0 },
            )
        }
        11 => ("action.remove_member", object! { "user_id": whom }),
        12 => ("action.join", object! {}),
        13 => {
            let visibility = chance.pick(&["private", "public"]);
            ("action.update_thread", object! { "visibility": visibility })
        }
        kind => {
            if messages.is_empty() {
                return true;
            }
            let message = chance.pick(messages).to_string();
            if kind == 14 {
                (
                    "action.edit_message",
                    object! { "message": message, "content": "edited" },
                )
            } else {
                ("action.redact_message", object! { "message": message })
            }
        }
    };
    let done = world.tries(who, action, payload);
    if let (Some(id), "action.submit_message") = (done, action) {
        messages.push(id);
    }
    done.is_some()
}
