//! No faster than the server takes (section 12): a bucket of three seconds' worth that fills at the server's rate. What is sent beyond the rate is only
//! refused, and with it everything behind it (A3).

/// How many seconds' worth may go at once: the burst of section 12.
const BURST_SECONDS: u64 = 3;
const MILLI: u64 = 1_000;

/// A bucket of permissions to send.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    per_second: u64,
    /// Thousandths of a permission: what one millisecond at one a second gives.
    filled: u64,
    at: u64,
}

impl Pace {
    /// A full bucket.
    pub(super) const fn new(per_second: u64, now: u64) -> Self {
        Self {
            per_second,
            filled: Self::capacity(per_second),
            at: now,
        }
    }

    const fn capacity(per_second: u64) -> u64 {
        per_second.saturating_mul(BURST_SECONDS * MILLI)
    }

    /// The server names another rate.
    pub(super) fn set_rate(&mut self, per_second: u64, now: u64) {
        self.fill(now);
        self.per_second = per_second.max(1);
        self.filled = self.filled.max(Self::capacity(self.per_second));
    }

    fn fill(&mut self, now: u64) {
        let gained = now.saturating_sub(self.at).saturating_mul(self.per_second);
        self.filled = self.filled.saturating_add(gained).min(Self::capacity(self.per_second));
        self.at = now;
    }

    /// Takes one permission, where there is one.
    pub(super) fn take(&mut self, now: u64) -> bool {
        self.fill(now);
        match self.filled.checked_sub(MILLI) {
            Some(rest) => {
                self.filled = rest;
                true
            }
            None => false,
        }
    }

    /// Others of this user have used up what there was: the server said so.
    pub(super) fn empty(&mut self, now: u64) {
        self.fill(now);
        self.filled = 0;
    }

    /// When there will be a permission.
    pub(super) const fn next_at(&self) -> u64 {
        let missing = MILLI.saturating_sub(self.filled);
        self.at.saturating_add(missing.div_ceil(self.per_second))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_goes_at_once_and_the_rest_at_the_rate() {
        let mut pace = Pace::new(20, 1_000);
        let sent = (0..100).filter(|_| pace.take(1_000)).count();
        assert_eq!(sent, 60);
        assert_eq!(pace.next_at(), 1_050);
        assert!(!pace.take(1_049));
        assert!(pace.take(1_050));
        let sent: usize = (1_051..=2_050).map(|now| usize::from(pace.take(now))).sum();
        assert_eq!(sent, 20);
    }

    #[test]
    fn a_refusal_empties_the_bucket() {
        let mut pace = Pace::new(20, 0);
        pace.empty(0);
        assert!(!pace.take(49));
        assert!(pace.take(50));
    }

    #[test]
    fn no_rate_overflows_or_stands_still() {
        let mut pace = Pace::new(u64::MAX, 0);
        assert!(pace.take(u64::MAX));
        pace.set_rate(0, u64::MAX);
        pace.empty(u64::MAX);
        assert_eq!(pace.next_at(), u64::MAX);
    }
}
