//! What a server is told before it starts: addresses, names, limits (section 12) and times.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use choir_core::decide::ThreadLimits;
use choir_protocol::ids::Audience;
use choir_protocol::message::{HeartbeatTimes, Limits};

use crate::environment::{Environment, System};

/// What a server is told. [`Config::new`] gives the protocol's defaults.
#[derive(Clone)]
pub struct Config {
    /// Where to listen. Port 0 takes a free one: [`local_addr`](crate::Server::local_addr).
    pub listen: SocketAddr,
    /// The audiences that signatures may be made for (C4). Where it is empty on loopback: the loopback origins of the bound port.
    pub audiences: Vec<Audience>,
    /// The public origins that a browser's `Origin` must be one of (T4), like `https://choir.example`. On loopback every loopback name is one, whatever its port.
    pub origins: Vec<String>,
    /// Whether to listen without TLS on another address than loopback (T3): behind a proxy that ends TLS, or for development.
    pub in_the_clear: bool,
    /// The limits of section 12 marked ◦, which `control.hello` tells clients.
    pub limits: Limits,
    /// The limits of section 12 that the core decides by.
    pub thread_limits: ThreadLimits,
    /// The limits that guard the server itself.
    pub guard: Guard,
    /// When pings come, and when pongs are late (C9).
    pub heartbeat: HeartbeatTimes,
    /// How long things may take.
    pub times: Times,
    /// Time and chance.
    pub environment: Arc<dyn Environment>,
}

/// The limits that guard the server: section 12's without ◦, and what bounds its memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Guard {
    /// Connections not yet authenticated, for each IPv4 address or IPv6 /64.
    pub unauthenticated_per_ip: usize,
    /// Failed authentications a minute, for each IPv4 address or IPv6 /64.
    pub failed_authentications_per_minute: u32,
    /// Fragments of one message.
    pub max_fragments: usize,
    /// Threads that a user may create in a day.
    pub threads_per_day: u64,
    /// Members that a user may add in a day, those of new threads included.
    pub members_per_day: u64,
    /// Connections in all.
    pub max_connections: usize,
    /// Sessions that are kept while their client is away.
    pub max_sessions: usize,
    /// Threads in memory.
    pub max_active_threads: usize,
}

impl Default for Guard {
    fn default() -> Self {
        Self {
            unauthenticated_per_ip: 20,
            failed_authentications_per_minute: 10,
            max_fragments: 1_024,
            threads_per_day: 100,
            members_per_day: 200,
            max_connections: 100_000,
            max_sessions: 100_000,
            max_active_threads: 50_000,
        }
    }
}

/// How long things may take, in milliseconds. Tests shorten them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    /// Until an HTTP request's headers are complete.
    pub upgrade_ms: u64,
    /// Until a connection is authenticated (C2).
    pub authentication_ms: u64,
    /// Until a message that has begun to arrive is complete (section 12).
    pub message_ms: u64,
    /// Until a session ends whose client is away (C5).
    pub session_ms: u64,
    /// How long a new connection waits for the older one's actions (A7).
    pub takeover_ms: u64,
    /// How long actions wait for an append of unknown outcome (A10).
    pub append_ms: u64,
    /// Until a thread that nobody acts on leaves memory.
    pub idle_thread_ms: u64,
    /// Between two looks for specs that expire (S8).
    pub expiry_ms: u64,
    /// Between two updates that only move a cursor along (Y12).
    pub empty_update_ms: u64,
    /// Until a followed thread is read again that couldn't be read.
    pub reread_ms: u64,
    /// How long a client may take nothing of what waits for it, before its connection is given up.
    pub stalled_ms: u64,
    /// How long a shutdown waits for clients and threads (C10).
    pub drain_ms: u64,
    /// The window that clients' return is spread over (C10).
    pub return_window_ms: u64,
}

impl Default for Times {
    fn default() -> Self {
        Self {
            upgrade_ms: 10_000,
            authentication_ms: 10_000,
            message_ms: 30_000,
            session_ms: 600_000,
            takeover_ms: 5_000,
            append_ms: 5_000,
            idle_thread_ms: 60_000,
            expiry_ms: 5_000,
            empty_update_ms: 10_000,
            reread_ms: 1_000,
            stalled_ms: 60_000,
            drain_ms: 5_000,
            return_window_ms: 5_000,
        }
    }
}

impl Config {
    /// The protocol's defaults, on this address.
    pub fn new(listen: SocketAddr) -> Self {
        Self {
            listen,
            audiences: Vec::new(),
            origins: Vec::new(),
            in_the_clear: false,
            limits: Limits::default(),
            thread_limits: ThreadLimits::default(),
            guard: Guard::default(),
            heartbeat: HeartbeatTimes::default(),
            times: Times::default(),
            environment: Arc::new(System),
        }
    }

