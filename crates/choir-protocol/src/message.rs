//! Envelopes and messages (sections 3, 4, 7, 9, 10, 11): what clients say, what servers say, read from and written to one text message each.

use alloc::borrow::ToOwned;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use serde::{Deserialize, Serialize};

use crate::action::{Action, PayloadError, SignedAction};
use crate::canonical::{Canonical, write_string};
use crate::de::from_value;
use crate::encoding::base64url_decode_array;
use crate::entry::Kind;
use crate::error::ErrorCode;
use crate::hash::Hash;
use crate::ids::{
    ActionSeq, Audience, ClientId, ConnectionId, Cursor, Id, LogId, Seq, SessionId, ThreadId, Timestamp, UserId,
};
use crate::json::{self, JsonError, Object, Value};
use crate::key::{PublicKey, Signature};
use crate::range::Range;
use crate::thread::{Decision, Member, OpenSpec, Outcome, Role, Settings, Stream, Visibility};

/// The name of the protocol's version, and (with `.json`) of its WebSocket subprotocol (T1).
pub const PROTOCOL: &str = "choir.v1";
/// The WebSocket subprotocol (T1).
pub const SUBPROTOCOL: &str = "choir.v1.json";
/// How deep what a client sends may nest (E1).
pub const MAX_DEPTH: usize = json::MAX_DEPTH;

// ---------------------------------------------------------------------------------------------------------------------------------------------- control

/// How a user proves who they are (C2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AuthMethod {
    /// The user is the key.
    Key,
    /// The user is whom a JWT names.
    Token,
}

impl AuthMethod {
    /// The method's text.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Key => "key",
            Self::Token => "token",
        }
    }
}

/// `control.hello` (C1).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// `choir.v1`.
    pub protocol: String,
    /// Who answers.
    pub server: ServerInfo,
    /// Which history of the log this is (G1r).
    pub log_id: LogId,
    /// This connection.
    pub connection_id: ConnectionId,
    /// base64url of 32 random bytes, fresh for each connection.
    #[serde(deserialize_with = "challenge")]
    pub challenge: String,
    /// The methods that are configured.
    pub auth: Vec<AuthMethod>,
    /// When pings come.
    pub heartbeat: HeartbeatTimes,
    /// Section 12's limits marked ◦.
    pub limits: Limits,
}

/// The server's text becomes a line of what the client signs (C4), so it must be no more than it may be.
fn challenge<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let text = String::deserialize(deserializer)?;
    match base64url_decode_array::<32>(&text) {
        Ok(_) => Ok(text),
        Err(_) => Err(serde::de::Error::custom("expected base64url of 32 bytes")),
    }
}

/// Which server this is (C1).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerInfo {
    /// The software.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The key of checkpoints (K6).
    pub key: PublicKey,
}

/// The heartbeat's times (C9).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeartbeatTimes {
    /// How often a ping is sent.
    pub interval_ms: u64,
    /// How long the pong may take.
    pub timeout_ms: u64,
}

impl Default for HeartbeatTimes {
    fn default() -> Self {
        Self {
            interval_ms: 30_000,
            timeout_ms: 5_000,
        }
    }
}

/// Section 12's limits marked ◦.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Bytes of one message, also while inflating.
    pub max_message_bytes: u64,
    /// Bytes of an action's canonical payload.
    pub max_content_bytes: u64,
    /// Clients of a user.
    pub max_clients: u64,
    /// Subscriptions of a client.
    pub max_subscriptions: u64,
    /// Unanswered actions of a client (A2).
    pub max_in_flight: u64,
    /// Entries that a cursor may be behind (Y5).
    pub max_replay: u64,
    /// Actions a second of a user.
    pub max_actions_per_second: u64,
    /// Requests a second of a user.
    pub max_requests_per_second: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_message_bytes: 256 * 1024,
            max_content_bytes: 64 * 1024,
            max_clients: 20,
            max_subscriptions: 1_000,
            max_in_flight: 64,
            max_replay: 10_000,
            max_actions_per_second: 20,
            max_requests_per_second: 20,
        }
    }
}

/// `control.auth` (C2).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Auth {
    /// How.
    pub method: AuthMethod,
    /// Which client.
    pub client_id: ClientId,
    /// The software's name and version: at most 128 bytes.
    pub agent: String,
    /// The key that signs this session's actions.
    pub public_key: PublicKey,
    /// Over C4's text.
    pub signature: Signature,
    /// A JWT.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub token: Option<String>,
    /// That of the session to resume (C5).
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub session_token: Option<String>,
}

/// `control.session` (C5).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// Who you are.
    pub user_id: UserId,
    /// Which client.
    pub client_id: ClientId,
    /// Which session.
    pub session_id: SessionId,
    /// Resumes the session; only when it starts.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub session_token: Option<String>,
    /// When the token that authenticated ends.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub expires_at: Option<Timestamp>,
    /// Whether an earlier session goes on.
    pub resumed: bool,
    /// The server's clock.
    pub server_time: Timestamp,
}

