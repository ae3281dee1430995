//! Messages to lines: ours as they are, those of others made into such.

use super::envelope;
use crate::archive::encoder::Message;
use crate::clock::Timestamp;
use crate::format::decode::ENVELOPE;
use crate::json::escape::write_str;
use crate::json::scan::minify;
use crate::record::{raw_model_name, timestamp_of_line};
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;

/// How deep the JSON of another program may be nested.
const MAX_DEPTH: u32 = 64;
/// Numbers from here on are milliseconds, those from the others on microseconds and nanoseconds: no clock shows a year 5138 in seconds.
const MILLIS_FROM: u64 = 100_000_000_000;
const MICROS_FROM: u64 = 100_000_000_000_000;
const NANOS_FROM: u64 = 100_000_000_000_000_000;
/// What a number becomes that is larger than any.
const NO_TIME: u64 = i64::MAX.unsigned_abs();

/// Keys that have a place of their own in a line.
const WRITTEN_APART: [&str; 6] = ["timestamp", "model_name", "id", "metadata", "writer", "seq"];

/// A line, with what its place depends on.
pub(super) struct Line<'a> {
    pub bytes: &'a [u8],
    /// The raw JSON text of the model's name, without its quotes.
    pub raw_model: &'a [u8],
    /// UTC microseconds.
    pub timestamp: i64,
}

impl<'a> Line<'a> {
    /// A line that `log()` made; `None` for any other.
    #[inline]
    pub fn ours(bytes: &'a [u8]) -> Option<Line<'a>> {
        Some(Line { bytes, raw_model: raw_model_name(bytes)?, timestamp: timestamp_of_line(bytes)? })
    }
}

/// Whether the message is many records, a line each.
pub(super) fn is_packed(message: &Message<'_>) -> bool {
    let mut packed = false;
    message.headers.visit(&mut |name, value| {
        packed = name == "content-type" && value.is_some_and(|value| value.starts_with(b"application/x-ndjson"));
        !packed
    });
    packed
}

/// A line of ours from the JSON of another program: `timestamp` and `model_name` first, keys that are no columns in `metadata`.
///
/// Without a timestamp it has the message's, without a model the topic's name, without an id its place in Kafka.
pub(super) fn from_foreign(value: &[u8], message: &Message<'_>) -> Result<Vec<u8>, String> {
    let text = simdutf8::basic::from_utf8(value).map_err(|_| "not UTF-8".to_owned())?;
    let object: Object<'_> = serde_json::from_str(text).map_err(|error| format!("not a JSON object: {error}"))?;
    match envelope::payload(&object) {
        Some(payload) => {
            let record = envelope::record(payload)?;
            from_object(&serde_json::from_str(&record).map_err(|error| format!("payload: {error}"))?, message)
        }
        None => from_object(&object, message),
    }
}

/// `writer` and `seq` come last, as in our own lines.
fn from_object(object: &Object<'_>, message: &Message<'_>) -> Result<Vec<u8>, String> {
    let mut line = b"{\"timestamp\":\"".to_vec();
    line.extend_from_slice(&timestamp(object.get("timestamp"), message)?.format());
    line.extend_from_slice(b"\",\"model_name\":");
    match object.get("model_name").map(RawValue::get).filter(|name| *name != "null") {
        None => write_str(&mut line, message.topic),
        Some(name) if name.starts_with('"') && name.len() > 2 => line.extend_from_slice(name.as_bytes()),
        Some(name) => return Err(format!("model_name={}: expected a string that is not empty", cut(name))),
    }
    match object.get("id") {
        None => write_str(line_key(&mut line, "id"), &format!("{}+{}+{}", message.topic, message.partition, message.offset)),
        Some(id) => write_value(line_key(&mut line, "id"), id)?,
    }
    for (key, value) in &object.0 {
        if has_column(key, value) && !WRITTEN_APART.contains(&&**key) {
            write_value(line_key(&mut line, key), value)?;
        }
    }
    write_metadata(&mut line, object)?;
    for key in ["writer", "seq"] {
        if let Some(value) = object.get(key) {
            write_value(line_key(&mut line, key), value)?;
        }
    }
    line.extend_from_slice(b"}\n");
    Ok(line)
}

/// Whether a column of ours holds it. An integer that `row_index` is too small for is metadata, as in a logger's own lines.
fn has_column(key: &str, value: &RawValue) -> bool {
    let (raw, known) = (value.get(), ENVELOPE.iter().any(|(name, _)| *name == key));
    let is_integer = || raw.strip_prefix('-').unwrap_or(raw).bytes().all(|byte| byte.is_ascii_digit());
    known && (key != "row_index" || !is_integer() || raw.parse::<i64>().is_ok())
}

/// What is no column of ours is kept there, as text.
fn write_metadata(line: &mut Vec<u8>, object: &Object<'_>) -> Result<(), String> {
    let own = match object.get("metadata") {
        Some(raw) if raw.get().starts_with('{') => {
            serde_json::from_str::<Object<'_>>(raw.get()).map_err(|error| error.to_string())?.0
        }
        // Not a map of ours: kept as a whole.
        Some(raw) => vec![(Cow::Borrowed("metadata"), raw)],
        None => Vec::new(),
    };
    let unknown = object.0.iter().filter(|(key, value)| !has_column(key, value)).map(|(key, value)| (key, *value));
    let mut open = b'{';
    for (key, value) in own.iter().map(|(key, value)| (key, *value)).chain(unknown) {
        if open == b'{' {
            line_key(line, "metadata");
        }
        line.push(open);
        open = b',';
        write_str(line, key);
        line.push(b':');
        write_value(line, value)?;
    }
    if open == b',' {
        line.push(b'}');
    }
    Ok(())
}

fn line_key<'a>(line: &'a mut Vec<u8>, key: &str) -> &'a mut Vec<u8> {
    line.push(b',');
    write_str(line, key);
    line.push(b':');
    line
}

