//! The machine of one connection (section 4), server side.
//!
//! Contract: hand it one input with the time, then take outputs until there are none, and act on them in order; hand in [`Input::Tick`] at
//! [`Connection::wake_at`]. Read from the socket only while [`Connection::reads`]. Once [`Output::Close`] came out, go on handing in answers until
//! [`Connection::in_flight`] is 0, then take the session back by [`Connection::into_session`] (A7).

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

use choir_protocol::action::{Action, SignedAction};
use choir_protocol::error::{ErrorCode, close};
use choir_protocol::hash::Hash;
use choir_protocol::ids::{
    ActionSeq, Audience, ClientId, ConnectionId, Cursor, Id, LogId, Seq, SessionId, ThreadId, Timestamp, UserId,
};
use choir_protocol::key::PublicKey;
use choir_protocol::message::{
    Ack, Auth, AuthMethod, BadMessage, ClientMessage, Drain, ErrorPayload, FromClient, FromServer, HeartbeatTimes,
    Hello, HistoryRequest, Limits, Mark, PROTOCOL, PageRequest, ServerHeartbeat, ServerInfo, ServerMessage, Session,
    Subscribe, Subscribed, SubscribedThread, ThreadsRequest, Unsubscribed,
};
use choir_protocol::sign::auth_text;
use choir_protocol::thread::{Role, Stream};

use super::heartbeat::{Beat, Heartbeat};
use super::sequence::{Answer, Generation, Sequence, TakeUp};
use super::subscription::{CursorCheck, Due, Options, Sight, Subscription};
use super::{Monotonic, Now};
use crate::view::Streams;

/// How long a connection may take to authenticate, unless it is configured (C2).
pub const AUTH_WITHIN_MS: u64 = 10_000;
/// The failure at which a connection is closed (C6).
const MAX_AUTH_FAILURES: u8 = 3;
/// The message that is none, after which a connection is closed (E4).
const MAX_BAD_IN_A_ROW: u8 = 5;

/// What is the same for all connections of a server.
#[derive(Debug, Clone)]
pub struct Config {
    /// Who answers.
    pub server: ServerInfo,
    /// Which history of the log this is.
    pub log_id: LogId,
    /// Section 12's limits marked ◦.
    pub limits: Limits,
    /// When pings come.
    pub heartbeat: HeartbeatTimes,
    /// The audiences that signatures may be made for (C4).
    pub audiences: Vec<Audience>,
    /// How long a connection may take to authenticate (C2): [`AUTH_WITHIN_MS`].
    pub authentication_ms: u64,
}

/// What is random or unique about one connection: made by the shell, from a source that nobody can guess.
#[derive(Debug, Clone)]
pub struct Fresh {
    /// The connection's name.
    pub connection_id: ConnectionId,
    /// base64url of 32 random bytes.
    pub challenge: String,
    /// Seeds the ids of the server's messages, which are unique but no secret.
    pub seed: u64,
}

/// What goes in.
#[derive(Debug)]
pub enum Input {
    /// A text message, as far as it could be read.
    Message(Box<Result<FromClient, BadMessage>>),
    /// A binary message (T2).
    Binary,
    /// Anything was received.
    Heard,
    /// A pong was received.
    Pong,
    /// The client's side took bytes from the send queue, the kernel's included.
    QueueShrank,
    /// The session that [`Output::StartSession`] asked for.
    SessionStarted(Box<Grant>),
    /// There is no session to be had: the error is sent, and the connection closed with the code.
    SessionRefused(ErrorPayload, u16),
    /// The answer to a [`Output::Submit`].
    Answered {
        /// The action's thread.
        thread_id: ThreadId,
        /// The action.
        id: Id,
        /// As it was submitted.
        generation: Generation,
        /// How it ended, durably.
        answer: Answer,
    },
    /// The last [`Output::Submit`] was handed to nobody, and no further message was handed in since: it is refused retryably.
    Declined {
        /// The action's thread.
        thread_id: ThreadId,
        /// The action.
        id: Id,
        /// As it was submitted.
        generation: Generation,
        /// Why.
        error: ErrorPayload,
    },
    /// What concerns the user in person (V2), or answers a request.
    Push(Box<FromServer>),
    /// Another connection of the same client took over (C7).
    Superseded,
    /// The server shuts down (C10).
    Drain {
        /// When to come back.
        retry_after_ms: u64,
    },
    /// Time has passed.
    Tick,
}