/// How much of a thread a subscription gets (Y3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Snapshots and updates.
    #[default]
    Full,
    /// Only the light events of section 10.
    Events,
}

/// One thread of a `control.subscribe` (Y3).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubscribeThread {
    /// Which.
    pub thread_id: ThreadId,
    /// Up to where the client has it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub cursor: Option<Cursor>,
    /// `updates` always; default all that one may see.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub streams: Option<Vec<Stream>>,
    /// How much.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub mode: Option<Mode>,
    /// How many messages a snapshot carries: at most 500.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub history: Option<u64>,
    /// Whether ranges carry what it takes to verify them (L5, L8).
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub verify: Option<bool>,
    /// Whether every entry is sent, however many (Y5).
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub complete: Option<bool>,
}

/// `control.subscribe` (Y3).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Subscribe {
    /// All threads that the user has joined, or joins later.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub all: Option<bool>,
    /// These; with `all`, their cursors.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub threads: Option<Vec<SubscribeThread>>,
    /// For threads that don't say otherwise; `updates` always; default all that one may see.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub streams: Option<Vec<Stream>>,
    /// How much.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub mode: Option<Mode>,
    /// How many messages a snapshot carries: at most 500.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub history: Option<u64>,
    /// Whether ranges carry what it takes to verify them (L5, L8).
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub verify: Option<bool>,
    /// Whether every entry is sent, however many (Y5).
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub complete: Option<bool>,
}

/// `control.subscribed` (Y4): for one thread (that of the envelope), or the end of `{all: true}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Subscribed {
    /// For the envelope's thread.
    Thread(SubscribedThread),
    /// The end of `{all: true}`.
    All {
        /// `true`.
        all: bool,
        /// How many threads.
        threads: u64,
    },
}

/// The end of all is the one with `all`. (An untagged reader would take `null` for an absent field.)
impl<'de> Deserialize<'de> for Subscribed {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::Error;
        #[derive(Deserialize)]
        struct All {
            all: bool,
            threads: u64,
        }
        let value = Value::deserialize(deserializer)?;
        if value.as_object().is_some_and(|fields| fields.contains("all")) {
            let All { all, threads } = from_value(&value).map_err(D::Error::custom)?;
            if !all {
                return Err(D::Error::custom("all is true where it is there"));
            }
            return Ok(Self::All { all, threads });
        }
        from_value(&value).map(Self::Thread).map_err(D::Error::custom)
    }
}

/// `control.subscribed` for one thread (Y4).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubscribedThread {
    /// The cursor that the server sends from.
    pub seq: Seq,
    /// The log's head.
    pub head: Seq,
    /// The user's role; none for who is no member.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub role: Option<Role>,
    /// The streams that are sent.
    pub streams: Vec<Stream>,
    /// How much is sent.
    pub mode: Mode,
    /// The number of the newest message.
    pub messages: u64,
    /// Up to where the user has read (Y2).
    pub marked: Seq,
    /// Which members are connected.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub present: Option<Vec<UserId>>,
}

/// `control.unsubscribe` (Y10).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unsubscribe {
    /// Which.
    pub threads: Vec<ThreadId>,
}

/// `control.unsubscribed` (Y8, Y10).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Unsubscribed {
    /// `permission_denied` where the right to read went.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub cause: Option<String>,
}

/// One line of `control.ack` (Y9).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ack {
    /// Which thread.
    pub thread_id: ThreadId,
    /// Everything up to here was applied.
    pub seq: Seq,
    /// The client's root there, now and then.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub root: Option<Hash>,
}

/// `control.ack` (Y9).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acks {
    /// One for each thread.
    pub acks: Vec<Ack>,
}

/// Which threads a list is of (Y1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Those that the user is a member of.
    Mine,
    /// Public ones.
    Public,
}

/// `control.threads` of a client (Y1).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ThreadsRequest {
    /// Which.
    pub scope: Scope,
    /// A `next`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub after: Option<String>,
    /// How many: at most 200.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub limit: Option<u64>,
}

/// `control.threads` of a server (Y1).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Threads {
    /// Newest activity first.
    pub threads: Vec<ThreadRow>,
    /// Where the list goes on.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub next: Option<String>,
}

/// One thread of a list (Y1). These are indexes that may lag.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ThreadRow {
    /// Which.
    pub thread_id: ThreadId,
    /// Its title.
    pub title: String,
    /// Who reads.
    pub visibility: Visibility,
    /// The user's role; none for who is no member.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub role: Option<Role>,
    /// Whether the user was added and hasn't joined (S3).
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub invited: Option<bool>,
    /// The head's number.
    pub head: Seq,
    /// The number of the newest message.
    pub messages: u64,
    /// Up to where the user has read.
    pub marked: Seq,
    /// How many messages they haven't.
    pub unread: u64,
    /// How many specs await their decision.
    pub awaiting: u64,
    /// The time of the last entry.
    pub last_activity: Timestamp,
}

