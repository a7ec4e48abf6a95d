//! The server as a whole: bound, run, drained.

use std::collections::HashMap;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use choir_core::session::connection::Config as MachineConfig;
use choir_log::Log;
use choir_protocol::ids::Audience;
use choir_protocol::key::{PublicKey, SecretKey};
use choir_protocol::message::ServerInfo;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout, timeout_at};

use crate::config::{BindError, Config};
use crate::environment::Clock;
use crate::gateway;
use crate::mailbox::Mailbox;
use crate::rates::{Addresses, Quotas};
use crate::registry::Registry;
use crate::requests::Marks;
use crate::stats::{Counters, Report};
use crate::threads::Threads;

/// What all tasks of a server share.
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) address: SocketAddr,
    pub(crate) log: Arc<dyn Log>,
    pub(crate) clock: Arc<Clock>,
    pub(crate) machine: Arc<MachineConfig>,
    pub(crate) key: SecretKey,
    pub(crate) threads: Threads,
    pub(crate) registry: Arc<Registry>,
    pub(crate) addresses: Arc<Addresses>,
    pub(crate) quotas: Quotas,
    pub(crate) marks: Marks,
    pub(crate) counters: Counters,
    connections: Mutex<HashMap<u64, Arc<Mailbox>>>,
    next_connection: AtomicU64,
    draining: watch::Sender<bool>,
}

impl Shared {
    fn connections(&self) -> MutexGuard<'_, HashMap<u64, Arc<Mailbox>>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn next_connection(&self) -> u64 {
        self.next_connection.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn is_draining(&self) -> bool {
        *self.draining.borrow()
    }

    /// Waits until the server begins to end.
    pub(crate) async fn drained(&self) {
        let mut draining = self.draining.subscribe();
        // The sender lives as long as this does.
        let _ = draining.wait_for(|draining| *draining).await;
    }

    /// When a client comes back (C10): spread over the window, so that they don't all come at once.
    fn retry_after_ms(&self, number: u64) -> u64 {
        let window = self.config.times.return_window_ms.max(1);
        match self.clock.random::<8>() {
            Ok(random) => u64::from_be_bytes(random) % window,
            // Without randomness the numbers spread them well enough.
            Err(_) => number.wrapping_mul(0x9E37_79B9_7F4A_7C15) % window,
        }
    }
}

/// A WebSocket connection's place among all, given back however it ends.
pub(crate) struct Entered {
    shared: Arc<Shared>,
    number: u64,
}

impl Entered {
    pub(crate) fn new(shared: Arc<Shared>, number: u64, mailbox: Arc<Mailbox>) -> Self {
        shared.counters.connections.add();
        shared.counters.connected.add();
        let mut connections = shared.connections();
        // One that slips in while the server ends is told like all others.
        if shared.is_draining() {
            mailbox.drain(shared.retry_after_ms(number));
        }
        connections.insert(number, mailbox);
        drop(connections);
        Self { shared, number }
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.shared.connections().remove(&self.number);
        self.shared.counters.connected.subtract();
    }
}

/// A server that is bound to its address and not yet running.
pub struct Server {
    listener: TcpListener,
    pub(crate) shared: Arc<Shared>,
}

/// Where the server's key is kept: 32 secret bytes, made once.
const KEY: &[u8] = b"server/key";
/// How long the accept loop waits when the system has no more sockets to give.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long the log may take to close: one on a failing disk must not keep the process.
const CLOSE_WITHIN: Duration = Duration::from_secs(10);
/// How many threads are asked for at once when specs expire (S8).
const DUE_PAGE: usize = 1_000;

impl Server {
    /// Binds to the configured address and reads the server's key, or makes it.
    ///
    /// # Errors
    /// Where the address can't be had, may not be spoken on in the clear (T3), or the key can't be read or kept.
    pub async fn bind(config: Config, log: Arc<dyn Log>) -> Result<Self, BindError> {
        if !config.listen.ip().is_loopback() && !config.in_the_clear {
            return Err(BindError::InTheClear { address: config.listen });
        }
        let clock = Arc::new(Clock::new(config.environment.clone()));
        let key = server_key(&*log, &clock).await?;
        let listen = |source| BindError::Listen {
            address: config.listen,
            source,
        };
        let listener = TcpListener::bind(config.listen).await.map_err(listen)?;
        let address = listener.local_addr().map_err(listen)?;
        let audiences = config.audiences_at(address)?;
        let machine = MachineConfig {
            server: ServerInfo {
                name: "choir".into(),
                version: env!("CARGO_PKG_VERSION").into(),
                key: key.public(),
            },
            log_id: log.log_id(),
            limits: config.limits,
            heartbeat: config.heartbeat,
            audiences,
            authentication_ms: config.times.authentication_ms,
        };
        let shared = Shared {
            address,
            clock: clock.clone(),
            machine: Arc::new(machine),
            key,
            threads: Threads::default(),
            registry: Arc::new(Registry::new(
                clock,
                config.limits,
                config.times,
                config.guard.max_sessions,
            )),
            addresses: Arc::new(Addresses::new(config.guard)),
            quotas: Quotas::new(config.guard),
            marks: Marks::default(),
            counters: Counters::default(),
            connections: Mutex::default(),
            next_connection: AtomicU64::new(1),
            draining: watch::Sender::new(false),
            log,
            config,
        };
        Ok(Self {
            listener,
            shared: Arc::new(shared),
        })
    }

    /// The address that is listened on, with the port that was taken.
    pub fn local_addr(&self) -> SocketAddr {
        self.shared.address
    }

