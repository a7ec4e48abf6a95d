//! Who is connected, by which clients, in which sessions (C5, C7, A7), and how fast a user may act.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use choir_core::session::Monotonic;
use choir_core::session::connection::{Grant, SessionRequest};
use choir_core::session::sequence::Sequence;
use choir_protocol::encoding::base64url_encode;
use choir_protocol::error::{ErrorCode, close};
use choir_protocol::hash::Hash;
use choir_protocol::ids::{ClientId, SessionId, UserId};
use choir_protocol::key::PublicKey;
use choir_protocol::message::{ErrorPayload, Limits};
use tokio::sync::watch;
use tokio::time::{Duration, timeout};

use crate::config::Times;
use crate::environment::Clock;
use crate::mailbox::{Mailbox, Push};
use crate::rates::Bucket;

/// A user with a client that is connected or whose session is kept.
#[derive(Debug)]
pub(crate) struct User {
    rates: Mutex<Rates>,
}

#[derive(Debug)]
struct Rates {
    actions: Bucket,
    requests: Bucket,
}

impl User {
    fn new(limits: &Limits, now: Monotonic) -> Self {
        let actions = Bucket::full(limits.max_actions_per_second, now);
        let requests = Bucket::full(limits.max_requests_per_second, now);
        Self {
            rates: Mutex::new(Rates { actions, requests }),
        }
    }

    fn rates(&self) -> MutexGuard<'_, Rates> {
        self.rates.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts an action, of all clients together; or says in how many milliseconds there may be one.
    pub(crate) fn acts(&self, now: Monotonic) -> Result<(), u64> {
        self.rates().actions.take(now)
    }

    /// Counts a request (R1), of all clients together; or says in how many milliseconds there may be one.
    pub(crate) fn requests(&self, now: Monotonic) -> Result<(), u64> {
        self.rates().requests.take(now)
    }
}

/// All users, clients and sessions of a server.
pub(crate) struct Registry {
    inner: Mutex<Inner>,
    clock: Arc<Clock>,
    limits: Limits,
    times: Times,
    max_sessions: usize,
}

#[derive(Default)]
struct Inner {
    users: HashMap<UserId, Place>,
    /// The sessions whose client is away, by their end.
    away: BTreeSet<(Monotonic, UserId, ClientId)>,
}

/// What is kept for a user.
struct Place {
    user: Arc<User>,
    clients: HashMap<ClientId, Client>,
}

#[derive(Default)]
struct Client {
    /// The connection that is it, or is about to be.
    holder: Option<Holder>,
    session: Option<Session>,
}

struct Holder {
    connection: u64,
    mailbox: Arc<Mailbox>,
    /// Ends when the connection has given back what it had.
    gone: watch::Receiver<()>,
}

struct Session {
    id: SessionId,
    token: Hash,
    key: PublicKey,
    /// None while a connection has it.
    sequence: Option<Sequence>,
    ends_at: Option<Monotonic>,
}

/// A connection's place as its client, given back when dropped.
pub(crate) struct Seat {
    registry: Arc<Registry>,
    user_id: UserId,
    client_id: ClientId,
    connection: u64,
    /// What the connection leaves behind, to be resumed.
    left: Option<(SessionId, Sequence)>,
    _gone: watch::Sender<()>,
}

/// A session that a connection may speak in.
pub(crate) struct Started {
    pub(crate) grant: Grant,
    pub(crate) user: Arc<User>,
    pub(crate) seat: Seat,
}