/// `control.members` and `control.specs` of a client (Y1).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PageRequest {
    /// A `next`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub after: Option<String>,
    /// How many: at most 200.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub limit: Option<u64>,
}

/// `control.members` of a server (Y1).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Members {
    /// In the order of being added.
    pub members: Vec<Member>,
    /// Where the list goes on.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub next: Option<String>,
}

/// `control.specs` of a server (Y1).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Specs {
    /// In the order of submission.
    pub open_specs: Vec<OpenSpec>,
    /// Where the list goes on.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub next: Option<String>,
}

/// `control.history` of a client (Y11).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryRequest {
    /// The range ends before this number.
    pub before: Seq,
    /// How many numbers: at most 1,000.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub limit: Option<u64>,
    /// Which streams.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub streams: Option<Vec<Stream>>,
    /// Whether it carries what it takes to verify it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub verify: Option<bool>,
}

/// `control.mark` (Y2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// Read up to here.
    pub seq: Seq,
}

/// `control.marked` (Y2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marked {
    /// Read up to here.
    pub seq: Seq,
    /// How many messages are not.
    pub unread: u64,
}

/// `control.checkpoint` of a server (K6).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointNote {
    /// A C2SP signed note.
    pub note: String,
}

/// `control.drain` (C10).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drain {
    /// When to come back.
    pub retry_after_ms: u64,
}

/// `control.heartbeat` of a server (C9).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerHeartbeat {
    /// The server's clock.
    pub server_time: Timestamp,
}

/// Whether an action was applied now or before (A9).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReceiptStatus {
    /// Now.
    Committed,
    /// Before.
    Duplicate,
}

/// `control.receipt` (A9).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// Now or before.
    pub status: ReceiptStatus,
    /// The number of the action's own entry.
    pub seq: Seq,
    /// Its kind.
    pub kind: Kind,
    /// The root there.
    pub root: Hash,
}

// ------------------------------------------------------------------------------------------------------------------------------------------------ state

/// Why a snapshot was sent (Y5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SnapshotReason {
    /// There was no cursor.
    Initial,
    /// The cursor was too far behind.
    TooFarBehind,
    /// The cursor wasn't one of this log.
    StateDesync,
    /// The client sees more than before (Y8).
    ViewChanged,
}

/// `state.snapshot` (Y5).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// The settings.
    pub thread: Settings,
    /// At most 200 members.
    pub members: Vec<Member>,
    /// At most 100 open specs.
    pub open_specs: Vec<OpenSpec>,
    /// The newest entries.
    pub recent: Range,
    /// What was cut.
    pub more: More,
    /// Why it was sent.
    pub reason: SnapshotReason,
}

/// What a snapshot cut (Y5).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct More {
    /// Where `control.members` goes on.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub members: Option<String>,
    /// Where `control.specs` goes on.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub open_specs: Option<String>,
    /// Whether `recent` holds fewer messages than were asked for.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub recent: Option<bool>,
}

/// `state.approval_request` (V2).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApprovalRequest {
    /// Which spec.
    pub spec: Id,
    /// The current revision's number.
    pub seq: Seq,
    /// Whose spec.
    pub author: UserId,
    /// What a decision is bound to.
    pub content_hash: Hash,
    /// Its media type.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub content_type: Option<String>,
    /// When it ends undecided.
    pub expires_at: Timestamp,
}

// ----------------------------------------------------------------------------------------------------------------------------------------------- events

/// `event.new_message` (V1).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewMessage {
    /// The entry.
    pub seq: Seq,
    /// The message.
    pub message: Id,
    /// Its hash.
    pub content_hash: Hash,
    /// Its author.
    pub author: UserId,
}

/// `event.new_approval` (V1).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewApproval {
    /// The entry.
    pub seq: Seq,
    /// The spec.
    pub spec: Id,
    /// The revision.
    pub content_hash: Hash,
    /// What was decided.
    pub decision: Decision,
}

/// `event.state_change` (V1).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateChange {
    /// The entry.
    pub seq: Seq,
    /// Its kind.
    pub change_type: Kind,
    /// The spec that ended.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub spec: Option<Id>,
    /// How.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub outcome: Option<Outcome>,
}

/// `event.user_action` (V1).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UserActionEvent {
    /// Who.
    pub user_id: UserId,
    /// What.
    pub action_type: String,
    /// More of it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub data: Option<Value>,
}

/// `action.user_action` (V3).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UserAction {
    /// What: at most 32 bytes.
    pub action_type: String,
    /// More of it: at most 1 KiB.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub data: Option<Value>,
    /// Whom it is for.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub to: Option<UserId>,
}

/// `event.stream` (V4).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamEvent {
    /// The id that the message will have.
    pub message: Id,
    /// Who writes.
    pub author: UserId,
    /// The part before the first.
    pub from: u64,
    /// The last part.
    pub to: u64,
    /// The parts' text.
    pub text: String,
    /// Whether that was the end.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ended: Option<bool>,
}

