//! Threads in memory: an actor for each that is active, and a hub through which connections see what it has made durable.
//!
//! A thread's actor is the only one who decides and appends. It publishes to its [`Hub`] what is durable, and nothing before. Connections read there, under one
//! short lock, the state that decides what they may see, and the newest records; they never wait for the actor, and the actor never waits for them.

mod actor;
mod people;
mod refused;
mod ring;

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use choir_core::record::Record;
use choir_core::session::connection::Submission;
use choir_core::session::sequence::Answer;
use choir_core::thread::Thread;
use choir_log::ReadError;
use choir_protocol::entry::Kind;
use choir_protocol::error::ErrorCode;
use choir_protocol::ids::{Cursor, Seq, ThreadId};
use choir_protocol::message::ErrorPayload;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{Notify, mpsc};
use tokio::task::coop::consume_budget;

use crate::Shared;
use crate::mailbox::{Answered, Mailbox};
use actor::Actor;
pub(crate) use actor::load_at;
pub(crate) use people::{approval_request, body_of, event, may_hear};
use refused::Refused;
pub(crate) use ring::{Ring, SharedFrame};

/// How many actions wait for a thread's actor. With more its clients are told to come back.
const MAX_WAITING: usize = 1_024;

/// Whom a thread's actor answers, and what: an action on its way to be decided. However it ends, it is answered: also when it is dropped, in a panic say.
pub(crate) struct Item {
    pub(crate) submission: Submission,
    pub(crate) signature_holds: bool,
    mailbox: Arc<Mailbox>,
    /// Where its end is noted for what follows it in its session (A3), once it was handed to a thread.
    refused: Option<Arc<Refused>>,
    open: bool,
}

impl Item {
    pub(crate) fn new(submission: Submission, signature_holds: bool, mailbox: Arc<Mailbox>) -> Self {
        Self {
            submission,
            signature_holds,
            mailbox,
            refused: None,
            open: true,
        }
    }

    pub(crate) fn answer(mut self, answer: Answer) {
        self.give(answer);
    }

    /// Ends it without an answer (A3).
    pub(crate) fn forget(mut self) {
        self.open = false;
    }

    /// Takes the action out again, to be answered by other means.
    pub(crate) fn into_submission(mut self) -> Submission {
        self.open = false;
        self.submission.clone()
    }

    /// Whether an action of its session was refused retryably before it, so that it is neither applied nor answered (A3).
    fn is_dropped(&self) -> bool {
        self.refused
            .as_ref()
            .is_some_and(|refused| refused.covers(&self.submission))
    }

    fn give(&mut self, answer: Answer) {
        self.open = false;
        if answer.is_retryable()
            && let Some(refused) = &self.refused
        {
            refused.note(&self.submission);
        }
        let Submission { action, generation, .. } = &self.submission;
        self.mailbox.answer(Answered {
            thread_id: action.thread_id,
            id: action.id,
            generation: *generation,
            answer,
        });
    }
}

impl Drop for Item {
    fn drop(&mut self) {
        if self.open && !self.is_dropped() {
            self.give(Answer::Refused(not_delivered()));
        }
    }
}

/// A10: not known to be applied.
pub(crate) fn not_delivered() -> ErrorPayload {
    ErrorPayload::new(
        ErrorCode::MessageDeliveryFailed,
        "it is not known whether the action was applied: send it again",
    )
    .with_retry_after(RETRY_MS)
}

const RETRY_MS: u64 = 1_000;

/// What comes to a thread's actor.
enum Mail {
    Item(Box<Item>),
    /// A spec may be due (S8).
    Expire,
    /// The server ends: save and leave.
    Stop,
}

/// What of a thread is in memory.
#[derive(Debug, Clone)]
pub(crate) enum Loaded {
    /// Nothing: no actor, or one that still reads.
    No,
    /// The state of everything durable; none where there is no such thread.
    Yes(Option<Arc<Thread>>),
    /// It couldn't be read.
    Failed,
}

/// A thread as everybody but its actor sees it.
pub(crate) struct Hub {
    pub(crate) thread_id: ThreadId,
    inner: Mutex<HubInner>,
    loaded: Notify,
    refused: Arc<Refused>,
}

