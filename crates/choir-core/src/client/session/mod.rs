//! The client's machine: one connection after the other, and what outlives them (sections 4, 7, 9, 11).
//!
//! ```text
//!   start ─► Dialling ─► AwaitHello ─► AwaitSession ─► Live ──► lost ──► Waiting ─► Dialling …
//!                                          │                    │
//!                                          └─ 4401 ─► AwaitCredentials        Ended: no way leads out of it
//! ```
//!
//! Here are the states, the commands and the clock; `incoming` reads what the server says, `threads` keeps the subscriptions, `outgoing` sends what is
//! due. Actions are numbered and resent in `lanes`.

mod incoming;
mod outgoing;
mod threads;

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::string::{String, ToString};
use alloc::sync::Arc;

use choir_protocol::action::Action;
use choir_protocol::canonical::Canonical;
use choir_protocol::error::{ErrorCode, close};
use choir_protocol::ids::{ConnectionId, Id, LogId, ThreadId, UserId};
use choir_protocol::json::Object;
use choir_protocol::key::PublicKey;
use choir_protocol::message::{
    Auth, AuthMethod, ClientMessage, ErrorPayload, FromClient, HeartbeatTimes, Hello, Limits, Mode, PROTOCOL, Session,
    StreamPart, UserAction,
};
use choir_protocol::sign::auth_text;

use super::backoff::{Backoff, SETTLED_MS};
use super::entropy::Entropy;
use super::error::{Code, Error};
use super::keys::KeyRing;
use super::lanes::{Lanes, Queued};
use super::pace::Pace;
use super::replica::Replica;
use super::streams::OpenStream;
use super::subscription::{Phase as Following, Subscription};
use super::types::{Config, Credentials, Event, Input, Lost, Notice, Output, Request, State, SubscribeOptions, Update};
use crate::session::{Monotonic, Now};

/// How many threads a client follows at most, whatever the server allows.
const MAX_THREADS: usize = 10_000;
/// How many replicas that didn't agree with the server's log are kept after their threads' end.
const MAX_ASIDE: usize = 16;

/// One client's connection over its whole life. See [the contract](super#the-contract).
#[derive(Debug)]
pub struct Machine {
    config: Config,
    credentials: Credentials,
    entropy: Entropy,
    keys: KeyRing,
    phase: Phase,
    now: Now,
    outputs: VecDeque<Output>,
    told: State,
    /// Whether the set of subscribed threads may have changed since.
    retell: bool,

    // What outlives connections.
    user_id: Option<UserId>,
    session_token: Option<String>,
    log_id: Option<LogId>,
    server_key: Option<PublicKey>,
    limits: Limits,
    heartbeat: HeartbeatTimes,
    lanes: Lanes,
    action_pace: Pace,
    requests: BTreeMap<Id, Asked>,
    request_pace: Pace,
    subscriptions: BTreeMap<ThreadId, Subscription>,
    all: Option<All>,
    aside: BTreeMap<ThreadId, Arc<Replica>>,
    /// Milliseconds that the server's clock is ahead, once it refused a time (K3).
    clock_ahead_ms: i64,
    latency_ms: Option<u64>,

    // Reconnecting (C11).
    backoff: Backoff,
    lost_at: Option<u64>,
    had_session: bool,
    /// Whether credentials failed since the last session: the second time ends (C11).
    credentials_failed: bool,
    /// The wait that the server asked for before it closed (C10, section 12).
    retry_after_ms: Option<u64>,
    /// The last error that belonged to no call: why the connection then ended.
    last_error: Option<ErrorPayload>,
}

/// What the machine waits for.
#[derive(Debug)]
enum Phase {
    /// [`Machine::start`].
    Idle,
    /// The transport.
    Dialling { deadline: u64 },
    /// `control.hello`.
    AwaitHello { deadline: u64 },
    /// `control.session`.
    AwaitSession { deadline: u64, challenge: Challenge },
    /// Anything: there is a session.
    Live(Live),
    /// The time of the next try.
    Waiting { until: u64, wait_ms: u64 },
    /// New credentials.
    AwaitCredentials,
    /// Nothing any longer.
    Ended(Error),
}