/// What comes out.
#[derive(Debug)]
pub enum Output {
    /// Send a message.
    Send(Box<FromServer>),
    /// Send a ping.
    Ping,
    /// Send a close frame, and end.
    Close {
        /// The close code.
        code: u16,
        /// For people.
        reason: &'static str,
    },
    /// Start or resume a session; nothing is read until the answer is handed in.
    StartSession(Box<SessionRequest>),
    /// Check an action's signature, and hand it to its thread.
    Submit(Box<Submission>),
    /// Open these threads and begin their subscriptions.
    Subscribe(Box<SubscribeRequest>),
    /// A subscription ended: forget what is held for it.
    Unsubscribed(ThreadId),
    /// Answer a request, in order.
    Request(Id, Request),
    /// The client applied everything up to here.
    Acknowledged {
        /// The thread.
        thread_id: ThreadId,
        /// Up to here.
        seq: Seq,
        /// The client's root there: compare it with the log's (Y9).
        root: Option<Hash>,
    },
}

/// Who has proved who they are, and which session they want.
#[derive(Debug, Clone)]
pub struct SessionRequest {
    /// Who.
    pub user_id: UserId,
    /// Which client of theirs.
    pub client_id: ClientId,
    /// The key of the session's actions.
    pub key: PublicKey,
    /// The session to resume.
    pub session_token: Option<String>,
    /// The client's software.
    pub agent: String,
}

/// A session, new or resumed.
#[derive(Debug)]
pub struct Grant {
    /// The session's name.
    pub session_id: SessionId,
    /// Its sequence: that of the session before, where it is resumed.
    pub sequence: Sequence,
    /// Only where it is new.
    pub session_token: Option<String>,
    /// Whether it goes on.
    pub resumed: bool,
    /// When the token that authenticated ends.
    pub expires_at: Option<Timestamp>,
    /// Whether the user is of an issuer that is configured as one of agents (S4).
    pub agent_issuer: bool,
    /// Random, for the heartbeat's jitter.
    pub jitter: u16,
}

/// An action that is to be decided.
#[derive(Debug, Clone)]
pub struct Submission {
    /// The action.
    pub action: SignedAction,
    /// Its author.
    pub author: UserId,
    /// The key that must have signed it.
    pub key: PublicKey,
    /// What the signature must be for.
    pub audience: Audience,
    /// Whether the author is of an issuer of agents (S4).
    pub agent_issuer: bool,
    /// The session.
    pub session_id: SessionId,
    /// The generation (A3).
    pub generation: Generation,
    /// Whether nothing is to be decided: the log knows the action, or it is a `conflict` (A5).
    pub look_up_only: bool,
}

/// A `control.subscribe`, with defaults filled in.
#[derive(Debug, Clone)]
pub struct SubscribeRequest {
    /// The message.
    pub reply_to: Id,
    /// The threads that it names.
    pub threads: Vec<(ThreadId, Option<Cursor>, Options)>,
    /// With `all: true`: how those are subscribed that it doesn't name.
    pub all: Option<Options>,
}

/// A thread that could be opened for a subscription (Y4).
#[derive(Debug, Clone)]
pub struct Opened {
    /// The thread.
    pub thread_id: ThreadId,
    /// As it was asked for.
    pub options: Options,
    /// Whether `all: true` names it, and nothing else.
    pub by_all: bool,
    /// What the log says of the client's cursor.
    pub check: CursorCheck,
    /// What the user may see.
    pub sight: Sight,
    /// The streams that the user may see of those that there are.
    pub visible: Streams,
    /// The user's role.
    pub role: Option<Role>,
    /// How many messages there are.
    pub messages: u64,
    /// Up to where the user has read.
    pub marked: Seq,
}

/// A request that the shell answers out of the log (all of them R1's requests).
#[derive(Debug, Clone)]
pub enum Request {
    /// Y1.
    Threads(ThreadsRequest),
    /// Y1.
    Members(ThreadId, PageRequest),
    /// Y1.
    Specs(ThreadId, PageRequest),
    /// Y11.
    History(ThreadId, HistoryRequest),
    /// Y2.
    Mark(ThreadId, Mark),
    /// K6.
    Checkpoint(ThreadId),
}

/// The machine of one connection.
#[derive(Debug)]
pub struct Connection {
    config: Arc<Config>,
    connection_id: ConnectionId,
    challenge: String,
    ids: u64,
    phase: Phase,
    outputs: VecDeque<Output>,
    bad_in_a_row: u8,
    auth_failures: u8,
    /// Whether the shell holds back what it has read, or doesn't read.
    held: bool,
}

#[derive(Debug)]
enum Phase {
    AwaitAuth {
        until: Monotonic,
    },
    AwaitSession(Box<Awaited>),
    Live(Box<Live>),
    /// A close frame was handed out. What is still under decision is answered into the session.
    Closed(Option<Box<Live>>),
}

