//! A client's machine in virtual time with a server that is played by the test, and logs with real signatures.
#![allow(dead_code, reason = "a kit for tests to come")]

use choir_core::client::session::Machine;
use choir_core::client::{
    Config, Credentials, Event, Input, Lost, Monotonic, Now, Output, State, SubscribeOptions, Token, Update,
};
use choir_protocol::action::{SignedAction, Unsigned};
use choir_protocol::entry::{Body, Entry, Kind, Proof};
use choir_protocol::error::ErrorCode;
use choir_protocol::hash::Hash;
use choir_protocol::ids::{
    ActionSeq, Audience, ConnectionId, Cursor, Id, LogId, Seq, SessionId, ThreadId, Timestamp, UserId,
};
use choir_protocol::json::{self, Object, Value};
use choir_protocol::key::SecretKey;
use choir_protocol::merkle::Peaks;
use choir_protocol::message::{
    AuthMethod, ClientMessage, ErrorPayload, FromClient, FromServer, HeartbeatTimes, Hello, Limits, Mode, More,
    Receipt, ReceiptStatus, ServerInfo, ServerMessage, Session, Snapshot, SnapshotReason, Subscribed, SubscribedThread,
};
use choir_protocol::range::{Hidden, Range};
use choir_protocol::thread::{Policy, Propose, Role, Settings, Stream, Visibility};

pub(crate) const AUDIENCE: &str = "http://127.0.0.1:7400";
pub(crate) const START: u64 = 1_764_000_000_000;

pub(crate) fn audience() -> Audience {
    AUDIENCE.parse().unwrap()
}

pub(crate) fn id(n: u64) -> Id {
    Id::v7(START + n, [n as u8; 10])
}

pub(crate) fn thread(n: u64) -> ThreadId {
    ThreadId::v7(START + n, [n as u8; 10])
}

pub(crate) fn key(n: u8) -> SecretKey {
    SecretKey::from_seed(&[n; 32])
}

pub(crate) fn user(n: u8) -> UserId {
    UserId::of_key(&key(n).public())
}

pub(crate) fn object(text: &str) -> Object {
    json::parse(text).unwrap().into_object().unwrap()
}