/// What `control.hello` said that authentication is bound to (C4).
#[derive(Debug)]
struct Challenge {
    connection_id: ConnectionId,
    challenge: String,
}

/// A connection with a session.
#[derive(Debug)]
struct Live {
    challenge: Challenge,
    since: u64,
    last_received: u64,
    /// When the heartbeat was sent that nothing has answered yet (C9).
    heartbeat_sent: Option<u64>,
    /// The `control.auth` that brings new credentials and isn't answered yet (C6).
    reauthenticating: Option<Id>,
    /// Since `control.drain` nothing new is sent (C10).
    draining: bool,
    last_ack: Option<u64>,
}

/// The subscription of all threads (Y3).
#[derive(Debug)]
struct All {
    options: SubscribeOptions,
    phase: Following,
}

/// A request that isn't answered yet.
#[derive(Debug)]
struct Asked {
    request: Request,
    sent: bool,
    /// On how many connections it was sent in vain.
    strikes: u8,
    refusals: u32,
    not_before: u64,
}

impl Machine {
    /// A machine that hasn't begun. `seed` is 32 bytes of the system's random source: ids, salts and waiting times grow from it.
    pub fn new(config: Config, credentials: Credentials, seed: [u8; 32]) -> Self {
        let user_id = user_of(&credentials);
        let limits = Limits::default();
        Self {
            config,
            credentials,
            entropy: Entropy::from_seed(seed),
            keys: KeyRing::default(),
            phase: Phase::Idle,
            now: Now {
                wall: choir_protocol::ids::Timestamp::ZERO,
                monotonic: Monotonic::default(),
            },
            outputs: VecDeque::new(),
            told: State::Connecting,
            retell: false,
            user_id,
            session_token: None,
            log_id: None,
            server_key: None,
            action_pace: Pace::new(limits.max_actions_per_second, 0),
            request_pace: Pace::new(limits.max_requests_per_second, 0),
            limits,
            heartbeat: HeartbeatTimes::default(),
            lanes: Lanes::default(),
            requests: BTreeMap::new(),
            subscriptions: BTreeMap::new(),
            all: None,
            aside: BTreeMap::new(),
            clock_ahead_ms: 0,
            latency_ms: None,
            backoff: Backoff::default(),
            lost_at: None,
            had_session: false,
            credentials_failed: false,
            retry_after_ms: None,
            last_error: None,
        }
    }

    // ---------------------------------------------------------------------------------------------------------------------------------------- in and out

    /// Begins to connect. Once.
    pub fn start(&mut self, now: Now) {
        self.now = now;
        if matches!(self.phase, Phase::Idle) {
            self.lost_at = Some(self.ms());
            self.dial();
        }
        self.settle();
    }

    /// Takes in what happened.
    pub fn handle(&mut self, now: Now, input: Input<'_>) {
        self.now = now;
        match input {
            Input::Connected => {
                if let Phase::Dialling { deadline } = self.phase {
                    self.phase = Phase::AwaitHello { deadline };
                }
            }
            Input::Text(text) => {
                self.received();
                if self.is_open() {
                    self.text(text);
                }
            }
            Input::Traffic => self.received(),
            Input::ConnectionLost(lost) => {
                if self.is_open() || matches!(self.phase, Phase::Dialling { .. }) {
                    self.lost(lost);
                }
            }
            Input::Time => {}
        }
        self.settle();
    }