#[derive(Debug)]
struct Awaited {
    request: Id,
    user_id: UserId,
    client_id: ClientId,
    key: PublicKey,
    audience: Audience,
}

#[derive(Debug)]
struct Live {
    user_id: UserId,
    client_id: ClientId,
    key: PublicKey,
    audience: Audience,
    agent_issuer: bool,
    session_id: SessionId,
    expires_at: Option<Timestamp>,
    sequence: Sequence,
    heartbeat: Heartbeat,
    subscriptions: BTreeMap<ThreadId, Subscription>,
    all: Option<Options>,
    draining: bool,
}

impl Connection {
    /// A connection that was just accepted: `control.hello` is its first output (C1).
    pub fn new(config: Arc<Config>, fresh: Fresh, now: Now) -> Self {
        let mut this = Self {
            connection_id: fresh.connection_id,
            challenge: fresh.challenge,
            ids: fresh.seed,
            phase: Phase::AwaitAuth {
                until: now.monotonic.plus_ms(config.authentication_ms),
            },
            config,
            outputs: VecDeque::new(),
            bad_in_a_row: 0,
            auth_failures: 0,
            held: false,
        };
        let hello = Hello {
            protocol: PROTOCOL.into(),
            server: this.config.server.clone(),
            log_id: this.config.log_id,
            connection_id: this.connection_id,
            challenge: this.challenge.clone(),
            auth: [AuthMethod::Key].into(),
            heartbeat: this.config.heartbeat,
            limits: this.config.limits,
        };
        this.send(now, None, None, ServerMessage::Hello(hello));
        this
    }

    /// Takes one input.
    pub fn handle(&mut self, now: Now, input: Input) {
        match input {
            Input::Message(message) => match *message {
                Ok(message) => self.message(now, message),
                Err(bad) => self.bad_message(now, bad),
            },
            Input::Binary => self.close(close::INVALID_MESSAGE, "binary messages are not spoken here"),
            Input::Heard | Input::QueueShrank => {
                if let Phase::Live(live) = &mut self.phase {
                    live.heartbeat.received(now.monotonic);
                }
            }
            Input::Pong => {
                let jitter = (self.next_random() >> 48) as u16;
                if let Phase::Live(live) = &mut self.phase {
                    live.heartbeat.pong(now.monotonic, jitter);
                }
            }
            Input::SessionStarted(grant) => self.session_started(now, *grant),
            Input::SessionRefused(error, code) => {
                if let Phase::AwaitSession(awaited) = &self.phase {
                    let reply_to = Some(awaited.request);
                    self.send(now, None, reply_to, ServerMessage::ConnectionError(error));
                    self.close(code, "no session to be had");
                }
            }
            Input::Answered {
                thread_id,
                id,
                generation,
                answer,
            } => {
                self.answered(now, thread_id, id, generation, answer);
            }
            Input::Declined {
                thread_id,
                id,
                generation,
                error,
            } => {
                if let Some(live) = self.live_mut()
                    && live.sequence.declined(thread_id, id, generation)
                {
                    self.send_answer(now, thread_id, id, Answer::Refused(error));
                }
            }
            Input::Push(message) => {
                if let Phase::Live(_) = self.phase {
                    self.outputs.push_back(Output::Send(message));
                }
            }
            Input::Superseded => {
                if let Phase::Live(_) = self.phase {
                    let error = ErrorPayload::new(
                        ErrorCode::Superseded,
                        "another connection of this client took over; this one must not reconnect by itself",
                    );
                    self.send(now, None, None, ServerMessage::ConnectionError(error));
                    self.close(close::SUPERSEDED, "superseded");
                }
            }
            Input::Drain { retry_after_ms } => self.drain(now, retry_after_ms),
            Input::Tick => self.tick(now),
        }
        self.pace(now);
    }

