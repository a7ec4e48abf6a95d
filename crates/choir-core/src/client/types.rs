//! What goes into a client's machine and what comes out of it.

use alloc::collections::BTreeSet;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use choir_protocol::entry::Entry;
use choir_protocol::ids::{Audience, ClientId, Id, LogId, Seq, ThreadId, UserId};
use choir_protocol::key::{PublicKey, SecretKey};
use choir_protocol::message::{
    ApprovalRequest, CheckpointNote, Marked, Members, Mode, NewApproval, NewMessage, PageRequest, Receipt,
    SnapshotReason, Specs, StateChange, StreamEvent, SubscribedThread, Threads, ThreadsRequest, UserActionEvent,
};
use choir_protocol::range::Range;
use choir_protocol::thread::Stream;

use super::error::Error;
use super::replica::{Finding, Retain};

/// Who the client is.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// The key that signs (C2).
    pub key: Arc<SecretKey>,
    /// A JWT, where the user isn't their key. It shows itself nowhere.
    pub token: Option<Token>,
}

/// A JWT, as secret as a password.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(pub String);

impl core::fmt::Debug for Token {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Token(…)")
    }
}

/// What a machine is made with.
#[derive(Debug, Clone)]
pub struct Config {
    /// The origin that is dialled, or what the client is configured with (C4).
    pub audience: Audience,
    /// Which running client this is (C2).
    pub client_id: ClientId,
    /// The software's name and version: at most 128 bytes.
    pub agent: String,
    /// How long a connection may take from dialling to `control.session`.
    pub connect_timeout_ms: u64,
    /// After how long without a session the client stops reconnecting; none: never.
    pub give_up_after_ms: Option<u64>,
    /// How many actions may await their answers, those that wait for their turn included.
    pub max_queued_actions: usize,
    /// How many bytes their payloads may have.
    pub max_queued_bytes: usize,
    /// How many requests may await their answers.
    pub max_requests: usize,
    /// How often in a row an action or a question may be refused for now before it goes back to the caller: at least 3 (R2, A4). Waits grow between.
    pub max_refusals: u32,
    /// How much of each thread is held.
    pub retain: Retain,
}

impl Config {
    /// The defaults.
    pub fn new(audience: Audience, client_id: ClientId) -> Self {
        Self {
            audience,
            client_id,
            agent: alloc::format!("choir-client/{}", env!("CARGO_PKG_VERSION")),
            connect_timeout_ms: 20_000,
            give_up_after_ms: None,
            max_queued_actions: 1_024,
            max_queued_bytes: 16 * 1024 * 1024,
            max_requests: 256,
            max_refusals: 8,
            retain: Retain::default(),
        }
    }
}

/// The five states of a client (section 4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// There was no session yet, and one is sought.
    Connecting,
    /// There is a session, and no thread is subscribed.
    Authenticated,
    /// There is a session, and these threads are subscribed.
    Subscribed(BTreeSet<ThreadId>),
    /// There was a session, or a try to get one; another is sought.
    Reconnecting {
        /// How many tries failed in a row.
        attempt: u32,
        /// How long the client waits before the next one; none while it is under way.
        retry_in_ms: Option<u64>,
    },
    /// No session is sought any longer.
    Disconnected,
}

impl State {
    /// The state's name, as in every client library.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Authenticated => "authenticated",
            Self::Subscribed(_) => "subscribed",
            Self::Reconnecting { .. } => "reconnecting",
            Self::Disconnected => "disconnected",
        }
    }

    /// Whether there is a session.
    pub const fn is_authenticated(&self) -> bool {
        matches!(self, Self::Authenticated | Self::Subscribed(_))
    }
}

/// What happened outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input<'a> {
    /// The transport that [`Output::Connect`] asked for is open.
    Connected,
    /// A text message came.
    Text(&'a str),
    /// Something else came: a ping, a pong, a part of a message. It shows that the connection lives (C9).
    Traffic,
    /// The transport is gone, or couldn't be opened.
    ConnectionLost(Lost),
    /// The time that [`Machine::wake_at`](super::session::Machine::wake_at) named has come.
    Time,
}

/// How a transport ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lost {
    /// The WebSocket's close code, where there was one.
    pub close_code: Option<u16>,
    /// When to come back, where an HTTP answer named a time.
    pub retry_after_ms: Option<u64>,
    /// What happened, for people.
    pub reason: String,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq)]
pub enum Output {
    /// Drop the old transport and all that it may still bring; open a new one, then say [`Input::Connected`] or [`Input::ConnectionLost`].
    Connect,
    /// Send this text message.
    Send(String),
    /// Close the transport with this code. Nothing more of it is to be handed in.
    Close(u16),
    /// Tell the caller.
    Event(Event),
}

