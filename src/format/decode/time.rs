//! Timestamps: RFC 3339 text to UTC microseconds.

use super::number::eight_digits;

/// Reads timestamps, remembering the last second and the last day: neighbours share them.
#[derive(Debug, Default)]
pub(crate) struct Clock {
    second: [u8; 20],
    second_micros: i64,
    day: [u8; 11],
    day_micros: i64,
}

/// Two digits at `at`, less than `limit`.
#[inline]
fn two(bytes: &[u8; 27], at: usize, limit: i64) -> Option<i64> {
    let (tens, units) = (bytes[at].wrapping_sub(b'0'), bytes[at + 1].wrapping_sub(b'0'));
    let value = i64::from(tens) * 10 + i64::from(units);
    (tens < 10 && units < 10 && value < limit).then_some(value)
}

/// The six digits before the `Z`, all in one step.
#[inline(always)]
fn micros(bytes: &[u8; 27]) -> Option<i64> {
    let word = u64::from_le_bytes(*bytes.last_chunk::<8>()?);
    // What is left of each byte: 0 to 9 of a digit, 0 of the point and the `Z`. Anything else sets the high bit, and carries at most into bytes behind it.
    let offset = word ^ u64::from_le_bytes(*b".000000Z");
    let others = (offset.wrapping_add(0x7f76_7676_7676_767f) | offset) & 0x8080_8080_8080_8080;
    (others == 0).then(|| eight_digits(offset << 8) as i64)
}

impl Clock {
    /// Microseconds since 1970 of a timestamp as our encoder writes it: `2026-11-23T03:34:18.123456Z`. `None` for any other form.
    #[inline]
    pub fn canonical(&mut self, bytes: &[u8; 27]) -> Option<i64> {
        let micros = micros(bytes)?;
        if bytes[..20] != self.second {
            self.tick(bytes)?;
        }
        Some(self.second_micros + micros)
    }

    #[inline(never)]
    fn tick(&mut self, bytes: &[u8; 27]) -> Option<()> {
        if bytes[..11] != self.day {
            self.turn(bytes)?;
        }
        let (hour, minute, second) = (two(bytes, 11, 24)?, two(bytes, 14, 60)?, two(bytes, 17, 60)?);
        if [bytes[13], bytes[16], bytes[19]] != *b"::." {
            return None;
        }
        self.second_micros = self.day_micros + ((hour * 60 + minute) * 60 + second) * 1_000_000;
        self.second.copy_from_slice(&bytes[..20]);
        Some(())
    }

    #[cold]
    fn turn(&mut self, bytes: &[u8; 27]) -> Option<()> {
        let year = two(bytes, 0, 100)? * 100 + two(bytes, 2, 100)?;
        let (month, day) = (two(bytes, 5, 13)?, two(bytes, 8, 32)?);
        if [bytes[4], bytes[7], bytes[10]] != *b"--T" {
            return None;
        }
        let date = jiff::civil::Date::new(i16::try_from(year).ok()?, i8::try_from(month).ok()?, i8::try_from(day).ok()?).ok()?;
        self.day_micros = date.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp().as_microsecond();
        self.day.copy_from_slice(&bytes[..11]);
        Some(())
    }

    /// Any RFC 3339 timestamp; finer than a microsecond is cut off (towards the past).
    pub fn parse(&mut self, text: &str) -> Option<i64> {
        if let Some(micros) =
            text.as_bytes().first_chunk::<27>().filter(|_| text.len() == 27).and_then(|bytes| self.canonical(bytes))
        {
            return Some(micros);
        }
        let time: jiff::Timestamp = text.parse().ok()?;
        i64::try_from(time.as_nanosecond().div_euclid(1_000)).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_that_is_wrong_is_seen_wherever_it_is() {
        const TEXT: &[u8; 27] = b"2026-11-23T03:34:18.123456Z";
        for at in 0..27 {
            for byte in 0..=u8::MAX {
                let mut text = *TEXT;
                text[at] = byte;
                // With this second in mind, and with none.
                let mut clock = Clock::default();
                let want = std::str::from_utf8(&text).ok().and_then(|text| text.parse::<jiff::Timestamp>().ok());
                let digit_for_digit =
                    TEXT[at].is_ascii_digit() == byte.is_ascii_digit() && (byte.is_ascii_digit() || byte == TEXT[at]);
                let want = want.filter(|_| digit_for_digit).map(|time| time.as_microsecond());
                assert_eq!(clock.canonical(&text), want, "{}", String::from_utf8_lossy(&text));
                assert!(clock.canonical(TEXT).is_some());
                assert_eq!(clock.canonical(&text), want, "{}", String::from_utf8_lossy(&text));
            }
        }
    }

    #[test]
    fn canonical_and_foreign_forms_agree_with_jiff() {
        let mut clock = Clock::default();
        for text in [
            "2026-11-23T03:34:18.123456Z",
            "2026-11-23T23:59:59.999999Z",
            "1969-12-31T23:59:59.999999Z",
            "2024-02-29T00:00:00.000000Z",
            "2026-11-23T03:34:18Z",
            "2026-11-23T03:34:18.1+05:30",
            "2026-11-23t03:34:18.000001z",
        ] {
            let time: jiff::Timestamp = text.parse().expect("a timestamp");
            assert_eq!(clock.parse(text), Some(time.as_microsecond()), "{text}");
        }
        assert_eq!(clock.parse("1969-12-31T23:59:59.999999999Z"), Some(-1));
        for bad in ["2023-02-29T00:00:00.000000Z", "2026-13-01T00:00:00.000000Z", "2026-11-23T24:00:00.000000Z", "yesterday", ""]
        {
            assert_eq!(clock.parse(bad), None, "{bad}");
        }
    }
}