pub(crate) struct HubInner {
    pub(crate) loaded: Loaded,
    pub(crate) ring: Ring,
    actor: Option<Running>,
    /// Which connections are told of news, by their numbers.
    subscribers: HashMap<u64, Arc<Mailbox>>,
}

struct Running {
    mail: mpsc::Sender<Mail>,
    epoch: usize,
}

impl HubInner {
    /// The thread, where there is one and it is in memory.
    pub(crate) fn thread(&self) -> Option<&Arc<Thread>> {
        match &self.loaded {
            Loaded::Yes(thread) => thread.as_ref(),
            Loaded::No | Loaded::Failed => None,
        }
    }
}

impl Hub {
    pub(crate) fn lock(&self) -> MutexGuard<'_, HubInner> {
        // What is written under the lock is written whole: a panic elsewhere leaves nothing half done.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shows what has become durable, and wakes whoever waits for it.
    fn publish(&self, thread: Arc<Thread>, records: Vec<Arc<Record>>, erased: &[(Seq, Seq)]) {
        let mut inner = self.lock();
        for record in records {
            inner.ring.push(record);
        }
        for (seq, by) in erased {
            inner.ring.erase(*seq, *by);
        }
        let was_there = inner.thread().is_some();
        inner.loaded = Loaded::Yes(Some(thread));
        if !was_there {
            self.loaded.notify_waiters();
        }
        for mailbox in inner.subscribers.values() {
            mailbox.news(self.thread_id);
        }
    }

    /// What somebody else has appended: which bodies a redaction erased isn't known, so that everything in the ring is read anew from the log (L6).
    fn publish_foreign(&self, thread: Arc<Thread>, records: Vec<Arc<Record>>) {
        let redacted = records.iter().any(|record| record.kind == Kind::MessageRedacted);
        if redacted {
            self.lock().ring = Ring::default();
        }
        self.publish(thread, if redacted { Vec::new() } else { records }, &[]);
    }

    fn set_loaded(&self, loaded: Loaded) {
        self.lock().loaded = loaded;
        self.loaded.notify_waiters();
    }
}

impl fmt::Debug for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hub")
            .field("thread_id", &self.thread_id)
            .finish_non_exhaustive()
    }
}

/// Why a thread can't be opened right now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum OpenError {
    /// Too many are in memory.
    Busy,
    /// The log couldn't be read.
    Unreadable,
}

impl From<ReadError> for OpenError {
    fn from(error: ReadError) -> Self {
        tracing::error!(%error, "the log could not be read");
        Self::Unreadable
    }
}

/// All threads of a server that are in memory or subscribed.
#[derive(Default)]
pub(crate) struct Threads {
    hubs: Mutex<HashMap<ThreadId, Arc<Hub>>>,
    active: AtomicUsize,
    epochs: AtomicUsize,
    /// Rung when memory is short: actors with nothing to do leave early.
    pressed: Notify,
    ended: Notify,
}

impl Threads {
    fn hubs(&self) -> MutexGuard<'_, HashMap<ThreadId, Arc<Hub>>> {
        self.hubs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many threads have an actor.
    pub(crate) fn active(&self) -> usize {
        self.active.load(Ordering::Relaxed)
    }

    fn hub(&self, thread_id: ThreadId) -> Arc<Hub> {
        let mut hubs = self.hubs();
        let hub = hubs.entry(thread_id).or_insert_with(|| {
            Arc::new(Hub {
                thread_id,
                inner: Mutex::new(HubInner {
                    loaded: Loaded::No,
                    ring: Ring::default(),
                    actor: None,
                    subscribers: HashMap::new(),
                }),
                loaded: Notify::new(),
                refused: Arc::default(),
            })
        });
        hub.clone()
    }