pub(crate) fn message(text: &str) -> Object {
    let mut payload = object(r#"{"salt":"_StSGF33OofhjB2gg1589w"}"#);
    payload.insert("content", text);
    payload
}

// ------------------------------------------------------------------------------------------------------------------------------------------------- logs

/// A thread's log with real signatures. Number 1 is made by its owner.
#[derive(Clone)]
pub(crate) struct Log {
    pub(crate) thread_id: ThreadId,
    pub(crate) entries: Vec<Entry>,
    pub(crate) peaks: Vec<Peaks>,
    next_id: u64,
}

impl Log {
    /// A thread of user 1, with these further members.
    pub(crate) fn new(members: &[(u8, Role)]) -> Self {
        Self::with(members, "")
    }

    /// The same with further settings, as JSON members that end with a comma.
    pub(crate) fn with(members: &[(u8, Role)], settings: &str) -> Self {
        let mut log = Self {
            thread_id: thread(1),
            entries: Vec::new(),
            peaks: vec![Peaks::new()],
            next_id: 1_000,
        };
        let members: Vec<String> = members
            .iter()
            .map(|(n, role)| format!(r#"{{"user_id":"{}","role":"{}"}}"#, user(*n), role.as_str()))
            .collect();
        log.add(
            1,
            Kind::ThreadCreated,
            &format!(
                r#"{{"title":"test","audience":"{AUDIENCE}",{settings}"members":[{}],"salt":"_StSGF33OofhjB2gg1589w"}}"#,
                members.join(",")
            ),
        );
        log
    }

    pub(crate) fn head(&self) -> Seq {
        Seq::saturating(self.entries.len() as u64)
    }

    pub(crate) fn root(&self, seq: u64) -> Hash {
        self.peaks[seq as usize].root()
    }

    pub(crate) fn cursor(&self, seq: u64) -> Cursor {
        Cursor {
            seq: Seq::saturating(seq),
            root: self.root(seq),
        }
    }

    pub(crate) fn fresh_id(&mut self) -> Id {
        self.next_id += 1;
        id(self.next_id)
    }

    /// An entry that an action of this user caused.
    pub(crate) fn add(&mut self, author: u8, kind: Kind, body: &str) -> Id {
        let id = self.fresh_id();
        self.add_with(author, id, kind, body, |_| {});
        id
    }

    pub(crate) fn add_with(&mut self, author: u8, id: Id, kind: Kind, body: &str, change: impl FnOnce(&mut Entry)) {
        let payload = object(body);
        let timestamp = Timestamp::saturating(START + self.entries.len() as u64 * 1_000);
        let action_type = kind.action_type().unwrap();
        let signed = SignedAction::sign(
            Unsigned {
                audience: &audience(),
                user_id: &user(author),
                id,
                action_type,
                thread_id: self.thread_id,
                timestamp,
                seen: None,
                payload: &payload,
            },
            &key(author),
        )
        .unwrap();
        let mut entry = Entry {
            seq: self.head().next(),
            id,
            stream: kind.stream().unwrap(),
            kind,
            author: user(author),
            timestamp,
            content_hash: Some(signed.payload_hash),
            body: Body::Present(signed.payload),
            proof: Some(Proof {
                sent_at: timestamp,
                seen: None,
                key: None,
                sig: signed.sig,
                audience: None,
                id: None,
                action_type: None,
            }),
        };
        change(&mut entry);
        self.push(entry);
    }

    /// An entry that the server derives.
    pub(crate) fn derive(&mut self, id: Id, kind: Kind, body: &str) {
        let canonical = choir_protocol::canonical::Canonical::of_object(&object(body));
        self.push(Entry {
            seq: self.head().next(),
            id,
            stream: kind.stream().unwrap(),
            kind,
            author: UserId::choir(),
            timestamp: Timestamp::saturating(START + self.entries.len() as u64 * 1_000),
            content_hash: Some(canonical.hash()),
            body: Body::Present(canonical),
            proof: None,
        });
    }

    pub(crate) fn push(&mut self, entry: Entry) {
        let mut peaks = self.peaks.last().unwrap().clone();
        peaks.push(choir_protocol::entry::entry_leaf(
            self.thread_id,
            entry.seq,
            entry.stream,
            &entry.inner().unwrap(),
        ));
        self.peaks.push(peaks);
        self.entries.push(entry);
    }

    pub(crate) fn post(&mut self, author: u8, text: &str) -> Id {
        self.add(
            author,
            Kind::MessagePosted,
            &format!(r#"{{"content":"{text}","salt":"_StSGF33OofhjB2gg1589w"}}"#),
        )
    }

    pub(crate) fn edit(&mut self, author: u8, message: Id, text: &str) -> Id {
        self.add(
            author,
            Kind::MessageEdited,
            &format!(r#"{{"message":"{message}","content":"{text}","salt":"_StSGF33OofhjB2gg1589w"}}"#),
        )
    }

    /// A redaction, which erases the bodies that it must (L6).
    pub(crate) fn redact(&mut self, author: u8, message: Id) {
        self.add(author, Kind::MessageRedacted, &format!(r#"{{"message":"{message}"}}"#));
        let at = self.head();
        for entry in &mut self.entries {
            let edit_of_it = entry.kind == Kind::MessageEdited
                && entry
                    .body_value()
                    .and_then(|value| value.as_object()?.get("message")?.as_str().map(str::to_owned))
                    .is_some_and(|named| named == message.to_string());
            if entry.id == message && entry.kind == Kind::MessagePosted || edit_of_it {
                entry.body = Body::Erased(at);
            }
        }
    }

    pub(crate) fn propose(&mut self, author: u8, text: &str) -> Id {
        self.add(
            author,
            Kind::SpecSubmitted,
            &format!(r#"{{"content":"{text}","salt":"_StSGF33OofhjB2gg1589w"}}"#),
        )
    }

    /// The entries (from, to], all visible.
    pub(crate) fn range(&self, from: u64, to: u64) -> Range {
        self.range_hiding(from, to, |_| false)
    }

    /// The entries (from, to], some hidden.
    pub(crate) fn range_hiding(&self, from: u64, to: u64, hide: impl Fn(&Entry) -> bool) -> Range {
        let part = &self.entries[from as usize..to as usize];
        Range {
            from: Seq::saturating(from),
            to: Seq::saturating(to),
            root: self.root(to),
            entries: part.iter().filter(|entry| !hide(entry)).cloned().collect(),
            hidden: Some(
                part.iter()
                    .filter(|entry| hide(entry))
                    .map(|entry| Hidden(entry.seq, entry.stream, entry.inner().unwrap()))
                    .collect(),
            ),
            peaks: None,
        }
    }

    /// The same with the peaks at `from`, as history brings it.
    pub(crate) fn page(&self, from: u64, to: u64) -> Range {
        Range {
            peaks: Some(self.peaks[from as usize].as_slice().to_vec()),
            ..self.range(from, to)
        }
    }

    pub(crate) fn snapshot(&self, from: u64, reason: SnapshotReason) -> Snapshot {
        self.snapshot_at(from, self.entries.len() as u64, reason)
    }

    pub(crate) fn snapshot_at(&self, from: u64, to: u64, reason: SnapshotReason) -> Snapshot {
        Snapshot {
            thread: Settings {
                title: "test".to_owned(),
                audience: audience(),
                visibility: Visibility::Private,
                review: Default::default(),
                propose: Propose::Members,
                policy: Policy::default(),
                created_at: Timestamp::saturating(START),
            },
            members: vec![choir_protocol::thread::Member {
                user_id: user(1),
                role: Role::Owner,
                agent: false,
                joined: true,
            }],
            open_specs: Vec::new(),
            recent: self.page(from, to),
            more: More::default(),
            reason,
        }
    }
}

// ---------------------------------------------------------------------------------------------------------------------------------------------- machine

/// A machine, the time, and what came out of it.
pub(crate) struct World {
    pub(crate) machine: Machine,
    pub(crate) now: Now,
    pub(crate) sent: Vec<FromClient>,
    pub(crate) events: Vec<Event>,
    pub(crate) connects: usize,
    pub(crate) closes: Vec<u16>,
    pub(crate) hello: Hello,
    sessions: u64,
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with(|_| {})
    }

    pub(crate) fn with(change: impl FnOnce(&mut Config)) -> Self {
        Self::of(
            Credentials {
                key: key(1).into(),
                token: None,
            },
            change,
        )
    }

    pub(crate) fn with_token() -> Self {
        Self::of(
            Credentials {
                key: key(1).into(),
                token: Some(Token("a.b.c".to_owned())),
            },
            |_| {},
        )
    }

    fn of(credentials: Credentials, change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::new(audience(), "test".parse().unwrap());
        change(&mut config);
        let mut world = Self {
            machine: Machine::new(config, credentials, [9; 32]),
            now: Now {
                wall: Timestamp::saturating(START),
                monotonic: Monotonic::from_ms(1_000_000),
            },
            sent: Vec::new(),
            events: Vec::new(),
            connects: 0,
            closes: Vec::new(),
            hello: Hello {
                protocol: "choir.v1".to_owned(),
                server: ServerInfo {
                    name: "played".to_owned(),
                    version: "0".to_owned(),
                    key: key(200).public(),
                },
                log_id: LogId::v7(START, [1; 10]),
                connection_id: ConnectionId::v7(START, [2; 10]),
                challenge: "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA".to_owned(),
                auth: vec![AuthMethod::Key, AuthMethod::Token],
                heartbeat: HeartbeatTimes::default(),
                limits: Limits::default(),
            },
            sessions: 0,
        };
        world.machine.start(world.now);
        world.collect();
        world
    }

    /// A client with a session.
    pub(crate) fn live() -> Self {
        let mut world = Self::new();
        world.opens();
        world
    }

    pub(crate) fn collect(&mut self) {
        while let Some(output) = self.machine.poll() {
            match output {
                Output::Connect => self.connects += 1,
                Output::Send(text) => self.sent.push(FromClient::read(&text).unwrap()),
                Output::Close(code) => self.closes.push(code),
                Output::Event(event) => self.events.push(event),
            }
        }
    }

    pub(crate) fn input(&mut self, input: Input<'_>) {
        self.machine.handle(self.now, input);
        self.collect();
    }

    /// Time passes, and the machine is woken whenever it asked for it.
    pub(crate) fn pass(&mut self, ms: u64) {
        let end = self.now.monotonic.plus_ms(ms);
        while let Some(at) = self.machine.wake_at().filter(|at| *at <= end) {
            let step = at.since(self.now.monotonic);
            self.now.monotonic = self.now.monotonic.plus_ms(step);
            self.now.wall = self.now.wall.plus_ms(step);
            self.input(Input::Time);
        }
        let step = end.since(self.now.monotonic);
        self.now.monotonic = self.now.monotonic.plus_ms(step);
        self.now.wall = self.now.wall.plus_ms(step);
    }

    pub(crate) fn says(&mut self, message: ServerMessage) {
        self.says_of(None, None, message);
    }

    pub(crate) fn says_of(&mut self, thread_id: Option<ThreadId>, reply_to: Option<Id>, message: ServerMessage) {
        let text = FromServer {
            id: id(77),
            timestamp: self.now.wall,
            thread_id,
            reply_to,
            message,
        }
        .to_text();
        self.input(Input::Text(&text));
    }

    /// The transport opens, and the server starts a new session.
    pub(crate) fn opens(&mut self) {
        self.greets();
        self.grants(false);
    }

    /// The transport opens, and the server resumes the session.
    pub(crate) fn resumes(&mut self) {
        self.greets();
        assert!(
            matches!(&self.sent.last().unwrap().message, ClientMessage::Auth(auth) if auth.session_token.is_some()),
            "the session's token was offered"
        );
        self.grants(true);
    }

    pub(crate) fn greets(&mut self) {
        self.input(Input::Connected);
        self.says(ServerMessage::Hello(self.hello.clone()));
    }

    pub(crate) fn grants(&mut self, resumed: bool) {
        self.sessions += 1;
        let token = format!("token {}", self.sessions);
        self.says(ServerMessage::Session(Session {
            user_id: user(1),
            client_id: "test".parse().unwrap(),
            session_id: SessionId::v7(START, [3; 10]),
            session_token: (!resumed).then_some(token),
            expires_at: None,
            resumed,
            server_time: self.now.wall,
        }));
    }

    pub(crate) fn loses(&mut self, close_code: Option<u16>) {
        self.input(Input::ConnectionLost(Lost {
            close_code,
            retry_after_ms: None,
            reason: "cut".to_owned(),
        }));
    }

    /// The connection is cut, and the next one is dialled when its time has come.
    pub(crate) fn loses_and_redials(&mut self) {
        self.loses(None);
        self.redials();
    }

    /// Time passes until the next connection is dialled.
    pub(crate) fn redials(&mut self) {
        let before = self.connects;
        for _ in 0..30_000 {
            if self.connects > before {
                return;
            }
            self.pass(1);
        }
        panic!("nothing was dialled for 30 s");
    }

    pub(crate) fn acts(&mut self, thread_id: ThreadId, text: &str) -> Id {
        let id = self
            .machine
            .act(self.now, thread_id, "action.submit_message", message(text))
            .unwrap();
        self.collect();
        id
    }

    pub(crate) fn subscribes(&mut self, options: SubscribeOptions) {
        self.machine.subscribe(self.now, thread(1), options).unwrap();
        self.collect();
    }

    /// Subscribes to a log and brings the replica to this number by a snapshot.
    pub(crate) fn follows(&mut self, log: &Log, to: u64) {
        self.subscribes(SubscribeOptions::default());
        self.answers_subscribe(to, log.entries.len() as u64);
        self.says_of(
            Some(log.thread_id),
            None,
            ServerMessage::Snapshot(log.snapshot_at(0, to, SnapshotReason::Initial)),
        );
    }

    pub(crate) fn answers_subscribe(&mut self, seq: u64, head: u64) {
        let asked = self
            .sent
            .iter()
            .rev()
            .find(|sent| matches!(sent.message, ClientMessage::Subscribe(_)))
            .map(|sent| sent.id);
        self.says_of(
            Some(thread(1)),
            asked,
            ServerMessage::Subscribed(Subscribed::Thread(SubscribedThread {
                seq: Seq::saturating(seq),
                head: Seq::saturating(head),
                role: Some(Role::Owner),
                streams: vec![Stream::Updates, Stream::Specs, Stream::Approvals],
                mode: Mode::Full,
                messages: 0,
                marked: Seq::ZERO,
                present: None,
            })),
        );
    }

    pub(crate) fn updates(&mut self, range: Range) {
        self.says_of(Some(thread(1)), None, ServerMessage::ThreadUpdate(range));
    }

    pub(crate) fn receipt(&mut self, thread_id: ThreadId, action: Id, seq: u64) {
        self.says_of(
            Some(thread_id),
            Some(action),
            ServerMessage::Receipt(Receipt {
                status: ReceiptStatus::Committed,
                seq: Seq::saturating(seq),
                kind: Kind::MessagePosted,
                root: Hash::EMPTY,
            }),
        );
    }

    pub(crate) fn refuses(&mut self, thread_id: ThreadId, action: Id, payload: ErrorPayload) {
        self.says_of(Some(thread_id), Some(action), ServerMessage::StateError(payload));
    }

    pub(crate) fn gap(&mut self, thread_id: ThreadId, action: Id, expected: u64) {
        let mut payload = ErrorPayload::new(ErrorCode::SequenceGap, "gap");
        payload.expected = ActionSeq::new(expected);
        self.refuses(thread_id, action, payload);
    }

    /// What was sent since the last call.
    pub(crate) fn sent(&mut self) -> Vec<FromClient> {
        std::mem::take(&mut self.sent)
    }

    /// The actions that were sent since the last call: number and id.
    pub(crate) fn sent_actions(&mut self) -> Vec<(u64, Id)> {
        self.sent()
            .into_iter()
            .filter_map(|sent| match sent.message {
                ClientMessage::Action(seq, action) => Some((seq.get(), action.id)),
                _ => None,
            })
            .collect()
    }

    /// The subscribes that were sent since the last call: the cursors of their threads.
    pub(crate) fn sent_subscribes(&mut self) -> Vec<Option<Cursor>> {
        self.sent
            .iter()
            .filter_map(|sent| match &sent.message {
                ClientMessage::Subscribe(subscribe) => subscribe.threads.clone(),
                _ => None,
            })
            .flatten()
            .map(|line| line.cursor)
            .collect()
    }

    pub(crate) fn events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    /// What was answered since the events were last looked at: the action and `ok` or the code.
    pub(crate) fn answers(&mut self) -> Vec<(Id, &'static str)> {
        self.events()
            .into_iter()
            .filter_map(|event| match event {
                Event::Answered { id, result } => Some((id, result.map_or_else(|error| error.code.as_str(), |_| "ok"))),
                _ => None,
            })
            .collect()
    }

    pub(crate) fn thread_updates(&mut self) -> Vec<Update> {
        self.events()
            .into_iter()
            .filter_map(|event| match event {
                Event::Thread { update, .. } => Some(update),
                _ => None,
            })
            .collect()
    }

    pub(crate) fn cursor(&self) -> u64 {
        self.machine
            .replica(thread(1))
            .map_or(0, |replica| replica.cursor().seq.get())
    }

    pub(crate) fn state(&self) -> State {
        self.machine.state()
    }
}

pub(crate) fn error(code: ErrorCode) -> ErrorPayload {
    ErrorPayload::new(code, "because")
}

pub(crate) fn value(text: &str) -> Value {
    json::parse(text).unwrap()
}
