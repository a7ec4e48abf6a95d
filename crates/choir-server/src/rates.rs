//! Rates and quotas (section 12): token buckets of a user, counters of an address, a day's quota.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use choir_core::session::Monotonic;
use choir_protocol::ids::{Timestamp, UserId};

use crate::config::Guard;

/// How much a bucket holds beyond one second (section 12: burst 3×).
const BURST: u64 = 3;

/// A token bucket, counted in thousandths of a token so that a millisecond's worth is whole.
#[derive(Debug, Clone)]
pub(crate) struct Bucket {
    per_second: u64,
    level: u64,
    filled_at: Monotonic,
}

impl Bucket {
    pub(crate) fn full(per_second: u64, now: Monotonic) -> Self {
        Self {
            per_second,
            level: per_second.saturating_mul(1000 * BURST),
            filled_at: now,
        }
    }

    /// Takes a token, or says in how many milliseconds there is one.
    pub(crate) fn take(&mut self, now: Monotonic) -> Result<(), u64> {
        let gained = now.since(self.filled_at).saturating_mul(self.per_second);
        self.level = self
            .level
            .saturating_add(gained)
            .min(self.per_second.saturating_mul(1000 * BURST));
        self.filled_at = now;
        match self.level.checked_sub(1000) {
            Some(rest) => {
                self.level = rest;
                Ok(())
            }
            None => Err((1000 - self.level).div_ceil(self.per_second.max(1)).max(1)),
        }
    }
}

/// An IPv4 address, or the /64 of an IPv6 address: what one household or machine has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Prefix(u64);

impl Prefix {
    fn of(ip: IpAddr) -> Self {
        match ip.to_canonical() {
            // Below 2^32, which no routed /64 is.
            IpAddr::V4(v4) => Self(u64::from(u32::from(v4))),
            IpAddr::V6(v6) => Self((u128::from(v6) >> 64) as u64),
        }
    }
}

#[derive(Debug, Default)]
struct Address {
    waiting: usize,
    /// In the minute that began then.
    failures: u32,
    minute: Monotonic,
}

const MINUTE_MS: u64 = 60_000;

/// What is counted for each address: connections that aren't authenticated yet, and failed authentications.
#[derive(Debug)]
pub(crate) struct Addresses {
    known: Mutex<HashMap<Prefix, Address>>,
    guard: Guard,
}

/// The right to be connected without having authenticated; given back when dropped.
#[derive(Debug)]
pub(crate) struct Ticket {
    addresses: Arc<Addresses>,
    prefix: Prefix,
}

impl Addresses {
    pub(crate) fn new(guard: Guard) -> Self {
        Self {
            known: Mutex::default(),
            guard,
        }
    }

    fn known(&self) -> MutexGuard<'_, HashMap<Prefix, Address>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// None where too many of the address aren't authenticated yet.
    pub(crate) fn enter(self: &Arc<Self>, ip: IpAddr) -> Option<Ticket> {
        let prefix = Prefix::of(ip);
        let mut known = self.known();
        let address = known.entry(prefix).or_default();
        if address.waiting >= self.guard.unauthenticated_per_ip {
            return None;
        }
        address.waiting += 1;
        Some(Ticket {
            addresses: self.clone(),
            prefix,
        })
    }

    /// An authentication failed.
    pub(crate) fn failed(&self, ip: IpAddr, now: Monotonic) {
        let mut known = self.known();
        let address = known.entry(Prefix::of(ip)).or_default();
        if now.since(address.minute) >= MINUTE_MS {
            address.failures = 0;
            address.minute = now;
        }
        address.failures += 1;
    }

    /// For how long no authentication of the address is looked at; none where they are.
    pub(crate) fn refused_for(&self, ip: IpAddr, now: Monotonic) -> Option<u64> {
        let known = self.known();
        let address = known.get(&Prefix::of(ip))?;
        let left = MINUTE_MS
            .checked_sub(now.since(address.minute))
            .filter(|left| *left > 0)?;
        (address.failures >= self.guard.failed_authentications_per_minute).then_some(left)
    }

    /// Forgets addresses that nothing is counted for any more.
    pub(crate) fn sweep(&self, now: Monotonic) {
        self.known().retain(|_, address| {
            address.waiting > 0 || (address.failures > 0 && now.since(address.minute) < MINUTE_MS)
        });
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut known = self.addresses.known();
        if let Some(address) = known.get_mut(&self.prefix) {
            address.waiting = address.waiting.saturating_sub(1);
            if address.waiting == 0 && address.failures == 0 {
                known.remove(&self.prefix);
            }
        }
    }
}