    /// Hands an action to its thread.
    ///
    /// # Errors
    /// The action, where it can't be taken now: whoever has it refuses it before anything that follows it is submitted (A3).
    pub(crate) fn submit(&self, shared: &Arc<Shared>, item: Item) -> Result<(), Option<Box<Item>>> {
        let thread_id = item.submission.action.thread_id;
        self.send(shared, thread_id, Mail::Item(Box::new(item)))
            .map_err(|mail| match mail {
                Mail::Item(item) => Some(item),
                Mail::Expire | Mail::Stop => None,
            })
    }

    /// Has a thread look for specs that are due (S8). One that is too busy is asked again with the next round.
    pub(crate) fn expire(&self, shared: &Arc<Shared>, thread_id: ThreadId) {
        let _ = self.send(shared, thread_id, Mail::Expire);
    }

    fn send(&self, shared: &Arc<Shared>, thread_id: ThreadId, mut mail: Mail) -> Result<(), Mail> {
        // The hub's lock is held while sending, and while an actor decides to leave: nothing is ever sent to one that is gone.
        let (sent, started) = loop {
            let hub = self.hub(thread_id);
            let mut inner = hub.lock();
            if !self.is_current(&hub) {
                continue;
            }
            let Ok(started) = self.ensure_actor(shared, &hub, &mut inner) else {
                return Err(mail);
            };
            if let Mail::Item(item) = &mut mail {
                item.refused = Some(hub.refused.clone());
            }
            let sent = match &inner.actor {
                Some(actor) => actor.mail.try_send(mail).map_err(|refused| match refused {
                    TrySendError::Full(mail) | TrySendError::Closed(mail) => mail,
                }),
                None => Err(mail),
            };
            break (sent, started);
        };
        if let Some(actor) = started {
            actor.spawn();
        }
        sent
    }

    fn is_current(&self, hub: &Arc<Hub>) -> bool {
        // Taken while a hub's lock is held; `prune` takes them in the other order and therefore only tries.
        self.hubs()
            .get(&hub.thread_id)
            .is_some_and(|current| Arc::ptr_eq(current, hub))
    }

    /// Makes an actor where there is none. It is to be spawned once the hub's lock is given back: where the runtime is ending it is dropped at once, and takes
    /// the lock for that.
    fn ensure_actor(
        &self,
        shared: &Arc<Shared>,
        hub: &Arc<Hub>,
        inner: &mut HubInner,
    ) -> Result<Option<Actor>, OpenError> {
        if inner.actor.is_some() {
            return Ok(None);
        }
        if self.active.load(Ordering::Relaxed) >= shared.config.guard.max_active_threads {
            self.pressed.notify_waiters();
            return Err(OpenError::Busy);
        }
        let (mail, inbox) = mpsc::channel(MAX_WAITING);
        let epoch = self.epochs.fetch_add(1, Ordering::Relaxed);
        inner.actor = Some(Running { mail, epoch });
        inner.loaded = Loaded::No;
        self.active.fetch_add(1, Ordering::Relaxed);
        Ok(Some(Actor::new(shared.clone(), hub.clone(), inbox, epoch)))
    }

    /// A thread's state, where it is in memory.
    pub(crate) fn in_memory(&self, thread_id: ThreadId) -> Option<Arc<Thread>> {
        let hub = self.hubs().get(&thread_id).cloned()?;
        let inner = hub.lock();
        inner.thread().cloned()
    }

    /// A thread with its state in memory; none where there is no such thread.
    ///
    /// # Errors
    /// Where it can't be had right now.
    pub(crate) async fn open(
        &self,
        shared: &Arc<Shared>,
        thread_id: ThreadId,
    ) -> Result<Option<(Arc<Hub>, Arc<Thread>)>, OpenError> {
        let known = self.hubs().get(&thread_id).cloned();
        if let Some(hub) = known
            && let Some(thread) = hub.lock().thread().cloned()
        {
            return Ok(Some((hub.clone(), thread)));
        }
        // Before anything is made for it: ids of threads that don't exist cost a look-up.
        if shared.log.head(thread_id).await?.is_none() {
            return Ok(None);
        }
        let mut tried = false;
        loop {
            let hub = self.hub(thread_id);
            let waited = hub.loaded.notified();
            tokio::pin!(waited);
            waited.as_mut().enable();
            let started = {
                let mut inner = hub.lock();
                if !self.is_current(&hub) {
                    continue;
                }
                match &inner.loaded {
                    Loaded::Yes(Some(thread)) => return Ok(Some((hub.clone(), thread.clone()))),
                    // It is in the log, so its actor has just created it and will show it in a moment.
                    Loaded::Yes(None) => None,
                    Loaded::Failed if tried || inner.actor.is_some() => {
                        return Err(OpenError::Unreadable);
                    }
                    Loaded::No | Loaded::Failed => self.ensure_actor(shared, &hub, &mut inner)?,
                }
            };
            if let Some(actor) = started {
                actor.spawn();
            }
            tried = true;
            waited.await;
            // On a runtime that is ending every actor is gone at once: this must be able to end too.
            consume_budget().await;
        }
    }

