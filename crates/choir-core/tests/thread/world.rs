//! A thread, its people and its log, so that tests read like the protocol's rules.

use std::collections::{BTreeMap, BTreeSet};

use choir_core::apply::apply;
use choir_core::batch::{Batch, Step};
use choir_core::decide::{Append, Context, Lookups, Own, Refusal, ThreadLimits, targets};
use choir_core::record::{Found, Record};
use choir_core::thread::Thread;
use choir_core::view::{View, view};
use choir_protocol::action::{SignedAction, Unsigned};
use choir_protocol::entry::Body;
use choir_protocol::error::ErrorCode;
use choir_protocol::hash::Hash;
use choir_protocol::ids::{Audience, Cursor, Id, Salt, Seq, ThreadId, Timestamp, UserId};
use choir_protocol::json::{self, Object, Value};
use choir_protocol::key::SecretKey;
use choir_protocol::thread::{Member, Role};

pub(crate) const ALICE: &str = "alice";
pub(crate) const BOB: &str = "bob";
pub(crate) const CAROL: &str = "carol";
pub(crate) const DORA: &str = "dora";
pub(crate) const EMIL: &str = "emil";
/// A user of an issuer of agents.
pub(crate) const ROBOT: &str = "robots:r2";

pub(crate) const AUDIENCE: &str = "https://choir.example";
pub(crate) const MINUTE: u64 = 60_000;
pub(crate) const DAY: u64 = 24 * 60 * MINUTE;

/// The key of somebody.
pub(crate) fn key_of(who: &str) -> SecretKey {
    SecretKey::from_seed(Hash::of(who.as_bytes()).as_bytes())
}

/// Somebody's user id: who is named without an issuer is their key.
pub(crate) fn user(who: &str) -> UserId {
    if who.contains(':') {
        who.parse().expect("a user id")
    } else {
        UserId::of_key(&key_of(who).public())
    }
}

pub(crate) fn object(text: &str) -> Object {
    json::parse(text).expect("JSON").into_object().expect("an object")
}

/// What came of an action.
#[must_use = "say what is expected of it"]
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) action: SignedAction,
    pub(crate) step: Step,
}

impl Answer {
    /// It is applied; its id, which names the message or spec.
    #[track_caller]
    pub(crate) fn ok(&self) -> Id {
        match &self.step {
            Step::Committed { .. } => self.action.id,
            other => panic!("expected the action to be applied, got {other:?}"),
        }
    }

    #[track_caller]
    pub(crate) fn own(&self) -> Own {
        match &self.step {
            Step::Committed { own, .. } | Step::Duplicate { own, .. } => own.clone(),
            other => panic!("expected a receipt, got {other:?}"),
        }
    }

    /// It is refused with this code.
    #[track_caller]
    pub(crate) fn says(&self, code: ErrorCode) -> Refusal {
        match &self.step {
            Step::Refused(refusal) if refusal.code == code => refusal.clone(),
            other => panic!("expected {code}, got {other:?}"),
        }
    }

    #[track_caller]
    pub(crate) fn is_a_duplicate_of(&self, earlier: &Answer) {
        match &self.step {
            Step::Duplicate { own, .. } => assert_eq!(*own, earlier.own()),
            other => panic!("expected a duplicate, got {other:?}"),
        }
    }
}

#[derive(Debug, Clone)]
pub(crate) struct World {
    pub(crate) thread_id: ThreadId,
    pub(crate) state: Option<Thread>,
    pub(crate) log: Vec<Record>,
    /// How many entries each append had.
    pub(crate) appends: Vec<usize>,
    pub(crate) members: BTreeMap<UserId, (Role, bool)>,
    pub(crate) now: u64,
    pub(crate) limits: ThreadLimits,
    pub(crate) seen: Option<Cursor>,
    /// The audience that actions are signed for.
    pub(crate) audience: Audience,
    next_id: u64,
}

impl World {
    pub(crate) fn new() -> Self {
        Self {
            thread_id: "01930000-0000-7000-8000-000000000001".parse().expect("an id"),
            state: None,
            log: Vec::new(),
            appends: Vec::new(),
            members: BTreeMap::new(),
            now: 1_764_000_000_000,
            limits: ThreadLimits::default(),
            seen: None,
            audience: AUDIENCE.parse().expect("an audience"),
            next_id: 1,
        }
    }

