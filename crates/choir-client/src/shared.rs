//! What the handles and the task share: the machine, and who waits for what.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use choir_core::client::session::Machine;
use choir_core::client::{Error, Event, Input, Monotonic, Now, Output, Reply, State, Update};
use choir_protocol::ids::{Audience, Id, ThreadId, Timestamp};
use choir_protocol::message::{Mode, Receipt};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, broadcast, oneshot, watch};
use tokio::time::Instant;

use crate::events::{ClientEvent, ThreadEvent};

/// How many events of the connection a slow reader may be behind.
const EVENTS: usize = 256;
/// How many updates of a thread a slow reader may be behind.
const UPDATES: usize = 64;

pub(crate) struct Shared {
    core: Mutex<Core>,
    /// Something was handed over: the task looks for what is to be done.
    pub(crate) wake: Notify,
    /// Room in the machine's queue of actions.
    pub(crate) room: Arc<Semaphore>,
    pub(crate) state: watch::Sender<State>,
    /// How many actions have no answer.
    pub(crate) unanswered: watch::Sender<usize>,
    /// Whether the task has ended.
    pub(crate) ended: watch::Sender<bool>,
    pub(crate) audience: Audience,
    started: Instant,
}

/// What only one at a time touches.
pub(crate) struct Core {
    pub(crate) machine: Machine,
    pub(crate) threads: HashMap<ThreadId, Followed>,
    pub(crate) events: broadcast::Sender<Arc<ClientEvent>>,
    actions: HashMap<Id, WaitingAction>,
    requests: HashMap<Id, oneshot::Sender<Result<Reply, Error>>>,
    pub(crate) last_error: Option<Error>,
}

struct WaitingAction {
    thread_id: ThreadId,
    answer: oneshot::Sender<Result<Receipt, Error>>,
    _room: OwnedSemaphorePermit,
}

/// A thread that is followed.
pub(crate) struct Followed {
    pub(crate) updates: broadcast::Sender<Arc<ThreadEvent>>,
    pub(crate) progress: watch::Sender<Progress>,
    mode: Mode,
}

/// How far a subscription has come.
#[derive(Debug, Clone)]
pub(crate) enum Progress {
    Waiting,
    Ready,
    Ended(Option<Error>),
}

impl Followed {
    pub(crate) fn new(mode: Mode) -> Self {
        Self {
            updates: broadcast::channel(UPDATES).0,
            progress: watch::channel(Progress::Waiting).0,
            mode,
        }
    }
}

/// What the task does for the machine.
pub(crate) enum Effect {
    Connect,
    Send(String),
    Close(u16),
    Refresh { waiting: bool, error: Error },
}

