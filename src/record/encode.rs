//! A prediction into its line, all but the `writer` and `seq` at its end, which the lane adds.

use super::{MAX_ACTUALS_MODEL_NAME_BYTES, MAX_ID_BYTES, MAX_MODEL_NAME_BYTES, MAX_TEXT_BYTES, Prediction};
use crate::clock::{TIMESTAMP_LEN, Timestamp};
use crate::json::escape::write_str;
use crate::json::push::{push_float, push_short};
use crate::json::ser::{EncodeError, Encoded, replace_by_digest, to_json};
use crate::ledger::LEDGER_MODEL;
use serde::Serialize;
use std::cell::RefCell;
use std::fmt;
use std::ops::Range;

const HEAD: &[u8] = b"{\"timestamp\":\"";
const AFTER_TIMESTAMP: &[u8] = b"\",\"model_name\":";
/// Where a line's timestamp starts.
pub(crate) const TIMESTAMP_AT: usize = HEAD.len();
/// Where the text of a line's model name starts, behind its quote.
pub(crate) const MODEL_NAME_AT: usize = TIMESTAMP_AT + TIMESTAMP_LEN + AFTER_TIMESTAMP.len() + 1;

/// Why a prediction was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Invalid {
    /// `id` is empty or longer than [`MAX_ID_BYTES`].
    Id,
    /// `model_name` is empty or longer than [`MAX_MODEL_NAME_BYTES`]; for actuals,
    /// [`MAX_ACTUALS_MODEL_NAME_BYTES`](super::MAX_ACTUALS_MODEL_NAME_BYTES).
    ModelName,
    /// `model_name` is [`LEDGER_MODEL`](crate::ledger::LEDGER_MODEL), which only the logger itself uses.
    ReservedName,
    /// `model_version`, `request_id` or `traceparent` is longer than [`MAX_TEXT_BYTES`].
    TextTooLong,
    /// The value's own `Serialize` failed, or has a map key that JSON cannot have.
    Unserializable,
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Invalid::Id => write!(f, "id: expected 1 to {MAX_ID_BYTES} bytes"),
            Invalid::ModelName => write!(
                f,
                "model_name: expected 1 to {MAX_MODEL_NAME_BYTES} bytes, for actuals at most {MAX_ACTUALS_MODEL_NAME_BYTES}"
            ),
            Invalid::ReservedName => write!(f, "model_name: {LEDGER_MODEL:?} is the logger's own; expected another name"),
            Invalid::TextTooLong => {
                write!(f, "model_version, request_id, traceparent: expected at most {MAX_TEXT_BYTES} bytes each")
            }
            Invalid::Unserializable => f.write_str("inputs or outputs cannot be written as JSON"),
        }
    }
}

/// What [`encode`] made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Line {
    /// Fields were too large or too deep, and their digests stand in the line.
    pub digested: bool,
}

/// Writes the line's start into `out`, which is cleared first: all but the writer, the seq and the closing brace.
pub(crate) fn encode<I: Serialize + ?Sized, O: Serialize + ?Sized>(
    out: &mut Vec<u8>,
    prediction: &Prediction<'_, I, O>,
    now: Timestamp,
    max_bytes: usize,
) -> Result<Line, Invalid> {
    check(prediction)?;
    out.clear();
    out.extend_from_slice(HEAD);
    out.extend_from_slice(&prediction.timestamp.unwrap_or(now).format());
    out.extend_from_slice(AFTER_TIMESTAMP);
    write_str(out, prediction.model_name);
    out.extend_from_slice(b",\"id\":");
    match prediction.id {
        Some(id) => write_str(out, id),
        None => write_uuid_v7(out, now),
    }
    text(out, b",\"model_version\":", prediction.model_version);
    let mut big = BigFields::default();
    out.extend_from_slice(b",\"inputs\":");
    big.add(out, prediction.inputs, max_bytes)?;
    out.extend_from_slice(b",\"outputs\":");
    big.add(out, prediction.outputs, max_bytes)?;
    text(out, b",\"request_id\":", prediction.request_id);
    let (row_index, too_large) = split_row_index(prediction.row_index);
    integer(out, b",\"row_index\":", row_index);
    integer(out, b",\"status_code\":", prediction.status_code.map(u64::from));
    if let Some(error) = prediction.error {
        out.extend_from_slice(b",\"error\":");
        big.add(out, error, max_bytes)?;
    }
    optional_float(out, b",\"latency_ms\":", prediction.latency_ms);
    optional_float(out, b",\"sample_weight\":", prediction.sample_weight);
    if !prediction.metadata.is_empty() || too_large.is_some() {
        out.extend_from_slice(b",\"metadata\":");
        big.add(out, &Metadata { given: prediction.metadata, row_index: too_large }, max_bytes)?;
    }
    text(out, b",\"traceparent\":", prediction.traceparent);
    big.shrink(out, max_bytes);
    Ok(Line { digested: big.digested })
}