    /// The audiences that signatures may be made for (C4).
    pub fn audiences(&self) -> &[Audience] {
        &self.shared.machine.audiences
    }

    /// The key of checkpoints (K6), which clients pin.
    pub fn key(&self) -> PublicKey {
        self.shared.machine.server.key
    }

    /// Serves until `shutdown` is done, then drains (C10): clients are told when to come back, what was received is answered, threads are saved, the log is closed.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Report {
        let Self { listener, shared } = self;
        if !shared.address.ip().is_loopback() {
            tracing::warn!(address = %shared.address, "listening in the clear: everything but loopback must be TLS, so a proxy has to end it before this (T3)");
        }
        tracing::info!(address = %shared.address, log_id = %shared.log.log_id(), "serving");
        let mut tasks = JoinSet::new();
        let housekeeping = tokio::spawn(keep_house(shared.clone()));
        tokio::pin!(shutdown);
        loop {
            tokio::select! {
                () = &mut shutdown => break,
                accepted = listener.accept() => match accepted {
                    Ok((socket, peer)) => {
                        tasks.spawn(gateway::serve(shared.clone(), socket, peer));
                    }
                    Err(error) => {
                        // Mostly too many open files: it passes when connections end.
                        tracing::warn!(%error, "a connection could not be accepted");
                        sleep(ACCEPT_PAUSE).await;
                    }
                },
                Some(ended) = tasks.join_next(), if !tasks.is_empty() => report_panic(ended),
            }
        }
        drop(listener);
        housekeeping.abort();
        let drained = drain(&shared, tasks).await;
        let closed = timeout(CLOSE_WITHIN, shared.log.close()).await;
        if closed.is_err() {
            tracing::error!("the log didn't close in time; everything that was acknowledged is durable");
        }
        let orderly = drained && closed.is_ok();
        let report = shared.counters.report(shared.log.stats(), orderly);
        tracing::info!(
            connections = report.connections,
            actions = report.actions,
            receipts = report.receipts,
            orderly,
            "ended"
        );
        report
    }
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server")
            .field("address", &self.shared.address)
            .finish_non_exhaustive()
    }
}

/// A panic ends its connection, and nothing else.
fn report_panic(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(%error, "a connection's task panicked");
    }
}

/// Ends connections, then threads; whether all ended by themselves in time.
async fn drain(shared: &Arc<Shared>, mut tasks: JoinSet<()>) -> bool {
    let until = Instant::now() + Duration::from_millis(shared.config.times.drain_ms);
    shared.draining.send_replace(true);
    for (number, mailbox) in shared.connections().iter() {
        mailbox.drain(shared.retry_after_ms(*number));
    }
    let connections = timeout_at(until, async { while tasks.join_next().await.is_some() {} }).await;
    tasks.shutdown().await;
    // Threads get a moment of their own, also where clients took all of the time.
    let threads = timeout(
        Duration::from_millis(shared.config.times.drain_ms),
        shared.threads.stop(),
    )
    .await;
    connections.is_ok() && threads.is_ok()
}

/// What is done now and then: specs expire (S8), sessions and counters are forgotten.
async fn keep_house(shared: Arc<Shared>) {
    let mut rounds = interval(Duration::from_millis(shared.config.times.expiry_ms.max(1)));
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        rounds.tick().await;
        shared.registry.sweep();
        shared.threads.sweep();
        shared.addresses.sweep(shared.clock.monotonic());
        match shared.log.due(shared.clock.wall(), DUE_PAGE).await {
            Ok(due) => due
                .into_iter()
                .for_each(|thread_id| shared.threads.expire(&shared, thread_id)),
            Err(error) => {
                tracing::error!(%error, "the log could not be asked for specs that expire")
            }
        }
    }
}

/// The key that signs checkpoints (K6): made once, then kept, since clients pin it.
async fn server_key(log: &dyn Log, clock: &Clock) -> Result<SecretKey, BindError> {
    let failed = |why: &dyn std::fmt::Display| BindError::Key { why: why.to_string() };
    if let Some(kept) = log.get(KEY).await.map_err(|error| failed(&error))? {
        let seed: [u8; 32] = kept.try_into().map_err(|_| failed(&"what is kept isn't 32 bytes"))?;
        return Ok(SecretKey::from_seed(&seed));
    }
    let seed: [u8; 32] = clock.random().map_err(|error| failed(&error))?;
    log.put(KEY, seed.to_vec()).await.map_err(|error| failed(&error))?;
    Ok(SecretKey::from_seed(&seed))
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;

    use choir_log::memory::MemoryLog;
    use choir_protocol::ids::{LogId, ThreadId};

    use super::*;

    #[test]
    fn a_thread_that_is_woken_while_the_runtime_ends_holds_nothing_up() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let log = Arc::new(MemoryLog::new(LogId::v7(1, [7; 10])));
        let config = Config::new(([127, 0, 0, 1], 0).into());
        let server = runtime.block_on(Server::bind(config, log)).unwrap();
        let shared = server.shared.clone();
        let handle = runtime.handle().clone();
        drop((server, runtime));
        let (ended, has_ended) = mpsc::channel();
        thread::spawn(move || {
            let _entered = handle.enter();
            shared.threads.expire(&shared, ThreadId::v7(1, [1; 10]));
            ended.send(shared.threads.active()).unwrap();
        });
        assert_eq!(has_ended.recv_timeout(Duration::from_secs(20)), Ok(0));
    }
}