    /// A thread of Alice, with everyone named as a co-author who has joined, and Carol as a reader who hasn't.
    pub(crate) fn with(policy: &str, co_authors: &[&str]) -> Self {
        let mut w = Self::new();
        w.creates_with(ALICE, &format!(r#"{{"policy": {policy}}}"#)).ok();
        for co_author in co_authors {
            w.adds(ALICE, co_author, Role::CoAuthor).ok();
            w.joins(co_author).ok();
        }
        w.adds(ALICE, CAROL, Role::Reader).ok();
        w
    }

    // --- What people do ---

    pub(crate) fn creates(&mut self, who: &str) -> Answer {
        self.creates_with(who, "{}")
    }

    pub(crate) fn creates_with(&mut self, who: &str, settings: &str) -> Answer {
        let mut payload = object(settings);
        if !payload.contains("title") {
            payload.insert("title", "a thread");
        }
        if !payload.contains("audience") {
            payload.insert("audience", AUDIENCE);
        }
        self.acts(who, "action.create_thread", payload)
    }

    pub(crate) fn posts(&mut self, who: &str, text: &str) -> Answer {
        let mut payload = Object::new();
        payload.insert("content", text);
        self.acts(who, "action.submit_message", payload)
    }

    /// The same action as `posts`: whether it is published or proposed depends on who sends it.
    pub(crate) fn proposes(&mut self, who: &str, text: &str) -> Id {
        let answer = self.posts(who, text);
        assert_eq!(answer.own().kind.as_str(), "spec_submitted");
        answer.ok()
    }

    pub(crate) fn answers(&mut self, who: &str, parent: Id, text: &str) -> Answer {
        let mut payload = Object::new();
        payload.insert("content", text);
        payload.insert("parent", parent.to_string());
        self.acts(who, "action.submit_message", payload)
    }

    pub(crate) fn revises(&mut self, who: &str, spec: Id, text: &str) -> Answer {
        let mut payload = Object::new();
        payload.insert("spec", spec.to_string());
        payload.insert("content", text);
        self.acts(who, "action.revise_spec", payload)
    }

    pub(crate) fn withdraws(&mut self, who: &str, spec: Id) -> Answer {
        self.about(who, "action.withdraw_spec", "spec", spec)
    }

    pub(crate) fn approves(&mut self, who: &str, spec: Id) -> Answer {
        self.decides(who, spec, "approve")
    }

    pub(crate) fn denies(&mut self, who: &str, spec: Id) -> Answer {
        self.decides(who, spec, "deny")
    }

    pub(crate) fn requests_changes(&mut self, who: &str, spec: Id) -> Answer {
        self.decides(who, spec, "request_changes")
    }

    pub(crate) fn decides(&mut self, who: &str, spec: Id, decision: &str) -> Answer {
        let hash = self.hash_of(spec);
        self.decides_on(who, spec, hash, decision)
    }

    pub(crate) fn decides_on(&mut self, who: &str, spec: Id, hash: Hash, decision: &str) -> Answer {
        let mut payload = Object::new();
        payload.insert("spec", spec.to_string());
        payload.insert("content_hash", hash.to_hex());
        payload.insert("decision", decision);
        if decision == "request_changes" {
            payload.insert("reason", "not like this");
        }
        self.acts(who, "action.process_approval", payload)
    }

    pub(crate) fn edits(&mut self, who: &str, message: Id, text: &str) -> Answer {
        let mut payload = Object::new();
        payload.insert("message", message.to_string());
        payload.insert("content", text);
        self.acts(who, "action.edit_message", payload)
    }

    pub(crate) fn redacts(&mut self, who: &str, message: Id) -> Answer {
        self.about(who, "action.redact_message", "message", message)
    }

    pub(crate) fn updates(&mut self, who: &str, settings: &str) -> Answer {
        self.acts(who, "action.update_thread", object(settings))
    }

    pub(crate) fn adds(&mut self, who: &str, whom: &str, role: Role) -> Answer {
        self.adds_flagged(who, whom, role, None)
    }

    pub(crate) fn adds_flagged(&mut self, who: &str, whom: &str, role: Role, agent: Option<bool>) -> Answer {
        let mut payload = Object::new();
        payload.insert("user_id", user(whom).to_string());
        payload.insert("role", role.as_str());
        if let Some(agent) = agent {
            payload.insert("agent", agent);
        }
        self.acts(who, "action.add_member", payload)
    }

    pub(crate) fn removes(&mut self, who: &str, whom: &str) -> Answer {
        let mut payload = Object::new();
        payload.insert("user_id", user(whom).to_string());
        self.acts(who, "action.remove_member", payload)
    }

    pub(crate) fn leaves(&mut self, who: &str) -> Answer {
        self.removes(who, who)
    }

    pub(crate) fn joins(&mut self, who: &str) -> Answer {
        self.acts(who, "action.join", Object::new())
    }

    pub(crate) fn joins_as_agent(&mut self, who: &str) -> Answer {
        self.acts(who, "action.join", object(r#"{"agent": true}"#))
    }

    fn about(&mut self, who: &str, action_type: &str, field: &str, id: Id) -> Answer {
        let mut payload = Object::new();
        payload.insert(field, id.to_string());
        self.acts(who, action_type, payload)
    }

    pub(crate) fn acts(&mut self, who: &str, action_type: &str, payload: Object) -> Answer {
        let action = self.signs(who, action_type, payload);
        self.hands_in(who, action)
    }

    pub(crate) fn waits(&mut self, ms: u64) {
        self.now += ms;
    }

    // --- How it is done ---

    /// An action of the next id, with a salt where its kind has one.
    pub(crate) fn signs(&mut self, who: &str, action_type: &str, payload: Object) -> SignedAction {
        let id = Id::v7(self.now, [0; 10].map(|_: u8| 0));
        let mut bytes = *id.as_bytes();
        bytes[8..].copy_from_slice(&self.next_id.to_be_bytes());
        self.next_id += 1;
        self.signs_as(who, Id::from_bytes(bytes), action_type, payload)
    }

    pub(crate) fn signs_as(&self, who: &str, id: Id, action_type: &str, mut payload: Object) -> SignedAction {
        let salted = !matches!(
            action_type,
            "action.withdraw_spec"
                | "action.redact_message"
                | "action.add_member"
                | "action.remove_member"
                | "action.join"
        );
        if salted {
            payload.insert("salt", Salt::from_bytes(*id.as_bytes()).to_string());
        }
        let unsigned = Unsigned {
            audience: &self.audience,
            user_id: &user(who),
            id,
            action_type,
            thread_id: self.thread_id,
            timestamp: Timestamp::saturating(self.now),
            seen: self.seen,
            payload: &payload,
        };
        SignedAction::sign(unsigned, &key_of(who)).expect("a payload of its type")
    }

    /// Hands an action to the thread as an actor would: in batches of one, with what is due expired before.
    pub(crate) fn hands_in(&mut self, who: &str, action: SignedAction) -> Answer {
        for _ in 0..2 {
            let mut batch = Batch::on(self.thread_id, self.state.clone());
            let step = self.decides_in(&mut batch, who, &action);
            if let Some(append) = batch.finish() {
                self.appends(append);
            }
            if step != Step::Later {
                return Answer { action, step };
            }
        }
        panic!("an expiry leaves nothing due");
    }

    pub(crate) fn decides_in(&self, batch: &mut Batch, who: &str, action: &SignedAction) -> Step {
        self.decides_with(batch, who, action, self.looks_up(action))
    }

    /// The same, where the log was asked for less.
    pub(crate) fn decides_with(&self, batch: &mut Batch, who: &str, action: &SignedAction, lookups: Lookups) -> Step {
        let (audiences, agents) = ([AUDIENCE.parse().expect("an audience")], ["robots".to_string()]);
        let context = Context {
            author: &user(who),
            key: &key_of(who).public(),
            audience: &self.audience,
            now: Timestamp::saturating(self.now),
            limits: &self.limits,
            audiences: &audiences,
            agent_issuers: &agents,
        };
        batch.decide(action, &context, lookups)
    }

    /// What the log says of an action's ids: the naive way, over all of it.
    pub(crate) fn looks_up(&self, action: &SignedAction) -> Lookups {
        let found = |id: Id| {
            let touching = self
                .log
                .iter()
                .filter(|record| record.id == id || record.about == Some(id));
            touching.map(Found::of).collect::<Vec<_>>()
        };
        Lookups {
            found: targets(action).into_iter().map(|id| (id, found(id))).collect(),
            seen_root: action.seen.and_then(|seen| self.root_at(seen.seq)),
        }
    }

    pub(crate) fn root_at(&self, seq: Seq) -> Option<Hash> {
        match seq.get().checked_sub(1) {
            None => Some(Hash::EMPTY),
            Some(at) => self
                .log
                .get(usize::try_from(at).expect("small"))
                .map(|record| record.root),
        }
    }

    /// Expires what is due (S8).
    pub(crate) fn expires(&mut self) -> bool {
        let mut batch = Batch::on(self.thread_id, self.state.clone());
        let due = batch
            .expire(Timestamp::saturating(self.now))
            .expect("a state that was folded from a log");
        if let Some(append) = batch.finish() {
            self.appends(append);
        }
        due
    }

    /// Appends, and checks all that holds of every append.
    pub(crate) fn appends(&mut self, append: Append) {
        let Append {
            expected,
            records,
            facts,
            next,
        } = append;
        let head = self.log.last().map_or(Cursor::START, |last| Cursor {
            seq: last.seq,
            root: last.root,
        });
        assert_eq!(expected, head, "it goes where it was decided");
        assert!(!records.is_empty());
        // Replaying what is appended gives the state that was decided.
        let mut replayed = self.state.clone();
        for record in &records {
            apply(self.thread_id, &mut replayed, record).expect("the log's next");
        }
        assert_eq!(replayed.as_ref(), Some(&next));
        assert_eq!(
            Thread::decode(&next.encode()).as_ref(),
            Ok(&next),
            "a saved state is the state"
        );
        // S2.
        assert!(
            next.members().any(|member| member.role == Role::Owner && member.joined),
            "a joined owner stays"
        );
        // L3.
        for record in &records {
            self.log.push(record.clone());
        }
        let names: BTreeSet<_> = self.log.iter().map(|record| (record.id, record.kind.clone())).collect();
        assert_eq!(names.len(), self.log.len(), "(id, kind) is unique");
        for (erased, redaction) in &facts.erase {
            let at = usize::try_from(erased.get() - 1).expect("small");
            self.log[at].body = Body::Erased(*redaction);
        }
        for (user, fact) in &facts.members {
            match fact {
                Some(fact) => self.members.insert(user.clone(), (fact.role, fact.joined)),
                None => self.members.remove(user),
            };
        }
        let members = next
            .members()
            .map(|member| (member.user_id.clone(), (member.role, member.joined)));
        assert_eq!(
            self.members,
            members.collect(),
            "the facts tell of every member whose row changed"
        );
        assert_eq!(facts.summary, next.summary());
        self.appends.push(records.len());
        self.state = Some(next);
    }

    // --- What came of it ---

    pub(crate) fn thread(&self) -> &Thread {
        self.state.as_ref().expect("a thread")
    }

    pub(crate) fn head(&self) -> Cursor {
        self.thread().head()
    }

    #[track_caller]
    pub(crate) fn member(&self, who: &str) -> &Member {
        self.thread().member(&user(who)).expect("a member")
    }

    pub(crate) fn view(&self, who: &str) -> Option<View> {
        view(self.thread(), &user(who))
    }

    /// Whether somebody sees the log's entry of this number.
    pub(crate) fn sees(&self, who: &str, seq: u64) -> bool {
        let at = usize::try_from(seq - 1).expect("small");
        self.view(who).is_some_and(|view| view.sees_record(&self.log[at]))
    }

    /// The hash that decisions on a spec are bound to; for one that is closed, that of its submission.
    pub(crate) fn hash_of(&self, spec: Id) -> Hash {
        let open = self
            .state
            .as_ref()
            .and_then(|thread| thread.spec(spec))
            .map(|spec| spec.revision.content_hash);
        let submitted = || {
            self.log
                .iter()
                .find(|record| record.id == spec)
                .map(|record| record.content_hash)
        };
        open.or_else(submitted).unwrap_or(Hash::EMPTY)
    }

    /// The last append's entries, each as its kind, and of a resolution the outcome.
    pub(crate) fn last(&self) -> Vec<String> {
        let count = self.appends.last().copied().unwrap_or_default();
        self.log[self.log.len() - count..].iter().map(describe).collect()
    }

    pub(crate) fn entry(&self, seq: Seq) -> &Record {
        &self.log[usize::try_from(seq.get() - 1).expect("small")]
    }
}

pub(crate) fn describe(record: &Record) -> String {
    let outcome = body(record).and_then(|body| Some(body.get("outcome")?.as_str()?.to_string()));
    match outcome {
        Some(outcome) => format!("{} {outcome}", record.kind),
        None => record.kind.to_string(),
    }
}

pub(crate) fn body(record: &Record) -> Option<Object> {
    json::parse(record.body.text()?).ok().and_then(Value::into_object)
}
