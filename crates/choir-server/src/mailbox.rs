//! What others have for a connection's task: answers, news of threads, pushes to the person, orders to end. Everything in it is bounded: news is a set of thread
//! ids, never entries; answers are at most what is in flight; of pushes the newest give way.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use choir_core::session::sequence::{Answer, Generation};
use choir_protocol::ids::{Id, ThreadId};
use choir_protocol::message::ServerMessage;
use tokio::sync::Notify;

/// How many pushes wait for a connection. Who takes none of so many finds what they were about in the lists (Y1) and after the next authentication (V2).
const MAX_PUSHES: usize = 1_024;

#[derive(Debug, Default)]
pub(crate) struct Mailbox {
    bell: Notify,
    inbox: Mutex<Inbox>,
}

/// What has come since the last look.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    pub(crate) news: BTreeSet<ThreadId>,
    pub(crate) answers: Vec<Answered>,
    pub(crate) pushes: Vec<Push>,
    pub(crate) superseded: bool,
    pub(crate) drain: Option<u64>,
}

/// How an action ended, durably.
#[derive(Debug)]
pub(crate) struct Answered {
    pub(crate) thread_id: ThreadId,
    pub(crate) id: Id,
    pub(crate) generation: Generation,
    pub(crate) answer: Answer,
}

/// What concerns the user in person.
#[derive(Debug, Clone)]
pub(crate) enum Push {
    /// Y2, V2.
    Message(ThreadId, Arc<ServerMessage>),
    /// The user joined this thread: for `{all: true}` (Y3).
    Joined(ThreadId),
}

impl Mailbox {
    fn inbox(&self) -> MutexGuard<'_, Inbox> {
        // Nothing in here panics half way.
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until there may be something.
    pub(crate) async fn rung(&self) {
        self.bell.notified().await;
    }

    pub(crate) fn take(&self) -> Inbox {
        std::mem::take(&mut *self.inbox())
    }

    pub(crate) fn news(&self, thread_id: ThreadId) {
        if self.inbox().news.insert(thread_id) {
            self.bell.notify_one();
        }
    }

    pub(crate) fn answer(&self, answered: Answered) {
        self.inbox().answers.push(answered);
        self.bell.notify_one();
    }

    pub(crate) fn push(&self, push: Push) {
        let mut inbox = self.inbox();
        if inbox.pushes.len() < MAX_PUSHES {
            inbox.pushes.push(push);
        }
        drop(inbox);
        self.bell.notify_one();
    }

    pub(crate) fn supersede(&self) {
        self.inbox().superseded = true;
        self.bell.notify_one();
    }

    pub(crate) fn drain(&self, retry_after_ms: u64) {
        self.inbox().drain = Some(retry_after_ms);
        self.bell.notify_one();
    }
}