impl Shared {
    pub(crate) fn new(machine: Machine, audience: Audience, queue: usize) -> Self {
        Self {
            state: watch::channel(machine.state()).0,
            unanswered: watch::channel(0).0,
            ended: watch::channel(false).0,
            core: Mutex::new(Core {
                machine,
                threads: HashMap::new(),
                events: broadcast::channel(EVENTS).0,
                actions: HashMap::new(),
                requests: HashMap::new(),
                last_error: None,
            }),
            wake: Notify::new(),
            room: Arc::new(Semaphore::new(queue)),
            audience,
            started: Instant::now(),
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Core> {
        // Nothing under the lock is left half done by a panic that the machine could not live with: it is handed whole inputs.
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn now(&self) -> Now {
        let unix = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_millis());
        Now {
            monotonic: self.monotonic(Instant::now()),
            wall: Timestamp::saturating(u64::try_from(unix).unwrap_or(u64::MAX)),
        }
    }

    fn monotonic(&self, instant: Instant) -> Monotonic {
        let elapsed = instant.saturating_duration_since(self.started).as_millis();
        Monotonic::from_ms(u64::try_from(elapsed).unwrap_or(u64::MAX))
    }

    /// When the machine wants to be woken.
    pub(crate) fn wake_at(&self) -> Option<Instant> {
        let at = self.lock().machine.wake_at()?;
        self.started.checked_add(std::time::Duration::from_millis(at.as_ms()))
    }

    /// Hands an input to the machine.
    pub(crate) fn handle(&self, input: Input<'_>) {
        let now = self.now();
        self.lock().machine.handle(now, input);
    }

    /// Takes what the machine wants done, and tells the callers what is for them.
    pub(crate) fn effects(&self) -> Vec<Effect> {
        let mut core = self.lock();
        let mut effects = Vec::new();
        while let Some(output) = core.machine.poll() {
            match output {
                Output::Connect => effects.push(Effect::Connect),
                Output::Send(text) => effects.push(Effect::Send(text)),
                Output::Close(code) => effects.push(Effect::Close(code)),
                Output::Event(event) => {
                    if let Event::CredentialsWanted { waiting, error } = &event {
                        effects.push(Effect::Refresh {
                            waiting: *waiting,
                            error: error.clone(),
                        });
                    }
                    if let Event::State(state) = &event {
                        self.state.send_replace(state.clone());
                    }
                    core.tell(event);
                }
            }
        }
        self.unanswered.send_if_modified(|known| {
            let now = core.machine.unanswered();
            std::mem::replace(known, now) != now
        });
        effects
    }
}

impl Core {
    /// Remembers who waits for an action's answer. The answer can't come before the lock is released.
    pub(crate) fn await_action(
        &mut self,
        id: Id,
        thread_id: ThreadId,
        room: OwnedSemaphorePermit,
    ) -> oneshot::Receiver<Result<Receipt, Error>> {
        let (answer, answered) = oneshot::channel();
        self.actions.insert(
            id,
            WaitingAction {
                thread_id,
                answer,
                _room: room,
            },
        );
        answered
    }

    pub(crate) fn await_reply(&mut self, id: Id) -> oneshot::Receiver<Result<Reply, Error>> {
        let (answer, answered) = oneshot::channel();
        self.requests.insert(id, answer);
        answered
    }

    /// The actions that have no final answer.
    pub(crate) fn unanswered(&self) -> Vec<(ThreadId, Id)> {
        self.actions
            .iter()
            .map(|(id, action)| (action.thread_id, *id))
            .collect()
    }

    /// A send fails only where nobody listens (any longer), which is their choice.
    fn tell(&mut self, event: Event) {
        match event {
            Event::Answered { id, result } => {
                if let Some(waiting) = self.actions.remove(&id) {
                    let _ = waiting.answer.send(result);
                }
            }
            Event::Replied { id, result } => {
                if let Some(waiting) = self.requests.remove(&id) {
                    let _ = waiting.send(result);
                }
            }
            Event::Thread { thread_id, update } => self.tell_thread(thread_id, update),
            Event::Error { thread_id, error } => {
                self.last_error = Some(error.clone());
                let _ = self.events.send(Arc::new(ClientEvent::Error { thread_id, error }));
            }
            other => {
                if let Event::CredentialsWanted { error, .. } = &other {
                    self.last_error = Some(error.clone());
                }
                if let Some(event) = ClientEvent::of(other) {
                    let _ = self.events.send(Arc::new(event));
                }
            }
        }
    }

    fn tell_thread(&mut self, thread_id: ThreadId, update: Update) {
        let followed = self
            .threads
            .entry(thread_id)
            .or_insert_with(|| Followed::new(Mode::Full));
        match &update {
            Update::Subscribed(subscribed) => {
                followed.mode = subscribed.mode;
                if subscribed.mode == Mode::Events {
                    followed.progress.send_replace(Progress::Ready);
                }
                let _ = self.events.send(Arc::new(ClientEvent::Subscribed { thread_id }));
            }
            Update::Level { .. } => {
                followed.progress.send_replace(Progress::Ready);
            }
            Update::Desync { error, ended: true } => {
                followed.progress.send_replace(Progress::Ended(Some(error.clone())));
            }
            Update::Unsubscribed { error } => {
                followed.progress.send_replace(Progress::Ended(error.clone()));
                let _ = self.events.send(Arc::new(ClientEvent::Unsubscribed {
                    thread_id,
                    error: error.clone(),
                }));
            }
            _ => {}
        }
        let ended = matches!(update, Update::Unsubscribed { .. } | Update::Desync { ended: true, .. });
        let _ = followed.updates.send(Arc::new(ThreadEvent::Update(update)));
        if ended {
            // Closes the channels of those who listen: after this there is nothing to hear.
            self.threads.remove(&thread_id);
        }
    }
}