fn check<I: ?Sized, O: ?Sized>(prediction: &Prediction<'_, I, O>) -> Result<(), Invalid> {
    if prediction.model_name.is_empty() || prediction.model_name.len() > MAX_MODEL_NAME_BYTES {
        return Err(Invalid::ModelName);
    }
    if prediction.model_name == LEDGER_MODEL {
        return Err(Invalid::ReservedName);
    }
    if prediction.id.is_some_and(|id| id.is_empty() || id.len() > MAX_ID_BYTES) {
        return Err(Invalid::Id);
    }
    let texts = [prediction.model_version, prediction.request_id, prediction.traceparent];
    if texts.into_iter().flatten().any(|text| text.len() > MAX_TEXT_BYTES) {
        return Err(Invalid::TextTooLong);
    }
    Ok(())
}

/// The fields that may be any size: at most four, so that no memory is asked for.
#[derive(Default)]
struct BigFields {
    spans: [Range<usize>; 4],
    count: usize,
    digested: bool,
}

impl BigFields {
    #[inline]
    fn add<T: Serialize + ?Sized>(&mut self, out: &mut Vec<u8>, value: &T, max_bytes: usize) -> Result<(), Invalid> {
        let start = out.len();
        let encoded = to_json(out, value, max_bytes).map_err(|error: EncodeError| {
            tracing::debug!(%error, "a prediction could not be serialised");
            Invalid::Unserializable
        })?;
        self.digested |= encoded == Encoded::Digest;
        self.spans[self.count] = start..out.len();
        self.count += 1;
        Ok(())
    }

    /// Each field is under the limit, but together they may not be: the largest go first.
    #[inline]
    fn shrink(&mut self, out: &mut Vec<u8>, max_bytes: usize) {
        while out.len() > max_bytes {
            let Some(largest) = (0..self.count).max_by_key(|&at| self.spans[at].len()) else { return };
            let span = self.spans[largest].clone();
            let shorter = span.len();
            if shorter <= 128 {
                return;
            }
            let new = replace_by_digest(out, span.clone());
            self.digested = true;
            self.spans[largest] = span.start..span.start + new;
            for later in &mut self.spans[largest + 1..self.count] {
                *later = later.start - shorter + new..later.end - shorter + new;
            }
        }
    }
}

/// What `row_index` has, and what its column, which is an i64, would not hold: number columns take null for that.
#[inline]
fn split_row_index(row_index: Option<u64>) -> (Option<u64>, Option<u64>) {
    match row_index {
        Some(index) if i64::try_from(index).is_err() => (None, Some(index)),
        index => (index, None),
    }
}

struct Metadata<'a> {
    given: &'a [(&'a str, &'a str)],
    /// One that is too large for its column.
    row_index: Option<u64>,
}

impl Serialize for Metadata<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut digits = itoa::Buffer::new();
        let row_index = self.row_index.map(|index| ("row_index", digits.format(index)));
        serializer.collect_map(self.given.iter().copied().chain(row_index))
    }
}

#[inline]
fn text(out: &mut Vec<u8>, key: &[u8], value: Option<&str>) {
    if let Some(value) = value {
        out.extend_from_slice(key);
        write_str(out, value);
    }
}

#[inline]
fn integer(out: &mut Vec<u8>, key: &[u8], value: Option<u64>) {
    if let Some(value) = value {
        out.extend_from_slice(key);
        push_short(out, itoa::Buffer::new().format(value).as_bytes());
    }
}

#[inline]
fn optional_float(out: &mut Vec<u8>, key: &[u8], value: Option<f64>) {
    if let Some(value) = value {
        out.extend_from_slice(key);
        float(out, value);
    }
}

