//! Waiting before trying again (C11): full jitter, capped.

use super::entropy::Entropy;

/// The first wait's bound.
const BASE_MS: u64 = 500;
/// The bound of every wait.
const CAP_MS: u64 = 30_000;

/// How long a connection must have been authenticated for the count to start anew.
pub(super) const SETTLED_MS: u64 = 10_000;

/// The count of tries and the wait that follows from it.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Backoff {
    attempt: u32,
}

impl Backoff {
    /// A count that goes on after so many tries.
    pub(super) const fn after(attempt: u32) -> Self {
        Self { attempt }
    }

    /// How many tries failed in a row.
    pub(super) const fn attempt(self) -> u32 {
        self.attempt
    }

    /// Starts the count anew.
    pub(super) fn reset(&mut self) {
        self.attempt = 0;
    }

    /// The next wait: a random time in [0, min(30 s, 0.5 s · 2^attempt)], or what the server asked for.
    pub(super) fn next_ms(&mut self, entropy: &mut Entropy, retry_after_ms: Option<u64>) -> u64 {
        let bound = BASE_MS
            .saturating_mul(1_u64.checked_shl(self.attempt).unwrap_or(u64::MAX))
            .min(CAP_MS);
        self.attempt = self.attempt.saturating_add(1);
        retry_after_ms.unwrap_or_else(|| entropy.up_to(bound))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c11_backoff_is_full_jitter_and_capped() {
        let mut entropy = Entropy::from_seed([7; 32]);
        for (attempt, bound) in [500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000]
            .into_iter()
            .enumerate()
        {
            let mut waits = alloc::vec::Vec::new();
            for _ in 0..200 {
                let mut backoff = Backoff {
                    attempt: attempt as u32,
                };
                waits.push(backoff.next_ms(&mut entropy, None));
            }
            assert!(waits.iter().all(|wait| *wait <= bound));
            assert!(waits.iter().any(|wait| *wait < bound / 4), "low waits occur");
            assert!(waits.iter().any(|wait| *wait > bound - bound / 4), "high waits occur");
        }
        let mut backoff = Backoff { attempt: u32::MAX };
        assert!(backoff.next_ms(&mut entropy, None) <= CAP_MS);
        assert_eq!(backoff.attempt(), u32::MAX);
    }

    #[test]
    fn c11_the_server_may_name_the_wait() {
        let mut entropy = Entropy::from_seed([7; 32]);
        let mut backoff = Backoff::default();
        assert_eq!(backoff.next_ms(&mut entropy, Some(12_345)), 12_345);
        assert_eq!(backoff.attempt(), 1);
        backoff.reset();
        assert!(backoff.next_ms(&mut entropy, None) <= 500);
    }
}