    /// The next thing to do.
    pub fn poll(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When to hand in the next [`Input::Tick`].
    pub fn wake_at(&self) -> Option<Monotonic> {
        match &self.phase {
            Phase::AwaitAuth { until } => Some(*until),
            Phase::Live(live) => live.heartbeat.wake_at(),
            Phase::AwaitSession(_) | Phase::Closed(_) => None,
        }
    }

    /// Whether the shell may read from the socket: not while `max_in_flight` actions wait for their answers (A2), nor while a session is being started.
    pub fn reads(&self) -> bool {
        match &self.phase {
            Phase::AwaitAuth { .. } => true,
            Phase::Live(live) => !live.draining && !self.is_full(live),
            Phase::AwaitSession(_) | Phase::Closed(_) => false,
        }
    }

    /// The shell says that it holds back what comes from the client for reasons of its own, or that it does so no longer: while it does, the pong can't be heard,
    /// and isn't late (C9).
    pub fn hold(&mut self, now: Now, held: bool) {
        if self.held != held {
            self.held = held;
            self.pace(now);
        }
    }

    /// How many actions wait for their answers.
    pub fn in_flight(&self) -> usize {
        match &self.phase {
            Phase::Live(live) | Phase::Closed(Some(live)) => live.sequence.in_flight(),
            Phase::AwaitAuth { .. } | Phase::AwaitSession(_) | Phase::Closed(None) => 0,
        }
    }

    /// Who is connected, once that is known.
    pub fn user(&self) -> Option<&UserId> {
        self.live().map(|live| &live.user_id)
    }

    /// The round trip that the heartbeat measured (C9).
    pub fn latency_ms(&self) -> Option<u64> {
        self.live().and_then(|live| live.heartbeat.latency_ms())
    }

    /// The subscription of a thread.
    pub fn subscription(&mut self, thread_id: ThreadId) -> Option<&mut Subscription> {
        self.live_mut().and_then(|live| live.subscriptions.get_mut(&thread_id))
    }

    /// Every subscribed thread.
    pub fn subscribed_threads(&self) -> impl Iterator<Item = ThreadId> {
        self.live()
            .into_iter()
            .flat_map(|live| live.subscriptions.keys().copied())
    }

    /// How threads are subscribed that the user joins later, with `all: true` (Y3).
    pub fn all(&self) -> Option<Options> {
        self.live().and_then(|live| live.all)
    }

    /// Begins a subscription: `control.subscribed` goes out, and what is due is returned. None where the client has too many.
    pub fn begin_subscription(&mut self, now: Now, reply_to: Option<Id>, opened: Opened) -> Option<Due> {
        let max_replay = self.config.limits.max_replay;
        let max_subscriptions = self.config.limits.max_subscriptions;
        let live = self.live_mut()?;
        let before = live.subscriptions.get(&opened.thread_id);
        if before.is_none() && live.subscriptions.len() as u64 >= max_subscriptions {
            self.refuse_subscription(now, reply_to, opened.thread_id, "limit");
            return None;
        }
        let subscription = Subscription::begin(
            opened.thread_id,
            opened.options,
            opened.by_all,
            opened.check,
            opened.sight,
            before,
            max_replay,
        );
        let due = subscription.due(opened.sight, max_replay);
        let head = opened.sight.head;
        let events_only = opened.options.mode == choir_protocol::message::Mode::Events;
        let seq = match due {
            _ if events_only => head,
            Due::Snapshot(reason) => subscription.snapshot_at(reason, head),
            Due::Nothing | Due::Range { .. } | Due::Lost { .. } => subscription.cursor(),
        };
        let mut streams = [Stream::Updates].to_vec();
        for (wanted, visible, stream) in [
            (opened.options.streams.specs, opened.visible.specs, Stream::Specs),
            (
                opened.options.streams.approvals,
                opened.visible.approvals,
                Stream::Approvals,
            ),
        ] {
            if wanted && visible {
                streams.push(stream);
            }
        }
        let subscribed = SubscribedThread {
            seq,
            head,
            role: opened.role,
            streams,
            mode: opened.options.mode,
            messages: opened.messages,
            marked: opened.marked,
            present: None,
        };
        live.subscriptions.insert(opened.thread_id, subscription);
        let message = ServerMessage::Subscribed(Subscribed::Thread(subscribed));
        self.send(now, Some(opened.thread_id), reply_to, message);
        Some(due)
    }

    /// A thread can't be subscribed (Y4): `cause` is `not_found` or `limit`.
    pub fn refuse_subscription(&mut self, now: Now, reply_to: Option<Id>, thread_id: ThreadId, cause: &str) {
        let error =
            ErrorPayload::new(ErrorCode::SubscriptionError, "this thread can't be subscribed").with_cause(cause);
        self.send(now, Some(thread_id), reply_to, ServerMessage::StateError(error));
    }

    /// The end of `{all: true}` (Y4).
    pub fn all_subscribed(&mut self, now: Now, reply_to: Id, threads: u64) {
        let message = ServerMessage::Subscribed(Subscribed::All { all: true, threads });
        self.send(now, None, Some(reply_to), message);
    }

    /// Ends a subscription from the server's side (Y8, Y10): `cause` is `permission_denied` where the right to read went.
    pub fn end_subscription(&mut self, now: Now, thread_id: ThreadId, cause: Option<&str>) {
        let ended = self.live_mut().and_then(|live| live.subscriptions.remove(&thread_id));
        if ended.is_some() {
            let message = ServerMessage::Unsubscribed(Unsubscribed {
                cause: cause.map(ToString::to_string),
            });
            self.send(now, Some(thread_id), None, message);
            self.outputs.push_back(Output::Unsubscribed(thread_id));
        }
    }

    /// Ends a subscription whose thread can't be read at the moment (Y10): the client hears why, and may subscribe again with its cursor.
    pub fn fail_subscription(&mut self, now: Now, thread_id: ThreadId) {
        let subscribed = self
            .live()
            .is_some_and(|live| live.subscriptions.contains_key(&thread_id));
        if subscribed {
            let error = ErrorPayload::new(
                ErrorCode::Internal,
                "this thread can't be read at the moment: what was sent of it stands; subscribe again later, with the same cursor",
            );
            self.send(now, Some(thread_id), None, ServerMessage::ConnectionError(error));
            self.end_subscription(now, thread_id, Some("internal"));
        }
    }

    /// An envelope around what the server says.
    pub fn envelope(
        &mut self,
        now: Now,
        thread_id: Option<ThreadId>,
        reply_to: Option<Id>,
        message: ServerMessage,
    ) -> FromServer {
        FromServer {
            id: self.fresh_id(now),
            timestamp: now.wall,
            thread_id,
            reply_to,
            message,
        }
    }

    /// A fresh id for a message of the server.
    pub fn fresh_id(&mut self, now: Now) -> Id {
        let [high, low] = [self.next_random(), self.next_random()];
        let mut random = [0; 10];
        random[..8].copy_from_slice(&high.to_be_bytes());
        random[8..].copy_from_slice(&low.to_be_bytes()[..2]);
        Id::v7(now.wall.get(), random)
    }

    /// Ends the connection for a reason that lies outside this machine: a broken frame, say.
    pub fn close(&mut self, code: u16, reason: &'static str) {
        let phase = core::mem::replace(&mut self.phase, Phase::Closed(None));
        self.phase = match phase {
            Phase::Closed(live) => {
                self.phase = Phase::Closed(live);
                return;
            }
            Phase::Live(live) => Phase::Closed(Some(live)),
            Phase::AwaitAuth { .. } | Phase::AwaitSession(_) => Phase::Closed(None),
        };
        self.outputs.push_back(Output::Close { code, reason });
    }

    /// The session as it stands at the end, to be resumed (C5, A7).
    pub fn into_session(self) -> Option<(SessionId, Sequence)> {
        match self.phase {
            Phase::Live(live) | Phase::Closed(Some(live)) => Some((live.session_id, live.sequence)),
            Phase::AwaitAuth { .. } | Phase::AwaitSession(_) | Phase::Closed(None) => None,
        }
    }

    fn live(&self) -> Option<&Live> {
        match &self.phase {
            Phase::Live(live) => Some(live),
            _ => None,
        }
    }

    fn live_mut(&mut self) -> Option<&mut Live> {
        match &mut self.phase {
            Phase::Live(live) => Some(live),
            _ => None,
        }
    }

    fn is_full(&self, live: &Live) -> bool {
        live.sequence.in_flight() as u64 >= self.config.limits.max_in_flight
    }

    /// Tells the heartbeat whether the server reads, and ends a drain once everything is answered.
    fn pace(&mut self, now: Now) {
        let reads = self.reads() && !self.held;
        if let Phase::Live(live) = &mut self.phase {
            live.heartbeat.reading(reads, now.monotonic);
            if live.draining && live.sequence.in_flight() == 0 {
                self.close(close::RESTART, "the server restarts");
            }
        }
    }

    fn message(&mut self, now: Now, FromClient { id, message, .. }: FromClient) {
        match (&self.phase, message) {
            (Phase::AwaitAuth { .. } | Phase::Live(_), ClientMessage::Auth(auth)) => self.authenticate(now, id, auth),
            (Phase::AwaitAuth { .. }, _) => {
                let error = ErrorPayload::new(
                    ErrorCode::AuthenticationFailed,
                    "nothing is answered before control.auth",
                )
                .with_cause("not_authenticated");
                self.send(now, None, Some(id), ServerMessage::ConnectionError(error));
            }
            (Phase::Live(_), message) => {
                self.bad_in_a_row = 0;
                self.live_message(now, id, message);
            }
            (Phase::AwaitSession(_) | Phase::Closed(_), _) => {}
        }
    }

    fn live_message(&mut self, now: Now, id: Id, message: ClientMessage) {
        let request = match message {
            ClientMessage::Auth(_) => return,
            ClientMessage::Heartbeat => {
                let beat = ServerMessage::Heartbeat(ServerHeartbeat { server_time: now.wall });
                return self.send(now, None, Some(id), beat);
            }
            ClientMessage::Ack(acks) => {
                return acks.acks.into_iter().for_each(|ack| self.acknowledged(ack));
            }
            ClientMessage::Action(seq, action) => return self.action(now, id, seq, action),
            ClientMessage::Subscribe(subscribe) => return self.subscribe(id, &subscribe),
            ClientMessage::Unsubscribe(unsubscribe) => {
                return self.unsubscribe(now, id, &unsubscribe.threads);
            }
            ClientMessage::UserAction(thread_id, _) | ClientMessage::Stream(thread_id, _) => {
                let error = ErrorPayload::new(
                    ErrorCode::UnknownType,
                    "this version of the server carries neither user actions nor streams yet: what they say was not passed on",
                );
                return self.send(now, Some(thread_id), Some(id), ServerMessage::ConnectionError(error));
            }
            ClientMessage::Threads(request) => Request::Threads(request),
            ClientMessage::History(thread_id, request) => Request::History(thread_id, request),
            ClientMessage::Members(thread_id, request) => Request::Members(thread_id, request),
            ClientMessage::Specs(thread_id, request) => Request::Specs(thread_id, request),
            ClientMessage::Mark(thread_id, mark) => Request::Mark(thread_id, mark),
            ClientMessage::Checkpoint(thread_id) => Request::Checkpoint(thread_id),
        };
        self.outputs.push_back(Output::Request(id, request));
    }

    fn bad_message(&mut self, now: Now, bad: BadMessage) {
        // An action that isn't at the expected number is answered by that alone, whatever else is wrong with it (A3).
        if let (Phase::Live(live), Some(thread_id), Some(seq)) = (&mut self.phase, bad.thread_id, bad.seq) {
            match live.sequence.place(thread_id, seq) {
                TakeUp::Gap { expected } => return self.gap(now, thread_id, bad.id, expected),
                TakeUp::Ignore => return,
                TakeUp::LookUp(_) => {
                    let error = ErrorPayload::new(
                        ErrorCode::Conflict,
                        format!("seq {seq} was taken up before, by an action with another payload"),
                    );
                    return self.send(now, Some(thread_id), bad.id, ServerMessage::StateError(error));
                }
                TakeUp::Decide(_) | TakeUp::Answer(_) => {}
            }
        }
        let is_invalid = bad.code == ErrorCode::InvalidMessage;
        let error = ErrorPayload::new(bad.code, bad.why);
        self.send(now, bad.thread_id, bad.id, ServerMessage::ConnectionError(error));
        if is_invalid {
            self.bad_in_a_row += 1;
            if self.bad_in_a_row >= MAX_BAD_IN_A_ROW {
                self.close(close::INVALID_MESSAGE, "five invalid messages in a row");
            }
        }
    }

    fn authenticate(&mut self, now: Now, id: Id, auth: Auth) {
        let audience = match self.proven_audience(&auth) {
            Ok(audience) => audience,
            Err(cause) => return self.authentication_failed(now, id, cause),
        };
        let user_id = UserId::of_key(&auth.public_key);
        let session = match &self.phase {
            Phase::Live(live) => {
                // A fresh proof for the same session (C6).
                if (&live.user_id, &live.client_id, &live.key) != (&user_id, &auth.client_id, &auth.public_key) {
                    return self.authentication_failed(now, id, "another user, client or key than the connection's");
                }
                Session {
                    user_id,
                    client_id: auth.client_id,
                    session_id: live.session_id,
                    session_token: None,
                    expires_at: live.expires_at,
                    resumed: true,
                    server_time: now.wall,
                }
            }
            Phase::AwaitAuth { .. } => {
                self.phase = Phase::AwaitSession(Box::new(Awaited {
                    request: id,
                    user_id: user_id.clone(),
                    client_id: auth.client_id.clone(),
                    key: auth.public_key,
                    audience,
                }));
                let request = SessionRequest {
                    user_id,
                    client_id: auth.client_id,
                    key: auth.public_key,
                    session_token: auth.session_token,
                    agent: auth.agent,
                };
                return self.outputs.push_back(Output::StartSession(Box::new(request)));
            }
            Phase::AwaitSession(_) | Phase::Closed(_) => return,
        };
        self.send(now, None, Some(id), ServerMessage::Session(session));
    }

    /// The audience under which the signature holds (C4), or why it doesn't.
    fn proven_audience(&self, auth: &Auth) -> Result<Audience, &'static str> {
        if auth.method != AuthMethod::Key {
            return Err("method_not_configured");
        }
        let holds = |audience: &&Audience| {
            let text = auth_text(
                audience,
                self.connection_id,
                &self.challenge,
                &auth.client_id,
                auth.method.as_str(),
            );
            choir_protocol::key::verify(&auth.public_key, text.as_bytes(), &auth.signature)
        };
        self.config
            .audiences
            .iter()
            .find(holds)
            .cloned()
            .ok_or("signature_invalid")
    }