/// A float as a line has it.
#[inline]
pub(crate) fn float(out: &mut Vec<u8>, value: f64) {
    if value.is_finite() {
        push_float(out, value);
    } else {
        out.extend_from_slice(if value.is_nan() {
            b"\"NaN\"".as_slice()
        } else if value > 0.0 {
            b"\"Infinity\""
        } else {
            b"\"-Infinity\""
        });
    }
}

thread_local! {
    /// Random bits for ids: unique is enough, they guard nothing. Seeded from the system for each thread.
    static RANDOM: RefCell<fastrand::Rng> = RefCell::new(fastrand::Rng::new());
}

/// Seeds this thread's random bits anew: a forked child starts with a copy of its parent's, and would make the same ids.
pub(crate) fn reseed() {
    RANDOM.with_borrow_mut(|rng| rng.seed(crate::unique::seed()));
}

/// A UUIDv7 (RFC 9562): 48 bits of milliseconds, 12 of the microseconds within (method 3), 62 random.
#[inline]
fn write_uuid_v7(out: &mut Vec<u8>, now: Timestamp) {
    let micros = now.micros().max(0) as u64;
    let (millis, sub) = (micros / 1_000, (micros % 1_000) * 4_096 / 1_000);
    let random = RANDOM.with_borrow_mut(|rng| rng.u64(..));
    let high = (millis << 16) | 0x7000 | sub;
    let low = (random >> 2) | 0x8000_0000_0000_0000;
    let mut digits = [0u8; 32];
    for (to, part) in digits.chunks_exact_mut(8).zip([high >> 32, high, low >> 32, low]) {
        to.copy_from_slice(&hex(part as u32));
    }
    let mut text = [b'-'; 38];
    (text[0], text[37]) = (b'"', b'"');
    for (to, from) in [(1, 0..8), (10, 8..12), (15, 12..16), (20, 16..20), (25, 20..32)] {
        text[to..to + from.len()].copy_from_slice(&digits[from]);
    }
    out.extend_from_slice(&text);
}

