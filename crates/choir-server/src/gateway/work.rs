//! What a connection has to wait for: the registry, the log. It is done one piece after the other, while the connection goes on answering, writing and hearing.

use std::collections::BTreeSet;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use choir_core::record::Record;
use choir_core::session::connection::{Request, SessionRequest};
use choir_core::session::subscription::{CursorCheck, Options};
use choir_core::thread::Thread;
use choir_log::{ReadError, ReadLimit};
use choir_protocol::error::ErrorCode;
use choir_protocol::hash::Hash;
use choir_protocol::ids::{Cursor, Id, Seq, ThreadId, UserId};
use choir_protocol::message::{ErrorPayload, ServerMessage};

use crate::Shared;
use crate::mailbox::{Mailbox, Push};
use crate::registry::Started;
use crate::requests::{Reply, marked, reply};
use crate::snapshot::{Plan, snapshot};
use crate::threads::{Hub, OpenError, approval_request, load_at};

/// How many threads of an `all` are asked for at a time.
const ALL_PAGE: usize = 200;
/// How many approval requests are sent after authentication (V2).
const MAX_REQUESTS: usize = 100;

/// A piece of work.
pub(crate) enum Work {
    /// C5, C7.
    Session(Box<SessionRequest>),
    Subscribe(Subscribe),
    All(All),
    Request(Id, Request),
    /// A thread that left memory is needed again.
    Load(ThreadId),
    /// The client is behind the ring.
    Read(ThreadId, Seq),
    Snapshot(ThreadId, Box<Plan>, Option<Seq>),
    /// An acknowledged root (Y9).
    CheckRoot(ThreadId, Seq, Hash),
    /// V2, after authentication.
    Awaiting,
    /// A push about a thread that isn't in memory: by its state it is decided whether it is sent.
    Push(ThreadId, Arc<ServerMessage>),
}

/// One thread to subscribe (Y3).
pub(crate) struct Subscribe {
    pub(crate) reply_to: Option<Id>,
    pub(crate) thread_id: ThreadId,
    pub(crate) cursor: Option<Cursor>,
    pub(crate) options: Options,
    pub(crate) by_all: bool,
}

/// All threads that the user has joined (Y3).
pub(crate) struct All {
    pub(crate) reply_to: Id,
    pub(crate) options: Options,
    /// Those that the message names itself.
    pub(crate) named: Arc<BTreeSet<ThreadId>>,
    pub(crate) after: Option<ThreadId>,
}

/// A piece of work that is done.
pub(crate) enum Done {
    Session(Result<Box<Started>, (ErrorPayload, u16)>),
    /// None where there is no such thread.
    Subscribe(Subscribe, Result<Option<Opened>, ErrorPayload>),
    /// The next threads; none where that was all of them.
    All(All, Result<Vec<ThreadId>, ErrorPayload>),
    Reply(Id, Option<ThreadId>, Reply),
    Loaded(ThreadId, bool),
    Records(ThreadId, Vec<Record>),
    /// None where it couldn't be built.
    Snapshot(ThreadId, Box<Plan>, Option<String>),
    Checked(ThreadId, bool),
    Push(ThreadId, Arc<ServerMessage>),
    /// Nothing came of it.
    Nothing,
}

/// What the log says of a thread and of the client's cursor.
pub(crate) struct Opened {
    pub(crate) hub: Arc<Hub>,
    pub(crate) check: CursorCheck,
    pub(crate) marked: Seq,
}

/// Whom the work is for.
#[derive(Clone)]
pub(crate) struct For {
    pub(crate) shared: Arc<Shared>,
    pub(crate) user: Option<UserId>,
    pub(crate) connection: u64,
    pub(crate) mailbox: Arc<Mailbox>,
}

/// Work on its way.
pub(crate) struct Running {
    /// Whether messages of the client wait for it: requests are answered in order.
    pub(crate) holds: bool,
    future: Pin<Box<dyn Future<Output = Done> + Send>>,
}

impl Work {
    /// Whether messages of the client wait for it.
    pub(crate) const fn holds(&self) -> bool {
        match self {
            Self::Session(_) | Self::Subscribe(_) | Self::All(_) | Self::Request(..) => true,
            // Acknowledgements have no rate: without this, checks could pile up.
            Self::CheckRoot(..) => true,
            Self::Load(_) | Self::Read(..) | Self::Snapshot(..) | Self::Awaiting | Self::Push(..) => false,
        }
    }

    /// Whether what comes of it takes all the room that there is (T6): it begins when nothing waits to be sent, so that it isn't done for nothing.
    pub(crate) const fn fills(&self) -> bool {
        matches!(self, Self::Read(..) | Self::Snapshot(..))
    }

    /// Begins it.
    pub(crate) fn begin(self, whom: For) -> Running {
        Running {
            holds: self.holds(),
            future: Box::pin(self.run(whom)),
        }
    }

