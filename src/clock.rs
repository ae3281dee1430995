//! Time as an argument: everything that depends on it takes a [`Now`], and only [`Clock`] reads the machine's clocks.

use std::fmt;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The length of a formatted [`Timestamp`]: `2026-11-23T03:34:18.123456Z`.
pub const TIMESTAMP_LEN: usize = 27;

/// 0001-01-01T00:00:00Z, the smallest time that RFC 3339 and every reader's calendar share.
const MIN_MICROS: i64 = -62_135_596_800_000_000;
/// 9999-12-30T22:00:00.999999Z, the largest that jiff knows: in every time zone it is of the year 9999. What formats later ones could not be read back.
const MAX_MICROS: i64 = 253_402_207_200_999_999;
const MICROS_PER_DAY: i64 = 86_400_000_000;

/// A point in time: UTC microseconds since 1970, from year 1 to 30 December 9999. What is outside is moved to the nearer end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// From microseconds since 1970 UTC.
    pub fn from_micros(micros: i64) -> Self {
        Timestamp(micros.clamp(MIN_MICROS, MAX_MICROS))
    }

    /// Microseconds since 1970 UTC.
    pub fn micros(self) -> i64 {
        self.0
    }

    /// Parses RFC 3339 with any offset and any number of fractional digits (those past the sixth are cut).
    ///
    /// # Errors
    /// Says what it was given and what it expected.
    pub fn parse(text: &str) -> Result<Self, String> {
        let parsed = text.parse::<jiff::Timestamp>().ok().filter(|_| has_form(text.as_bytes()));
        let at = parsed.ok_or_else(|| format!("timestamp={text:?} is not RFC 3339 such as \"2026-11-23T03:34:18.123456Z\""))?;
        let micros = at.as_microsecond();
        if !(MIN_MICROS..=MAX_MICROS).contains(&micros) {
            return Err(format!("timestamp={text:?}: expected a time of the years 1 to 9999"));
        }
        Ok(Timestamp(micros))
    }

    /// The RFC 3339 text, always [`TIMESTAMP_LEN`] bytes, UTC, six fractional digits.
    pub fn format(self) -> [u8; TIMESTAMP_LEN] {
        let days = self.0.div_euclid(MICROS_PER_DAY);
        let in_day = self.0.rem_euclid(MICROS_PER_DAY) as u64;
        let (year, month, day) = civil_from_days(days);
        let (seconds, micros) = ((in_day / 1_000_000) as u32, (in_day % 1_000_000) as u32);
        let mut text = *b"0000-00-00T00:00:00.000000Z";
        put2(&mut text, 0, year / 100);
        put2(&mut text, 2, year % 100);
        put2(&mut text, 5, month);
        put2(&mut text, 8, day);
        put2(&mut text, 11, seconds / 3600);
        put2(&mut text, 14, seconds / 60 % 60);
        put2(&mut text, 17, seconds % 60);
        put2(&mut text, 20, micros / 10_000);
        put2(&mut text, 22, micros / 100 % 100);
        put2(&mut text, 24, micros % 100);
        text
    }
}

/// `YYYY-MM-DDTHH:MM:SS…` with `Z` or `±HH:MM` at its end: jiff takes more forms of ISO 8601 than other readers of RFC 3339 do.
fn has_form(text: &[u8]) -> bool {
    let marks = [(4, b"-"), (7, b"-"), (13, b":"), (16, b":")];
    let zone = match text {
        [.., b'Z' | b'z'] => true,
        [.., b'+' | b'-', h1, _, b':', _, _] => *h1 < b'2' || text[text.len() - 4] < b'4',
        _ => false,
    };
    zone && text.len() >= 20 && text[0] != b'-' && text[0] != b'+' && marks.iter().all(|(at, mark)| text[*at] == mark[0])
}

impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        let micros = match time.duration_since(UNIX_EPOCH) {
            // In 64 bits, where `as_micros` takes 128.
            Ok(after) => i64::try_from(after.as_secs())
                .map_or(i64::MAX, |seconds| seconds.saturating_mul(1_000_000).saturating_add(i64::from(after.subsec_micros()))),
            Err(before) => i64::try_from(before.duration().as_micros()).map_or(i64::MIN, |micros| -micros),
        };
        Timestamp::from_micros(micros)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.format()))
    }
}

/// The numbers from 0 to 99 as two digits: a record's time has ten of them.
const TWO_DIGITS: [[u8; 2]; 100] = {
    let mut digits = [[0; 2]; 100];
    let mut value = 0;
    while value < 100 {
        digits[value] = [b'0' + (value / 10) as u8, b'0' + (value % 10) as u8];
        value += 1;
    }
    digits
};

#[inline]
fn put2(text: &mut [u8; TIMESTAMP_LEN], at: usize, value: u32) {
    [text[at], text[at + 1]] = TWO_DIGITS[value as usize];
}