    /// The next thing to do; none until the next input or command.
    pub fn poll(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When to hand in [`Input::Time`], unless something else happens before.
    pub fn wake_at(&self) -> Option<Monotonic> {
        let by_phase = match &self.phase {
            Phase::Idle | Phase::AwaitCredentials | Phase::Ended(_) => return None,
            Phase::Dialling { deadline } | Phase::AwaitHello { deadline } | Phase::AwaitSession { deadline, .. } => {
                Some(*deadline)
            }
            Phase::Waiting { until, .. } => Some(*until),
            Phase::Live(live) => self.live_wake_at(live),
        };
        by_phase
            .into_iter()
            .chain(self.gives_up_at())
            .min()
            .map(Monotonic::from_ms)
    }

    /// What follows from the input and the time: timers, what is due to be sent, and the state that the caller is told.
    fn settle(&mut self) {
        self.timers();
        if matches!(self.phase, Phase::Live(_)) {
            self.pump();
        }
        // With a session it is a set, which isn't gone through after each message.
        let live = matches!(self.phase, Phase::Live(_));
        if live && !core::mem::take(&mut self.retell) {
            return;
        }
        let state = self.state();
        if state != self.told {
            self.told = state.clone();
            self.emit(Event::State(state));
        }
    }

    // ------------------------------------------------------------------------------------------------------------------------------------------ commands

    /// Hands an action over: it is sent when it is its turn, and [`Event::Answered`] says what became of it. Returns its id, which it keeps over all resends
    /// (A8).
    ///
    /// # Errors
    /// `invalid_message` where the payload isn't one of the type, `content_too_large`, `limit` where too much waits already, and the error that ended the client.
    pub fn act(&mut self, now: Now, thread_id: ThreadId, action_type: &str, payload: Object) -> Result<Id, Error> {
        let id = self.entropy.id(now.wall);
        self.act_as(now, id, thread_id, action_type, payload)
    }

    /// The same as [`Machine::act`] under an id that was used for a stream (V4).
    ///
    /// # Errors
    /// As [`Machine::act`]; `conflict` where an action with this id isn't answered yet.
    pub fn act_as(
        &mut self,
        now: Now,
        id: Id,
        thread_id: ThreadId,
        action_type: &str,
        payload: Object,
    ) -> Result<Id, Error> {
        self.now = now;
        self.check_alive()?;
        Action::read(action_type, &payload)?;
        let bytes = Canonical::of_object(&payload).as_str().len();
        if self.had_session {
            self.check_content(bytes)?;
        }
        if self.lanes.len() >= self.config.max_queued_actions
            || self.lanes.bytes().saturating_add(bytes) > self.config.max_queued_bytes
        {
            return Err(Error::wire(ErrorCode::Limit, "too many actions wait for their answers"));
        }
        if self.lanes.contains(id) {
            return Err(Error::wire(
                ErrorCode::Conflict,
                "an action with this id waits for its answer",
            ));
        }
        let seen = self.seen(thread_id);
        self.lanes.push(Queued::new(
            id,
            thread_id,
            action_type.to_string(),
            payload,
            bytes,
            seen,
        ));
        self.settle();
        Ok(id)
    }

    /// Asks the server something; [`Event::Replied`] brings the answer. Asked again on the next connection, where one is lost.
    ///
    /// # Errors
    /// `limit` where too many aren't answered yet, `not_subscribed` for a page before a replica that isn't there, and the error that ended the client.
    pub fn request(&mut self, now: Now, request: Request) -> Result<Id, Error> {
        self.now = now;
        self.check_alive()?;
        if self.requests.len() >= self.config.max_requests {
            return Err(Error::wire(
                ErrorCode::Limit,
                "too many requests wait for their answers",
            ));
        }
        if let Request::Earlier { thread_id, .. } = &request
            && self.replica(*thread_id).is_none()
        {
            return Err(not_followed());
        }
        let id = self.entropy.id(now.wall);
        self.requests.insert(
            id,
            Asked {
                request,
                sent: false,
                strikes: 0,
                refusals: 0,
                not_before: 0,
            },
        );
        self.settle();
        Ok(id)
    }

    /// Follows a thread from now on, over all reconnects (Y3). [`Update::Level`] says when its replica is there.
    ///
    /// # Errors
    /// `limit` where too many are followed, and the error that ended the client.
    pub fn subscribe(&mut self, now: Now, thread_id: ThreadId, options: SubscribeOptions) -> Result<(), Error> {
        self.now = now;
        self.check_alive()?;
        let wanted = Following::Wanted { not_before: 0 };
        if let Some(known) = self.subscriptions.get_mut(&thread_id) {
            if options.mode == Mode::Events {
                known.replica = None;
            }
            known.options = options;
            known.phase = wanted;
        } else {
            if self.subscriptions.len() >= self.max_threads() {
                return Err(Error::wire(ErrorCode::Limit, "too many threads are followed"));
            }
            self.subscriptions.insert(thread_id, Subscription::new(options, wanted));
        }
        self.settle();
        Ok(())
    }

    /// Follows all threads that the user has joined, or joins later (Y3).
    ///
    /// # Errors
    /// The error that ended the client.
    pub fn subscribe_all(&mut self, now: Now, options: SubscribeOptions) -> Result<(), Error> {
        self.now = now;
        self.check_alive()?;
        self.all = Some(All {
            options,
            phase: Following::Wanted { not_before: 0 },
        });
        self.settle();
        Ok(())
    }

    /// Follows a thread no longer (Y10). Its replica is forgotten.
    pub fn unsubscribe(&mut self, now: Now, thread_id: ThreadId) {
        self.now = now;
        if self.subscriptions.contains_key(&thread_id) {
            self.end_subscription(thread_id, None, true);
        }
        self.settle();
    }

    /// Says what the user is doing (V3). Fleeting: lost where there is no session. Whether it was sent.
    pub fn user_action(&mut self, now: Now, thread_id: ThreadId, action: UserAction) -> bool {
        self.now = now;
        self.send_fleeting(ClientMessage::UserAction(thread_id, action))
    }

    /// Sends a part of a message that is being written (V4). Fleeting: lost where there is no session. Whether it was sent.
    pub fn stream(&mut self, now: Now, thread_id: ThreadId, part: StreamPart) -> bool {
        self.now = now;
        self.send_fleeting(ClientMessage::Stream(thread_id, part))
    }

    /// Brings new credentials: where they are awaited, or before the old ones expire (C6, C8, C11).
    pub fn credentials(&mut self, now: Now, credentials: Credentials) {
        self.now = now;
        if credentials.key.public() != self.credentials.key.public() {
            // A session belongs to its key (C5), and so does a signature.
            self.session_token = None;
            self.lanes.sign_all_anew();
        }
        self.credentials = credentials;
        match &self.phase {
            Phase::AwaitCredentials => self.dial(),
            Phase::Live(_) => self.reauthenticate(),
            _ => {}
        }
        self.settle();
    }

    /// There are no new credentials: where they are awaited, that is the end (C11).
    pub fn no_credentials(&mut self, now: Now) {
        self.now = now;
        if matches!(self.phase, Phase::AwaitCredentials) {
            let error = self
                .take_last_error()
                .unwrap_or_else(|| Error::wire(ErrorCode::AuthenticationFailed, "there are no other credentials"));
            self.end(error);
        }
        self.settle();
    }

    /// Ends the client. What has no answer is answered with `closed`: it isn't known to be applied.
    pub fn close(&mut self, now: Now) {
        self.now = now;
        if !matches!(self.phase, Phase::Ended(_)) {
            if self.is_open() || matches!(self.phase, Phase::Dialling { .. }) {
                self.outputs.push_back(Output::Close(close::NORMAL));
            }
            self.end(Error::closed());
        }
        self.settle();
    }

    // ------------------------------------------------------------------------------------------------------------------------------------------- reading

    /// The state (section 4).
    pub fn state(&self) -> State {
        match &self.phase {
            Phase::Live(_) => {
                let threads: BTreeSet<ThreadId> = self
                    .subscriptions
                    .iter()
                    .filter(|(_, subscription)| matches!(subscription.phase, Following::Following { .. }))
                    .map(|(thread_id, _)| *thread_id)
                    .collect();
                if threads.is_empty() {
                    State::Authenticated
                } else {
                    State::Subscribed(threads)
                }
            }
            Phase::Ended(_) => State::Disconnected,
            Phase::Idle => State::Connecting,
            _ if self.backoff.attempt() == 0 && !self.had_session => State::Connecting,
            Phase::Waiting { wait_ms, .. } => State::Reconnecting {
                attempt: self.backoff.attempt(),
                retry_in_ms: Some(*wait_ms),
            },
            _ => State::Reconnecting {
                attempt: self.backoff.attempt(),
                retry_in_ms: None,
            },
        }
    }

    /// Who the user is; none before the first session of a client that signs in by a token.
    pub const fn user_id(&self) -> Option<&UserId> {
        self.user_id.as_ref()
    }

    /// The replica of a thread that is followed; none in the mode `events`, and before the first snapshot.
    pub fn replica(&self, thread_id: ThreadId) -> Option<&Arc<Replica>> {
        self.subscriptions.get(&thread_id)?.replica.as_ref()
    }

    /// The last replica of a thread that didn't agree with the server's log (Y6).
    pub fn set_aside(&self, thread_id: ThreadId) -> Option<&Arc<Replica>> {
        self.subscriptions
            .get(&thread_id)
            .and_then(|subscription| subscription.aside.as_ref())
            .or_else(|| self.aside.get(&thread_id))
    }

    /// What is being written in a thread that is followed (V4).
    pub fn streams(&self, now: Now, thread_id: ThreadId) -> impl Iterator<Item = &OpenStream> {
        self.subscriptions
            .get(&thread_id)
            .into_iter()
            .flat_map(move |subscription| subscription.streams.open(now.monotonic.as_ms()))
    }

    /// How many actions have no answer.
    pub fn unanswered(&self) -> usize {
        self.lanes.len()
    }

    /// The connection's round trip, where it was measured (C9).
    pub const fn latency_ms(&self) -> Option<u64> {
        self.latency_ms
    }

    /// The server's limits, those of the protocol before the first `control.hello`.
    pub const fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The keys that were seen (K5).
    pub const fn keys(&self) -> &KeyRing {
        &self.keys
    }

    /// The same, to remember what earlier clients have seen.
    pub const fn keys_mut(&mut self) -> &mut KeyRing {
        &mut self.keys
    }

    /// The source of ids and salts.
    pub const fn entropy(&mut self) -> &mut Entropy {
        &mut self.entropy
    }

    // ---------------------------------------------------------------------------------------------------------------------------------------- connecting

    fn dial(&mut self) {
        self.phase = Phase::Dialling {
            deadline: self.ms().saturating_add(self.config.connect_timeout_ms),
        };
        self.outputs.push_back(Output::Connect);
    }

    fn greeted(&mut self, deadline: u64, hello: Hello) {
        let method = self.method();
        if hello.protocol != PROTOCOL {
            return self.refuse_server(Error::connection_lost(alloc::format!(
                "the server speaks another protocol than {PROTOCOL}"
            )));
        }
        if !hello.auth.contains(&method) {
            return self.refuse_server(Error::wire(
                ErrorCode::AuthenticationFailed,
                alloc::format!("the server takes no {}", method.as_str()),
            ));
        }
        if let Some(old) = self.log_id.replace(hello.log_id)
            && old != hello.log_id
        {
            // Its sessions are gone with the old log (G1r).
            self.session_token = None;
            self.emit(Event::Notice(Notice::LogReplaced { old, new: hello.log_id }));
        }
        if let Some(old) = self.server_key.replace(hello.server.key)
            && old != hello.server.key
        {
            self.emit(Event::Notice(Notice::ServerKeyChanged {
                old,
                new: hello.server.key,
            }));
        }
        self.limits = hello.limits;
        let now = self.ms();
        self.action_pace.set_rate(self.limits.max_actions_per_second, now);
        self.request_pace.set_rate(self.limits.max_requests_per_second, now);
        self.heartbeat = HeartbeatTimes {
            // A server can't make a client spin.
            interval_ms: hello.heartbeat.interval_ms.max(1_000),
            timeout_ms: hello.heartbeat.timeout_ms.max(1_000),
        };
        let challenge = Challenge {
            connection_id: hello.connection_id,
            challenge: hello.challenge,
        };
        self.authenticate(&challenge);
        self.phase = Phase::AwaitSession { deadline, challenge };
    }

    /// Sends `control.auth` (C2, C4). Returns its id.
    fn authenticate(&mut self, challenge: &Challenge) -> Id {
        let method = self.method();
        let text = auth_text(
            &self.config.audience,
            challenge.connection_id,
            &challenge.challenge,
            &self.config.client_id,
            method.as_str(),
        );
        let auth = Auth {
            method,
            client_id: self.config.client_id.clone(),
            agent: self.config.agent.clone(),
            public_key: self.credentials.key.public(),
            signature: self.credentials.key.sign(text.as_bytes()),
            token: self.credentials.token.as_ref().map(|token| token.0.clone()),
            session_token: self.session_token.clone(),
        };
        self.send(ClientMessage::Auth(auth))
    }

    /// Brings new credentials to a connection that has a session (C6).
    fn reauthenticate(&mut self) {
        if let Phase::Live(mut live) = core::mem::replace(&mut self.phase, Phase::Idle) {
            live.reauthenticating = Some(self.authenticate(&live.challenge));
            self.phase = Phase::Live(live);
        }
    }

    fn authenticated(&mut self, challenge: Challenge, session: Session) {
        let expected = user_of(&self.credentials).or_else(|| self.user_id.clone());
        if session.client_id != self.config.client_id || expected.is_some_and(|expected| expected != session.user_id) {
            return self.refuse_server(Error::wire(
                ErrorCode::AuthenticationFailed,
                "the session is another user's or client's",
            ));
        }
        // Where nothing was offered nothing can be resumed.
        let resumed = session.resumed && self.session_token.is_some();
        if !resumed {
            self.lanes.new_session();
        }
        if session.session_token.is_some() {
            self.session_token = session.session_token;
        }
        self.user_id = Some(session.user_id.clone());
        self.had_session = true;
        self.credentials_failed = false;
        self.lost_at = None;
        self.last_error = None;
        self.retry_after_ms = None;
        self.phase = Phase::Live(Live {
            challenge,
            since: self.ms(),
            last_received: self.ms(),
            heartbeat_sent: None,
            reauthenticating: None,
            draining: false,
            last_ack: None,
        });
        self.retell = true;
        self.emit(Event::Session {
            user_id: session.user_id,
            resumed,
        });
    }

    /// The server isn't one that this client can or may talk to.
    fn refuse_server(&mut self, error: Error) {
        self.outputs.push_back(Output::Close(close::NORMAL));
        self.end(error);
    }

    /// The transport is gone: what outlives it gets ready for the next one (R1).
    fn lost(&mut self, lost: Lost) {
        if let Phase::Live(live) = &self.phase
            && self.ms().saturating_sub(live.since) >= SETTLED_MS
        {
            self.backoff.reset();
        }
        if lost.close_code == Some(close::TOO_LARGE)
            && let Some(action) = self.lanes.longest_wired().and_then(|id| self.lanes.remove(id))
        {
            self.answer(
                action.id,
                Err(Error::wire(
                    ErrorCode::ContentTooLarge,
                    "the server closed: a message was too large, and this was the longest",
                )),
            );
        }
        if let Some(action) = self.lanes.connection_lost() {
            self.answer(
                action.id,
                Err(Error::wire(
                    ErrorCode::MessageDeliveryFailed,
                    "three connections in a row ended before the answer: it isn't known to be applied",
                )),
            );
        }
        for subscription in self.subscriptions.values_mut() {
            subscription.connection_lost();
        }
        if let Some(all) = &mut self.all {
            all.phase = Following::Wanted { not_before: 0 };
        }
        self.requests_lost(&lost.reason);
        self.reconnect_or_end(lost);
    }

    fn reconnect_or_end(&mut self, lost: Lost) {
        match lost.close_code {
            Some(code @ (close::INVALID_MESSAGE | close::DENIED | close::SUPERSEDED | close::UPGRADE_REQUIRED)) => {
                let error = self.take_last_error().unwrap_or_else(|| Error::of_close_code(code));
                return self.end(error);
            }
            Some(code @ close::AUTHENTICATION) => {
                let error = self.take_last_error().unwrap_or_else(|| Error::of_close_code(code));
                return self.credentials_refused(error);
            }
            Some(code @ (close::PROTOCOL_ERROR | close::NOT_UTF8)) => {
                self.emit(Event::Notice(Notice::OwnFault { close_code: code }));
            }
            _ => {}
        }
        let error = self
            .take_last_error()
            .unwrap_or_else(|| Error::connection_lost(lost.reason));
        self.emit(Event::Error { thread_id: None, error });
        self.wait(lost.retry_after_ms);
    }

    fn wait(&mut self, retry_after_ms: Option<u64>) {
        self.lost_at.get_or_insert(self.now.monotonic.as_ms());
        let asked = retry_after_ms.or(self.retry_after_ms.take());
        let wait_ms = self.backoff.next_ms(&mut self.entropy, asked);
        self.phase = Phase::Waiting {
            until: self.ms().saturating_add(wait_ms),
            wait_ms,
        };
    }

    /// The server didn't accept who this is (C11): the caller is asked once for new credentials.
    fn credentials_refused(&mut self, error: Error) {
        if self.credentials_failed {
            return self.end(error);
        }
        self.credentials_failed = true;
        if self.credentials.token.is_none() {
            // Who is their key has no other: it may have been a slow network (C2).
            self.emit(Event::Error { thread_id: None, error });
            return self.wait(None);
        }
        self.phase = Phase::AwaitCredentials;
        self.emit(Event::CredentialsWanted { waiting: true, error });
    }

    /// The end: everything that still waits is answered.
    fn end(&mut self, error: Error) {
        self.phase = Phase::Ended(error.clone());
        for action in self.lanes.drain() {
            self.answer(action.id, Err(error.clone()));
        }
        for (id, _) in core::mem::take(&mut self.requests) {
            self.emit(Event::Replied {
                id,
                result: Err(error.clone()),
            });
        }
        let by_caller = error.code == Code::Closed;
        for (thread_id, _) in core::mem::take(&mut self.subscriptions) {
            self.emit(Event::Thread {
                thread_id,
                update: Update::Unsubscribed {
                    error: (!by_caller).then(|| error.clone()),
                },
            });
        }
        if !by_caller {
            self.emit(Event::Error { thread_id: None, error });
        }
    }

    // -------------------------------------------------------------------------------------------------------------------------------------------- timers

    fn timers(&mut self) {
        let now = self.ms();
        if self.gives_up_at().is_some_and(|at| at <= now) {
            if self.is_open() || matches!(self.phase, Phase::Dialling { .. }) {
                self.outputs.push_back(Output::Close(close::NORMAL));
            }
            let error = self
                .take_last_error()
                .unwrap_or_else(|| Error::connection_lost("no session for too long"));
            return self.end(error);
        }
        match &mut self.phase {
            Phase::Dialling { deadline } | Phase::AwaitHello { deadline } | Phase::AwaitSession { deadline, .. }
                if *deadline <= now =>
            {
                self.drop_connection(close::NORMAL, "the connection took too long to begin");
            }
            Phase::Waiting { until, .. } if *until <= now => self.dial(),
            Phase::Live(live) => {
                if let Some(sent) = live.heartbeat_sent {
                    if now >= sent.saturating_add(self.heartbeat.timeout_ms) {
                        self.drop_connection(close::HEARTBEAT, "the server has gone silent");
                    }
                } else if now >= live.last_received.saturating_add(self.heartbeat.interval_ms) {
                    live.heartbeat_sent = Some(now);
                    self.send(ClientMessage::Heartbeat);
                }
            }
            _ => {}
        }
    }

    /// Gives up a connection that brings nothing.
    fn drop_connection(&mut self, code: u16, reason: &str) {
        self.outputs.push_back(Output::Close(code));
        self.lost(Lost {
            close_code: None,
            retry_after_ms: None,
            reason: reason.to_string(),
        });
    }

    fn live_wake_at(&self, live: &Live) -> Option<u64> {
        let heartbeat = match live.heartbeat_sent {
            Some(sent) => sent.saturating_add(self.heartbeat.timeout_ms),
            None => live.last_received.saturating_add(self.heartbeat.interval_ms),
        };
        self.due_at(live).into_iter().chain([heartbeat]).min()
    }

    fn gives_up_at(&self) -> Option<u64> {
        match self.phase {
            Phase::Idle | Phase::Live(_) | Phase::Ended(_) => None,
            _ => Some(self.lost_at?.saturating_add(self.config.give_up_after_ms?)),
        }
    }

    /// Anything that comes shows that the connection lives (C9).
    fn received(&mut self) {
        let now = self.ms();
        if let Phase::Live(live) = &mut self.phase {
            live.last_received = now;
            if let Some(sent) = live.heartbeat_sent.take() {
                self.latency_ms = Some(now.saturating_sub(sent));
            }
        }
    }

    // ------------------------------------------------------------------------------------------------------------------------------------------- helpers

    const fn ms(&self) -> u64 {
        self.now.monotonic.as_ms()
    }

    const fn is_open(&self) -> bool {
        matches!(
            self.phase,
            Phase::AwaitHello { .. } | Phase::AwaitSession { .. } | Phase::Live(_)
        )
    }

    fn method(&self) -> AuthMethod {
        match self.credentials.token {
            Some(_) => AuthMethod::Token,
            None => AuthMethod::Key,
        }
    }

    fn check_alive(&self) -> Result<(), Error> {
        match &self.phase {
            Phase::Ended(error) => Err(error.clone()),
            _ => Ok(()),
        }
    }

    fn check_content(&self, bytes: usize) -> Result<(), Error> {
        if bytes as u64 > self.limits.max_content_bytes {
            return Err(Error::wire(
                ErrorCode::ContentTooLarge,
                alloc::format!(
                    "the payload has {bytes} bytes, the server takes {}",
                    self.limits.max_content_bytes
                ),
            ));
        }
        Ok(())
    }

    fn max_threads(&self) -> usize {
        usize::try_from(self.limits.max_subscriptions)
            .unwrap_or(MAX_THREADS)
            .min(MAX_THREADS)
    }

    fn take_last_error(&mut self) -> Option<Error> {
        self.last_error.take().map(Error::from)
    }

    fn emit(&mut self, event: Event) {
        self.outputs.push_back(Output::Event(event));
    }

    fn answer(&mut self, id: Id, result: Result<choir_protocol::message::Receipt, Error>) {
        self.emit(Event::Answered { id, result });
    }

    /// Sends a control message under a new id.
    fn send(&mut self, message: ClientMessage) -> Id {
        let id = self.entropy.id(self.now.wall);
        self.send_as(id, message);
        id
    }

    fn send_as(&mut self, id: Id, message: ClientMessage) {
        let text = FromClient {
            id,
            timestamp: self.now.wall,
            message,
        }
        .to_text();
        self.outputs.push_back(Output::Send(text));
    }

    fn send_fleeting(&mut self, message: ClientMessage) -> bool {
        let live = matches!(&self.phase, Phase::Live(live) if !live.draining);
        if live {
            self.send(message);
        }
        self.settle();
        live
    }
}

/// Who somebody is by their credentials alone (C2).
fn user_of(credentials: &Credentials) -> Option<UserId> {
    match credentials.token {
        Some(_) => None,
        None => Some(UserId::of_key(&credentials.key.public())),
    }
}

fn not_followed() -> Error {
    Error::local(Code::NotSubscribed, "the thread isn't followed")
}