/// `action.stream` (V4).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamPart {
    /// The id that the message will have.
    pub message: Id,
    /// Which part: 1, 2, 3 ….
    pub part: u64,
    /// Its text.
    pub text: String,
    /// Whether that was the end.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ended: Option<bool>,
}

// ----------------------------------------------------------------------------------------------------------------------------------------------- errors

/// `error.connection` and `error.state` (section 11).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorPayload {
    /// What happened.
    #[serde(deserialize_with = "known_code")]
    pub code: ErrorCode,
    /// For people; without secrets and other users' data.
    pub message: String,
    /// Whether it may be tried again.
    pub retryable: bool,
    /// When.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub retry_after_ms: Option<u64>,
    /// More about the cause (C2, C6, Y4).
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub cause: Option<String>,
    /// The expected `seq`, with `sequence_gap` (A4).
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub expected: Option<ActionSeq>,
    /// The server's clock, with `clock_skew` (K3).
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub server_time: Option<Timestamp>,
}

/// A code, or that it is one of a later version: an action that is answered by it must not wait for ever.
fn known_code<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<ErrorCode, D::Error> {
    let text = String::deserialize(deserializer)?;
    Ok(text.parse().unwrap_or(ErrorCode::Unknown))
}

impl ErrorPayload {
    /// An error with nothing beside its code and what it says to people.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            retryable: code.retryable(),
            retry_after_ms: None,
            cause: None,
            expected: None,
            server_time: None,
        }
    }

    /// The same with a cause.
    #[must_use]
    pub fn with_cause(mut self, cause: impl Into<String>) -> Self {
        self.cause = Some(cause.into());
        self
    }

    /// The same with the time after which to try again.
    #[must_use]
    pub const fn with_retry_after(mut self, ms: u64) -> Self {
        self.retry_after_ms = Some(ms);
        self
    }
}

// -------------------------------------------------------------------------------------------------------------------------------------------- envelopes

/// What a client says on a WebSocket, with its envelope.
#[derive(Debug, Clone, PartialEq)]
pub struct FromClient {
    /// The message's id: what an answer names in `reply_to`.
    pub id: Id,
    /// The client's clock.
    pub timestamp: Timestamp,
    /// What it says.
    pub message: ClientMessage,
}

/// What a client says on a WebSocket (section 3's table).
#[derive(Debug, Clone, PartialEq)]
#[allow(
    missing_docs,
    reason = "each is a type of section 3's table, explained at its payload"
)]
pub enum ClientMessage {
    Auth(Auth),
    Subscribe(Subscribe),
    Unsubscribe(Unsubscribe),
    Ack(Acks),
    Heartbeat,
    Threads(ThreadsRequest),
    History(ThreadId, HistoryRequest),
    Members(ThreadId, PageRequest),
    Specs(ThreadId, PageRequest),
    Mark(ThreadId, Mark),
    Checkpoint(ThreadId),
    Action(ActionSeq, SignedAction),
    UserAction(ThreadId, UserAction),
    Stream(ThreadId, StreamPart),
}

impl ClientMessage {
    /// The message's type.
    pub const fn type_name(&self) -> &'static str {
        match self {
            Self::Auth(_) => "control.auth",
            Self::Subscribe(_) => "control.subscribe",
            Self::Unsubscribe(_) => "control.unsubscribe",
            Self::Ack(_) => "control.ack",
            Self::Heartbeat => "control.heartbeat",
            Self::Threads(_) => "control.threads",
            Self::History(..) => "control.history",
            Self::Members(..) => "control.members",
            Self::Specs(..) => "control.specs",
            Self::Mark(..) => "control.mark",
            Self::Checkpoint(_) => "control.checkpoint",
            Self::Action(_, action) => action.action.type_name(),
            Self::UserAction(..) => "action.user_action",
            Self::Stream(..) => "action.stream",
        }
    }

    /// Whether this is a request in R1's sense, counted by `max_requests_per_second`.
    pub const fn is_request(&self) -> bool {
        match self {
            Self::Subscribe(_)
            | Self::Unsubscribe(_)
            | Self::Threads(_)
            | Self::History(..)
            | Self::Members(..)
            | Self::Specs(..)
            | Self::Mark(..)
            | Self::Checkpoint(_) => true,
            Self::Auth(_)
            | Self::Ack(_)
            | Self::Heartbeat
            | Self::Action(..)
            | Self::UserAction(..)
            | Self::Stream(..) => false,
        }
    }
}

/// Why a text message is no message (E4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadMessage {
    /// `invalid_message` or `unknown_type`.
    pub code: ErrorCode,
    /// The message's id, where one could be read.
    pub id: Option<Id>,
    /// The thread that it names, where one could be read.
    pub thread_id: Option<ThreadId>,
    /// The `seq` of an action, where one could be read: what isn't at the expected number is answered by that alone (A3).
    pub seq: Option<ActionSeq>,
    /// What is wrong with it, for people. Never holds content.
    pub why: String,
}