    /// Tells a connection of the thread's news from now on. False where the hub was forgotten meanwhile: open the thread again.
    pub(crate) fn subscribe(&self, hub: &Arc<Hub>, connection: u64, mailbox: Arc<Mailbox>) -> bool {
        let mut inner = hub.lock();
        let current = self.is_current(hub);
        if current {
            inner.subscribers.insert(connection, mailbox);
        }
        current
    }

    /// Forgets a connection's interest in a thread.
    pub(crate) fn unsubscribe(&self, thread_id: ThreadId, connection: u64) {
        let hub = self.hubs().get(&thread_id).cloned();
        if let Some(hub) = hub {
            hub.lock().subscribers.remove(&connection);
            self.prune(&hub);
        }
    }

    /// Forgets a hub that nobody needs.
    fn prune(&self, hub: &Arc<Hub>) {
        let mut hubs = self.hubs();
        // Whoever holds the lock now will prune, or needs it.
        let Ok(inner) = hub.inner.try_lock() else {
            return;
        };
        if inner.actor.is_none()
            && inner.subscribers.is_empty()
            && hub.refused.is_empty()
            && hubs.get(&hub.thread_id).is_some_and(|kept| Arc::ptr_eq(kept, hub))
        {
            hubs.remove(&hub.thread_id);
        }
    }

    /// Forgets old refusals, and hubs that nobody needs any more.
    pub(crate) fn sweep(&self) {
        let hubs: Vec<_> = self.hubs().values().cloned().collect();
        for hub in hubs.iter().filter(|hub| hub.refused.sweep()) {
            self.prune(hub);
        }
    }

    /// Has all actors save and leave, and waits until they have.
    pub(crate) async fn stop(&self) {
        loop {
            let ended = self.ended.notified();
            tokio::pin!(ended);
            ended.as_mut().enable();
            let hubs: Vec<_> = self.hubs().values().cloned().collect();
            for hub in hubs {
                let inner = hub.lock();
                if let Some(actor) = &inner.actor {
                    // A full queue is no reason not to end: it is told again when another actor has ended, or the server's patience ends.
                    let _ = actor.mail.try_send(Mail::Stop);
                }
            }
            if self.active() == 0 {
                return;
            }
            ended.await;
        }
    }
}

/// Ends an actor's registration however the actor ends.
struct Registration {
    shared: Arc<Shared>,
    hub: Arc<Hub>,
    epoch: usize,
}

impl Drop for Registration {
    fn drop(&mut self) {
        let threads = &self.shared.threads;
        let mut inner = self.hub.lock();
        if inner.actor.as_ref().is_some_and(|actor| actor.epoch == self.epoch) {
            inner.actor = None;
            // What stands in the hub is true, but nobody keeps it so any more.
            if !matches!(inner.loaded, Loaded::Failed) {
                inner.loaded = Loaded::No;
            }
            inner.ring = Ring::default();
        }
        drop(inner);
        self.hub.loaded.notify_waiters();
        threads.active.fetch_sub(1, Ordering::Relaxed);
        threads.ended.notify_waiters();
        threads.prune(&self.hub);
    }
}

/// The end of a thread's log, as of its state.
pub(crate) fn head_of(thread: Option<&Thread>) -> Cursor {
    thread.map_or(Cursor::START, Thread::head)
}