/// `value` as eight lower-case hex digits, all at once: a byte of a word for each.
#[inline]
fn hex(value: u32) -> [u8; 8] {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let mut digits = u64::from(value);
    digits = (digits << 16 | digits) & 0x0000_ffff_0000_ffff;
    digits = (digits << 8 | digits) & 0x00ff_00ff_00ff_00ff;
    digits = (digits << 4 | digits) & 0x0f0f_0f0f_0f0f_0f0f;
    let letters = (digits + 6 * ONES) >> 4 & ONES;
    (digits + u64::from(b'0') * ONES + letters * u64::from(b'a' - b'0' - 10)).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const AT: i64 = 1_763_868_858_123_456;

    fn encoded(prediction: &Prediction<'_, Value, Value>, max_bytes: usize) -> Result<(Value, Line), Invalid> {
        let mut out = b"left over".to_vec();
        let line = encode(&mut out, prediction, Timestamp::from_micros(AT), max_bytes)?;
        out.push(b'}');
        Ok((serde_json::from_slice(&out).unwrap(), line))
    }

    #[test]
    fn writes_every_field_in_order() {
        let (inputs, outputs) = (json!({"a": 1}), json!([0.5]));
        let prediction = Prediction::new("m\"x", "v1", &inputs, &outputs)
            .id("i")
            .request_id("r")
            .row_index(3)
            .status_code(200)
            .error("e")
            .latency_ms(f64::NAN)
            .sample_weight(2.0)
            .metadata(&[("k", "v")])
            .traceparent("t");
        let mut out = Vec::new();
        encode(&mut out, &prediction, Timestamp::from_micros(AT), 1 << 20).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            concat!(
                r#"{"timestamp":"2025-11-23T03:34:18.123456Z","model_name":"m\"x","id":"i","model_version":"v1","inputs":{"a":1},"#,
                r#""outputs":[0.5],"request_id":"r","row_index":3,"status_code":200,"error":"e","latency_ms":"NaN","#,
                r#""sample_weight":2.0,"metadata":{"k":"v"},"traceparent":"t""#
            )
        );
    }

    #[test]
    fn a_row_index_past_its_column_is_metadata() {
        let (inputs, outputs) = (json!({}), json!(1));
        let largest = i64::MAX.unsigned_abs();
        for (index, metadata) in
            [(largest, json!({"k": "v"})), (u64::MAX, json!({"k": "v", "row_index": "18446744073709551615"}))]
        {
            let prediction = Prediction::new("m", "1", &inputs, &outputs).row_index(index).metadata(&[("k", "v")]);
            let (line, _) = encoded(&prediction, 1 << 20).unwrap();
            assert_eq!((line["row_index"].as_u64(), &line["metadata"]), ((index == largest).then_some(index), &metadata));
        }
        let (line, _) = encoded(&Prediction::new("m", "1", &inputs, &outputs).row_index(largest + 1), 1 << 20).unwrap();
        assert_eq!((line.get("row_index"), &line["metadata"]), (None, &json!({"row_index": "9223372036854775808"})));
    }

    #[test]
    fn names_and_times_stand_at_constant_offsets() {
        let mut out = Vec::new();
        encode(&mut out, &Prediction::new("wine", "", &1, &2), Timestamp::from_micros(AT), 1 << 20).unwrap();
        assert_eq!(crate::record::raw_model_name(&out), Some(b"wine".as_slice()));
        assert_eq!(crate::record::timestamp_of_line(&out), Some(AT));
    }

    #[test]
    fn writes_hex_digits() {
        for value in [0, 1, 9, 10, 15, 16, 0x0123_4567, 0x89ab_cdef, 0xfedc_ba98, u32::MAX] {
            assert_eq!(hex(value), *format!("{value:08x}").as_bytes());
        }
    }

    #[test]
    fn makes_ids_that_sort_by_time_and_differ() {
        let ids: Vec<String> = (0..1_000)
            .map(|step| {
                let mut out = Vec::new();
                write_uuid_v7(&mut out, Timestamp::from_micros(AT + step * 1_000));
                String::from_utf8(out).unwrap()
            })
            .collect();
        assert!(ids.is_sorted());
        let parsed = uuid::Uuid::parse_str(ids[7].trim_matches('"')).unwrap();
        assert_eq!(parsed.get_version_num(), 7);
        assert_eq!(parsed.get_variant(), uuid::Variant::RFC4122);
        assert_eq!(ids.iter().collect::<std::collections::HashSet<_>>().len(), 1_000);
    }

    #[test]
    fn a_forked_child_makes_ids_of_its_own() {
        let id = || {
            let mut out = Vec::new();
            write_uuid_v7(&mut out, Timestamp::from_micros(AT));
            out
        };
        let seeded = || RANDOM.with_borrow_mut(|rng| rng.seed(7));
        seeded();
        let parents = id();
        seeded();
        assert_eq!(id(), parents);
        seeded();
        reseed();
        assert_ne!(id(), parents);
    }

    #[test]
    fn refuses_names_that_cannot_be_kept() {
        let empty = json!({});
        let long = "é".repeat(129);
        let check = |prediction: Prediction<'_, Value, Value>| encoded(&prediction, 1 << 20).err();
        assert_eq!(check(Prediction::new("", "", &empty, &empty)), Some(Invalid::ModelName));
        assert_eq!(check(Prediction::new(&long, "", &empty, &empty)), Some(Invalid::ModelName));
        assert_eq!(check(Prediction::new(LEDGER_MODEL, "", &empty, &empty)), Some(Invalid::ReservedName));
        assert_eq!(check(Prediction::new("m", "", &empty, &empty).id("")), Some(Invalid::Id));
        assert_eq!(check(Prediction::new("m", "", &empty, &empty).id(&long)), Some(Invalid::Id));
        assert_eq!(check(Prediction::new("m", &long.repeat(8), &empty, &empty)), Some(Invalid::TextTooLong));
        assert_eq!(check(Prediction::new(&long[2..], "", &empty, &empty)), None);
    }

    #[test]
    fn past_the_limit_the_largest_fields_become_digests_and_the_rest_is_kept() {
        let (big, small) = (json!({"text": "x".repeat(3_000)}), json!({"score": 1}));
        let (line, info) = encoded(&Prediction::new("m", "1", &big, &small).error(&"e".repeat(900)), 2_000).unwrap();
        assert!(info.digested);
        assert_eq!(line["inputs"]["bytes"], json!(big.to_string().len()));
        assert_eq!(line["outputs"], small);
        assert_eq!(line["error"], json!("e".repeat(900)));
        let half = json!({"text": "x".repeat(900)});
        let (line, info) = encoded(&Prediction::new("m", "1", &half, &half).error(&"e".repeat(800)), 2_000).unwrap();
        assert!(info.digested);
        assert_eq!(line["outputs"]["bytes"], json!(half.to_string().len()), "{line}");
        assert_eq!(line["inputs"], half);
    }
}
