//! What others have for a connection's task: answers, news of threads, pushes to the person, orders to end. Everything in it is bounded: news is a set of thread
//! ids, never entries; answers are at most what is in flight; of pushes the newest give way, and they stay here while the connection has no room for them (T6).

use std::collections::{BTreeSet, VecDeque};
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
    /// Threads that the user joined: for `{all: true}` (Y3).
    pub(crate) joined: BTreeSet<ThreadId>,
    pub(crate) answers: Vec<Answered>,
    pushes: VecDeque<(ThreadId, Arc<ServerMessage>)>,
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

    /// Everything but the pushes.
    pub(crate) fn take(&self) -> Inbox {
        let mut inbox = self.inbox();
        let pushes = std::mem::take(&mut inbox.pushes);
        let taken = std::mem::take(&mut *inbox);
        inbox.pushes = pushes;
        taken
    }

    /// The oldest push, and the thread that it is about.
    pub(crate) fn next_push(&self) -> Option<(ThreadId, Arc<ServerMessage>)> {
        self.inbox().pushes.pop_front()
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
        match push {
            Push::Message(thread_id, message) if inbox.pushes.len() < MAX_PUSHES => {
                inbox.pushes.push_back((thread_id, message));
            }
            Push::Message(..) => {}
            Push::Joined(thread_id) => {
                inbox.joined.insert(thread_id);
            }
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

#[cfg(test)]
mod tests {
    use choir_protocol::message::Unsubscribed;

    use super::*;

    #[test]
    fn t6_pushes_stay_few_and_until_there_is_room_and_what_was_joined_is_not_forgotten() {
        let mailbox = Mailbox::default();
        let (thread, joined) = (ThreadId::v7(1, [1; 10]), ThreadId::v7(1, [2; 10]));
        let message = Arc::new(ServerMessage::Unsubscribed(Unsubscribed::default()));
        for _ in 0..MAX_PUSHES + 10 {
            mailbox.push(Push::Message(thread, message.clone()));
        }
        mailbox.push(Push::Joined(joined));
        assert!(mailbox.take().joined.contains(&joined));
        assert_eq!(std::iter::from_fn(|| mailbox.next_push()).count(), MAX_PUSHES);
    }
}
