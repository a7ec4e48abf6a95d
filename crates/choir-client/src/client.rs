use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use choir_core::client::error::{Code, Error};
use choir_core::client::replica::Replica;
use choir_core::client::session::Machine;
use choir_core::client::{self as machine, Reply, Request, State, SubscribeOptions};
use choir_protocol::action::{
    Action, Join, NewMember, ProcessApproval, RedactMessage, RemoveMember, UpdateThread, WithdrawSpec,
};
use choir_protocol::error::ErrorCode;
use choir_protocol::hash::Hash;
use choir_protocol::ids::{ClientId, Id, Salt, Seq, ThreadId, UserId};
use choir_protocol::json::{Object, Value};
use choir_protocol::key::PublicKey;
use choir_protocol::message::{
    CheckpointNote, Limits, Marked, Members, PageRequest, Receipt, Scope, Specs, StreamPart, Threads, ThreadsRequest,
    UserAction,
};
use choir_protocol::range::Range;
use choir_protocol::thread::{Decision, Role};
use tokio::sync::{oneshot, watch};
use tokio::time::timeout;

use crate::config::Config;
use crate::draft::{Draft, NewThread, Settings};
use crate::events::Events;
use crate::shared::{Followed, Progress, Shared};
use crate::task;
use crate::thread::ThreadHandle;

/// A client: one user's connection to a server, over all its reconnects. Cheap to clone; the last clone that is dropped ends it, without waiting for answers
/// ([`Client::close`] waits).
#[derive(Clone)]
pub struct Client {
    handle: Arc<Handle>,
}

/// Ends the task when nobody holds the client any longer.
struct Handle {
    shared: Arc<Shared>,
    close_timeout: std::time::Duration,
}

impl Drop for Handle {
    fn drop(&mut self) {
        let now = self.shared.now();
        self.shared.lock().machine.close(now);
        self.shared.wake.notify_one();
    }
}

/// An action that was handed over: a future of its receipt. Dropping it cancels nothing: the action is sent, and resent until it has its answer, all the same.
#[derive(Debug)]
#[must_use = "the receipt, or why the action was refused, comes out of this"]
pub struct Pending {
    id: Id,
    answer: oneshot::Receiver<Result<Receipt, Error>>,
}

impl Pending {
    /// The action's id: the name of the message or spec that it makes.
    pub const fn id(&self) -> Id {
        self.id
    }
}

impl Future for Pending {
    type Output = Result<Receipt, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.answer)
            .poll(cx)
            .map(|answer| answer.unwrap_or_else(|_| Err(Error::closed())))
    }
}

/// What [`Client::close`] left behind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Closed {
    /// The actions without an answer: not known to be applied.
    pub unanswered: Vec<(ThreadId, Id)>,
}

/// What was posted or proposed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Posted {
    /// The name of the message or spec.
    pub id: Id,
    /// The receipt, whose kind says which of both it is (A9).
    pub receipt: Receipt,
}

impl Client {
    /// Connects and authenticates: returns once there is a session. From then on the client reconnects by itself. The first connection is tried once, so
    /// that a wrong address or key shows at once; [`Client::start`] goes on trying.
    ///
    /// # Errors
    /// `ConnectionLost` where there is no server, or no session in time; `AuthenticationFailed` where the server doesn't accept who this is; and what is wrong
    /// with the configuration. Nothing goes on in the background then.
    pub async fn connect(config: Config) -> Result<Self, Error> {
        let client = Self::start(config)?;
        let mut state = client.state();
        let authenticated = state
            .wait_for(|state| !matches!(state, State::Connecting))
            .await
            .is_ok_and(|state| state.is_authenticated());
        if authenticated {
            return Ok(client);
        }
        let known = client.handle.shared.lock().last_error.take();
        Err(known.unwrap_or_else(|| Error::connection_lost("the connection ended before there was a session")))
    }

