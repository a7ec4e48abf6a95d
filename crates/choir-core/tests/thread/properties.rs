//! What holds of every thread, whatever its people do. The world checks with each append that replaying it gives the state that was decided, that a saved state is
//! the state, and that an owner who has joined stays; here come the rules that only a whole log can show.

use std::collections::BTreeMap;

use choir_core::batch::{Batch, Step};
use choir_core::record::Record;
use choir_protocol::action::SignedAction;
use choir_protocol::entry::Kind;
use choir_protocol::ids::{Cursor, Id, Timestamp, UserId};
use choir_protocol::json::{Object, Value};
use choir_protocol::merkle::Peaks;
use choir_protocol::thread::{Role, Stream};
use proptest::prelude::*;

use crate::world::{ALICE, BOB, CAROL, DORA, EMIL, MINUTE, ROBOT, World, body, describe, object, user};

const PEOPLE: [&str; 6] = [ALICE, BOB, CAROL, DORA, EMIL, ROBOT];

/// Who acts: more often those who may, so that not nearly everything is refused.
const ACTORS: [&str; 14] = [
    ALICE, ALICE, ALICE, ALICE, BOB, BOB, BOB, CAROL, CAROL, CAROL, DORA, DORA, EMIL, ROBOT,
];

/// One thing that somebody tries. The numbers choose among what there is.
#[derive(Debug, Clone)]
struct Attempt {
    who: usize,
    what: u8,
    whom: usize,
    which: usize,
    detail: u8,
    after_ms: u64,
}

fn attempts(most: usize) -> impl Strategy<Value = Vec<Attempt>> {
    let attempt = (
        0..ACTORS.len(),
        0..18_u8,
        0..PEOPLE.len(),
        0..8_usize,
        any::<u8>(),
        0..5_000_u64,
    )
        .prop_map(|(who, what, whom, which, detail, after_ms)| Attempt {
            who,
            what,
            whom,
            which,
            detail,
            after_ms,
        });
    prop::collection::vec(attempt, 1..most)
}

