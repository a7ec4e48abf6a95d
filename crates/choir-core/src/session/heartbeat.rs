//! The server's half of the heartbeat (C9) as a plain value: when to ping, and when a pong is late.

use super::Monotonic;
use choir_protocol::message::HeartbeatTimes;

/// After this long a pong is late whatever else came (C9).
const LATE_IN_ANY_CASE_MS: u64 = 60_000;

/// What the heartbeat asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beat {
    /// Nothing yet.
    Wait,
    /// Send a ping now.
    Ping,
    /// The pong is late: the connection is lost.
    Late,
}

#[derive(Debug, Clone, Copy)]
enum Phase {
    Resting {
        ping_at: Monotonic,
    },
    AwaitPong {
        /// Since when nothing was heard and nothing was taken.
        quiet_since: Monotonic,
        pinged_at: Monotonic,
        counted_from: Monotonic,
    },
}

/// When pings go out and pongs are late. Where the server itself doesn't read, its clock stands still.
#[derive(Debug, Clone)]
pub struct Heartbeat {
    times: HeartbeatTimes,
    phase: Phase,
    paused_at: Option<Monotonic>,
    latency_ms: Option<u64>,
}

impl Heartbeat {
    /// Begins with `control.session`. `jitter` is random: all of its range spreads the interval over ±10 %.
    pub fn new(times: HeartbeatTimes, now: Monotonic, jitter: u16) -> Self {
        Self {
            times,
            phase: Phase::Resting {
                ping_at: now.plus_ms(interval(times, jitter)),
            },
            paused_at: None,
            latency_ms: None,
        }
    }

    /// Something was received from the client.
    pub fn received(&mut self, now: Monotonic) {
        if let Phase::AwaitPong { quiet_since, .. } = &mut self.phase {
            *quiet_since = now;
        }
    }

    /// The client's side has taken bytes from the send queue, the kernel's included.
    pub fn queue_shrank(&mut self, now: Monotonic) {
        self.received(now);
    }

    /// The pong came.
    pub fn pong(&mut self, now: Monotonic, jitter: u16) {
        if let Phase::AwaitPong { pinged_at, .. } = self.phase {
            self.latency_ms = Some(now.since(pinged_at));
            self.phase = Phase::Resting {
                ping_at: now.plus_ms(interval(self.times, jitter)),
            };
        }
    }

    /// The server stops or begins to read (A2): time in which it doesn't read doesn't count.
    pub fn reading(&mut self, reads: bool, now: Monotonic) {
        match (reads, self.paused_at) {
            (false, None) => self.paused_at = Some(now),
            (true, Some(since)) => {
                self.paused_at = None;
                let pause = now.since(since);
                if let Phase::AwaitPong {
                    quiet_since,
                    counted_from,
                    ..
                } = &mut self.phase
                {
                    *quiet_since = quiet_since.plus_ms(pause);
                    *counted_from = counted_from.plus_ms(pause);
                }
            }
            (false, Some(_)) | (true, None) => {}
        }
    }

    /// What is due now.
    pub fn tick(&mut self, now: Monotonic) -> Beat {
        match self.phase {
            Phase::Resting { ping_at } if now >= ping_at => {
                self.phase = Phase::AwaitPong {
                    quiet_since: now,
                    pinged_at: now,
                    counted_from: now,
                };
                Beat::Ping
            }
            Phase::AwaitPong { .. } if self.paused_at.is_none() && now >= self.late_at() => Beat::Late,
            Phase::Resting { .. } | Phase::AwaitPong { .. } => Beat::Wait,
        }
    }

    /// When to ask again; none while the server doesn't read.
    pub fn wake_at(&self) -> Option<Monotonic> {
        match self.phase {
            Phase::Resting { ping_at } => Some(ping_at),
            Phase::AwaitPong { .. } if self.paused_at.is_some() => None,
            Phase::AwaitPong { .. } => Some(self.late_at()),
        }
    }

    /// The round trip of the last ping: the connection's latency (C9).
    pub const fn latency_ms(&self) -> Option<u64> {
        self.latency_ms
    }

    fn late_at(&self) -> Monotonic {
        match self.phase {
            Phase::Resting { ping_at } => ping_at,
            Phase::AwaitPong {
                quiet_since,
                counted_from,
                ..
            } => quiet_since
                .plus_ms(self.times.timeout_ms)
                .min(counted_from.plus_ms(LATE_IN_ANY_CASE_MS)),
        }
    }
}

/// The interval ±10 % (C9).
fn interval(times: HeartbeatTimes, jitter: u16) -> u64 {
    let tenth = times.interval_ms / 10;
    times.interval_ms - tenth + 2 * tenth * u64::from(jitter) / u64::from(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Monotonic {
        Monotonic::from_ms(ms)
    }

    fn pinged() -> Heartbeat {
        let mut heartbeat = Heartbeat::new(HeartbeatTimes::default(), at(0), u16::MAX / 2);
        assert_eq!(heartbeat.tick(at(33_000)), Beat::Ping);
        heartbeat
    }

    #[test]
    fn c9_pings_come_every_30_s_give_or_take_a_tenth() {
        let wake = |jitter| Heartbeat::new(HeartbeatTimes::default(), at(0), jitter).wake_at();
        assert_eq!(wake(0), Some(at(27_000)));
        assert_eq!(wake(u16::MAX), Some(at(33_000)));
    }

    #[test]
    fn c9_a_silent_client_is_late_after_5_s() {
        let mut heartbeat = pinged();
        assert_eq!(heartbeat.tick(at(37_999)), Beat::Wait);
        assert_eq!(heartbeat.tick(at(38_000)), Beat::Late);
    }

    #[test]
    fn c9_a_slow_link_that_takes_bytes_is_not_killed_before_60_s() {
        let mut heartbeat = pinged();
        for second in 34..93 {
            heartbeat.queue_shrank(at(second * 1_000));
            assert_eq!(heartbeat.tick(at(second * 1_000)), Beat::Wait);
        }
        assert_eq!(heartbeat.tick(at(93_000)), Beat::Late);
    }

    #[test]
    fn c9_time_in_which_the_server_does_not_read_does_not_count() {
        let mut heartbeat = pinged();
        heartbeat.reading(false, at(34_000));
        assert_eq!(heartbeat.tick(at(80_000)), Beat::Wait);
        assert_eq!(heartbeat.wake_at(), None);
        heartbeat.reading(true, at(80_000));
        assert_eq!(heartbeat.tick(at(83_999)), Beat::Wait);
        assert_eq!(heartbeat.tick(at(84_000)), Beat::Late);
    }

    #[test]
    fn c9_the_pong_measures_the_latency() {
        let mut heartbeat = pinged();
        heartbeat.pong(at(33_042), 0);
        assert_eq!(heartbeat.latency_ms(), Some(42));
        assert_eq!(heartbeat.wake_at(), Some(at(60_042)));
    }
}