impl fmt::Display for BadMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}

impl core::error::Error for BadMessage {}

/// The fields of section 3, before the payload is read by its type.
#[derive(Debug, Clone, PartialEq)]
struct Envelope {
    id: Id,
    type_name: String,
    payload: Object,
    timestamp: Timestamp,
    thread_id: Option<ThreadId>,
    reply_to: Option<Id>,
    fields: Object,
}

impl Envelope {
    fn read(text: &str, max_depth: usize) -> Result<Self, BadMessage> {
        let invalid = |why: String| BadMessage {
            code: ErrorCode::InvalidMessage,
            id: None,
            thread_id: None,
            seq: None,
            why,
        };
        let value = json::parse_to_depth(text, max_depth).map_err(|error: JsonError| invalid(error.to_string()))?;
        let Value::Object(mut fields) = value else {
            return Err(invalid("a message is a JSON object".to_owned()));
        };

        // What can be read of the envelope goes into the answer, so that its sender knows which message was meant.
        let id = fields.get("id").map(from_value::<Id>);
        let thread_id = fields.get("thread_id").map(from_value::<ThreadId>);
        let (known_id, known_thread) = (id.clone().and_then(Result::ok), thread_id.clone().and_then(Result::ok));
        let known_seq = action_seq(&fields);
        let bad = |field: &str, why: String| BadMessage {
            code: ErrorCode::InvalidMessage,
            id: known_id,
            thread_id: known_thread,
            seq: known_seq,
            why: alloc::format!("{field}: {why}"),
        };
        let missing = |field: &str| bad(field, "missing".to_owned());
        let id = id.ok_or_else(|| missing("id"))?.map_err(|e| bad("id", e.to_string()))?;
        let thread_id = thread_id.transpose().map_err(|e| bad("thread_id", e.to_string()))?;
        let type_name = fields
            .get("type")
            .ok_or_else(|| missing("type"))?
            .as_str()
            .ok_or_else(|| bad("type", "expected a string".to_owned()))?
            .to_owned();
        let timestamp = from_value(fields.get("timestamp").ok_or_else(|| missing("timestamp"))?)
            .map_err(|e| bad("timestamp", e.to_string()))?;
        let reply_to = fields
            .get("reply_to")
            .map(from_value)
            .transpose()
            .map_err(|e| bad("reply_to", e.to_string()))?;
        let payload = match fields.remove("payload") {
            Some(Value::Object(payload)) => payload,
            Some(_) => return Err(bad("payload", "expected an object".to_owned())),
            None => return Err(missing("payload")),
        };
        Ok(Self {
            id,
            type_name,
            payload,
            timestamp,
            thread_id,
            reply_to,
            fields,
        })
    }

    fn bad(&self, code: ErrorCode, why: impl Into<String>) -> BadMessage {
        BadMessage {
            code,
            id: Some(self.id),
            thread_id: self.thread_id,
            seq: action_seq(&self.fields),
            why: why.into(),
        }
    }

    fn field<T: serde::de::DeserializeOwned>(&self, name: &str) -> Result<T, BadMessage> {
        self.optional(name)?
            .ok_or_else(|| self.bad(ErrorCode::InvalidMessage, alloc::format!("{name}: missing")))
    }

    fn optional<T: serde::de::DeserializeOwned>(&self, name: &str) -> Result<Option<T>, BadMessage> {
        self.fields
            .get(name)
            .map(from_value)
            .transpose()
            .map_err(|error| self.bad(ErrorCode::InvalidMessage, alloc::format!("{name}: {error}")))
    }

    fn thread(&self) -> Result<ThreadId, BadMessage> {
        self.thread_id
            .ok_or_else(|| self.bad(ErrorCode::InvalidMessage, "thread_id: missing"))
    }

    fn payload<T: serde::de::DeserializeOwned>(&self) -> Result<T, BadMessage> {
        from_value(&Value::Object(self.payload.clone()))
            .map_err(|error| self.bad(ErrorCode::InvalidMessage, alloc::format!("payload: {error}")))
    }

    fn signed_action(&self) -> Result<SignedAction, BadMessage> {
        let action = Action::read(&self.type_name, &self.payload).map_err(|error| match error {
            PayloadError::UnknownType => self.bad(
                ErrorCode::UnknownType,
                alloc::format!("unknown type {}", printable(&self.type_name)),
            ),
            other => self.bad(ErrorCode::InvalidMessage, alloc::format!("payload: {other}")),
        })?;
        let thread_id = self.thread()?;
        let seen = self
            .optional::<(Seq, Hash)>("seen")?
            .map(|(seq, root)| Cursor { seq, root });
        let sig = self.field("sig")?;
        let payload = Canonical::of_object(&self.payload);
        let payload_hash = payload.hash();
        Ok(SignedAction {
            id: self.id,
            thread_id,
            timestamp: self.timestamp,
            seen,
            sig,
            payload,
            payload_hash,
            action,
        })
    }
}

