//! Requests that are answered out of the log: lists (Y1), marks (Y2), history (Y11), checkpoints (K6).

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use choir_core::session::connection::Request;
use choir_core::view::{Streams, view};
use choir_log::{AppendError, Log, ReadError, ThreadRow as LogRow};
use choir_protocol::checkpoint::{Checkpoint, origin};
use choir_protocol::error::ErrorCode;
use choir_protocol::ids::{Seq, ThreadId, UserId};
use choir_protocol::message::{
    CheckpointNote, ErrorPayload, HistoryRequest, Mark, Marked, Scope, ServerMessage, ThreadRow,
    Threads as ThreadsPage, ThreadsRequest,
};

use crate::Shared;
use crate::encode::{ENVELOPE_BYTES, MAX_FRAME_BYTES, MAX_PEAKS_BYTES, RangeWriter};
use crate::mailbox::Push;
use crate::snapshot::{members_page, newest, specs_page, to_json};
use crate::threads::OpenError;

/// What answers a request.
#[derive(Debug)]
pub(crate) enum Reply {
    /// A payload that was written by hand, with its type.
    Text(&'static str, String),
    Message(Box<ServerMessage>),
}

impl Reply {
    fn of(message: ServerMessage) -> Self {
        Self::Message(Box::new(message))
    }

    fn refused(code: ErrorCode, message: &'static str) -> Self {
        Self::of(ServerMessage::StateError(ErrorPayload::new(code, message)))
    }
}

/// Why a request can't be answered.
enum Failure {
    /// There is no such thread, or none that the user may read (R1).
    NotFound,
    /// The log can't say.
    Unavailable,
    /// What the client sent is no `next` of a page.
    After,
}

impl From<OpenError> for Failure {
    fn from(_: OpenError) -> Self {
        Self::Unavailable
    }
}

impl From<ReadError> for Failure {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::After => Self::After,
            other => {
                tracing::error!(error = %other, "the log could not be read");
                Self::Unavailable
            }
        }
    }
}

impl From<AppendError> for Failure {
    fn from(error: AppendError) -> Self {
        tracing::warn!(%error, "a record beside the threads could not be kept");
        Self::Unavailable
    }
}

/// The thread that a request is about.
pub(crate) const fn thread_of(request: &Request) -> Option<ThreadId> {
    match request {
        Request::Threads(_) => None,
        Request::Members(thread_id, _) | Request::Specs(thread_id, _) => Some(*thread_id),
        Request::History(thread_id, _) => Some(*thread_id),
        Request::Mark(thread_id, _) => Some(*thread_id),
        Request::Checkpoint(thread_id) => Some(*thread_id),
    }
}

/// Answers a request of a connection's user.
pub(crate) async fn reply(shared: Arc<Shared>, user: UserId, connection: u64, request: Request) -> Reply {
    let replied = match request {
        Request::Threads(request) => threads(&shared, &user, &request).await,
        Request::Members(thread_id, request) => match shared.readable(thread_id, &user).await {
            Ok((thread, _)) => members_page(&thread, &request)
                .map(|text| Reply::Text("control.members", text))
                .ok_or(Failure::After),
            Err(failure) => Err(failure),
        },
        Request::Specs(thread_id, request) => match shared.readable(thread_id, &user).await {
            Ok((thread, seen)) => specs_page(&thread, &seen, &request)
                .map(|text| Reply::Text("control.specs", text))
                .ok_or(Failure::After),
            Err(failure) => Err(failure),
        },
        Request::History(thread_id, request) => history(&shared, &user, thread_id, &request).await,
        Request::Mark(thread_id, mark) => self::mark(&shared, &user, connection, thread_id, mark).await,
        Request::Checkpoint(thread_id) => checkpoint(&shared, &user, thread_id).await,
    };
    replied.unwrap_or_else(|failure| match failure {
        Failure::NotFound => Reply::refused(ErrorCode::NotFound, "no such thread, or none that you may read"),
        Failure::After => Reply::of(ServerMessage::ConnectionError(ErrorPayload::new(
            ErrorCode::InvalidMessage,
            "payload: after is not the next of a page of this list",
        ))),
        Failure::Unavailable => Reply::of(ServerMessage::ConnectionError(
            ErrorPayload::new(
                ErrorCode::Internal,
                "the log can't be read or written right now: nothing was changed",
            )
            .with_retry_after(1_000),
        )),
    })
}

