//! Timestamps: RFC 3339 text to UTC microseconds.

/// Reads timestamps, remembering the last day: neighbours share it.
#[derive(Debug, Default)]
pub(crate) struct Clock {
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

impl Clock {
    /// Microseconds since 1970 of a timestamp as our encoder writes it: `2026-11-23T03:34:18.123456Z`. `None` for any other form.
    #[inline]
    pub fn canonical(&mut self, bytes: &[u8; 27]) -> Option<i64> {
        if bytes[..11] != self.day {
            self.turn(bytes)?;
        }
        let (hour, minute, second) = (two(bytes, 11, 24)?, two(bytes, 14, 60)?, two(bytes, 17, 60)?);
        let micros = (two(bytes, 20, 100)? * 100 + two(bytes, 22, 100)?) * 100 + two(bytes, 24, 100)?;
        let punctuation = [bytes[13], bytes[16], bytes[19], bytes[26]] == *b"::.Z";
        punctuation.then(|| self.day_micros + ((hour * 60 + minute) * 60 + second) * 1_000_000 + micros)
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
