//! Avro's binary form, straight from the line.

use super::schema::{Plan, Source};
use crate::format::decode::scan::{RawStr, unescape};
use crate::format::decode::{ENVELOPE, LineError, Slot};
use crate::format::wire::{Nullable, Row, Value, Wire, for_each_entry};

/// Avro's binary form.
pub(super) enum Binary {}

/// An integer: zigzag, then seven bits a byte, the lowest first.
fn long(out: &mut Vec<u8>, value: i64) {
    let mut rest = ((value << 1) ^ (value >> 63)) as u64;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

fn string(out: &mut Vec<u8>, text: &str) {
    long(out, text.len() as i64);
    out.extend_from_slice(text.as_bytes());
}

impl Wire for Binary {
    fn null(out: &mut Vec<u8>, nullable: Nullable) -> bool {
        match nullable {
            Nullable::Never => return false,
            Nullable::First => out.push(0),
            Nullable::Second => out.push(2),
        }
        true
    }

    fn missing(out: &mut Vec<u8>, nullable: Nullable) -> bool {
        Self::null(out, nullable)
    }

    fn some(out: &mut Vec<u8>, nullable: Nullable) {
        match nullable {
            Nullable::Never => {}
            Nullable::First => out.push(2),
            Nullable::Second => out.push(0),
        }
    }

    fn bool(out: &mut Vec<u8>, value: bool) {
        out.push(u8::from(value));
    }

    fn int(out: &mut Vec<u8>, value: i64) {
        long(out, value);
    }

    fn double(out: &mut Vec<u8>, value: f64, _: &mut bool) -> bool {
        out.extend_from_slice(&value.to_le_bytes());
        true
    }

    fn text(out: &mut Vec<u8>, text: &RawStr<'_>, scratch: &mut String) -> bool {
        if !text.escaped {
            string(out, text.raw);
            return true;
        }
        scratch.clear();
        let exact = unescape(text.raw, scratch);
        string(out, scratch);
        exact
    }

    fn begin_list(_: &mut Vec<u8>) {}

    fn element(_: &mut Vec<u8>) {}

    fn end_list(out: &mut Vec<u8>, start: usize, elements: usize) {
        // One block of all elements, behind their count, which is known only now.
        if elements > 0 {
            let end = out.len();
            long(out, elements as i64);
            let count = out.len() - end;
            out[start..].rotate_right(count);
        }
        out.push(0);
    }

    fn begin_struct(_: &mut Vec<u8>) {}

    fn key(_: &mut Vec<u8>, _: &[u8]) {}

    fn end_struct(_: &mut Vec<u8>) {}
}

/// Appends the line as a record. Returns whether it has a field that may get a column.
pub(super) fn write_record(plan: &mut Plan, line: &[u8], out: &mut Vec<u8>, scratch: &mut String) -> Result<bool, LineError> {
    let row = plan.lines.read::<Binary>(line)?;
    for &(source, nullable) in &plan.fields {
        match source {
            Source::Value(at) => write_value(&row, at, nullable, out, scratch)?,
            Source::Side(side) => out.extend_from_slice(&plan.lines.written[side]),
            Source::Raw(side) => match row.raw[side] {
                Some(raw) => {
                    Binary::some(out, nullable);
                    string(out, raw);
                }
                None => null(out, nullable),
            },
            Source::Nothing => null(out, nullable),
        }
    }
    Ok(row.new_field)
}

/// The plan has no field that cannot be null and may be missing.
fn null(out: &mut Vec<u8>, nullable: Nullable) {
    Binary::null(out, nullable);
}

fn write_value(row: &Row<'_>, at: usize, nullable: Nullable, out: &mut Vec<u8>, scratch: &mut String) -> Result<(), LineError> {
    let value = &row.values[at];
    let integer = match ENVELOPE[at].1 {
        Slot::Timestamp => Some(row.timestamp),
        Slot::Int(_) => value.as_i64(),
        Slot::Status => value.as_i64().filter(|&status| i32::try_from(status).is_ok()),
        Slot::Double(_) => {
            match value.as_f64() {
                Some(value) => {
                    Binary::some(out, nullable);
                    Binary::double(out, value, &mut true);
                }
                None => null(out, nullable),
            }
            return Ok(());
        }
        Slot::Metadata => return write_metadata(value, nullable, out, scratch),
        Slot::Ignored | Slot::Text(_) | Slot::Side(_) => {
            if matches!(value, Value::Null) {
                null(out, nullable);
            } else {
                Binary::some(out, nullable);
                write_text(value, out, scratch);
            }
            return Ok(());
        }
    };
    match integer {
        Some(value) => {
            Binary::some(out, nullable);
            long(out, value);
        }
        None => null(out, nullable),
    }
    Ok(())
}

/// The value as text: a string as it is, anything else as its JSON. A lone surrogate becomes U+FFFD.
fn write_text(value: &Value<'_>, out: &mut Vec<u8>, scratch: &mut String) {
    match value {
        Value::Null => string(out, ""),
        Value::Json(json) => string(out, json),
        Value::Text(text) => {
            Binary::text(out, text, scratch);
        }
    }
}

fn write_metadata(value: &Value<'_>, nullable: Nullable, out: &mut Vec<u8>, scratch: &mut String) -> Result<(), LineError> {
    let Some(json) = (match value {
        Value::Json(json) if json.starts_with('{') => Some(json),
        _ => None,
    }) else {
        null(out, nullable);
        return Ok(());
    };
    Binary::some(out, nullable);
    let (start, mut entries) = (out.len(), 0);
    for_each_entry(json, |key, value| {
        Binary::text(out, &key, scratch);
        write_text(&value, out, scratch);
        entries += 1;
    })?;
    Binary::end_list(out, start, entries);
    Ok(())
}