impl Shared {
    /// A thread that the user may read, and what they see of it.
    async fn readable(
        self: &Arc<Self>,
        thread_id: ThreadId,
        user: &UserId,
    ) -> Result<(Arc<choir_core::thread::Thread>, choir_core::view::View), Failure> {
        let (_, thread) = self.threads.open(self, thread_id).await?.ok_or(Failure::NotFound)?;
        let seen = view(&thread, user).ok_or(Failure::NotFound)?;
        Ok((thread, seen))
    }
}

/// The most rows of a page (Y1).
const MAX_ROWS: usize = 200;

async fn threads(shared: &Arc<Shared>, user: &UserId, request: &ThreadsRequest) -> Result<Reply, Failure> {
    let log = &*shared.log;
    let mut limit = request
        .limit
        .map_or(MAX_ROWS, |limit| usize::try_from(limit).unwrap_or(MAX_ROWS))
        .clamp(1, MAX_ROWS);
    let roles = match request.scope {
        Scope::Mine => HashMap::new(),
        // The list of public threads knows no members: theirs stand in their own list.
        Scope::Public => {
            let own = log.threads_of(user, None, choir_log::MAX_ROWS).await?.rows;
            own.into_iter()
                .filter_map(|row| Some((row.thread, row.member?)))
                .collect()
        }
    };
    loop {
        let page = match request.scope {
            Scope::Mine => log.threads_of(user, request.after.as_deref(), limit).await?,
            Scope::Public => log.public_threads(request.after.as_deref(), limit).await?,
        };
        let mut threads = Vec::with_capacity(page.rows.len());
        for mut row in page.rows {
            row.member = row.member.or_else(|| roles.get(&row.thread).copied());
            threads.push(thread_row(log, user, row).await?);
        }
        let rows = threads.len();
        // G7: while marks were read the right to read may have gone.
        threads.retain(|row| {
            let thread = shared.threads.in_memory(row.thread_id);
            thread.is_none_or(|thread| thread.may_read(user))
        });
        let text = to_json(&ThreadsPage {
            threads,
            next: page.next,
        });
        if text.len() <= MAX_FRAME_BYTES - ENVELOPE_BYTES || rows <= 1 {
            return Ok(Reply::Text("control.threads", text));
        }
        // Only the log can say where a page ends, so that one that is too long is asked for again, shorter.
        limit = (rows / 2).max(1);
    }
}

async fn thread_row(log: &dyn Log, user: &UserId, row: LogRow) -> Result<ThreadRow, ReadError> {
    let LogRow {
        thread,
        head,
        summary,
        member,
    } = row;
    let marked = marked(log, thread, user).await?;
    let awaiting = summary
        .awaiting
        .iter()
        .find(|(who, _)| who == user)
        .map_or(0, |(_, count)| *count);
    Ok(ThreadRow {
        thread_id: thread,
        title: summary.title,
        visibility: summary.visibility,
        role: member.map(|member| member.role),
        invited: member.filter(|member| !member.joined).map(|_| true),
        head,
        messages: summary.messages,
        marked,
        unread: unread(log, thread, summary.messages, marked).await?,
        awaiting: u64::from(awaiting),
        last_activity: summary.last_activity,
    })
}

/// Y1: the messages less the number of the newest at or before the mark.
async fn unread(log: &dyn Log, thread_id: ThreadId, messages: u64, marked: Seq) -> Result<u64, ReadError> {
    if marked == Seq::ZERO {
        return Ok(messages);
    }
    Ok(messages.saturating_sub(log.messages_at(thread_id, marked).await?))
}

/// Up to where a user has read (Y2).
pub(crate) async fn marked(log: &dyn Log, thread_id: ThreadId, user: &UserId) -> Result<Seq, ReadError> {
    let value = log.get(&mark_key(thread_id, user)).await?;
    let text = value.and_then(|value| String::from_utf8(value).ok());
    Ok(text
        .and_then(|text| text.parse().ok())
        .and_then(Seq::new)
        .unwrap_or(Seq::ZERO))
}

fn mark_key(thread_id: ThreadId, user: &UserId) -> Vec<u8> {
    format!("mark/{thread_id}/{user}").into_bytes()
}

/// Locks for what is read, compared and written in marks: one for each of some groups of users, so that two clients of one user don't cross.
pub(crate) struct Marks {
    hasher: RandomState,
    groups: [tokio::sync::Mutex<()>; 64],
}

