//! Which topic a record goes to.

use sha2::{Digest, Sha256};
use std::fmt::Write;

/// The longest name that Kafka takes.
const MAX_TOPIC_LEN: usize = 249;
const PLACEHOLDER: &str = "{model_name}";
/// Bytes of a hash that stand for the end of a name which is too long.
const HASH_BYTES: usize = 8;

/// A topic's name, or a template of one for each model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TopicTemplate {
    before: String,
    /// What comes behind the model's name; `None` when it is not a template.
    after: Option<String>,
}

impl TopicTemplate {
    /// # Errors
    /// What is wrong with it, as "expected …".
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let (before, after) = match text.split_once(PLACEHOLDER) {
            Some((before, after)) => (before, Some(after)),
            None => (text, None),
        };
        let fixed = [before, after.unwrap_or_default()].concat();
        if let Some(bad) = fixed.chars().find(|&c| !is_legal(c)) {
            return Err(format!("letters, digits, '.', '_', '-' and at most one {PLACEHOLDER}, not {bad:?}"));
        }
        if after.is_none() && matches!(text, "" | "." | "..") {
            return Err("a name that Kafka takes: not empty, \".\" or \"..\"".to_owned());
        }
        // Room for the shortest that any model's name can be made.
        let room = if after.is_some() { 2 * HASH_BYTES + 2 } else { 0 };
        if fixed.len() + room > MAX_TOPIC_LEN {
            return Err(format!("at most {} characters", MAX_TOPIC_LEN - room));
        }
        Ok(TopicTemplate { before: before.to_owned(), after: after.map(str::to_owned) })
    }

    /// The one topic of all models, if there is one.
    pub(crate) fn fixed(&self) -> Option<&str> {
        self.after.is_none().then_some(&self.before)
    }

    /// The topic of a model. Other models have other topics.
    pub(crate) fn of_model(&self, model_name: &str) -> String {
        let Some(after) = &self.after else { return self.before.clone() };
        let escaped = escape(model_name);
        let room = MAX_TOPIC_LEN - self.before.len() - after.len();
        let name = if escaped.len() <= room { escaped } else { shorten(&escaped, model_name, room) };
        let topic = [self.before.as_str(), &name, after].concat();
        // Only a bare template and a model of that name make one of the two names that Kafka does not take.
        if matches!(&*topic, "." | "..") { topic.replace('.', "_2E") } else { topic }
    }
}

fn is_legal(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')
}

/// Each byte that Kafka does not take becomes `_` and two upper-case hex digits; so does a `_` that would otherwise be read as one of these.
fn escape(name: &str) -> String {
    let bytes = name.as_bytes();
    let mut out = String::with_capacity(bytes.len());
    for (at, &byte) in bytes.iter().enumerate() {
        let is_hex = |offset: usize| bytes.get(at + offset).is_some_and(|b| b.is_ascii_digit() || (b'A'..=b'F').contains(b));
        let ambiguous = byte == b'_' && is_hex(1) && is_hex(2);
        if is_legal(char::from(byte)) && !ambiguous {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "_{byte:02X}");
        }
    }
    out
}

/// The start of a long name, and a hash of all of it.
fn shorten(escaped: &str, model_name: &str, room: usize) -> String {
    let digest = Sha256::digest(model_name.as_bytes());
    let mut out = escaped[..room - 2 * HASH_BYTES - 1].to_owned();
    out.push('-');
    for byte in &digest[..HASH_BYTES] {
        let _ = write!(out, "{byte:02x}");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn unescape(text: &str) -> String {
        let bytes = text.as_bytes();
        let mut out = Vec::new();
        let mut at = 0;
        while at < bytes.len() {
            let code = bytes.get(at + 1..at + 3).filter(|code| code.iter().all(|b| b.is_ascii_digit() || (b'A'..=b'F').contains(b)));
            match code {
                Some(code) if bytes[at] == b'_' => {
                    out.push(u8::from_str_radix(std::str::from_utf8(code).unwrap(), 16).unwrap());
                    at += 3;
                }
                _ => {
                    out.push(bytes[at]);
                    at += 1;
                }
            }
        }
        String::from_utf8(out).unwrap()
    }

    proptest! {
        #[test]
        fn an_escaped_name_is_legal_and_tells_all(name in "\\PC{0,20}|[_0-9A-F]{0,12}") {
            let escaped = escape(&name);
            prop_assert!(escaped.chars().all(is_legal));
            prop_assert_eq!(unescape(&escaped), name);
        }

        #[test]
        fn every_model_has_a_topic_that_kafka_takes(name in "\\PC{1,256}") {
            let template = TopicTemplate::parse("predictions-{model_name}.v1").unwrap();
            let topic = template.of_model(&name);
            prop_assert!(topic.len() <= MAX_TOPIC_LEN && topic.chars().all(is_legal), "{}", topic);
        }
    }

    #[test]
    fn topics_are_named_after_models() {
        let template = TopicTemplate::parse("predictions-{model_name}").unwrap();
        assert_eq!(template.of_model("wine_quality"), "predictions-wine_quality");
        assert_eq!(template.of_model("a/b"), "predictions-a_2Fb");
        assert_ne!(template.of_model(&"x".repeat(300)), template.of_model(&"x".repeat(301)));
        assert_eq!(TopicTemplate::parse("{model_name}").unwrap().of_model(".."), "_2E_2E");
        assert_eq!(TopicTemplate::parse("predictions").unwrap().fixed(), Some("predictions"));
        for bad in ["", ".", "..", "a b", "a/{model_name}", "{model_name}{model_name}", "{model}", &"x".repeat(250)] {
            assert!(TopicTemplate::parse(bad).is_err(), "{bad}");
        }
    }
}