    async fn run(self, whom: For) -> Done {
        let For {
            shared,
            user,
            connection,
            mailbox,
        } = whom;
        if let Self::Session(request) = self {
            return Done::Session(shared.registry.start(*request, connection, mailbox).await.map(Box::new));
        }
        // Everything else comes after authentication.
        let Some(user) = user else {
            return Done::Nothing;
        };
        match self {
            Self::Session(_) => Done::Nothing,
            Self::Subscribe(subscribe) => {
                let opened = open(&shared, &user, &subscribe).await;
                Done::Subscribe(subscribe, opened)
            }
            Self::All(all) => {
                let threads = shared.log.joined_threads(&user, all.after, ALL_PAGE).await;
                let threads = threads.map_err(|error| unavailable(&OpenError::from(error)));
                Done::All(all, threads)
            }
            Self::Request(id, request) => {
                let thread_id = crate::requests::thread_of(&request);
                Done::Reply(id, thread_id, reply(shared, user, connection, request).await)
            }
            Self::Load(thread_id) => {
                let there = matches!(shared.threads.open(&shared, thread_id).await, Ok(Some(_)));
                Done::Loaded(thread_id, there)
            }
            Self::Read(thread_id, after) => {
                let limit = ReadLimit {
                    max_bytes: READ_BYTES,
                    ..ReadLimit::default()
                };
                match shared.log.read(thread_id, after, limit).await {
                    Ok(records) => Done::Records(thread_id, records),
                    Err(error) => {
                        tracing::error!(%error, "the log could not be read");
                        Done::Loaded(thread_id, false)
                    }
                }
            }
            Self::Snapshot(thread_id, mut plan, at) => {
                if let Some(at) = at.filter(|at| *at != plan.thread.head().seq) {
                    match load_at(&*shared.log, thread_id, at).await {
                        Ok(Some(thread)) => plan.thread = Arc::new(thread),
                        Ok(None) => return Done::Snapshot(thread_id, plan, None),
                        Err(error) => {
                            tracing::error!(%error, "a thread's earlier state could not be read");
                            return Done::Snapshot(thread_id, plan, None);
                        }
                    }
                }
                match snapshot(&*shared.log, &plan).await {
                    Ok(text) => Done::Snapshot(thread_id, plan, Some(text)),
                    Err(error) => {
                        tracing::error!(%error, "a snapshot could not be read");
                        Done::Snapshot(thread_id, plan, None)
                    }
                }
            }
            Self::CheckRoot(thread_id, seq, root) => match shared.log.root_at(thread_id, seq).await {
                Ok(found) => Done::Checked(thread_id, found == Some(root)),
                Err(_) => Done::Nothing,
            },
            Self::Awaiting => {
                for (thread_id, request) in awaiting(&shared, &user).await {
                    mailbox.push(Push::Message(thread_id, Arc::new(request)));
                }
                Done::Nothing
            }
            Self::Push(thread_id, message) => {
                // Whether it is there is looked at once more when it is sent.
                let _ = shared.threads.open(&shared, thread_id).await;
                Done::Push(thread_id, message)
            }
        }
    }
}

/// What is read of the log at once for one connection: what fits into the room that it may have, and a little more.
const READ_BYTES: usize = 96 * 1024;

/// Opens a thread for a subscription, from its log and not from a copy (Y4). None where it isn't there; whether the user may read is decided later, when the
/// subscription begins.
async fn open(shared: &Arc<Shared>, user: &UserId, subscribe: &Subscribe) -> Result<Option<Opened>, ErrorPayload> {
    let unreadable = |error: ReadError| unavailable(&OpenError::from(error));
    let thread_id = subscribe.thread_id;
    let Some((hub, _)) = shared
        .threads
        .open(shared, thread_id)
        .await
        .map_err(|error| unavailable(&error))?
    else {
        return Ok(None);
    };
    let check = match subscribe.cursor {
        None => CursorCheck::Absent,
        Some(cursor) => match shared.log.root_at(thread_id, cursor.seq).await.map_err(unreadable)? {
            Some(root) if root == cursor.root => CursorCheck::Holds(cursor),
            _ => CursorCheck::Foreign,
        },
    };
    let marked = marked(&*shared.log, thread_id, user).await.map_err(unreadable)?;
    Ok(Some(Opened { hub, check, marked }))
}

/// Neither there nor not there, as far as is known now.
fn unavailable(error: &OpenError) -> ErrorPayload {
    let message = match error {
        OpenError::Busy => "as many threads are in memory as fit",
        OpenError::Unreadable => "the log can't be read right now",
    };
    ErrorPayload::new(ErrorCode::Internal, message).with_retry_after(RETRY_MS)
}

const RETRY_MS: u64 = 1_000;

/// The open specs that await this user's decision (V2).
async fn awaiting(shared: &Arc<Shared>, user: &UserId) -> Vec<(ThreadId, ServerMessage)> {
    let threads = shared.log.awaiting(user, MAX_REQUESTS).await.unwrap_or_default();
    let mut requests = Vec::new();
    for (thread_id, _) in threads {
        if let Ok(Some((_, thread))) = shared.threads.open(shared, thread_id).await {
            requests.extend(of_thread(&thread, user, thread_id));
        }
        if requests.len() >= MAX_REQUESTS {
            break;
        }
    }
    requests.truncate(MAX_REQUESTS);
    requests
}

fn of_thread(thread: &Thread, user: &UserId, thread_id: ThreadId) -> Vec<(ThreadId, ServerMessage)> {
    thread
        .awaiting(user)
        .map(|spec| (thread_id, approval_request(spec)))
        .collect()
}

impl Running {
    /// Waits for it.
    pub(crate) async fn done(&mut self) -> Done {
        self.future.as_mut().await
    }
}
