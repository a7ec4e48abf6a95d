//! Time and chance: the one seam through which both come in, so that tests can hold them still.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use choir_core::session::{Monotonic, Now};
use choir_protocol::ids::Timestamp;
use tokio::time::{Duration, Instant};

/// Where a server's wall clock and its random bytes come from. Waiting is the runtime's affair, whose clock tests can pause.
pub trait Environment: Send + Sync + 'static {
    /// Unix time.
    fn wall(&self) -> Timestamp;

    /// Fills the bytes with what nobody can guess: challenges, session tokens and the server's key are made of it.
    ///
    /// # Errors
    /// Where the system has none to give.
    fn fill(&self, bytes: &mut [u8]) -> Result<(), NoRandomness>;
}

/// The system gave no random bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoRandomness;

impl fmt::Display for NoRandomness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the system gave no random bytes")
    }
}

impl std::error::Error for NoRandomness {}

/// The system's clock and the system's randomness.
#[derive(Debug, Clone, Copy, Default)]
pub struct System;

impl Environment for System {
    fn wall(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp::saturating(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }

    fn fill(&self, bytes: &mut [u8]) -> Result<(), NoRandomness> {
        getrandom::fill(bytes).map_err(|_| NoRandomness)
    }
}

/// Both clocks of a server.
pub(crate) struct Clock {
    environment: std::sync::Arc<dyn Environment>,
    start: Instant,
    wall_at_start: Timestamp,
}

impl Clock {
    pub(crate) fn new(environment: std::sync::Arc<dyn Environment>) -> Self {
        let wall_at_start = environment.wall();
        Self {
            environment,
            start: Instant::now(),
            wall_at_start,
        }
    }

    pub(crate) fn wall(&self) -> Timestamp {
        self.environment.wall()
    }

    pub(crate) fn monotonic(&self) -> Monotonic {
        Monotonic::from_ms(u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    pub(crate) fn now(&self) -> Now {
        Now {
            wall: self.wall(),
            monotonic: self.monotonic(),
        }
    }

    /// The runtime's moment of a reading. One millisecond later, since readings are cut to whole ones and a timer must never come too early.
    pub(crate) fn instant(&self, at: Monotonic) -> Instant {
        self.start + Duration::from_millis(at.as_ms().min(FAR_MS) + 1)
    }

    pub(crate) fn random<const N: usize>(&self) -> Result<[u8; N], NoRandomness> {
        let mut bytes = [0; N];
        self.environment.fill(&mut bytes)?;
        Ok(bytes)
    }

    /// Whether the wall clock is one that people would believe: not before this software was written, and not run away from the other clock (readyz).
    pub(crate) fn is_sane(&self) -> bool {
        let wall = self.wall();
        let expected = self.wall_at_start.plus_ms(self.monotonic().as_ms());
        wall.get() >= EARLIEST_MS && wall.get().abs_diff(expected.get()) <= DRIFT_MS
    }
}

/// Ten years: further than any timer, and far from where the runtime's arithmetic ends.
const FAR_MS: u64 = 10 * 365 * 24 * 60 * 60 * 1000;
/// 2025-01-01.
const EARLIEST_MS: u64 = 1_735_689_600_000;
/// K3's tolerance: a clock that jumped further has begun to refuse honest actions.
const DRIFT_MS: u64 = 5 * 60 * 1000;