fn timestamp(given: Option<&RawValue>, message: &Message<'_>) -> Result<Timestamp, String> {
    let wrong = |raw: &str| {
        format!(
            "timestamp={}: expected RFC 3339, or a number of seconds, milliseconds, microseconds or nanoseconds since 1970, in the years 1 to 9999",
            cut(raw)
        )
    };
    match given.map(RawValue::get) {
        None | Some("null") => {
            let millis = message.timestamp.ok_or("no timestamp, and none of the message")?;
            Ok(Timestamp::from_micros(millis.saturating_mul(1_000)))
        }
        Some(raw) if raw.starts_with('"') => {
            let text: String = serde_json::from_str(raw).map_err(|_| wrong(raw))?;
            Timestamp::parse(&text).map_err(|_| wrong(raw))
        }
        Some(raw) => {
            let number: f64 = raw.parse().map_err(|_| wrong(raw))?;
            let whole = raw.parse().unwrap_or(number as i64);
            let micros = match whole.unsigned_abs() {
                NO_TIME.. => return Err(wrong(raw)),
                NANOS_FROM.. => whole / 1_000,
                MICROS_FROM.. => whole,
                MILLIS_FROM.. => whole.saturating_mul(1_000),
                _ => (number * 1e6).round() as i64,
            };
            Some(Timestamp::from_micros(micros)).filter(|time| time.micros() == micros).ok_or_else(|| wrong(raw))
        }
    }
}

/// Without white space, so on one line.
fn write_value(line: &mut Vec<u8>, value: &RawValue) -> Result<(), String> {
    let depth = minify(line, value.get().as_bytes())?.depth;
    if depth >= MAX_DEPTH { Err(format!("nested {} deep, expected at most {MAX_DEPTH}", depth + 1)) } else { Ok(()) }
}

fn cut(raw: &str) -> String {
    raw.chars().take(64).collect()
}

/// A JSON object, its values as they stand. Of a key that is there twice the last counts.
pub(super) struct Object<'a>(pub Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'a> Object<'a> {
    pub fn get(&self, key: &str) -> Option<&'a RawValue> {
        self.0.iter().find(|(name, _)| name == key).map(|(_, value)| *value)
    }
}

impl<'de> serde::Deserialize<'de> for Object<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Object<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Object<'de>, M::Error> {
                let mut entries: Vec<(Cow<'de, str>, &'de RawValue)> = Vec::new();
                while let Some((key, value)) = map.next_entry::<Key<'de>, &'de RawValue>()? {
                    match entries.iter_mut().find(|(name, _)| *name == key.0) {
                        Some(entry) => entry.1 = value,
                        None => entries.push((key.0, value)),
                    }
                }
                Ok(Object(entries))
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