    fn authentication_failed(&mut self, now: Now, id: Id, cause: &'static str) {
        let message = match cause {
            "signature_invalid" => {
                "the signature holds for none of this server's audiences: was it made with this key, for the origin that was dialled, over this connection's challenge?"
            }
            "method_not_configured" => {
                "this server doesn't authenticate by tokens; control.hello lists the methods that it does"
            }
            _ => "authentication failed",
        };
        let error = ErrorPayload::new(ErrorCode::AuthenticationFailed, message).with_cause(cause);
        self.send(now, None, Some(id), ServerMessage::ConnectionError(error));
        // Failures of an authenticated connection change nothing (C6).
        if let Phase::AwaitAuth { .. } = self.phase {
            self.auth_failures += 1;
            if self.auth_failures >= MAX_AUTH_FAILURES {
                self.close(close::AUTHENTICATION, "authentication failed three times");
            }
        }
    }

    /// How often authentication failed on this connection.
    pub const fn auth_failures(&self) -> u8 {
        self.auth_failures
    }

    fn session_started(&mut self, now: Now, grant: Grant) {
        let phase = core::mem::replace(&mut self.phase, Phase::Closed(None));
        let Phase::AwaitSession(awaited) = phase else {
            self.phase = phase;
            return;
        };
        let Awaited {
            request,
            user_id,
            client_id,
            key,
            audience,
        } = *awaited;
        let mut sequence = grant.sequence;
        sequence.resume();
        let session = Session {
            user_id: user_id.clone(),
            client_id: client_id.clone(),
            session_id: grant.session_id,
            session_token: grant.session_token,
            expires_at: grant.expires_at,
            resumed: grant.resumed,
            server_time: now.wall,
        };
        self.phase = Phase::Live(Box::new(Live {
            user_id,
            client_id,
            key,
            audience,
            agent_issuer: grant.agent_issuer,
            session_id: grant.session_id,
            expires_at: grant.expires_at,
            sequence,
            heartbeat: Heartbeat::new(self.config.heartbeat, now.monotonic, grant.jitter),
            subscriptions: BTreeMap::new(),
            all: None,
            draining: false,
        }));
        self.bad_in_a_row = 0;
        self.send(now, None, Some(request), ServerMessage::Session(session));
    }

