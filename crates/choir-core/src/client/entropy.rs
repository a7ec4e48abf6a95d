//! Random bytes without a source of randomness: what is drawn follows from the seed that the caller brings.

use choir_protocol::hash::Hash;
use choir_protocol::ids::{Id, Salt, ThreadId, Timestamp};

/// A generator of unpredictable bytes: SHA-256 over a secret seed and a counter. Equal seeds give equal bytes, so a simulation replays.
#[derive(Clone)]
pub struct Entropy {
    seed: [u8; 32],
    drawn: u64,
}

impl Entropy {
    /// A generator that grows from 32 bytes of the system's random source.
    pub const fn from_seed(seed: [u8; 32]) -> Self {
        Self { seed, drawn: 0 }
    }

    /// The next bytes.
    pub fn bytes<const N: usize>(&mut self) -> [u8; N] {
        const { assert!(N <= 32, "one hash gives 32 bytes") };
        let block = Hash::of_parts(&[b"choir client entropy", &self.seed, &self.drawn.to_be_bytes()]);
        self.drawn = self.drawn.wrapping_add(1);
        let mut bytes = [0; N];
        for (to, from) in bytes.iter_mut().zip(block.as_bytes()) {
            *to = *from;
        }
        bytes
    }

    /// A whole number in [0, `bound`], close enough to uniform for waiting times: the bound is far below 2^64.
    pub fn up_to(&mut self, bound: u64) -> u64 {
        let drawn = u64::from_be_bytes(self.bytes());
        match bound.checked_add(1) {
            Some(values) => drawn % values,
            None => drawn,
        }
    }

    /// A new message's id (UUID version 7).
    pub fn id(&mut self, wall: Timestamp) -> Id {
        Id::v7(wall.get(), self.bytes())
    }

    /// A new thread's id (S1).
    pub fn thread_id(&mut self, wall: Timestamp) -> ThreadId {
        ThreadId::v7(wall.get(), self.bytes())
    }

    /// A salt (L4).
    pub fn salt(&mut self) -> Salt {
        Salt::from_bytes(self.bytes())
    }
}

/// The seed is as secret as the salts that grow from it.
impl core::fmt::Debug for Entropy {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Entropy(…)")
    }
}
