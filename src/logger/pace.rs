//! How fast a backlog is replayed beside live records. Pure: time is an argument.

use bytesize::ByteSize;
use std::time::Duration;

/// The least that a replay starts with: a second of it is a few frames.
const START_BYTES: f64 = 4.0 * 1024.0 * 1024.0;
/// Credit from live records that is kept for a replay: more would be a burst.
const MOST_CREDIT: f64 = 8.0 * 1024.0 * 1024.0;

/// What a replay may take.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct PaceSettings {
    /// While live records wait: the share of all bytes that may be replayed ones, 0.01 to 0.99.
    pub(crate) share: f64,
    /// At any time: bytes a second. `None`: as fast as the sink takes them, at once.
    pub(crate) max_bytes_per_second: Option<ByteSize>,
}

impl Default for PaceSettings {
    fn default() -> Self {
        PaceSettings { share: 0.5, max_bytes_per_second: None }
    }
}

#[derive(Debug)]
pub(super) struct Pace {
    settings: PaceSettings,
    /// Bytes that live records have earned for the replay.
    credit: f64,
    /// Bytes a second: it doubles each second after a recovery, so that a thousand servers whose broker is back do not all come at once.
    rate: f64,
    /// Bytes that may go now; below zero after a frame larger than it.
    tokens: f64,
    last: Duration,
}

impl Pace {
    pub(super) fn new(settings: PaceSettings) -> Self {
        let mut pace = Pace { settings, credit: 0.0, rate: 0.0, tokens: 0.0, last: Duration::ZERO };
        pace.restart(Duration::ZERO);
        pace
    }

    /// The sink is back: starts slowly again, each process at a rate of its own.
    pub(super) fn restart(&mut self, now: Duration) {
        self.rate = START_BYTES * (0.5 + fastrand::f64());
        self.tokens = 0.0;
        self.last = now;
    }

    /// Live records were handed to the sink.
    pub(super) fn live(&mut self, bytes: u64) {
        let share = self.settings.share;
        self.credit = (self.credit + bytes as f64 * share / (1.0 - share)).min(MOST_CREDIT);
    }

    /// Whether a frame may be replayed now. `live_waits`: more live records wait than a sink that keeps up would leave.
    pub(super) fn allows(&mut self, now: Duration, live_waits: bool) -> bool {
        if let Some(most) = self.settings.max_bytes_per_second {
            let passed = now.saturating_sub(self.last).as_secs_f64();
            let most = most.as_u64() as f64;
            self.rate = (self.rate * passed.exp2()).min(most);
            self.tokens = (self.tokens + self.rate * passed).min(self.rate / 10.0);
            self.last = now;
            if self.tokens < 0.0 {
                return false;
            }
        }
        !live_waits || self.credit > 0.0
    }

    pub(super) fn replayed(&mut self, bytes: u64) {
        self.tokens -= bytes as f64;
        self.credit = (self.credit - bytes as f64).max(-MOST_CREDIT);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAME: u64 = 256 * 1024;

    fn replayed_in(pace: &mut Pace, from: u64, to: u64, live: u64, waits: bool) -> u64 {
        let mut bytes = 0;
        for millis in from..to {
            pace.live(live);
            while pace.allows(Duration::from_millis(millis), waits) && bytes < 1 << 40 {
                pace.replayed(FRAME);
                bytes += FRAME;
            }
        }
        bytes
    }

    #[test]
    fn live_records_that_wait_leave_a_replay_its_share() {
        let mut pace = Pace::new(PaceSettings { share: 0.25, max_bytes_per_second: None });
        let bytes = replayed_in(&mut pace, 0, 1_000, 90_000, true) as f64;
        assert!((bytes / 30_000_000.0 - 1.0).abs() < 0.02, "{bytes}");
        assert!(pace.allows(Duration::from_secs(2), false), "and none when none waits");
    }

    #[test]
    fn a_replay_starts_slowly_and_ends_at_its_limit() {
        let limit = ByteSize::mib(64);
        let mut pace = Pace::new(PaceSettings { share: 0.5, max_bytes_per_second: Some(limit) });
        let first = replayed_in(&mut pace, 0, 1_000, 0, false);
        assert!(first < 12 << 20, "{first}");
        replayed_in(&mut pace, 1_000, 10_000, 0, false);
        let late = replayed_in(&mut pace, 10_000, 11_000, 0, false) as f64;
        assert!((late / limit.as_u64() as f64 - 1.0).abs() < 0.05, "{late}");
        pace.restart(Duration::from_secs(11));
        assert!(replayed_in(&mut pace, 11_000, 12_000, 0, false) < 12 << 20);
    }
}