    /// Why an action is no message of this connection, whatever its thread's state (S1): found out before it is taken up, since `invalid_message` consumes no `seq` (A3).
    fn invalid_here(&self, action: &SignedAction) -> Option<&'static str> {
        let Action::CreateThread(create) = &action.action else {
            return None;
        };
        if !self.config.audiences.contains(&create.audience) {
            return Some("payload: the thread's audience isn't one of this server's");
        }
        let creator = self.user()?;
        let lists_creator = create.members.iter().flatten().any(|member| member.user_id == *creator);
        lists_creator.then_some("payload: members doesn't list the creator")
    }

    fn action(&mut self, now: Now, id: Id, seq: ActionSeq, action: SignedAction) {
        let thread_id = action.thread_id;
        if let Some(why) = self.invalid_here(&action) {
            let bad = BadMessage {
                code: ErrorCode::InvalidMessage,
                id: Some(id),
                thread_id: Some(thread_id),
                seq: Some(seq),
                why: why.into(),
            };
            return self.bad_message(now, bad);
        }
        let Some(live) = self.live_mut() else { return };
        let (generation, look_up_only) = match live.sequence.take_up(seq, &action) {
            TakeUp::Decide(generation) => (generation, false),
            TakeUp::LookUp(generation) => (generation, true),
            TakeUp::Answer(answer) => return self.send_answer(now, thread_id, id, answer),
            TakeUp::Gap { expected } => return self.gap(now, thread_id, Some(id), expected),
            TakeUp::Ignore => return,
        };
        let submission = Submission {
            action,
            author: live.user_id.clone(),
            key: live.key,
            audience: live.audience.clone(),
            agent_issuer: live.agent_issuer,
            session_id: live.session_id,
            generation,
            look_up_only,
        };
        self.outputs.push_back(Output::Submit(Box::new(submission)));
    }

    fn gap(&mut self, now: Now, thread_id: ThreadId, id: Option<Id>, expected: ActionSeq) {
        let mut error = ErrorPayload::new(
            ErrorCode::SequenceGap,
            format!("seq {expected} is expected next in this thread: nothing was applied, send again from there"),
        );
        error.expected = Some(expected);
        self.send(now, Some(thread_id), id, ServerMessage::StateError(error));
    }

    fn answered(&mut self, now: Now, thread_id: ThreadId, id: Id, generation: Generation, answer: Answer) {
        match &mut self.phase {
            Phase::Live(live) => {
                if live.sequence.answered(thread_id, id, generation, &answer) {
                    self.send_answer(now, thread_id, id, answer);
                }
            }
            // The client isn't there to hear it; its next connection is (A5).
            Phase::Closed(Some(live)) => {
                live.sequence.answered(thread_id, id, generation, &answer);
            }
            Phase::AwaitAuth { .. } | Phase::AwaitSession(_) | Phase::Closed(None) => {}
        }
    }

    fn send_answer(&mut self, now: Now, thread_id: ThreadId, id: Id, answer: Answer) {
        let message = match answer {
            Answer::Receipt(receipt) => ServerMessage::Receipt(receipt),
            Answer::Refused(error) => ServerMessage::StateError(error),
        };
        self.send(now, Some(thread_id), Some(id), message);
    }

    fn acknowledged(&mut self, ack: Ack) {
        let applied = self
            .subscription(ack.thread_id)
            .and_then(|subscription| subscription.acknowledge(ack.seq));
        if applied.is_some() {
            self.outputs.push_back(Output::Acknowledged {
                thread_id: ack.thread_id,
                seq: ack.seq,
                root: ack.root,
            });
        }
    }

    fn subscribe(&mut self, id: Id, subscribe: &Subscribe) {
        let Some(live) = self.live_mut() else { return };
        let all = (subscribe.all == Some(true)).then(|| Options::of_all(subscribe));
        if all.is_some() {
            live.all = all;
        }
        let threads = subscribe
            .threads
            .iter()
            .flatten()
            .map(|thread| (thread.thread_id, thread.cursor, Options::of(thread, subscribe)))
            .collect();
        self.outputs.push_back(Output::Subscribe(Box::new(SubscribeRequest {
            reply_to: id,
            threads,
            all,
        })));
    }

    fn unsubscribe(&mut self, now: Now, id: Id, threads: &[ThreadId]) {
        for thread_id in threads {
            let ended = self.live_mut().and_then(|live| live.subscriptions.remove(thread_id));
            let message = ServerMessage::Unsubscribed(Unsubscribed::default());
            self.send(now, Some(*thread_id), Some(id), message);
            if ended.is_some() {
                self.outputs.push_back(Output::Unsubscribed(*thread_id));
            }
        }
    }

    fn drain(&mut self, now: Now, retry_after_ms: u64) {
        self.send(now, None, None, ServerMessage::Drain(Drain { retry_after_ms }));
        match &mut self.phase {
            Phase::Live(live) => live.draining = true,
            Phase::AwaitAuth { .. } | Phase::AwaitSession(_) | Phase::Closed(_) => {
                self.close(close::RESTART, "the server restarts");
            }
        }
    }

    fn tick(&mut self, now: Now) {
        match &mut self.phase {
            Phase::AwaitAuth { until } if now.monotonic >= *until => {
                self.close(close::AUTHENTICATION, "not authenticated within 10 s");
            }
            Phase::Live(live) => match live.heartbeat.tick(now.monotonic) {
                Beat::Wait => {}
                Beat::Ping => self.outputs.push_back(Output::Ping),
                Beat::Late => {
                    let error = ErrorPayload::new(ErrorCode::HeartbeatTimeout, "the pong didn't come in time");
                    self.send(now, None, None, ServerMessage::ConnectionError(error));
                    self.close(close::HEARTBEAT, "heartbeat timeout");
                }
            },
            Phase::AwaitAuth { .. } | Phase::AwaitSession(_) | Phase::Closed(_) => {}
        }
    }

    fn send(&mut self, now: Now, thread_id: Option<ThreadId>, reply_to: Option<Id>, message: ServerMessage) {
        if let Phase::Closed(_) = self.phase {
            return;
        }
        let message = self.envelope(now, thread_id, reply_to, message);
        self.outputs.push_back(Output::Send(Box::new(message)));
    }

    /// SplitMix64 (Steele, Lea, Flood 2014): ids must be unique, and are no secret.
    fn next_random(&mut self) -> u64 {
        self.ids = self.ids.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.ids;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
}
