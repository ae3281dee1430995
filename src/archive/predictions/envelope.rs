//! Messages of Kafka Connect's JsonConverter with schemas: `{"schema":…,"payload":…}`, ours (`format = "connect-json"`) or another program's.

use super::lines::Object;
use crate::clock::Timestamp;
use crate::json::escape::write_str;
use serde_json::value::RawValue;

/// The payload, where this is such a message.
pub(super) fn payload<'a>(object: &Object<'a>) -> Option<&'a RawValue> {
    let is_envelope = object.0.len() == 2 && object.get("schema").is_some();
    if is_envelope { object.get("payload") } else { None }
}

/// The record in a payload, as `log()` was given it: nulls are keys that were not there, the exact time is in `timestamp_us`, and raw JSON stands in for
/// the struct that could not hold it.
pub(super) fn record(payload: &RawValue) -> Result<String, String> {
    let object: Object<'_> =
        serde_json::from_str(payload.get()).map_err(|error| format!("payload is not a JSON object: {error}"))?;
    let mut record = b"{".to_vec();
    let mut entry = |key: &str, json: &[u8]| {
        if record.len() > 1 {
            record.push(b',');
        }
        write_str(&mut record, key);
        record.push(b':');
        record.extend_from_slice(json);
    };
    for (key, value) in object.0.iter().filter(|(_, value)| value.get() != "null") {
        let raw_side = key.strip_suffix("_json").filter(|side| matches!(*side, "inputs" | "outputs"));
        match (&**key, raw_side) {
            ("timestamp_us", _) => entry("timestamp", &quoted(micros(value)?)),
            ("timestamp", _) if object.get("timestamp_us").is_some() => {}
            (_, Some(side)) => {
                let json: String = serde_json::from_str(value.get()).map_err(|error| format!("{key}: {error}"))?;
                entry(side, json.as_bytes());
            }
            ("inputs", _) if is_there(&object, "inputs_json") => {}
            ("outputs", _) if is_there(&object, "outputs_json") => {}
            (key, _) => entry(key, value.get().as_bytes()),
        }
    }
    record.push(b'}');
    String::from_utf8(record).map_err(|error| error.to_string())
}

fn is_there(object: &Object<'_>, key: &str) -> bool {
    object.get(key).is_some_and(|value| value.get() != "null")
}

fn micros(value: &RawValue) -> Result<i64, String> {
    value.get().parse().map_err(|_| format!("timestamp_us={}: expected microseconds since 1970", value.get()))
}

/// A time as JSON.
pub(super) fn quoted(micros: i64) -> Vec<u8> {
    [b"\"".as_slice(), &Timestamp::from_micros(micros).format(), b"\""].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_becomes_what_was_logged() {
        let message = r#"{"schema":{"type":"struct"},"payload":{"timestamp":1700000000123,"timestamp_us":1700000000123456,"model_name":"m","id":"a",
            "model_version":null,"inputs":{"x":1,"y":null},"inputs_json":"{\"x\":1,\"y\":\"t\"}","outputs":{"z":2},"outputs_json":null,"writer":"w","seq":7}}"#;
        let object: Object<'_> = serde_json::from_str(message).unwrap();
        let found = record(payload(&object).unwrap()).unwrap();
        let expected = r#"{"timestamp":"2023-11-14T22:13:20.123456Z","model_name":"m","id":"a","inputs":{"x":1,"y":"t"},"outputs":{"z":2},"writer":"w","seq":7}"#;
        assert_eq!(found, expected);
        let plain: Object<'_> = serde_json::from_str(r#"{"schema":1,"payload":2,"id":"x"}"#).unwrap();
        assert!(payload(&plain).is_none(), "a record of its own");
    }
}