fn policy(detail: u8) -> String {
    let approval = [r#""unanimous""#, r#""majority""#, r#""any""#, r#"{"at_least": 2}"#][usize::from(detail % 4)];
    let (admit, agents) = (detail & 4 != 0, detail & 8 != 0);
    format!(r#"{{"approval": {approval}, "expires_ms": 60000, "admit_authors": {admit}, "agents_decide": {agents}}}"#)
}

impl Attempt {
    /// The action, for a thread that looks like this one.
    fn action(&self, w: &mut World) -> (&'static str, SignedAction) {
        let mut who = ACTORS[self.who];
        let whom = user(PEOPLE[self.whom]);
        let pick = |ids: Vec<Id>| {
            let none = Id::from_bytes([9; 16]);
            if ids.is_empty() {
                none
            } else {
                ids[self.which % ids.len()]
            }
        };
        let of_kind = |w: &World, kind: Kind| {
            w.log
                .iter()
                .filter(|record| record.kind == kind)
                .map(|record| record.id)
                .collect()
        };
        let spec = {
            let open: Vec<Id> = w.thread().open_specs().map(|spec| spec.id).collect();
            pick(if open.is_empty() {
                of_kind(w, Kind::SpecSubmitted)
            } else {
                open
            })
        };
        let message = pick(of_kind(w, Kind::MessagePosted));
        // What only an author may do, the author does more often than anybody.
        if matches!(self.what, 3 | 4 | 10) && self.which > 0 {
            let target = if self.what == 10 { message } else { spec };
            let author = w
                .log
                .iter()
                .find(|record| record.id == target)
                .map(|record| &record.author);
            who = PEOPLE
                .into_iter()
                .find(|name| Some(&user(name)) == author)
                .unwrap_or(who);
        }
        let decision = ["approve", "approve", "deny", "request_changes"][usize::from(self.detail % 4)];
        let role = ["reader", "co_author", "co_author", "owner"][usize::from(self.detail % 4)];
        let agent = [None, None, Some(true), Some(false)][usize::from(self.detail / 4 % 4)];
        let mut payload = Object::new();
        let action_type = match self.what {
            0..=2 => {
                payload.insert("content", "hi");
                "action.submit_message"
            }
            3 => {
                payload.insert("spec", spec.to_string());
                payload.insert("content", self.detail);
                "action.revise_spec"
            }
            4 if self.detail < 128 => {
                payload.insert("spec", spec.to_string());
                "action.withdraw_spec"
            }
            4..=9 => {
                payload.insert("spec", spec.to_string());
                payload.insert("content_hash", w.hash_of(spec).to_hex());
                payload.insert("decision", decision);
                payload.insert("reason", "because");
                "action.process_approval"
            }
            10 if self.detail < 128 => {
                payload.insert("message", message.to_string());
                payload.insert("content", "ho");
                "action.edit_message"
            }
            10 => {
                payload.insert("message", message.to_string());
                "action.redact_message"
            }
            11 => {
                payload = match self.detail % 5 {
                    0 => object(r#"{"visibility": "public"}"#),
                    1 => object(r#"{"visibility": "private"}"#),
                    2 => object(r#"{"review": "readers", "propose": "everyone"}"#),
                    3 => object(r#"{"review": "co_authors"}"#),
                    _ => object(&format!(r#"{{"policy": {}}}"#, policy(self.detail))),
                };
                "action.update_thread"
            }
            12..=14 => {
                payload.insert("user_id", whom.to_string());
                payload.insert("role", role);
                if let Some(agent) = agent {
                    payload.insert("agent", agent);
                }
                "action.add_member"
            }
            15 => {
                payload.insert("user_id", whom.to_string());
                "action.remove_member"
            }
            16 => {
                payload.insert("user_id", user(who).to_string());
                "action.remove_member"
            }
            _ => {
                if let Some(agent) = agent {
                    payload.insert("agent", agent);
                }
                "action.join"
            }
        };
        (who, w.signs(who, action_type, payload))
    }
}

/// A thread with people in it, so that not everything is refused.
fn begun(detail: u8) -> World {
    let mut w = World::new();
    w.limits.open_specs_per_author = 2;
    let public = if detail & 16 == 0 { "private" } else { "public" };
    w.creates_with(
        ALICE,
        &format!(r#"{{"visibility": "{public}", "policy": {}}}"#, policy(detail)),
    )
    .ok();
    w.adds(ALICE, BOB, Role::CoAuthor).ok();
    w.joins(BOB).ok();
    w.adds(ALICE, CAROL, Role::Reader).ok();
    w.adds(ALICE, DORA, Role::CoAuthor).ok();
    w
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, ..ProptestConfig::default() })]

    #[test]
    fn every_log_follows_from_its_causes(detail in any::<u8>(), attempts in attempts(60)) {
        let mut w = begun(detail);
        for attempt in attempts {
            w.waits(attempt.after_ms);
            let (who, action) = attempt.action(&mut w);
            let _ = w.hands_in(who, action);
            views_show_what_they_may(&w);
        }
        Oracle::default().follows(&w.log);
        the_tree_is_that_of_the_leaves(&w);
    }

    #[test]
    fn a_batch_decides_as_one_after_the_other(detail in any::<u8>(), attempts in attempts(40)) {
        let mut one_by_one = begun(detail);
        let mut together = one_by_one.clone();
        let mut batch = Batch::on(together.thread_id, together.state.clone());
        for attempt in attempts {
            one_by_one.waits(attempt.after_ms / 10);
            together.now = one_by_one.now;
            let (who, action) = attempt.action(&mut one_by_one);
            let alone = one_by_one.hands_in(who, action.clone()).step;
            let mut step = together.decides_in(&mut batch, who, &action);
            while step == Step::Later {
                let closed = std::mem::replace(&mut batch, Batch::on(together.thread_id, None));
                if let Some(append) = closed.finish() {
                    together.appends(append);
                }
                batch = Batch::on(together.thread_id, together.state.clone());
                step = together.decides_in(&mut batch, who, &action);
            }
            prop_assert_eq!(step, alone);
        }
        if let Some(append) = batch.finish() {
            together.appends(append);
        }
        prop_assert_eq!(&together.state, &one_by_one.state);
        prop_assert_eq!(&together.log, &one_by_one.log);
    }

    #[test]
    fn a_saved_state_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = choir_core::thread::Thread::decode(&bytes);
    }
}

fn the_tree_is_that_of_the_leaves(w: &World) {
    let mut peaks = Peaks::new();
    for record in &w.log {
        let nodes = peaks.push(record.leaf(w.thread_id));
        assert_eq!((&record.nodes, record.root), (&nodes, peaks.root()));
    }
    assert_eq!(
        w.head(),
        w.log
            .last()
            .map(|last| Cursor {
                seq: last.seq,
                root: last.root
            })
            .expect("entries")
    );
}

/// S1, told once more: nobody sees what they may not, and everybody what they may.
fn views_show_what_they_may(w: &World) {
    let settings = object(&serde_json::to_string(w.thread().settings()).expect("JSON"));
    let is = |setting: &str, value: &str| settings.get(setting).and_then(Value::as_str) == Some(value);
    for who in PEOPLE {
        let me = user(who);
        let role = w
            .thread()
            .members()
            .find(|member| member.user_id == me)
            .map(|member| member.role);
        let view = w.view(who);
        assert_eq!(view.is_some(), is("visibility", "public") || role.is_some());
        let Some(view) = view else { continue };
        let all = is("review", "readers") || matches!(role, Some(Role::Owner | Role::CoAuthor));
        for record in &w.log {
            let spec = match record.kind {
                Kind::SpecSubmitted | Kind::SpecResolved => Some(record.id),
                Kind::SpecRevised | Kind::SpecWithdrawn | Kind::ApprovalGiven => record.about,
                _ => None,
            };
            let mine = spec.is_some_and(|spec| {
                w.log
                    .iter()
                    .any(|other| other.id == spec && other.kind == Kind::SpecSubmitted && other.author == me)
            });
            let updates = record.stream() == Stream::Updates;
            assert_eq!(view.sees_record(record), updates || all || mine);
            assert_eq!(
                view.sees_own(record.stream(), record.spec_author.as_ref()),
                !updates && !all && mine
            );
            assert_eq!(view.class().sees(record.stream()), updates || all);
        }
    }
}

/// Spec, author, current hash, expiry, decisions.
type Proposal = (Id, String, String, u64, BTreeMap<String, String>);

/// S3 and S7 to S9, written a second time and as plainly as can be: given what people did, what must the server have appended?
#[derive(Default)]
struct Oracle {
    /// Who, role, agent, joined.
    members: Vec<(String, String, bool, bool)>,
    public: bool,
    policy: Option<Object>,
    specs: Vec<Proposal>,
    /// What must follow next.
    due: Vec<String>,
}

impl Oracle {
    fn follows(&mut self, log: &[Record]) {
        for record in log {
            let derived =
                record.author == UserId::choir() || (!self.due.is_empty() && record.kind == Kind::MessagePosted);
            if !derived {
                assert!(
                    self.due.is_empty(),
                    "{:?} must follow, not {}",
                    self.due,
                    describe(record)
                );
                self.acted(record);
            } else if describe(record) == "spec_resolved expired" {
                assert!(self.due.is_empty());
                let at = self.specs.iter().position(|spec| spec.0 == record.id).expect("open");
                assert!(record.timestamp >= Timestamp::saturating(self.specs.remove(at).3));
            } else {
                assert!(
                    !self.due.is_empty(),
                    "nothing must follow, and not {}",
                    describe(record)
                );
                assert_eq!(self.due.remove(0), format!("{} {}", describe(record), record.id));
            }
        }
        assert!(self.due.is_empty());
    }

    fn acted(&mut self, record: &Record) {
        let author = record.author.to_string();
        let said = body(record).unwrap_or_default();
        let text = |name: &str| said.get(name).and_then(Value::as_str).unwrap_or_default().to_string();
        let flag = said.get("agent").and_then(Value::as_bool);
        let now = record.timestamp.get();
        assert!(
            self.specs.iter().all(|spec| spec.3 > now),
            "S8: nothing is decided while something is due"
        );
        let before = (self.members.clone(), self.public, self.policy.clone());
        let mut decided = false;
        match record.kind.as_str() {
            "thread_created" => {
                self.members.push((author.clone(), "owner".into(), false, true));
                self.public = text("visibility") == "public";
                self.policy = said.get("policy").and_then(Value::as_object).cloned();
            }
            "thread_updated" => {
                if said.contains("visibility") {
                    self.public = text("visibility") == "public";
                }
                if let Some(policy) = said.get("policy").and_then(Value::as_object) {
                    self.policy = Some(policy.clone());
                }
            }
            "member_added" => match self.members.iter_mut().find(|member| member.0 == text("user_id")) {
                Some(member) => {
                    member.1 = text("role");
                    member.2 = flag.unwrap_or(member.2);
                }
                None => self
                    .members
                    .push((text("user_id"), text("role"), flag == Some(true), false)),
            },
            "member_joined" => match self.members.iter_mut().find(|member| member.0 == author) {
                Some(member) => member.2 |= flag == Some(true),
                None => self
                    .members
                    .push((author.clone(), "reader".into(), flag == Some(true), true)),
            },
            "member_removed" => self.members.retain(|member| member.0 != text("user_id")),
            "spec_submitted" => {
                let expires = now + self.policy_number("expires_ms");
                self.specs.push((
                    record.id,
                    author.clone(),
                    record.content_hash.to_hex(),
                    expires,
                    BTreeMap::new(),
                ));
            }
            "spec_revised" => {
                let spec = self
                    .specs
                    .iter_mut()
                    .find(|spec| Some(spec.0) == record.about)
                    .expect("open");
                assert_eq!(spec.1, author);
                spec.2 = record.content_hash.to_hex();
                spec.4.clear();
            }
            "spec_withdrawn" => self.specs.retain(|spec| Some(spec.0) != record.about),
            "approval_given" => {
                let spec = self
                    .specs
                    .iter_mut()
                    .find(|spec| spec.0.to_string() == text("spec"))
                    .expect("open");
                assert_eq!(spec.2, text("content_hash"));
                spec.4.insert(author.clone(), text("decision"));
                decided = true;
            }
            _ => {}
        }
        if let Some(member) = self.members.iter_mut().find(|member| member.0 == author) {
            member.3 = true;
        }
        if decided || before != (self.members.clone(), self.public, self.policy.clone()) {
            self.evaluate();
        }
    }

    fn policy_number(&self, name: &str) -> u64 {
        self.policy
            .as_ref()
            .and_then(|policy| policy.get(name))
            .and_then(Value::as_unsigned)
            .expect("a number")
    }

    fn policy_flag(&self, name: &str) -> bool {
        self.policy
            .as_ref()
            .and_then(|policy| policy.get(name))
            .and_then(Value::as_bool)
            .expect("a flag")
    }

    fn evaluate(&mut self) {
        for spec in self.specs.clone() {
            let Some(outcome) = self.outcome(&spec.1, &spec.4) else {
                continue;
            };
            self.specs.retain(|other| other.0 != spec.0);
            self.due.push(format!("spec_resolved {outcome} {}", spec.0));
            if outcome != "approved" {
                continue;
            }
            self.due.push(format!("message_posted {}", spec.0));
            let member = self.members.iter_mut().find(|member| member.0 == spec.1);
            let software = spec.1.starts_with("robots:") || member.as_ref().is_some_and(|member| member.2);
            let co_author = member.as_ref().is_some_and(|member| member.1 != "reader");
            let admits = self
                .policy
                .as_ref()
                .and_then(|policy| policy.get("admit_authors"))
                .and_then(Value::as_bool);
            if admits == Some(true) && !software && !co_author {
                self.due.push(format!("member_added {}", spec.0));
                match member {
                    Some(member) => (member.1, member.3) = ("co_author".into(), true),
                    None => self.members.push((spec.1, "co_author".into(), false, true)),
                }
            }
        }
    }

    fn outcome(&self, author: &str, decisions: &BTreeMap<String, String>) -> Option<&'static str> {
        if !self.public && !self.members.iter().any(|member| member.0 == author) {
            return Some("author_left");
        }
        let agents = self.policy_flag("agents_decide");
        let deciding: Vec<&String> = self
            .members
            .iter()
            .filter(|member| member.1 != "reader" && member.3 && (agents || !member.2))
            .map(|member| &member.0)
            .collect();
        let count = |decision: &str| {
            deciding
                .iter()
                .filter(|user| decisions.get(**user).is_some_and(|said| said == decision))
                .count() as f64
        };
        let (n, a, d) = (deciding.len() as f64, count("approve"), count("deny"));
        if n == 0.0 {
            return None;
        }
        let approval = self
            .policy
            .as_ref()
            .and_then(|policy| policy.get("approval"))
            .expect("a rule");
        let (approved, denied) = match (approval.as_str(), approval.as_object()) {
            (Some("unanimous"), _) => (a == n, d > 0.0),
            (Some("any"), _) => (a > 0.0, d == n),
            (Some("majority"), _) => (a > n / 2.0, d >= n / 2.0),
            (_, Some(at_least)) => {
                let k = at_least.get("at_least").and_then(Value::as_unsigned).expect("k") as f64;
                (a >= n.min(k), n - d < n.min(k))
            }
            other => panic!("{other:?}"),
        };
        if approved {
            Some("approved")
        } else {
            denied.then_some("denied")
        }
    }
}

/// The random threads do something: else the properties above would hold of nothing.
#[test]
fn random_threads_see_every_outcome() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    let mut runner = TestRunner::deterministic();
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for round in 0..120 {
        let mut w = begun(round);
        let attempts = attempts(60).new_tree(&mut runner).expect("a tree").current();
        for attempt in attempts {
            w.waits(attempt.after_ms);
            let (who, action) = attempt.action(&mut w);
            let answer = w.hands_in(who, action);
            if let Step::Refused(refusal) = answer.step {
                *seen.entry(refusal.code.to_string()).or_default() += 1;
            }
        }
        w.waits(MINUTE);
        w.expires();
        for record in &w.log {
            *seen.entry(describe(record)).or_default() += 1;
        }
    }
    for what in [
        "spec_resolved approved",
        "spec_resolved denied",
        "spec_resolved expired",
        "spec_resolved author_left",
        "spec_withdrawn",
        "spec_revised",
        "message_redacted",
        "message_edited",
        "member_joined",
        "member_removed",
        "not_found",
        "permission_denied",
        "conflict",
        "limit",
    ] {
        assert!(seen.get(what).is_some_and(|count| *count >= 3), "{what}: {seen:?}");
    }
}