/// Borrowed where it has no escapes.
#[derive(serde::Deserialize)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::encoder::NoHeaders;

    fn message(value: &[u8]) -> Message<'_> {
        Message {
            topic: "fraud",
            partition: 3,
            offset: 42,
            timestamp: Some(1_700_000_000_123),
            key: None,
            value: Some(value),
            headers: &NoHeaders,
        }
    }

    fn line(value: &str) -> Result<String, String> {
        from_foreign(value.as_bytes(), &message(value.as_bytes())).map(|line| String::from_utf8(line).unwrap())
    }

    #[test]
    fn another_programs_record_becomes_a_line() {
        let aporia = r#"{"id":"a","model_name":"m","model_version":"1","inputs":{"x":1.50},"outputs":[1]}"#;
        let expected = r#"{"timestamp":"2023-11-14T22:13:20.123000Z","model_name":"m","id":"a","model_version":"1","inputs":{"x":1.50},"outputs":[1]}"#;
        assert_eq!(line(aporia).unwrap(), format!("{expected}\n"));
        let made = line(aporia).unwrap();
        let found = Line::ours(made.as_bytes()).expect("such as ours");
        assert_eq!((found.raw_model, found.timestamp), (&b"m"[..], 1_700_000_000_123_000));
    }

    #[test]
    fn what_is_missing_is_taken_from_the_message_and_what_is_unknown_is_kept() {
        let made = line("{\"features\": {\"a\": [1,\n 2]}, \"timestamp\": 1700000000, \"metadata\": {\"k\": \"v\"}}").unwrap();
        let value: serde_json::Value = serde_json::from_str(&made).unwrap();
        assert_eq!(value["timestamp"], "2023-11-14T22:13:20.000000Z");
        assert_eq!(value["model_name"], "fraud");
        assert_eq!(value["id"], "fraud+3+42");
        assert_eq!(value["metadata"], serde_json::json!({"k": "v", "features": {"a": [1, 2]}}));
        assert_eq!(made.matches('\n').count(), 1);
    }

    #[test]
    fn a_row_index_past_its_column_is_kept_as_metadata() {
        for (given, kept) in [
            ("9223372036854775807", r#","row_index":9223372036854775807}"#),
            ("9223372036854775808", r#","metadata":{"row_index":9223372036854775808}}"#),
            ("-9223372036854775809", r#","metadata":{"row_index":-9223372036854775809}}"#),
            ("null", r#","row_index":null}"#),
        ] {
            let made = line(&format!("{{\"row_index\":{given}}}")).unwrap();
            assert!(made.ends_with(&format!("{kept}\n")), "{made}");
        }
    }

    #[test]
    fn times_are_told_apart_by_their_size() {
        for (given, shown) in [
            ("1700000000.5", "2023-11-14T22:13:20.500000Z"),
            ("1700000000500", "2023-11-14T22:13:20.500000Z"),
            ("1700000000500000", "2023-11-14T22:13:20.500000Z"),
            ("1700000000500000999", "2023-11-14T22:13:20.500000Z"),
            ("-62135596800", "0001-01-01T00:00:00.000000Z"),
            ("\"2023-11-15T00:13:20.5+02:00\"", "2023-11-14T22:13:20.500000Z"),
            ("null", "2023-11-14T22:13:20.123000Z"),
        ] {
            assert!(line(&format!("{{\"timestamp\":{given}}}")).unwrap().contains(shown), "{given}");
        }
    }

    #[test]
    fn what_is_no_record_says_why() {
        let deep = format!("{{\"inputs\":{}{}}}", "[".repeat(70), "]".repeat(70));
        for (given, why) in [
            ("[1]", "not a JSON object"),
            ("{\"a\":", "not a JSON object"),
            ("{\"timestamp\":\"yesterday\"}", "timestamp=\"yesterday\""),
            ("{\"timestamp\":-9223372036854775808}", "in the years 1 to 9999"),
            ("{\"timestamp\":1e300}", "timestamp=1e300"),
            ("{\"timestamp\":-70000000000}", "in the years 1 to 9999"),
            ("{\"model_name\":7}", "model_name=7"),
            ("{\"model_name\":\"\"}", "model_name=\"\""),
            (&*deep, "71 deep"),
        ] {
            let error = line(given).unwrap_err();
            assert!(error.contains(why), "{given}: {error}");
        }
        assert!(from_foreign(b"\xff", &message(b"\xff")).is_err());
    }
}