/// The `seq` of an envelope, where it is that of an action: those that aren't signed have none (A2).
fn action_seq(fields: &Object) -> Option<ActionSeq> {
    let is_counted = match fields.get("type")?.as_str()? {
        "action.user_action" | "action.stream" => false,
        name => name.starts_with("action."),
    };
    let seq = from_value(fields.get("seq")?).ok()?;
    (is_counted && seq != ActionSeq::ZERO).then_some(seq)
}

/// A type's name as far as it can be shown: somebody's text, so short and plain.
fn printable(text: &str) -> String {
    text.chars().filter(|c| c.is_ascii_graphic()).take(64).collect()
}

impl FromClient {
    /// Reads a text message of a client (E1 to E4).
    ///
    /// # Errors
    /// What is `invalid_message` or `unknown_type`.
    pub fn read(text: &str) -> Result<Self, BadMessage> {
        let envelope = Envelope::read(text, MAX_DEPTH)?;
        let invalid = |why: &str| envelope.bad(ErrorCode::InvalidMessage, why);
        let message = match envelope.type_name.as_str() {
            "control.auth" => {
                let auth: Auth = envelope.payload()?;
                if auth.agent.len() > 128 {
                    return Err(invalid("payload: agent is at most 128 bytes"));
                }
                ClientMessage::Auth(auth)
            }
            "control.subscribe" => {
                let subscribe: Subscribe = envelope.payload()?;
                if subscribe.threads.as_ref().is_some_and(|threads| threads.len() > 1_000) {
                    return Err(invalid("payload: at most 1,000 threads in a message"));
                }
                if subscribe.threads.is_none() && subscribe.all != Some(true) {
                    return Err(invalid("payload: names neither threads nor all"));
                }
                ClientMessage::Subscribe(subscribe)
            }
            "control.unsubscribe" => ClientMessage::Unsubscribe(envelope.payload()?),
            "control.ack" => ClientMessage::Ack(envelope.payload()?),
            "control.heartbeat" => ClientMessage::Heartbeat,
            "control.threads" => ClientMessage::Threads(envelope.payload()?),
            "control.history" => ClientMessage::History(envelope.thread()?, envelope.payload()?),
            "control.members" => ClientMessage::Members(envelope.thread()?, envelope.payload()?),
            "control.specs" => ClientMessage::Specs(envelope.thread()?, envelope.payload()?),
            "control.mark" => ClientMessage::Mark(envelope.thread()?, envelope.payload()?),
            "control.checkpoint" => ClientMessage::Checkpoint(envelope.thread()?),
            "action.user_action" => ClientMessage::UserAction(envelope.thread()?, envelope.payload()?),
            "action.stream" => ClientMessage::Stream(envelope.thread()?, envelope.payload()?),
            _ => {
                let action = envelope.signed_action()?;
                let seq: ActionSeq = envelope.field("seq")?;
                if seq == ActionSeq::ZERO {
                    return Err(invalid("seq: actions are counted from 1"));
                }
                ClientMessage::Action(seq, action)
            }
        };
        Ok(Self {
            id: envelope.id,
            timestamp: envelope.timestamp,
            message,
        })
    }

    /// The text message.
    pub fn to_text(&self) -> String {
        let mut fields = Fields::new(self.id, self.message.type_name(), self.timestamp);
        match &self.message {
            ClientMessage::Auth(payload) => fields.payload(payload),
            ClientMessage::Subscribe(payload) => fields.payload(payload),
            ClientMessage::Unsubscribe(payload) => fields.payload(payload),
            ClientMessage::Ack(payload) => fields.payload(payload),
            ClientMessage::Heartbeat => fields.raw_payload("{}"),
            ClientMessage::Threads(payload) => fields.payload(payload),
            ClientMessage::History(thread, payload) => fields.thread(*thread).payload(payload),
            ClientMessage::Members(thread, payload) | ClientMessage::Specs(thread, payload) => {
                fields.thread(*thread).payload(payload)
            }
            ClientMessage::Mark(thread, payload) => fields.thread(*thread).payload(payload),
            ClientMessage::Checkpoint(thread) => fields.thread(*thread).raw_payload("{}"),
            ClientMessage::UserAction(thread, payload) => fields.thread(*thread).payload(payload),
            ClientMessage::Stream(thread, payload) => fields.thread(*thread).payload(payload),
            ClientMessage::Action(seq, action) => {
                fields.thread(action.thread_id);
                fields.plain("seq", seq);
                if let Some(seen) = action.seen {
                    fields.plain("seen", &alloc::format!("[{},\"{}\"]", seen.seq, seen.root));
                }
                fields.quoted("sig", &action.sig);
                fields.raw_payload(action.payload.as_str())
            }
        };
        fields.end()
    }
}

/// An action as it is posted over HTTP (section 13): with its key and audience, without `seq`.
#[derive(Debug, Clone, PartialEq)]
pub struct PostedAction {
    /// The key of the signature.
    pub key: PublicKey,
    /// What the signature is for.
    pub audience: Audience,
    /// The action.
    pub action: SignedAction,
}

