use std::collections::HashSet;
use std::mem;
use std::sync::{Mutex, MutexGuard, PoisonError};

use choir_core::client::keys::KnownSignatures;
use choir_protocol::hash::Hash;

/// How many signatures a generation holds: two generations of 32-byte hashes are a few megabytes.
const GENERATION: usize = 65_536;

/// Signatures that were checked and hold, shared by many clients of one process ([`Config::share_signatures`](crate::Config::share_signatures)). Bounded: the older
/// half is forgotten when the newer one is full.
#[derive(Debug, Default)]
pub struct SharedSignatures(Mutex<Generations>);

#[derive(Debug, Default)]
struct Generations {
    newer: HashSet<Hash>,
    older: HashSet<Hash>,
}

impl SharedSignatures {
    fn lock(&self) -> MutexGuard<'_, Generations> {
        // Sets of hashes are whole after any panic: at worst one is missing, and is checked again.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl KnownSignatures for SharedSignatures {
    fn holds(&self, check: &Hash) -> bool {
        let generations = self.lock();
        generations.newer.contains(check) || generations.older.contains(check)
    }

    fn learn(&self, check: Hash) {
        let mut generations = self.lock();
        if generations.newer.len() >= GENERATION {
            generations.older = mem::take(&mut generations.newer);
        }
        generations.newer.insert(check);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_is_bounded_and_the_newest_is_kept() {
        let known = SharedSignatures::default();
        let check = |n: usize| Hash::of(&n.to_be_bytes());
        let count = 3 * GENERATION;
        for n in 0..count {
            known.learn(check(n));
        }
        assert!(known.holds(&check(count - 1)));
        assert!(known.holds(&check(count - GENERATION)));
        assert!(!known.holds(&check(0)));
        let generations = known.lock();
        assert!(generations.newer.len() + generations.older.len() <= 2 * GENERATION);
    }
}