const DAY_MS: u64 = 24 * 60 * 60 * 1000;

#[derive(Debug, Default)]
struct Today {
    day: u64,
    used: HashMap<UserId, Use>,
}

/// What a user did in a day that is counted.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Use {
    pub(crate) threads: u64,
    pub(crate) members: u64,
}

/// The quotas of a day (section 12). They begin anew at midnight UTC.
#[derive(Debug)]
pub(crate) struct Quotas {
    today: Mutex<Today>,
    guard: Guard,
}

impl Quotas {
    pub(crate) fn new(guard: Guard) -> Self {
        Self {
            today: Mutex::default(),
            guard,
        }
    }

    fn today(&self) -> MutexGuard<'_, Today> {
        self.today.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes from the user's quota; false where that isn't enough.
    pub(crate) fn take(&self, user: &UserId, more: Use, now: Timestamp) -> bool {
        let mut today = self.today();
        let day = now.get() / DAY_MS;
        if today.day != day {
            *today = Today {
                day,
                used: HashMap::new(),
            };
        }
        let used = today.used.entry(user.clone()).or_default();
        let after = Use {
            threads: used.threads + more.threads,
            members: used.members + more.members,
        };
        if after.threads > self.guard.threads_per_day || after.members > self.guard.members_per_day {
            return false;
        }
        *used = after;
        true
    }

    /// Gives back what wasn't used after all.
    pub(crate) fn give_back(&self, user: &UserId, unused: Use) {
        let mut today = self.today();
        if let Some(used) = today.used.get_mut(user) {
            used.threads = used.threads.saturating_sub(unused.threads);
            used.members = used.members.saturating_sub(unused.members);
            if *used == Use::default() {
                today.used.remove(user);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Monotonic {
        Monotonic::from_ms(ms)
    }

    #[test]
    fn a_bucket_holds_three_seconds_and_fills_evenly() {
        let mut bucket = Bucket::full(20, at(0));
        assert!((0..60).all(|_| bucket.take(at(0)).is_ok()));
        assert_eq!(bucket.take(at(0)), Err(50));
        assert_eq!(bucket.take(at(49)), Err(1));
        assert_eq!(bucket.take(at(50)), Ok(()));
        assert_eq!(bucket.take(at(50)), Err(50));
        assert!((0..60).all(|_| bucket.take(at(100_000)).is_ok()));
        assert!(bucket.take(at(100_000)).is_err());
    }

    #[test]
    fn unauthenticated_connections_are_counted_by_ipv4_address_and_ipv6_64() {
        let addresses = Arc::new(Addresses::new(Guard {
            unauthenticated_per_ip: 1,
            ..Guard::default()
        }));
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let first = addresses.enter(ip("192.0.2.1"));
        assert!(first.is_some());
        assert!(addresses.enter(ip("::ffff:192.0.2.1")).is_none());
        let other = addresses.enter(ip("2001:db8:0:1::1"));
        assert!(other.is_some());
        assert!(addresses.enter(ip("2001:db8:0:1::2")).is_none());
        assert!(addresses.enter(ip("2001:db8:0:2::1")).is_some());
        drop(first);
        assert!(addresses.enter(ip("192.0.2.1")).is_some());
    }

    #[test]
    fn ten_failures_a_minute_block_an_address_until_the_minute_is_over() {
        let addresses = Addresses::new(Guard::default());
        let ip = IpAddr::from([192, 0, 2, 1]);
        for _ in 0..10 {
            assert_eq!(addresses.refused_for(ip, at(70_000)), None);
            addresses.failed(ip, at(70_000));
        }
        assert_eq!(addresses.refused_for(ip, at(100_000)), Some(30_000));
        assert_eq!(addresses.refused_for(ip, at(130_000)), None);
        addresses.sweep(at(130_000));
        assert!(addresses.known().is_empty());
    }

    #[test]
    fn a_quota_is_for_a_day_and_gives_back_what_was_not_used() {
        let quotas = Quotas::new(Guard {
            threads_per_day: 1,
            members_per_day: 3,
            ..Guard::default()
        });
        let user: UserId = "someone".parse().unwrap();
        let day = |n: u64| Timestamp::saturating(n * DAY_MS);
        let thread = Use { threads: 1, members: 2 };
        assert!(quotas.take(&user, thread, day(1)));
        assert!(!quotas.take(&user, thread, day(1)));
        quotas.give_back(&user, thread);
        assert!(quotas.take(&user, thread, day(1)));
        assert!(quotas.take(&user, thread, day(2)));
    }
}