impl PostedAction {
    /// Reads the body of a `POST /v1/actions`.
    ///
    /// # Errors
    /// What is `invalid_message` or `unknown_type`.
    pub fn read(text: &str) -> Result<Self, BadMessage> {
        let envelope = Envelope::read(text, MAX_DEPTH)?;
        let action = envelope.signed_action()?;
        Ok(Self {
            key: envelope.field("key")?,
            audience: envelope.field("audience")?,
            action,
        })
    }
}

/// What a server says on a WebSocket, with its envelope.
#[derive(Debug, Clone, PartialEq)]
pub struct FromServer {
    /// The message's id.
    pub id: Id,
    /// The server's clock.
    pub timestamp: Timestamp,
    /// The thread that it concerns.
    pub thread_id: Option<ThreadId>,
    /// What it answers.
    pub reply_to: Option<Id>,
    /// What it says.
    pub message: ServerMessage,
}

/// What a server says on a WebSocket (section 3's table).
#[derive(Debug, Clone, PartialEq)]
#[allow(
    missing_docs,
    reason = "each is a type of section 3's table, explained at its payload"
)]
pub enum ServerMessage {
    Hello(Hello),
    Session(Session),
    Subscribed(Subscribed),
    Unsubscribed(Unsubscribed),
    Receipt(Receipt),
    Heartbeat(ServerHeartbeat),
    Threads(Threads),
    History(Range),
    Members(Members),
    Specs(Specs),
    Marked(Marked),
    Checkpoint(CheckpointNote),
    Drain(Drain),
    Snapshot(Snapshot),
    ThreadUpdate(Range),
    ApprovalRequest(ApprovalRequest),
    NewMessage(NewMessage),
    NewApproval(NewApproval),
    StateChange(StateChange),
    UserAction(UserActionEvent),
    Stream(StreamEvent),
    ConnectionError(ErrorPayload),
    StateError(ErrorPayload),
    /// A type of a later version, which clients ignore (E3).
    Unknown(String),
}

impl ServerMessage {
    /// The message's type.
    pub fn type_name(&self) -> &str {
        match self {
            Self::Hello(_) => "control.hello",
            Self::Session(_) => "control.session",
            Self::Subscribed(_) => "control.subscribed",
            Self::Unsubscribed(_) => "control.unsubscribed",
            Self::Receipt(_) => "control.receipt",
            Self::Heartbeat(_) => "control.heartbeat",
            Self::Threads(_) => "control.threads",
            Self::History(_) => "control.history",
            Self::Members(_) => "control.members",
            Self::Specs(_) => "control.specs",
            Self::Marked(_) => "control.marked",
            Self::Checkpoint(_) => "control.checkpoint",
            Self::Drain(_) => "control.drain",
            Self::Snapshot(_) => "state.snapshot",
            Self::ThreadUpdate(_) => "state.thread_update",
            Self::ApprovalRequest(_) => "state.approval_request",
            Self::NewMessage(_) => "event.new_message",
            Self::NewApproval(_) => "event.new_approval",
            Self::StateChange(_) => "event.state_change",
            Self::UserAction(_) => "event.user_action",
            Self::Stream(_) => "event.stream",
            Self::ConnectionError(_) => "error.connection",
            Self::StateError(_) => "error.state",
            Self::Unknown(name) => name,
        }
    }
}

/// How deep what a server sends may nest (E1): it carries payloads of clients, which may nest to [`MAX_DEPTH`] themselves.
pub const MAX_DEPTH_FROM_SERVER: usize = MAX_DEPTH + 8;

impl FromServer {
    /// Reads a text message of a server.
    ///
    /// # Errors
    /// Where it isn't one: a client reports that to its caller and goes on.
    pub fn read(text: &str) -> Result<Self, BadMessage> {
        let envelope = Envelope::read(text, MAX_DEPTH_FROM_SERVER)?;
        let message = match envelope.type_name.as_str() {
            "control.hello" => ServerMessage::Hello(envelope.payload()?),
            "control.session" => ServerMessage::Session(envelope.payload()?),
            "control.subscribed" => ServerMessage::Subscribed(envelope.payload()?),
            "control.unsubscribed" => ServerMessage::Unsubscribed(envelope.payload()?),
            "control.receipt" => ServerMessage::Receipt(envelope.payload()?),
            "control.heartbeat" => ServerMessage::Heartbeat(envelope.payload()?),
            "control.threads" => ServerMessage::Threads(envelope.payload()?),
            "control.history" => ServerMessage::History(envelope.payload()?),
            "control.members" => ServerMessage::Members(envelope.payload()?),
            "control.specs" => ServerMessage::Specs(envelope.payload()?),
            "control.marked" => ServerMessage::Marked(envelope.payload()?),
            "control.checkpoint" => ServerMessage::Checkpoint(envelope.payload()?),
            "control.drain" => ServerMessage::Drain(envelope.payload()?),
            "state.snapshot" => ServerMessage::Snapshot(envelope.payload()?),
            "state.thread_update" => ServerMessage::ThreadUpdate(envelope.payload()?),
            "state.approval_request" => ServerMessage::ApprovalRequest(envelope.payload()?),
            "event.new_message" => ServerMessage::NewMessage(envelope.payload()?),
            "event.new_approval" => ServerMessage::NewApproval(envelope.payload()?),
            "event.state_change" => ServerMessage::StateChange(envelope.payload()?),
            "event.user_action" => ServerMessage::UserAction(envelope.payload()?),
            "event.stream" => ServerMessage::Stream(envelope.payload()?),
            "error.connection" => ServerMessage::ConnectionError(envelope.payload()?),
            "error.state" => ServerMessage::StateError(envelope.payload()?),
            other => ServerMessage::Unknown(printable(other)),
        };
        Ok(Self {
            id: envelope.id,
            timestamp: envelope.timestamp,
            thread_id: envelope.thread_id,
            reply_to: envelope.reply_to,
            message,
        })
    }