impl Default for Marks {
    fn default() -> Self {
        Self {
            hasher: RandomState::new(),
            groups: std::array::from_fn(|_| tokio::sync::Mutex::default()),
        }
    }
}

impl Marks {
    async fn lock(&self, user: &UserId) -> Option<tokio::sync::MutexGuard<'_, ()>> {
        let at = self.hasher.hash_one(user) as usize % self.groups.len();
        match self.groups.get(at) {
            Some(group) => Some(group.lock().await),
            None => None,
        }
    }
}

async fn mark(
    shared: &Arc<Shared>,
    user: &UserId,
    connection: u64,
    thread_id: ThreadId,
    Mark { seq }: Mark,
) -> Result<Reply, Failure> {
    let (thread, _) = shared.readable(thread_id, user).await?;
    let log = &*shared.log;
    let asked = seq.min(thread.head().seq);
    let guard = shared.marks.lock(user).await;
    let before = marked(log, thread_id, user).await?;
    let after = before.max(asked);
    if after > before {
        log.put(&mark_key(thread_id, user), after.to_string().into_bytes())
            .await?;
    }
    drop(guard);
    let marked = Marked {
        seq: after,
        unread: unread(log, thread_id, thread.messages(), after).await?,
    };
    if after > before {
        let push = Push::Message(thread_id, Arc::new(ServerMessage::Marked(marked)));
        shared.registry.push(user, &push, Some(connection));
    }
    Ok(Reply::of(ServerMessage::Marked(marked)))
}

/// How many numbers a page of history covers (Y11).
const HISTORY_DEFAULT: u64 = 200;
const HISTORY_MAX: u64 = 1_000;

/// The range that ends before a number: of what there is room for, the last.
async fn history(
    shared: &Arc<Shared>,
    user: &UserId,
    thread_id: ThreadId,
    request: &HistoryRequest,
) -> Result<Reply, Failure> {
    let (thread, seen) = shared.readable(thread_id, user).await?;
    let log = &*shared.log;
    let verify = request.verify.unwrap_or(false);
    let streams = Streams::of(request.streams.as_deref());
    let to = request.before.previous().min(thread.head().seq);
    let limit = request.limit.unwrap_or(HISTORY_DEFAULT).clamp(1, HISTORY_MAX);
    let first = Seq::saturating(to.get().saturating_sub(limit));
    let mut seen = seen.only(streams);
    loop {
        let room = MAX_FRAME_BYTES - ENVELOPE_BYTES - MAX_PEAKS_BYTES;
        let (from, mut records) = newest(log, thread_id, (first, to), &seen, verify, room).await?;
        let root = match records.last() {
            Some(last) => last.root,
            None => log.root_at(thread_id, to).await?.ok_or(Failure::Unavailable)?,
        };
        let peaks = if verify {
            log.peaks_at(thread_id, from).await?
        } else {
            None
        };
        // What may be seen is decided when it is sent: by the state after all that was waited for (Y8), with what was redacted meanwhile left out (L6).
        let (hub, _) = shared.threads.open(shared, thread_id).await?.ok_or(Failure::NotFound)?;
        let now = {
            let inner = hub.lock();
            let thread = inner.thread().ok_or(Failure::Unavailable)?;
            inner.ring.erase_in(&mut records);
            view(thread, user).ok_or(Failure::NotFound)?.only(streams)
        };
        if now == seen {
            let mut writer = RangeWriter::new(from, verify, usize::MAX);
            writer.extend(&records, |record| seen.sees_record(record));
            return Ok(Reply::Text("control.history", writer.finish(root, peaks.as_ref())));
        }
        // Another view may need more room.
        seen = now;
    }
}

async fn checkpoint(shared: &Arc<Shared>, user: &UserId, thread_id: ThreadId) -> Result<Reply, Failure> {
    let (thread, _) = shared.readable(thread_id, user).await?;
    let head = thread.head();
    let checkpoint = Checkpoint {
        origin: origin(thread.settings().audience.as_str(), &thread_id.to_string()),
        size: head.seq.get(),
        root: head.root,
        time_ms: shared.clock.wall().get(),
    };
    Ok(Reply::of(ServerMessage::Checkpoint(CheckpointNote {
        note: checkpoint.sign(&shared.key),
    })))
}