impl Registry {
    pub(crate) fn new(clock: Arc<Clock>, limits: Limits, times: Times, max_sessions: usize) -> Self {
        Self {
            inner: Mutex::default(),
            clock,
            limits,
            times,
            max_sessions,
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts or resumes a session (C5), once the client's older connection has given up its own (C7, A7).
    ///
    /// # Errors
    /// The error to send, and the code to close with.
    pub(crate) async fn start(
        self: &Arc<Self>,
        request: SessionRequest,
        connection: u64,
        mailbox: Arc<Mailbox>,
    ) -> Result<Started, (ErrorPayload, u16)> {
        let (seat, user, older) = self.claim(&request, connection, mailbox)?;
        if let Some(older) = older {
            older.mailbox.supersede();
            let mut gone = older.gone;
            // Its end is an error here, since nobody ever says anything through it.
            let _ = timeout(Duration::from_millis(self.times.takeover_ms), gone.changed()).await;
        }
        let grant = self.grant(&request).map_err(|error| (error, close::INTERNAL))?;
        Ok(Started { grant, user, seat })
    }

    /// Makes the connection its client's one connection.
    #[allow(clippy::type_complexity, reason = "three things that belong to nothing else")]
    fn claim(
        self: &Arc<Self>,
        request: &SessionRequest,
        connection: u64,
        mailbox: Arc<Mailbox>,
    ) -> Result<(Seat, Arc<User>, Option<Holder>), (ErrorPayload, u16)> {
        let now = self.clock.monotonic();
        let mut inner = self.inner();
        let place = inner.users.entry(request.user_id.clone()).or_insert_with(|| Place {
            user: Arc::new(User::new(&self.limits, now)),
            clients: HashMap::new(),
        });
        let others = place
            .clients
            .iter()
            .filter(|(id, client)| **id != request.client_id && client.holder.is_some());
        if others.count() as u64 >= self.limits.max_clients {
            let error = ErrorPayload::new(
                ErrorCode::Limit,
                "this user has as many clients connected as are allowed",
            )
            .with_retry_after(RETRY_CLIENTS_MS);
            return Err((error, close::RATE_LIMITED));
        }
        let (gone_sender, gone) = watch::channel(());
        let client = place.clients.entry(request.client_id.clone()).or_default();
        let older = client.holder.replace(Holder {
            connection,
            mailbox,
            gone,
        });
        let ends_at = client.session.as_mut().and_then(|session| session.ends_at.take());
        let user = place.user.clone();
        if let Some(ends_at) = ends_at {
            inner
                .away
                .remove(&(ends_at, request.user_id.clone(), request.client_id.clone()));
        }
        drop(inner);
        let seat = Seat {
            registry: self.clone(),
            user_id: request.user_id.clone(),
            client_id: request.client_id.clone(),
            connection,
            left: None,
            _gone: gone_sender,
        };
        Ok((seat, user, older))
    }

    fn grant(&self, request: &SessionRequest) -> Result<Grant, ErrorPayload> {
        let unavailable = |_| ErrorPayload::new(ErrorCode::Internal, "no random bytes for a session");
        let token: [u8; 32] = self.clock.random().map_err(unavailable)?;
        let name: [u8; 10] = self.clock.random().map_err(unavailable)?;
        let jitter = u16::from_be_bytes(self.clock.random().map_err(unavailable)?);
        let mut inner = self.inner();
        let client = inner
            .users
            .get_mut(&request.user_id)
            .and_then(|place| place.clients.get_mut(&request.client_id));
        // The seat is held, so that the client's place is there.
        let Some(client) = client else {
            return Err(ErrorPayload::new(ErrorCode::Internal, "the client's place is gone"));
        };
        let asked = request.session_token.as_deref().map(token_hash);
        if let Some(session) = &mut client.session
            && asked == Some(session.token)
            && session.key == request.key
            && let Some(sequence) = session.sequence.take()
        {
            return Ok(Grant {
                session_id: session.id,
                sequence,
                session_token: None,
                resumed: true,
                expires_at: None,
                agent_issuer: false,
                jitter,
            });
        }
        let session_id = SessionId::v7(self.clock.wall().get(), name);
        let text = base64url_encode(&token);
        client.session = Some(Session {
            id: session_id,
            token: token_hash(&text),
            key: request.key,
            sequence: None,
            ends_at: None,
        });
        Ok(Grant {
            session_id,
            sequence: Sequence::new(usize::try_from(self.limits.max_in_flight).unwrap_or(usize::MAX)),
            session_token: Some(text),
            resumed: false,
            expires_at: None,
            agent_issuer: false,
            jitter,
        })
    }

    /// Pushes to all clients of a user (V2), but the connection that knows already.
    pub(crate) fn push(&self, user: &UserId, push: &Push, but: Option<u64>) {
        let inner = self.inner();
        let clients = inner
            .users
            .get(user)
            .into_iter()
            .flat_map(|place| place.clients.values());
        for holder in clients.filter_map(|client| client.holder.as_ref()) {
            if but != Some(holder.connection) {
                holder.mailbox.push(push.clone());
            }
        }
    }

    fn release(&self, seat: &mut Seat) {
        let ends_at = self.clock.monotonic().plus_ms(self.times.session_ms);
        let mut inner = self.inner();
        let Some(place) = inner.users.get_mut(&seat.user_id) else {
            return;
        };
        let Some(client) = place.clients.get_mut(&seat.client_id) else {
            return;
        };
        if let (Some((id, sequence)), Some(session)) = (seat.left.take(), &mut client.session)
            && session.id == id
        {
            session.sequence = Some(sequence);
        }
        if client
            .holder
            .as_ref()
            .is_none_or(|holder| holder.connection != seat.connection)
        {
            return;
        }
        client.holder = None;
        match &mut client.session {
            // Without its sequence a session can't be resumed: its connection ended before it began, or was torn out.
            Some(session) if session.sequence.is_some() => {
                session.ends_at = Some(ends_at);
                inner
                    .away
                    .insert((ends_at, seat.user_id.clone(), seat.client_id.clone()));
                self.bound(&mut inner, &seat.user_id);
            }
            _ => forget(&mut inner, &seat.user_id, &seat.client_id),
        }
    }

    /// Keeps sessions without a connection few: of a user no more than connections, of all users as many as were configured. The oldest go.
    fn bound(&self, inner: &mut Inner, user: &UserId) {
        let of_user = |place: &Place| {
            let away = place
                .clients
                .iter()
                .filter_map(|(id, client)| Some((client.session.as_ref()?.ends_at?, id.clone())));
            let away: Vec<_> = away.collect();
            (away.len() as u64 > self.limits.max_clients)
                .then(|| away.into_iter().min())
                .flatten()
        };
        if let Some((ends_at, client)) = inner.users.get(user).and_then(of_user) {
            inner.away.remove(&(ends_at, user.clone(), client.clone()));
            forget(inner, user, &client);
        }
        if inner.away.len() > self.max_sessions
            && let Some((_, user, client)) = inner.away.pop_first()
        {
            forget(inner, &user, &client);
        }
    }

    /// Ends the sessions whose time is over (C5).
    pub(crate) fn sweep(&self) {
        let now = self.clock.monotonic();
        let mut inner = self.inner();
        while inner.away.first().is_some_and(|(ends_at, ..)| *ends_at <= now) {
            if let Some((_, user, client)) = inner.away.pop_first() {
                forget(&mut inner, &user, &client);
            }
        }
    }
}

/// When a client comes back that was one too many.
const RETRY_CLIENTS_MS: u64 = 10_000;

fn forget(inner: &mut Inner, user: &UserId, client: &ClientId) {
    if let Some(place) = inner.users.get_mut(user) {
        place.clients.remove(client);
        if place.clients.is_empty() {
            inner.users.remove(user);
        }
    }
}

/// Tokens are kept as hashes (C5), so that whoever reads the server's memory or its dumps has none.
fn token_hash(token: &str) -> Hash {
    Hash::of_parts(&[b"choir.v1 session token\n", token.as_bytes()])
}

impl Seat {
    /// Leaves the session to whoever resumes it (A7).
    pub(crate) fn leave(mut self, session: Option<(SessionId, Sequence)>) {
        self.left = session;
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        // A clone of the handle, since the release needs the rest of the seat.
        let registry = self.registry.clone();
        registry.release(self);
    }
}