    /// Starts a client without waiting for its session: it tries until there is one, and what is handed over waits for it.
    ///
    /// # Errors
    /// What is wrong with the configuration.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn start(config: Config) -> Result<Self, Error> {
        let (endpoint, audience) = config.target()?;
        let seed: [u8; 32] =
            crate::websocket::random().map_err(|error| Error::wire(ErrorCode::Internal, error.to_string()))?;
        let client_id = match &config.client_id {
            Some(client_id) => client_id.clone(),
            None => random_client_id()?,
        };
        let to_ms = |time: std::time::Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let machine_config = machine::Config {
            agent: config.agent.clone(),
            connect_timeout_ms: to_ms(config.connect_timeout),
            give_up_after_ms: config.give_up_after.map(to_ms),
            retain: config.retain,
            ..machine::Config::new(audience.clone(), client_id)
        };
        let queue = machine_config.max_queued_actions;
        let mut machine = Machine::new(machine_config, config.credentials.clone(), seed);
        if let Some(signatures) = &config.signatures {
            machine.keys_mut().share(Arc::clone(signatures) as _);
        }
        for (user_id, key) in &config.known_keys {
            machine.keys_mut().remember(user_id, *key);
        }
        let shared = Arc::new(Shared::new(machine, audience, queue));
        let now = shared.now();
        shared.lock().machine.start(now);
        let close_timeout = config.close_timeout;
        tokio::spawn(task::run(Arc::clone(&shared), config, endpoint));
        Ok(Self {
            handle: Arc::new(Handle { shared, close_timeout }),
        })
    }

    // -------------------------------------------------------------------------------------------------------------------------------------------- state

    /// The state (section 4), to be read at any time or waited for.
    pub fn state(&self) -> watch::Receiver<State> {
        self.handle.shared.state.subscribe()
    }

    /// Who the user is; none before the first session of a client that signs in by a token.
    pub fn user_id(&self) -> Option<UserId> {
        self.handle.shared.lock().machine.user_id().cloned()
    }

    /// The server's limits (section 12), those of the protocol before the first session.
    pub fn limits(&self) -> Limits {
        *self.handle.shared.lock().machine.limits()
    }

    /// The connection's round trip, where it was measured (C9).
    pub fn latency(&self) -> Option<std::time::Duration> {
        let ms = self.handle.shared.lock().machine.latency_ms()?;
        Some(std::time::Duration::from_millis(ms))
    }

    /// The keys that were seen, to be kept over a restart and handed to [`Config::known_key`] (K5).
    pub fn known_keys(&self) -> Vec<(UserId, PublicKey)> {
        let core = self.handle.shared.lock();
        let keys = core.machine.keys().iter();
        keys.flat_map(|(user, keys)| keys.iter().map(|key| (user.clone(), *key)))
            .collect()
    }

    /// What happens to the client from now on.
    pub fn events(&self) -> Events {
        Events::new(self.handle.shared.lock().events.subscribe())
    }

    /// Closes the client: waits until every action that was handed over has its answer, at most for [`Config::close_timeout`], and says what has none.
    /// What is called on clones afterwards fails with `closed`.
    pub async fn close(&self) -> Closed {
        let shared = &self.handle.shared;
        // Those that were handed over are counted once the task has seen them.
        shared.wake.notify_one();
        let mut unanswered = shared.unanswered.subscribe();
        let answered = async {
            while shared.lock().machine.unanswered() > 0 {
                if unanswered.changed().await.is_err() {
                    return;
                }
            }
        };
        // Where that takes too long, what remains is named.
        let _ = timeout(self.handle.close_timeout, answered).await;
        let unanswered = shared.lock().unanswered();
        let now = shared.now();
        shared.lock().machine.close(now);
        shared.wake.notify_one();
        let _ = shared.ended.subscribe().wait_for(|ended| *ended).await;
        Closed { unanswered }
    }

    // ------------------------------------------------------------------------------------------------------------------------------------ subscriptions

    /// Follows a thread: returns once its replica is level with the head that the server named, or, in the mode `events`, once the server has taken it up.
    /// A thread that is followed already is followed with the new options. It stays so over reconnects, until [`ThreadHandle::unsubscribe`]; dropping the
    /// handle, or this future, doesn't end it.
    ///
    /// # Errors
    /// `SubscriptionError` where the thread isn't there or may not be read, `StateDesyncError` where the server's log doesn't verify.
    pub async fn subscribe(&self, thread_id: ThreadId, options: SubscribeOptions) -> Result<ThreadHandle, Error> {
        let shared = &self.handle.shared;
        let mode = options.mode;
        let mut progress = {
            let mut core = shared.lock();
            let now = shared.now();
            core.machine.subscribe(now, thread_id, options)?;
            let followed = core.threads.entry(thread_id).or_insert_with(|| Followed::new(mode));
            followed.progress.send_replace(Progress::Waiting);
            followed.progress.subscribe()
        };
        shared.wake.notify_one();
        let arrived = progress
            .wait_for(|progress| !matches!(progress, Progress::Waiting))
            .await
            .map(|progress| (*progress).clone());
        match arrived {
            Ok(Progress::Ready) => Ok(ThreadHandle::new(self.clone(), thread_id)),
            Ok(Progress::Ended(Some(error))) => Err(error),
            Ok(Progress::Ended(None) | Progress::Waiting) | Err(_) => Err(Error::closed()),
        }
    }

    /// Follows all threads that the user has joined, or joins later (Y3). [`ClientEvent::Subscribed`](crate::ClientEvent::Subscribed) names them one by one.
    ///
    /// # Errors
    /// Where the client is closed.
    pub fn subscribe_all(&self, options: SubscribeOptions) -> Result<(), Error> {
        let shared = &self.handle.shared;
        let now = shared.now();
        shared.lock().machine.subscribe_all(now, options)?;
        shared.wake.notify_one();
        Ok(())
    }

    /// A thread that is followed.
    pub fn thread(&self, thread_id: ThreadId) -> Option<ThreadHandle> {
        let followed = self.handle.shared.lock().threads.contains_key(&thread_id);
        followed.then(|| ThreadHandle::new(self.clone(), thread_id))
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.handle.shared
    }

    pub(crate) fn replica(&self, thread_id: ThreadId) -> Option<Arc<Replica>> {
        self.handle.shared.lock().machine.replica(thread_id).map(Arc::clone)
    }

    // ------------------------------------------------------------------------------------------------------------------------------------------ actions

    /// Hands an action over without waiting: it is sent when it is its turn, signed once, and resent under the same id until it has its answer (G3). Actions
    /// of one thread are applied in the order in which they are handed over (G4).
    ///
    /// # Errors
    /// `limit` where too much waits already ([`Client::act`] waits for room), `invalid_message` where the payload isn't one of the type, `closed`.
    pub fn hand_over(&self, thread_id: ThreadId, action_type: &str, payload: Object) -> Result<Pending, Error> {
        let room = Arc::clone(&self.handle.shared.room)
            .try_acquire_owned()
            .map_err(|_| Error::wire(ErrorCode::Limit, "too many actions wait for their answers"))?;
        self.hand_over_into(None, thread_id, action_type, payload, room)
    }

    fn hand_over_into(
        &self,
        id: Option<Id>,
        thread_id: ThreadId,
        action_type: &str,
        payload: Object,
        room: tokio::sync::OwnedSemaphorePermit,
    ) -> Result<Pending, Error> {
        let shared = &self.handle.shared;
        let now = shared.now();
        let mut core = shared.lock();
        let id = match id {
            Some(id) => core.machine.act_as(now, id, thread_id, action_type, payload)?,
            None => core.machine.act(now, thread_id, action_type, payload)?,
        };
        let answer = core.await_action(id, thread_id, room);
        drop(core);
        shared.wake.notify_one();
        Ok(Pending { id, answer })
    }

    /// Acts: waits for room in the queue, hands the action over, waits for its answer.
    ///
    /// Cancel safety: dropped while it waits for room, nothing was handed over; dropped later, the action goes on all the same. It is handed over at the
    /// first poll where there is room.
    ///
    /// # Errors
    /// `MessageDeliveryFailed` with the code of section 11 where it was refused, `ConnectionLost` where the client ended first: then it isn't known to be
    /// applied, unless the code says otherwise.
    pub async fn act(&self, thread_id: ThreadId, action_type: &str, payload: Object) -> Result<(Id, Receipt), Error> {
        let pending = self.hand_over_when_room(None, thread_id, action_type, payload).await?;
        let id = pending.id();
        Ok((id, pending.await?))
    }

    async fn hand_over_when_room(
        &self,
        id: Option<Id>,
        thread_id: ThreadId,
        action_type: &str,
        payload: Object,
    ) -> Result<Pending, Error> {
        let room = Arc::clone(&self.handle.shared.room)
            .acquire_owned()
            .await
            .map_err(|_| Error::closed())?;
        self.hand_over_into(id, thread_id, action_type, payload, room)
    }

    async fn act_typed(&self, thread_id: ThreadId, action: &Action) -> Result<Receipt, Error> {
        let (_, receipt) = self.act(thread_id, action.type_name(), action.to_payload()).await?;
        Ok(receipt)
    }

    fn salt(&self) -> Salt {
        self.handle.shared.lock().machine.entropy().salt()
    }

    /// A new name for a message that is being written: the stream's and then the message's (V4).
    pub fn new_message_id(&self) -> Id {
        let now = self.handle.shared.now();
        self.handle.shared.lock().machine.entropy().id(now.wall)
    }

    /// Makes a thread and returns its name.
    ///
    /// # Errors
    /// As [`Client::act`].
    pub async fn create_thread(&self, thread: NewThread) -> Result<ThreadId, Error> {
        let now = self.handle.shared.now();
        let (thread_id, salt) = {
            let mut core = self.handle.shared.lock();
            let entropy = core.machine.entropy();
            (entropy.thread_id(now.wall), entropy.salt())
        };
        let action = thread.action(self.handle.shared.audience.clone(), salt);
        self.act_typed(thread_id, &action).await?;
        Ok(thread_id)
    }

    /// Posts a message, or proposes it as a spec where the user is no co-author: the receipt's kind says which.
    ///
    /// # Errors
    /// As [`Client::act`].
    pub async fn post(&self, thread_id: ThreadId, draft: impl Into<Draft>) -> Result<Posted, Error> {
        let payload = draft.into().payload(None, self.salt());
        let (id, receipt) = self.act(thread_id, "action.submit_message", payload).await?;
        Ok(Posted { id, receipt })
    }

    /// The same as [`Client::post`], under the name that its stream had (V4).
    ///
    /// # Errors
    /// As [`Client::act`].
    pub async fn post_as(&self, id: Id, thread_id: ThreadId, draft: impl Into<Draft>) -> Result<Posted, Error> {
        let payload = draft.into().payload(None, self.salt());
        let pending = self
            .hand_over_when_room(Some(id), thread_id, "action.submit_message", payload)
            .await?;
        Ok(Posted {
            id,
            receipt: pending.await?,
        })
    }

    /// The same as [`Client::post`], for callers whose messages are proposals.
    ///
    /// # Errors
    /// As [`Client::act`].
    pub async fn propose(&self, thread_id: ThreadId, draft: impl Into<Draft>) -> Result<Posted, Error> {
        self.post(thread_id, draft).await
    }

    /// Puts something else in the place of an open spec of one's own. Decisions on the earlier revision no longer count (S6).
    ///
    /// # Errors
    /// As [`Client::act`].
    pub async fn revise(&self, thread_id: ThreadId, spec: Id, draft: impl Into<Draft>) -> Result<Receipt, Error> {
        let payload = draft.into().payload(Some(("spec", spec)), self.salt());
        let (_, receipt) = self.act(thread_id, "action.revise_spec", payload).await?;
        Ok(receipt)
    }

    /// Takes an open spec of one's own back.
    ///
    /// # Errors
    /// As [`Client::act`].
    pub async fn withdraw(&self, thread_id: ThreadId, spec: Id) -> Result<Receipt, Error> {
        self.act_typed(thread_id, &Action::WithdrawSpec(WithdrawSpec { spec }))
            .await
    }

    /// Approves a spec's revision, which the hash names (S6).
    ///
    /// # Errors
    /// As [`Client::act`]; `conflict` where the spec was revised or closed meanwhile.
    pub async fn approve(
        &self,
        thread_id: ThreadId,
        spec: Id,
        content_hash: Hash,
        reason: Option<&str>,
    ) -> Result<Receipt, Error> {
        self.decide(thread_id, spec, content_hash, Decision::Approve, reason)
            .await
    }

    /// Denies a spec's revision, which the hash names (S6).
    ///
    /// # Errors
    /// As [`Client::act`]; `conflict` where the spec was revised or closed meanwhile.
    pub async fn deny(
        &self,
        thread_id: ThreadId,
        spec: Id,
        content_hash: Hash,
        reason: Option<&str>,
    ) -> Result<Receipt, Error> {
        self.decide(thread_id, spec, content_hash, Decision::Deny, reason).await
    }

    /// Asks for another revision; counts as neither approval nor denial (S6).
    ///
    /// # Errors
    /// As [`Client::act`]; `conflict` where the spec was revised or closed meanwhile.
    pub async fn request_changes(
        &self,
        thread_id: ThreadId,
        spec: Id,
        content_hash: Hash,
        reason: &str,
    ) -> Result<Receipt, Error> {
        let decision = Decision::RequestChanges;
        self.decide(thread_id, spec, content_hash, decision, Some(reason)).await
    }

    async fn decide(
        &self,
        thread_id: ThreadId,
        spec: Id,
        content_hash: Hash,
        decision: Decision,
        reason: Option<&str>,
    ) -> Result<Receipt, Error> {
        let action = Action::ProcessApproval(ProcessApproval {
            spec,
            content_hash,
            decision,
            reason: reason.map(str::to_owned),
            salt: self.salt(),
        });
        self.act_typed(thread_id, &action).await
    }

    /// Puts something else in the place of a message of one's own. A parent doesn't change with it.
    ///
    /// # Errors
    /// As [`Client::act`].
    pub async fn edit(&self, thread_id: ThreadId, message: Id, draft: impl Into<Draft>) -> Result<Receipt, Error> {
        let mut draft = draft.into();
        draft.parent = None;
        let payload = draft.payload(Some(("message", message)), self.salt());
        let (_, receipt) = self.act(thread_id, "action.edit_message", payload).await?;
        Ok(receipt)
    }

    /// Erases a message, with all that led to it and all edits (L6).
    ///
    /// # Errors
    /// As [`Client::act`].
    pub async fn redact(&self, thread_id: ThreadId, message: Id) -> Result<Receipt, Error> {
        self.act_typed(thread_id, &Action::RedactMessage(RedactMessage { message }))
            .await
    }

    /// Changes settings.
    ///
    /// # Errors
    /// As [`Client::act`].
    pub async fn update_thread(&self, thread_id: ThreadId, settings: Settings) -> Result<Receipt, Error> {
        let action = Action::UpdateThread(UpdateThread {
            title: settings.title,
            visibility: settings.visibility,
            review: settings.review,
            propose: settings.propose,
            policy: settings.policy,
            salt: self.salt(),
        });
        self.act_typed(thread_id, &action).await
    }

    /// Adds a member, or gives one another role (S3, S4). `agent` marks software.
    ///
    /// # Errors
    /// As [`Client::act`].
    pub async fn add_member(
        &self,
        thread_id: ThreadId,
        user_id: UserId,
        role: Role,
        agent: bool,
    ) -> Result<Receipt, Error> {
        let action = Action::AddMember(NewMember {
            user_id,
            role,
            agent: agent.then_some(true),
        });
        self.act_typed(thread_id, &action).await
    }

    /// Removes a member, or leaves.
    ///
    /// # Errors
    /// As [`Client::act`].
    pub async fn remove_member(&self, thread_id: ThreadId, user_id: UserId) -> Result<Receipt, Error> {
        self.act_typed(thread_id, &Action::RemoveMember(RemoveMember { user_id }))
            .await
    }

    /// Joins a thread: as who was invited, or, in a public thread, as a reader (S3). `agent` marks software.
    ///
    /// # Errors
    /// As [`Client::act`].
    pub async fn join(&self, thread_id: ThreadId, agent: bool) -> Result<Receipt, Error> {
        let action = Action::Join(Join {
            agent: agent.then_some(true),
        });
        self.act_typed(thread_id, &action).await
    }

    /// Says that the user does something (V3). Fleeting: not sent where there is no session now; whether it was sent.
    pub fn user_action(&self, thread_id: ThreadId, action_type: &str, data: Option<Value>) -> bool {
        let action = UserAction {
            action_type: action_type.to_owned(),
            data,
            to: None,
        };
        let shared = &self.handle.shared;
        let now = shared.now();
        let sent = shared.lock().machine.user_action(now, thread_id, action);
        shared.wake.notify_one();
        sent
    }

    /// Sends a part of a message that is being written (V4). Fleeting as [`Client::user_action`].
    pub fn stream_part(&self, thread_id: ThreadId, part: StreamPart) -> bool {
        let shared = &self.handle.shared;
        let now = shared.now();
        let sent = shared.lock().machine.stream(now, thread_id, part);
        shared.wake.notify_one();
        sent
    }

    // ----------------------------------------------------------------------------------------------------------------------------------------- requests

    /// Asks the server; resends the question after a lost connection.
    ///
    /// # Errors
    /// The server's, or `ConnectionLost` where the client ended first.
    pub async fn request(&self, request: Request) -> Result<Reply, Error> {
        let shared = &self.handle.shared;
        let answer = {
            let now = shared.now();
            let mut core = shared.lock();
            let id = core.machine.request(now, request)?;
            core.await_reply(id)
        };
        shared.wake.notify_one();
        answer.await.unwrap_or_else(|_| Err(Error::closed()))
    }

    /// A page of the list of threads (Y1); `after` is the `next` of the page before.
    ///
    /// # Errors
    /// As [`Client::request`].
    pub async fn threads(&self, scope: Scope, after: Option<String>) -> Result<Threads, Error> {
        let request = ThreadsRequest {
            scope,
            after,
            limit: None,
        };
        match self.request(Request::Threads(request)).await? {
            Reply::Threads(threads) => Ok(threads),
            _ => Err(another_reply()),
        }
    }

    /// A page of a thread's members in the order of being added (Y1).
    ///
    /// # Errors
    /// As [`Client::request`].
    pub async fn members(&self, thread_id: ThreadId, after: Option<String>) -> Result<Members, Error> {
        let request = PageRequest { after, limit: None };
        match self.request(Request::Members(thread_id, request)).await? {
            Reply::Members(members) => Ok(members),
            _ => Err(another_reply()),
        }
    }

    /// A page of a thread's open specs in the order of submission (Y1).
    ///
    /// # Errors
    /// As [`Client::request`].
    pub async fn specs(&self, thread_id: ThreadId, after: Option<String>) -> Result<Specs, Error> {
        let request = PageRequest { after, limit: None };
        match self.request(Request::Specs(thread_id, request)).await? {
            Reply::Specs(specs) => Ok(specs),
            _ => Err(another_reply()),
        }
    }

    /// A page of a thread's history that ends before a number (Y11), checked for what it says of itself; where it should also fit what is known of the later
    /// log, [`Walk`](crate::Walk) says so, or [`ThreadHandle::earlier`] for a thread that is followed.
    ///
    /// # Errors
    /// As [`Client::request`]; `StateDesyncError` where it isn't what it says.
    pub async fn history(&self, thread_id: ThreadId, before: Seq, limit: Option<u64>) -> Result<Range, Error> {
        let request = Request::History {
            thread_id,
            before,
            limit,
        };
        match self.request(request).await? {
            Reply::History(range) => Ok(range),
            _ => Err(another_reply()),
        }
    }

    /// Says that the user has read up to a number (Y2).
    ///
    /// # Errors
    /// As [`Client::request`].
    pub async fn mark(&self, thread_id: ThreadId, seq: Seq) -> Result<Marked, Error> {
        match self.request(Request::Mark(thread_id, seq)).await? {
            Reply::Marked(marked) => Ok(marked),
            _ => Err(another_reply()),
        }
    }

    /// A checkpoint: the server's signed word of a thread's root (K6).
    ///
    /// # Errors
    /// As [`Client::request`].
    pub async fn checkpoint(&self, thread_id: ThreadId) -> Result<CheckpointNote, Error> {
        match self.request(Request::Checkpoint(thread_id)).await? {
            Reply::Checkpoint(note) => Ok(note),
            _ => Err(another_reply()),
        }
    }
}

/// The machine answers a question by its own reply; another one is its fault.
fn another_reply() -> Error {
    Error::local(Code::Wire(ErrorCode::Internal), "the reply belongs to another request")
}

fn random_client_id() -> Result<ClientId, Error> {
    let internal = |why: String| Error::wire(ErrorCode::Internal, why);
    let bytes: [u8; 16] = crate::websocket::random().map_err(|error| internal(error.to_string()))?;
    let mut text = String::with_capacity(32);
    for byte in bytes {
        text.push_str(&format!("{byte:02x}"));
    }
    text.parse::<ClientId>().map_err(|error| internal(error.to_string()))
}