    /// The audiences of a server that was bound to this address (C4).
    pub(crate) fn audiences_at(&self, bound: SocketAddr) -> Result<Vec<Audience>, BindError> {
        if !self.audiences.is_empty() {
            return Ok(self.audiences.clone());
        }
        if !bound.ip().is_loopback() {
            return Err(BindError::NoAudience { address: bound });
        }
        let port = bound.port();
        let names = ["127.0.0.1", "localhost", "[::1]"];
        // `of_url` leaves the default port out, as clients do.
        Ok(names
            .iter()
            .filter_map(|name| Audience::of_url(&format!("http://{name}:{port}")).ok())
            .collect())
    }

    /// Whether a browser page of this origin may connect (T4).
    pub(crate) fn allows_origin(&self, origin: &str, bound: SocketAddr) -> bool {
        self.origins.iter().any(|own| own == origin) || (bound.ip().is_loopback() && is_loopback_origin(origin))
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("listen", &self.listen)
            .field("audiences", &self.audiences)
            .field("origins", &self.origins)
            .field("in_the_clear", &self.in_the_clear)
            .finish_non_exhaustive()
    }
}

fn is_loopback_origin(origin: &str) -> bool {
    let Some((_, host_port)) = origin
        .split_once("://")
        .filter(|(scheme, _)| matches!(*scheme, "http" | "https"))
    else {
        return false;
    };
    let is_port = |port: &str| {
        port.is_empty()
            || port
                .strip_prefix(':')
                .is_some_and(|digits| digits.parse::<u16>().is_ok())
    };
    ["localhost", "127.0.0.1", "[::1]"]
        .iter()
        .any(|name| host_port.strip_prefix(name).is_some_and(is_port))
}

/// Why a server didn't start.
#[derive(Debug)]
#[non_exhaustive]
pub enum BindError {
    /// The address isn't loopback, and nobody said that it may be spoken on without TLS (T3).
    InTheClear {
        /// The address.
        address: SocketAddr,
    },
    /// The address isn't loopback, and no audience was configured (C4).
    NoAudience {
        /// The address.
        address: SocketAddr,
    },
    /// The system refused the address.
    Listen {
        /// The address.
        address: SocketAddr,
        /// What it said.
        source: std::io::Error,
    },
    /// The server's key couldn't be read or kept.
    Key {
        /// What happened.
        why: String,
    },
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InTheClear { address } => write!(
                f,
                "{address} isn't loopback, and this server has no TLS of its own: put a proxy that ends TLS in front of it and allow listening in the clear"
            ),
            Self::NoAudience { address } => {
                write!(
                    f,
                    "{address} isn't loopback: name the origin that clients dial, like https://choir.example, as an audience"
                )
            }
            Self::Listen { address, source } => {
                write!(f, "could not listen on {address}: {source}")
            }
            Self::Key { why } => write!(f, "the server's key could not be read or kept: {why}"),
        }
    }
}

impl std::error::Error for BindError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Listen { source, .. } => Some(source),
            Self::InTheClear { .. } | Self::NoAudience { .. } | Self::Key { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t4_loopback_names_are_origins_on_loopback_whatever_their_port() {
        let config = Config::new(([127, 0, 0, 1], 0).into());
        let bound = ([127, 0, 0, 1], 8080).into();
        for origin in [
            "http://localhost",
            "http://localhost:5173",
            "https://127.0.0.1:1",
            "http://[::1]:80",
        ] {
            assert!(config.allows_origin(origin, bound), "{origin}");
        }
        for origin in [
            "null",
            "http://localhost.evil.example",
            "http://evil.example",
            "http://localhost:x",
            "file://localhost",
        ] {
            assert!(!config.allows_origin(origin, bound), "{origin}");
        }
        assert!(!config.allows_origin("http://localhost", ([10, 0, 0, 1], 80).into()));
    }

    #[test]
    fn c4_loopback_audiences_bear_the_bound_port() {
        let config = Config::new(([127, 0, 0, 1], 0).into());
        let texts: Vec<_> = config
            .audiences_at(([127, 0, 0, 1], 8080).into())
            .unwrap()
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(
            texts,
            ["http://127.0.0.1:8080", "http://localhost:8080", "http://[::1]:8080"]
        );
        assert!(matches!(
            config.audiences_at(([10, 0, 0, 1], 80).into()),
            Err(BindError::NoAudience { .. })
        ));
    }
}
