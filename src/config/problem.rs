//! What is wrong with a configuration, said so that it can be put right: the source, the key, its value, what was expected, the nearest right one.

use crate::sink::kafka::settings::Properties;
use figment::error::{Actual, Kind};
use figment::value::Value;

/// A name that is one slip of the keyboard, or of memory, away.
pub(crate) fn nearest<'a>(given: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let allowed = (given.len() / 3).clamp(1, 4);
    let length = given.chars().count();
    known
        .into_iter()
        // Compared letter by letter only where that may end well: `given` may be a stranger's, and megabytes long.
        .filter(|name| name.chars().count().abs_diff(length) <= allowed)
        .map(|name| (strsim::damerau_levenshtein(&given.to_ascii_lowercase(), &name.to_ascii_lowercase()), name))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// ` (did you mean …?)`, or nothing.
pub(super) fn hint(given: &str, known: &[&str]) -> String {
    nearest(given, known.iter().copied()).map_or_else(String::new, |name| format!("; did you mean \"{name}\"?"))
}

/// The value of the key `path` as it may be shown. What stands near secrets is not, even under a wrong name.
pub(super) fn shown_at(path: &str, value: &Value) -> String {
    let section = path.rsplit_once('.').map_or("", |(section, _)| section);
    if Properties::is_secret(path)
        || ["kafka.sasl", "kafka.tls", "kafka.properties", "kafka.registry", "nats.auth"].contains(&section)
    {
        return "<hidden>".to_owned();
    }
    shown(value)
}

/// A value as it may be shown: what could be a credential in a URL is left out, and what is long is cut.
fn shown(value: &Value) -> String {
    match value {
        Value::String(_, text) => format!("{:?}", cut(&without_credentials(text))),
        Value::Char(_, char) => format!("{char:?}"),
        Value::Bool(_, bool) => bool.to_string(),
        Value::Num(_, number) => {
            let text = number.to_u128().map(|number| number.to_string());
            let text = text.or_else(|| number.to_i128().map(|number| number.to_string()));
            text.or_else(|| number.to_f64().map(|number| number.to_string())).unwrap_or_else(|| "a number".to_owned())
        }
        Value::Empty(..) => "nothing".to_owned(),
        Value::Dict(..) => "a table".to_owned(),
        Value::Array(..) => "an array".to_owned(),
    }
}

fn cut(text: &str) -> String {
    const SHOWN: usize = 80;
    if text.chars().count() <= SHOWN { text.to_owned() } else { text.chars().take(SHOWN).chain(['…']).collect() }
}

/// `s3://key:secret@bucket/path?sig=…` to `s3://***@bucket/path?***`.
pub(crate) fn without_credentials(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else { return text.to_owned() };
    let (rest, query) = match rest.find(['?', '#']) {
        Some(at) => (&rest[..at], "?***"),
        None => (rest, ""),
    };
    // A secret may have a slash in it that should have been escaped, so everything before the last `@` counts as one.
    let rest = rest.rfind('@').map_or_else(|| rest.to_owned(), |at| format!("***{}", &rest[at..]));
    format!("{scheme}://{rest}{query}")
}

/// What a wrong value should have been, from what its type said.
pub(super) fn expected(kind: &Kind) -> String {
    match kind {
        Kind::InvalidType(_, expected) | Kind::InvalidValue(_, expected) => in_words(expected),
        Kind::UnknownVariant(given, known) => {
            let list: Vec<String> = known.iter().map(|name| format!("\"{name}\"")).collect();
            format!("one of {}{}", list.join(", "), hint(given, known))
        }
        Kind::InvalidLength(_, expected) => expected.clone(),
        Kind::ISizeOutOfRange(_) | Kind::USizeOutOfRange(_) => "a smaller number".to_owned(),
        Kind::UnknownField(..) | Kind::MissingField(_) | Kind::DuplicateField(_) => "another key".to_owned(),
        Kind::Unsupported(Actual::Str(_)) | Kind::Unsupported(_) | Kind::UnsupportedKey(..) => "another type".to_owned(),
        Kind::Message(message) if message.contains("socket address") => {
            "an address and port such as \"127.0.0.1:8642\"".to_owned()
        }
        Kind::Message(message) => message.clone(),
    }
}

fn in_words(expected: &str) -> String {
    match expected {
        "a duration" => "a duration with its unit, such as \"10ms\", \"30s\", \"5m\", \"1h\" or \"30d\"".to_owned(),
        "parsable string" | "an integer or string" | "integer overflow" => {
            "a size such as \"64MiB\" or \"1GB\", or a number of bytes".to_owned()
        }
        "socket address" => "an address and port such as \"127.0.0.1:8642\"".to_owned(),
        "usize" | "u64" | "u32" => "a whole number, not negative".to_owned(),
        "a boolean" => "true or false".to_owned(),
        "path string" => "a path, as a string".to_owned(),
        other if other.starts_with("struct ") => "a table of keys".to_owned(),
        other if other.starts_with("enum ") => "a name, as a string".to_owned(),
        other => other.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_not_shown() {
        for (given, safe) in [
            ("s3://bucket/a", "s3://bucket/a"),
            ("s3://AKIA:se/cret@bucket/a", "s3://***@bucket/a"),
            ("az://c/p?sig=abc", "az://c/p?***"),
            ("https://u@h/#token", "https://***@h/?***"),
            ("plain", "plain"),
        ] {
            assert_eq!(without_credentials(given), safe);
        }
    }

    #[test]
    fn numbers_are_shown_whatever_their_type() {
        for (value, text) in [(Value::from(0u8), "0"), (Value::from(-1i64), "-1"), (Value::from(0.5), "0.5")] {
            assert_eq!(shown(&value), text);
        }
    }

    #[test]
    fn the_nearest_name_is_near() {
        let known = ["max_rows", "max_bytes", "max_age"];
        assert_eq!(nearest("max_row", known), Some("max_rows"));
        assert_eq!(nearest("MaxBytes", known), Some("max_bytes"));
        assert_eq!(nearest("mxa_age", known), Some("max_age"));
        assert_eq!(nearest("compression", known), None);
        // Comparing this letter by letter would take gigabytes.
        assert_eq!(nearest(&"max_rows".repeat(4 << 20), known), None);
    }
}