/// What the caller is told.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// The state changed.
    State(State),
    /// There is a session.
    Session {
        /// Who the user is.
        user_id: UserId,
        /// Whether it is an earlier one.
        resumed: bool,
    },
    /// An action has its final answer.
    Answered {
        /// The action.
        id: Id,
        /// Its receipt, or why it wasn't applied (or isn't known to be, where the code says so).
        result: Result<Receipt, Error>,
    },
    /// A request has its answer.
    Replied {
        /// The request.
        id: Id,
        /// What was asked for.
        result: Result<Reply, Error>,
    },
    /// Something happened in a thread that is followed.
    Thread {
        /// The thread.
        thread_id: ThreadId,
        /// What.
        update: Update,
    },
    /// A spec awaits this user's decision (V2).
    ApprovalRequest {
        /// The thread.
        thread_id: ThreadId,
        /// The spec.
        request: ApprovalRequest,
    },
    /// The user has read up to here, on another client (Y2).
    Marked {
        /// The thread.
        thread_id: ThreadId,
        /// Up to where.
        marked: Marked,
    },
    /// A message was posted (V1, V2).
    NewMessage {
        /// The thread.
        thread_id: ThreadId,
        /// The message.
        event: NewMessage,
    },
    /// A decision was given (V1, V2).
    NewApproval {
        /// The thread.
        thread_id: ThreadId,
        /// The decision.
        event: NewApproval,
    },
    /// Something else changed (V1, V2).
    StateChange {
        /// The thread.
        thread_id: ThreadId,
        /// What.
        event: StateChange,
    },
    /// The caller should bring new credentials: the old ones weren't accepted (C11), or will soon expire (C8).
    CredentialsWanted {
        /// Whether the client waits for them; otherwise it goes on with the old ones for now.
        waiting: bool,
        /// Why.
        error: Error,
    },
    /// Something that people should know, and that ends nothing.
    Notice(Notice),
    /// An error that belongs to no call.
    Error {
        /// The thread that it concerns.
        thread_id: Option<ThreadId>,
        /// What happened.
        error: Error,
    },
}

/// Something that people should know, and that ends nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Notice {
    /// The log was replaced, by a restored backup for example (G1r): what was acknowledged before may be gone.
    LogReplaced {
        /// The history that was known.
        old: LogId,
        /// The one that there is now.
        new: LogId,
    },
    /// The server has another key for checkpoints than before (K6).
    ServerKeyChanged {
        /// The key that was known.
        old: PublicKey,
        /// The one that it names now.
        new: PublicKey,
    },
    /// The server closed because it found a frame of this client broken (section 11).
    OwnFault {
        /// The close code.
        close_code: u16,
    },
    /// The server restarts and asked to come back then (C10).
    Drain {
        /// When.
        retry_after_ms: u64,
    },
    /// A message of the server couldn't be read, and was left out.
    BadMessage {
        /// What is wrong with it.
        why: String,
    },
}

/// What happened in a thread that is followed.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Update {
    /// The server has taken up the subscription (Y4).
    Subscribed(SubscribedThread),
    /// The replica was replaced by a snapshot (Y5).
    Snapshot {
        /// Why.
        reason: SnapshotReason,
        /// What is to be told about its entries.
        findings: Vec<Finding>,
    },
    /// These entries were applied.
    Entries {
        /// In their order.
        entries: Vec<Entry>,
        /// What is to be told about them.
        findings: Vec<Finding>,
    },
    /// The replica has reached the head that the server named (Y4).
    Level {
        /// The cursor.
        cursor: Seq,
        /// What is still hidden that may be seen (L8).
        findings: Vec<Finding>,
    },
    /// A page of history was put before what is held (Y11).
    History {
        /// What is to be told about its entries.
        findings: Vec<Finding>,
    },
    /// Something was missing; the thread is being subscribed again with its cursor (Y6).
    GapRepaired {
        /// Up to where the replica holds the log.
        cursor: Seq,
        /// Where the update began.
        from: Seq,
    },
    /// The replica and the server's log differ. What was held is kept aside, and the thread is being subscribed anew (Y6); or, the second time, it was unsubscribed.
    Desync {
        /// What differs.
        error: Error,
        /// Whether the thread was unsubscribed.
        ended: bool,
    },
    /// The thread is no longer followed.
    Unsubscribed {
        /// Why, where that wasn't the caller's wish.
        error: Option<Error>,
    },
    /// Somebody does something (V3).
    UserAction(UserActionEvent),
    /// A message is being written (V4).
    Stream(StreamEvent),
}

/// How a thread is followed (Y3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubscribeOptions {
    /// How much is sent.
    pub mode: Mode,
    /// How many messages a snapshot carries: at most 500; the server's default where left out.
    pub history: Option<u64>,
    /// Which streams; all that one may see where left out.
    pub streams: Option<Vec<Stream>>,
    /// Whether every entry is sent, however many, from entry 1 on: nothing is taken at the server's word then.
    pub complete: bool,
}

impl Default for SubscribeOptions {
    fn default() -> Self {
        Self {
            mode: Mode::Full,
            history: None,
            streams: None,
            complete: false,
        }
    }
}

/// Something that is asked of the server, beside actions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// A page of the list of threads (Y1).
    Threads(ThreadsRequest),
    /// A page of a thread's members (Y1).
    Members(ThreadId, PageRequest),
    /// A page of a thread's open specs (Y1).
    Specs(ThreadId, PageRequest),
    /// A page of history, checked for what it says of itself (Y11).
    History {
        /// The thread.
        thread_id: ThreadId,
        /// The page ends before this number.
        before: Seq,
        /// How many numbers: at most 1,000.
        limit: Option<u64>,
    },
    /// The page of history before what a followed thread's replica holds, checked against it and put before it (Y11).
    Earlier {
        /// The thread.
        thread_id: ThreadId,
        /// How many numbers: at most 1,000.
        limit: Option<u64>,
    },
    /// The user has read up to here (Y2).
    Mark(ThreadId, Seq),
    /// A checkpoint (K6).
    Checkpoint(ThreadId),
}

/// The answer to a [`Request`].
#[derive(Debug, Clone, PartialEq)]
pub enum Reply {
    /// To `Threads`.
    Threads(Threads),
    /// To `Members`.
    Members(Members),
    /// To `Specs`.
    Specs(Specs),
    /// To `History`.
    History(Range),
    /// To `Earlier`: what the page brought.
    Earlier {
        /// Its entries.
        entries: Vec<Entry>,
        /// Whether the replica holds them now; otherwise it is full.
        kept: bool,
        /// Whether there is nothing before it.
        at_start: bool,
    },
    /// To `Mark`.
    Marked(Marked),
    /// To `Checkpoint`.
    Checkpoint(CheckpointNote),
}
