//! Values around `inputs` and `outputs`, in any form that they may have.

use super::keys::{Found, Keys};
use super::scan::{Cursor, Syntax};
use super::time::Clock;
use super::{LineError, end, sentinel};

#[inline]
pub(super) fn read_timestamp(cursor: &mut Cursor<'_>, clock: &mut Clock) -> Result<Result<i64, LineError>, Syntax> {
    let start = cursor.pos;
    if cursor.peek() == Some(b'"')
        && let Some(micros) = clock.parse(cursor.string()?.raw)
    {
        return Ok(Ok(micros));
    }
    cursor.pos = start;
    cursor.skip_value()?;
    Ok(Err(LineError::BadTimestamp { value: cursor.since(start).chars().take(64).collect() }))
}

#[inline]
pub(super) fn read_int(cursor: &mut Cursor<'_>) -> Result<Option<i64>, Syntax> {
    if let Some(b'-' | b'0'..=b'9') = cursor.peek() {
        let (number, text) = cursor.number()?;
        return Ok(number.as_i64(text));
    }
    cursor.skip_value()?;
    Ok(None)
}

#[inline]
pub(super) fn read_double(cursor: &mut Cursor<'_>) -> Result<Option<f64>, Syntax> {
    match cursor.peek() {
        Some(b'-' | b'0'..=b'9') => {
            let (number, text) = cursor.number()?;
            Ok(Some(number.as_f64(text).0).filter(|value| value.is_finite()))
        }
        Some(b'"') => Ok(sentinel(&cursor.string()?)),
        _ => cursor.skip_value().map(|_| None),
    }
}

/// The `timestamp` of a line that the decoder may accept, before it is decoded.
///
/// # Errors
/// As the decoder's, as far as it reads: the first key of our own lines, all of a foreign line.
pub(crate) fn timestamp_of(line: &str, clock: &mut Clock) -> Result<i64, LineError> {
    const HEAD: &[u8] = b"{\"timestamp\":\"";
    if let Some(rest) = line.as_bytes().strip_prefix(HEAD)
        && let Some(bytes) = rest.first_chunk::<27>()
        && rest.get(27) == Some(&b'"')
        && let Some(micros) = clock.canonical(bytes)
    {
        return Ok(micros);
    }
    let mut cursor = Cursor::new(line);
    let mut scratch = String::new();
    let mut keys = Keys::new(["timestamp"]);
    let mut timestamp = None;
    cursor.skip_space();
    if cursor.peek() != Some(b'{') {
        cursor.skip_value()?;
        end(&mut cursor)?;
        return Err(LineError::NotAnObject);
    }
    if cursor.enter(b'}') {
        loop {
            if let Found::Known(_) = keys.read(None, &mut cursor, &mut scratch)? {
                let found = read_timestamp(&mut cursor, clock)?;
                timestamp.get_or_insert(found);
            } else {
                cursor.skip_value()?;
            }
            if !cursor.more(b'}', "',' or '}'")? {
                break;
            }
        }
    }
    end(&mut cursor)?;
    timestamp.unwrap_or(Err(LineError::NoTimestamp))
}
