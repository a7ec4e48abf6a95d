use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use choir_core::client::{Error, Event, Notice, State, Update};
use choir_protocol::ids::{ThreadId, UserId};
use choir_protocol::message::{ApprovalRequest, Marked, NewApproval, NewMessage, StateChange};
use futures_util::Stream;
use futures_util::StreamExt;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

/// What happens to a client, beside the updates of its threads.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum ClientEvent {
    /// The state changed.
    State(State),
    /// There is a session.
    Session {
        /// Who the user is.
        user_id: UserId,
        /// Whether it is an earlier one.
        resumed: bool,
    },
    /// A thread is followed from now on, or again.
    Subscribed {
        /// The thread.
        thread_id: ThreadId,
    },
    /// A thread is no longer followed.
    Unsubscribed {
        /// The thread.
        thread_id: ThreadId,
        /// Why, where that wasn't the caller's wish.
        error: Option<Error>,
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
    /// A message was posted (V1).
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
    /// Something that people should know, and that ends nothing.
    Notice(Notice),
    /// An error that belongs to no call.
    Error {
        /// The thread that it concerns.
        thread_id: Option<ThreadId>,
        /// What happened.
        error: Error,
    },
    /// The listener was slow, and so many events were left out.
    Behind {
        /// How many.
        missed: u64,
    },
}

impl ClientEvent {
    pub(crate) fn of(event: Event) -> Option<Self> {
        Some(match event {
            Event::State(state) => Self::State(state),
            Event::Session { user_id, resumed } => Self::Session { user_id, resumed },
            Event::ApprovalRequest { thread_id, request } => Self::ApprovalRequest { thread_id, request },
            Event::Marked { thread_id, marked } => Self::Marked { thread_id, marked },
            Event::NewMessage { thread_id, event } => Self::NewMessage { thread_id, event },
            Event::NewApproval { thread_id, event } => Self::NewApproval { thread_id, event },
            Event::StateChange { thread_id, event } => Self::StateChange { thread_id, event },
            Event::Notice(notice) => Self::Notice(notice),
            Event::Error { thread_id, error } => Self::Error { thread_id, error },
            _ => return None,
        })
    }
}

/// What happens in a thread that is followed.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum ThreadEvent {
    /// This, in order.
    Update(Update),
    /// The listener was slow, and so many updates were left out. The replica holds their effect: look at it anew.
    Behind {
        /// How many.
        missed: u64,
    },
}

type Boxed<T> = Pin<Box<dyn Stream<Item = Arc<T>> + Send>>;

fn listen<T: Send + Sync + 'static>(receiver: broadcast::Receiver<Arc<T>>, behind: fn(u64) -> T) -> Boxed<T> {
    Box::pin(futures_util::stream::unfold(receiver, move |mut receiver| async move {
        match receiver.recv().await {
            Ok(event) => Some((event, receiver)),
            Err(RecvError::Lagged(missed)) => Some((Arc::new(behind(missed)), receiver)),
            Err(RecvError::Closed) => None,
        }
    }))
}

/// The events of a client: a [`Stream`] that ends with the client. A slow listener loses events, and is told so ([`ClientEvent::Behind`]).
pub struct Events(Boxed<ClientEvent>);

impl Events {
    pub(crate) fn new(receiver: broadcast::Receiver<Arc<ClientEvent>>) -> Self {
        Self(listen(receiver, |missed| ClientEvent::Behind { missed }))
    }

    /// The next event; none after the end. Cancel safe.
    pub async fn next(&mut self) -> Option<Arc<ClientEvent>> {
        self.0.next().await
    }
}

impl Stream for Events {
    type Item = Arc<ClientEvent>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.as_mut().poll_next(cx)
    }
}

/// The updates of a thread: a [`Stream`] that ends when the thread is no longer followed. A slow listener loses updates, never the state: it is told so
/// ([`ThreadEvent::Behind`]), and the replica is whole.
pub struct Updates(Boxed<ThreadEvent>);

impl Updates {
    pub(crate) fn new(receiver: broadcast::Receiver<Arc<ThreadEvent>>) -> Self {
        Self(listen(receiver, |missed| ThreadEvent::Behind { missed }))
    }

    /// The next update; none after the end. Cancel safe.
    pub async fn next(&mut self) -> Option<Arc<ThreadEvent>> {
        self.0.next().await
    }
}

impl Stream for Updates {
    type Item = Arc<ThreadEvent>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.as_mut().poll_next(cx)
    }
}