/// Days since 1970 to (year, month, day): Howard Hinnant's `civil_from_days`, for the years that [`Timestamp`] allows.
fn civil_from_days(days: i64) -> (u32, u32, u32) {
    // From year 0 on, so that none is negative: 32 bits divide in half the time, and this is done for each record.
    let shifted = (days + 719_468) as u32;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + u32::from(month <= 2);
    (year, month, day)
}

/// Microseconds since 1970 of the text that [`Timestamp::format`] makes; `None` for any other.
#[inline]
pub(crate) fn parse_fixed(text: &[u8]) -> Option<i64> {
    let text: &[u8; TIMESTAMP_LEN] = text.try_into().ok()?;
    for (at, mark) in [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':'), (19, b'.'), (26, b'Z')] {
        if text[at] != mark {
            return None;
        }
    }
    let two = |at: usize| -> Option<i64> {
        let (tens, ones) = (text[at].wrapping_sub(b'0'), text[at + 1].wrapping_sub(b'0'));
        (tens < 10 && ones < 10).then(|| i64::from(tens) * 10 + i64::from(ones))
    };
    let (year, month, day) = (two(0)? * 100 + two(2)?, two(5)?, two(8)?);
    let seconds = two(11)? * 3600 + two(14)? * 60 + two(17)?;
    let micros = two(20)? * 10_000 + two(22)? * 100 + two(24)?;
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    // days_from_civil, the inverse of the function above.
    let shifted_year = year - i64::from(month <= 2);
    let era = shifted_year.div_euclid(400);
    let year_of_era = shifted_year.rem_euclid(400);
    let day_of_year = (153 * (if month > 2 { month - 3 } else { month + 9 }) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    let days = era * 146_097 + day_of_era - 719_468;
    Some(days * MICROS_PER_DAY + seconds * 1_000_000 + micros)
}

/// Both clocks at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Time since an arbitrary start: never goes back. Ages and deadlines use it.
    pub monotonic: Duration,
    /// The wall clock: timestamps of records and rotation by schedule use it.
    pub wall: Timestamp,
}

/// Where the time comes from. Tests give their own.
pub trait Clock: Send + Sync + 'static {
    /// The wall clock alone: `log()` calls this once a record.
    fn wall(&self) -> Timestamp;

    /// Both clocks.
    fn now(&self) -> Now;
}

/// The machine's clocks.
#[derive(Debug)]
pub struct SystemClock {
    start: Instant,
}

impl Default for SystemClock {
    fn default() -> Self {
        SystemClock { start: Instant::now() }
    }
}

impl Clock for SystemClock {
    fn wall(&self) -> Timestamp {
        Timestamp::from(SystemTime::now())
    }

    fn now(&self) -> Now {
        Now { monotonic: self.start.elapsed(), wall: self.wall() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_as_jiff_does_over_the_whole_range() {
        let mut micros = MIN_MICROS;
        while micros < MAX_MICROS {
            let ours = Timestamp::from_micros(micros).to_string();
            let theirs = jiff::Timestamp::from_microsecond(micros).unwrap();
            assert_eq!(ours, format!("{theirs:.6}"));
            assert_eq!(parse_fixed(ours.as_bytes()), Some(micros));
            micros += 86_400_000_000 * 97 + 1_234_567_891;
        }
    }

    #[test]
    fn parses_offsets_and_fractions_and_names_what_it_cannot() {
        assert_eq!(Timestamp::parse("1970-01-01T01:00:00+01:00").unwrap().micros(), 0);
        assert_eq!(Timestamp::parse("1970-01-01T00:00:00.1234567Z").unwrap().micros(), 123_456);
        let error = Timestamp::parse("yesterday").unwrap_err();
        assert!(error.contains("yesterday") && error.contains("RFC 3339"), "{error}");
    }

    #[test]
    fn other_forms_and_years_are_refused_not_changed() {
        for good in ["2026-01-01 00:00:00z", "2026-01-01t00:00:00.5+23:59", "0001-01-01T00:00:00Z", "9999-12-30T00:00:00-00:00"] {
            Timestamp::parse(good).unwrap_or_else(|error| panic!("{error}"));
        }
        for bad in [
            "20260101T000000Z",
            "2026-01-01T00Z",
            "2026-01-01T00:00:00Z[UTC]",
            "2026-01-01T00:00:00+25:00",
            "2026-01-01T00:00:00+01",
            "é",
        ] {
            assert!(Timestamp::parse(bad).unwrap_err().contains("RFC 3339"), "{bad}");
        }
        for outside in ["0000-06-01T00:00:00Z", "0001-01-01T00:00:00+00:01"] {
            assert!(Timestamp::parse(outside).unwrap_err().contains("years 1 to 9999"), "{outside}");
        }
    }

    #[test]
    fn clamps_what_rfc_3339_cannot_say() {
        let last = Timestamp::from_micros(i64::MAX);
        assert_eq!((last.to_string().as_str(), Timestamp::parse(&last.to_string())), ("9999-12-30T22:00:00.999999Z", Ok(last)));
        assert_eq!(Timestamp::from_micros(i64::MIN).to_string(), "0001-01-01T00:00:00.000000Z");
    }
}
