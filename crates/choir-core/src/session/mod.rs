//! The server's side of a session as machines and values without I/O and without a clock.
//!
//! [`Connection`] is the machine of one WebSocket connection; what would swell it is a value of its own: [`sequence`] (A2 to A7), [`heartbeat`] (C9),
//! [`subscription`] (Y3 to Y8).

pub mod connection;
pub mod heartbeat;
pub mod sequence;
pub mod subscription;

pub use connection::{Connection, Input, Output};

/// A reading of a clock that never goes back, in milliseconds since some start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Monotonic(u64);

impl Monotonic {
    /// A reading.
    pub const fn from_ms(ms: u64) -> Self {
        Self(ms)
    }

    /// Milliseconds since the start.
    pub const fn as_ms(self) -> u64 {
        self.0
    }

    /// This reading and `ms` milliseconds.
    #[must_use]
    pub const fn plus_ms(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }

    /// Milliseconds from `earlier` to this; 0 where that is later.
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// Both clocks at one moment: the wall's, which people and signatures know, and one that never goes back, for waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// Unix time.
    pub wall: choir_protocol::ids::Timestamp,
    /// For waiting.
    pub monotonic: Monotonic,
}
