//! Times as Confluent's partitioners reckon with them.

use jiff::civil::{Date, DateTime, Time};
use jiff::tz::{Offset, TimeZone};
use jiff::{Timestamp, ToSpan as _};

/// A zone by its name, or by its offset: `+02:00`.
pub(in crate::connect) fn zone(name: &str) -> Option<TimeZone> {
    if let Ok(zone) = TimeZone::get(name) {
        return Some(zone);
    }
    let (sign, rest) = match name.split_at_checked(1)? {
        ("+", rest) => (1, rest),
        ("-", rest) => (-1, rest),
        _ => return None,
    };
    let (hours, minutes) = rest.split_once(':').unwrap_or((rest, "0"));
    let (hours, minutes): (i32, i32) = (hours.parse().ok()?, minutes.parse().ok()?);
    ((0..24).contains(&hours) && (0..60).contains(&minutes)).then_some(())?;
    Offset::from_seconds(sign * (hours * 3_600 + minutes * 60)).ok().map(TimeZone::fixed)
}

/// When the directory of a time begins: the local time, without what is over a whole multiple of the duration.
pub(super) fn begin_of(time_ms: i64, duration_ms: i64, zone: &TimeZone) -> i64 {
    let offset_at = |ms: i64| {
        let time = Timestamp::from_millisecond(ms).ok()?;
        Some(i64::from(zone.to_offset(time).seconds()) * 1_000)
    };
    let Some(offset) = offset_at(time_ms) else { return time_ms };
    // As Java divides: towards zero.
    let local = (time_ms.saturating_add(offset) / duration_ms) * duration_ms;
    // Back from the local time, by the offset that is there then.
    let zoned = Timestamp::from_millisecond(local).ok().and_then(|local| {
        let civil = Offset::UTC.to_datetime(local);
        zone.to_ambiguous_timestamp(civil).compatible().ok()
    });
    zoned.map_or(local.saturating_sub(offset), |time| time.as_millisecond())
}

/// When files are finished next: the multiples of the interval begin anew each midnight.
pub(in crate::connect) fn next_rotation(now_ms: i64, interval_ms: i64, zone: &TimeZone) -> Option<i64> {
    let day = Timestamp::from_millisecond(now_ms).ok()?.to_zoned(zone.clone());
    let begin = day.start_of_day().ok()?;
    let length = begin.checked_add(1.day()).ok()?.start_of_day().ok()?.timestamp().as_millisecond();
    let begin = begin.timestamp().as_millisecond();
    let next = interval_ms.checked_mul((now_ms - begin) / interval_ms + 1)?.checked_add(begin)?;
    Some(next.min(length))
}

/// ISO 8601: a date, a local time (in UTC) or an instant.
pub(super) fn parse(text: &str) -> Option<i64> {
    if let Ok(time) = text.parse::<Timestamp>() {
        return Some(time.as_millisecond());
    }
    let local =
        text.parse::<DateTime>().ok().or_else(|| text.parse::<Date>().ok().map(|date| date.to_datetime(Time::midnight())))?;
    TimeZone::UTC.to_timestamp(local).ok().map(|time| time.as_millisecond())
}