    /// The text message.
    pub fn to_text(&self) -> String {
        let mut fields = Fields::new(self.id, self.message.type_name(), self.timestamp);
        if let Some(thread) = self.thread_id {
            fields.thread(thread);
        }
        if let Some(reply_to) = self.reply_to {
            fields.quoted("reply_to", &reply_to);
        }
        match &self.message {
            ServerMessage::Hello(payload) => fields.payload(payload),
            ServerMessage::Session(payload) => fields.payload(payload),
            ServerMessage::Subscribed(payload) => fields.payload(payload),
            ServerMessage::Unsubscribed(payload) => fields.payload(payload),
            ServerMessage::Receipt(payload) => fields.payload(payload),
            ServerMessage::Heartbeat(payload) => fields.payload(payload),
            ServerMessage::Threads(payload) => fields.payload(payload),
            ServerMessage::History(payload) | ServerMessage::ThreadUpdate(payload) => fields.payload(payload),
            ServerMessage::Members(payload) => fields.payload(payload),
            ServerMessage::Specs(payload) => fields.payload(payload),
            ServerMessage::Marked(payload) => fields.payload(payload),
            ServerMessage::Checkpoint(payload) => fields.payload(payload),
            ServerMessage::Drain(payload) => fields.payload(payload),
            ServerMessage::Snapshot(payload) => fields.payload(payload),
            ServerMessage::ApprovalRequest(payload) => fields.payload(payload),
            ServerMessage::NewMessage(payload) => fields.payload(payload),
            ServerMessage::NewApproval(payload) => fields.payload(payload),
            ServerMessage::StateChange(payload) => fields.payload(payload),
            ServerMessage::UserAction(payload) => fields.payload(payload),
            ServerMessage::Stream(payload) => fields.payload(payload),
            ServerMessage::ConnectionError(payload) | ServerMessage::StateError(payload) => fields.payload(payload),
            ServerMessage::Unknown(_) => fields.raw_payload("{}"),
        };
        fields.end()
    }
}

/// Writes an envelope field by field.
struct Fields(String);

impl Fields {
    fn new(id: Id, type_name: &str, timestamp: Timestamp) -> Self {
        let mut text = alloc::format!("{{\"id\":\"{id}\",\"type\":");
        // That of a message of another version is somebody's text.
        write_string(type_name, &mut text);
        let mut fields = Self(text);
        fields.plain("timestamp", &timestamp);
        fields
    }

    fn thread(&mut self, thread: ThreadId) -> &mut Self {
        self.quoted("thread_id", &thread)
    }

    /// A value whose text needs no escapes.
    fn quoted(&mut self, name: &str, value: &dyn fmt::Display) -> &mut Self {
        self.plain(name, &format_args!("\"{value}\""))
    }

    fn plain(&mut self, name: &str, value: &dyn fmt::Display) -> &mut Self {
        use fmt::Write;
        // Writing into a String can't fail.
        let _ = write!(self.0, ",\"{name}\":{value}");
        self
    }

    fn payload(&mut self, payload: &impl Serialize) -> &mut Self {
        // The payload types hold nothing that JSON can't: no maps with other keys, no non-finite numbers.
        let text = serde_json::to_string(payload).unwrap_or_else(|_| "{}".to_owned());
        self.raw_payload(&text)
    }

    fn raw_payload(&mut self, text: &str) -> &mut Self {
        self.plain("payload", &text)
    }

    fn end(mut self) -> String {
        self.0.push('}');
        self.0
    }
}

/// The head of a `state.thread_update` or any other server message whose payload is written apart; the payload's text and `}` follow it.
pub fn server_envelope_head(id: Id, type_name: &str, timestamp: Timestamp, thread_id: ThreadId) -> String {
    let mut fields = Fields::new(id, type_name, timestamp);
    fields.thread(thread_id);
    fields.0.push_str(",\"payload\":");
    fields.0
}
