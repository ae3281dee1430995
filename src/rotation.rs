//! When an open file is finished.

use crate::clock::{Now, Timestamp};
use bytesize::ByteSize;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// When an open segment is sealed into a finished file: at whichever limit is reached first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RotationSettings {
    /// At this many records.
    pub max_rows: u64,
    /// At this many bytes of encoded records, before compression.
    pub max_bytes: ByteSize,
    /// When the file has been open this long.
    #[serde(with = "humantime_serde")]
    pub max_age: Duration,
    /// When nothing has been written to it for this long: no data must not leave a file open for ever.
    #[serde(with = "humantime_serde")]
    pub max_idle: Duration,
    /// At each whole multiple of this on the UTC wall clock (`1h`: at every full hour). Not set: never.
    #[serde(with = "humantime_serde")]
    pub schedule: Option<Duration>,
}

impl Default for RotationSettings {
    fn default() -> Self {
        RotationSettings {
            max_rows: 1_000_000,
            max_bytes: ByteSize::mib(512),
            max_age: Duration::from_secs(300),
            max_idle: Duration::from_secs(60),
            schedule: None,
        }
    }
}

/// Which limit finished a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RotationReason {
    /// `rotation.max_rows`.
    Rows,
    /// `rotation.max_bytes`.
    Bytes,
    /// `rotation.max_age`.
    Age,
    /// `rotation.max_idle`.
    Idle,
    /// `rotation.schedule`.
    Schedule,
    /// A record has a column that the file has not.
    Schema,
}

/// One open file's counts. Pure: time is an argument.
#[derive(Clone, Debug)]
pub struct Rotation {
    opened: Now,
    last_write: Duration,
    rows: u64,
    bytes: u64,
    schema_changed: bool,
}

impl Rotation {
    /// A file that opens now, with nothing in it.
    pub fn open(now: Now) -> Self {
        Rotation { opened: now, last_write: now.monotonic, rows: 0, bytes: 0, schema_changed: false }
    }

    /// Records were written to the file.
    pub fn wrote(&mut self, rows: u64, bytes: u64, now: Now) {
        self.rows += rows;
        self.bytes += bytes;
        self.last_write = now.monotonic;
    }

    /// The next record does not have the columns of those before.
    pub fn schema_changed(&mut self) {
        self.schema_changed = true;
    }

    /// Whether the file is finished, and why. An empty file never is.
    pub fn due(&self, settings: &RotationSettings, now: Now) -> Option<RotationReason> {
        if self.rows == 0 {
            return None;
        }
        let age = now.monotonic.saturating_sub(self.opened.monotonic);
        let idle = now.monotonic.saturating_sub(self.last_write);
        if self.schema_changed {
            Some(RotationReason::Schema)
        } else if self.rows >= settings.max_rows {
            Some(RotationReason::Rows)
        } else if self.bytes >= settings.max_bytes.as_u64() {
            Some(RotationReason::Bytes)
        } else if age >= settings.max_age {
            Some(RotationReason::Age)
        } else if idle >= settings.max_idle {
            Some(RotationReason::Idle)
        } else if settings.schedule.is_some_and(|every| slot(self.opened.wall, every) != slot(now.wall, every)) {
            Some(RotationReason::Schedule)
        } else {
            None
        }
    }

    /// Records in the file.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Bytes of the records in the file.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

/// The number of whole schedule periods since 1970: it changes where the wall clock crosses a boundary.
fn slot(wall: Timestamp, every: Duration) -> i64 {
    let every = i64::try_from(every.as_micros()).unwrap_or(i64::MAX).max(1);
    wall.micros().div_euclid(every)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Now {
        Now { monotonic: Duration::from_secs(seconds), wall: Timestamp::from_micros(1_000_000 * (7_199 + seconds as i64)) }
    }

    fn settings() -> RotationSettings {
        RotationSettings {
            max_rows: 10,
            max_bytes: ByteSize::b(1_000),
            max_age: Duration::from_secs(100),
            max_idle: Duration::from_secs(20),
            schedule: None,
        }
    }

    fn with(rows: u64, bytes: u64) -> Rotation {
        let mut rotation = Rotation::open(at(0));
        rotation.wrote(rows, bytes, at(0));
        rotation
    }

    #[test]
    fn an_empty_file_is_never_due() {
        assert_eq!(Rotation::open(at(0)).due(&settings(), at(1_000_000)), None);
    }

    #[test]
    fn each_limit_names_itself() {
        assert_eq!(with(9, 999).due(&settings(), at(1)), None);
        assert_eq!(with(10, 1).due(&settings(), at(1)), Some(RotationReason::Rows));
        assert_eq!(with(1, 1_000).due(&settings(), at(1)), Some(RotationReason::Bytes));
        assert_eq!(with(1, 1).due(&settings(), at(20)), Some(RotationReason::Idle));
        let mut busy = with(1, 1);
        (1..=5).for_each(|step| busy.wrote(1, 1, at(step * 19)));
        assert_eq!(busy.due(&settings(), at(99)), None);
        busy.wrote(1, 1, at(99));
        assert_eq!(busy.due(&settings(), at(100)), Some(RotationReason::Age));
        let mut changed = with(1, 1);
        changed.schema_changed();
        assert_eq!(changed.due(&settings(), at(1)), Some(RotationReason::Schema));
    }

    #[test]
    fn a_schedule_is_due_when_the_wall_clock_crosses_it() {
        let hourly = RotationSettings { schedule: Some(Duration::from_secs(3_600)), ..settings() };
        assert_eq!(with(1, 1).due(&hourly, at(0)), None);
        assert_eq!(with(1, 1).due(&hourly, at(1)), Some(RotationReason::Schedule));
    }
}
