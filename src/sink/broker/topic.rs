//! Which topic a record goes to.

#[cfg(feature = "kafka")]
use crate::ledger::LEDGER_MODEL;
use sha2::{Digest, Sha256};
use std::fmt::Write;

/// Which names a broker takes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Rules {
    max_len: usize,
}

/// Kafka's topics.
pub(crate) const KAFKA: Rules = Rules { max_len: 249 };
/// NATS's subjects.
pub(crate) const NATS: Rules = Rules { max_len: 255 };

/// Characters beside letters and digits in a name as it is given.
const LEGAL: &[char] = &['.', '_', '-'];
/// In a model's part of it: a dot parts the tokens of NATS, and Kafka makes no topic that differs from another by dots for underscores alone.
const LEGAL_IN_MODEL: &[char] = &['_', '-'];

const LEDGER_SUFFIX: &str = "-ledger";
const PLACEHOLDER: &str = "{model_name}";
/// Bytes of a hash that stand for the end of a name which is too long.
const HASH_BYTES: usize = 8;

/// A topic's name, or a template of one for each model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TopicTemplate {
    before: String,
    /// What comes behind the model's name; `None` when it is not a template.
    after: Option<String>,
    rules: &'static Rules,
}

impl TopicTemplate {
    /// # Errors
    /// What is wrong with it, as "expected …".
    pub(crate) fn parse(text: &str, rules: &'static Rules) -> Result<Self, String> {
        let (before, after) = match text.split_once(PLACEHOLDER) {
            Some((before, after)) => (before, Some(after)),
            None => (text, None),
        };
        let fixed = [before, after.unwrap_or_default()].concat();
        if let Some(bad) = fixed.chars().find(|&c| !is_legal(c, LEGAL)) {
            return Err(format!("letters, digits, '.', '_', '-' and at most one {PLACEHOLDER}, not {bad:?}"));
        }
        if after.is_none() && matches!(text, "" | "." | "..") {
            return Err("a name: not empty, \".\" or \"..\"".to_owned());
        }
        if *rules == NATS && text.split('.').any(str::is_empty) {
            return Err("something between two dots, and before the first and behind the last".to_owned());
        }
        // Room for the shortest that any model's name can be made.
        let room = if after.is_some() { 2 * HASH_BYTES + 2 } else { LEDGER_SUFFIX.len() };
        if fixed.len() + room > rules.max_len {
            return Err(format!("at most {} characters", rules.max_len - room));
        }
        Ok(TopicTemplate { before: before.to_owned(), after: after.map(str::to_owned), rules })
    }

    /// The one topic of all models, if there is one.
    pub(crate) fn fixed(&self) -> Option<&str> {
        self.after.is_none().then_some(&self.before)
    }

    /// All topics of the template, as Kafka's consumers subscribe: a name, or a regular expression.
    #[cfg(all(feature = "kafka", any(feature = "cli", feature = "archive")))]
    pub(crate) fn pattern(&self) -> String {
        // Of what is legal in a name, only the dot means something else to a regular expression.
        let escaped = |text: &str| text.replace('.', "\\.");
        match &self.after {
            None => self.before.clone(),
            Some(after) => format!("^{}.+{}$", escaped(&self.before), escaped(after)),
        }
    }

    /// All topics of the template, as NATS writes it: `*` is any one token.
    pub(crate) fn wildcard(&self) -> String {
        let Some(after) = &self.after else { return self.before.clone() };
        let (before, after) = (self.before.rsplit_once('.'), after.split_once('.'));
        let before = before.map_or_else(String::new, |(before, _)| format!("{before}."));
        before + "*" + &after.map_or_else(String::new, |(_, after)| format!(".{after}"))
    }

    /// The topic of the ledger's statements: `<topic>-ledger`, or the template's topic of the reserved name.
    #[cfg(feature = "kafka")]
    pub(crate) fn ledger(&self) -> String {
        self.fixed().map_or_else(|| self.of_model(LEDGER_MODEL), |topic| [topic, LEDGER_SUFFIX].concat())
    }

    /// The subject of the ledger's statements in NATS: what the template has beside the model's token. It has fewer tokens than the subjects of
    /// models, or another one, so no consumer of predictions gets statements.
    #[cfg(feature = "nats")]
    pub(crate) fn ledger_subject(&self) -> String {
        let wildcard = self.wildcard();
        let tokens: Vec<&str> = wildcard.split('.').filter(|token| *token != "*").collect();
        // A bare template takes any subject of one token.
        if tokens.is_empty() { "predlog.ledger".to_owned() } else { [tokens.join(".").as_str(), LEDGER_SUFFIX].concat() }
    }

    /// Whether `topic` is the template's for some model.
    #[cfg(all(feature = "kafka", feature = "cli"))]
    pub(crate) fn may_be(&self, topic: &str) -> bool {
        match &self.after {
            None => topic == self.before,
            Some(after) => {
                topic.len() > self.before.len() + after.len() && topic.starts_with(&self.before) && topic.ends_with(after)
            }
        }
    }

    /// The topic of a model. Other models have other topics.
    pub(crate) fn of_model(&self, model_name: &str) -> String {
        let Some(after) = &self.after else { return self.before.clone() };
        let escaped = escape(model_name, LEGAL_IN_MODEL);
        let room = self.rules.max_len - self.before.len() - after.len();
        let name = if escaped.len() <= room { escaped } else { shorten(&escaped, model_name, room) };
        [self.before.as_str(), &name, after].concat()
    }
}

fn is_legal(c: char, others: &[char]) -> bool {
    c.is_ascii_alphanumeric() || others.contains(&c)
}

/// Each byte that the broker does not take becomes `_` and two upper-case hex digits; so does a `_` that would otherwise be read as one of these.
pub(crate) fn escape(name: &str, legal: &[char]) -> String {
    let bytes = name.as_bytes();
    let mut out = String::with_capacity(bytes.len());
    for (at, &byte) in bytes.iter().enumerate() {
        let is_hex = |offset: usize| bytes.get(at + offset).is_some_and(|b| b.is_ascii_digit() || (b'A'..=b'F').contains(b));
        let ambiguous = byte == b'_' && is_hex(1) && is_hex(2);
        if is_legal(char::from(byte), legal) && !ambiguous {
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
            let code =
                bytes.get(at + 1..at + 3).filter(|code| code.iter().all(|b| b.is_ascii_digit() || (b'A'..=b'F').contains(b)));
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
            for legal in [LEGAL, LEGAL_IN_MODEL] {
                let escaped = escape(&name, legal);
                prop_assert!(escaped.chars().all(|c| is_legal(c, legal)));
                prop_assert_eq!(unescape(&escaped), name.clone());
            }
        }

        #[test]
        fn every_model_has_a_topic_that_kafka_takes(name in "\\PC{1,256}") {
            let template = TopicTemplate::parse("predictions-{model_name}.v1", &KAFKA).unwrap();
            let topic = template.of_model(&name);
            prop_assert!(topic.len() <= KAFKA.max_len && topic.chars().all(|c| is_legal(c, LEGAL)), "{}", topic);
        }
    }

    #[test]
    fn a_wildcard_stands_for_the_token_with_the_model() {
        for (template, wildcard) in
            [("p.{model_name}", "p.*"), ("p.v-{model_name}-x.y.z", "p.*.y.z"), ("{model_name}", "*"), ("p.q", "p.q")]
        {
            assert_eq!(TopicTemplate::parse(template, &NATS).unwrap().wildcard(), wildcard);
        }
    }

    #[cfg(feature = "nats")]
    #[test]
    fn statements_have_a_subject_that_no_models_wildcard_takes() {
        for (template, subject) in [
            ("p.{model_name}", "p-ledger"),
            ("p.{model_name}.y", "p.y-ledger"),
            ("{model_name}", "predlog.ledger"),
            ("p.q", "p.q-ledger"),
        ] {
            assert_eq!(TopicTemplate::parse(template, &NATS).unwrap().ledger_subject(), subject);
        }
    }

    #[test]
    fn topics_are_named_after_models() {
        let template = TopicTemplate::parse("predictions-{model_name}", &KAFKA).unwrap();
        assert_eq!(template.of_model("wine_quality"), "predictions-wine_quality");
        assert_eq!(template.of_model("a/b"), "predictions-a_2Fb");
        assert_eq!((&*template.of_model("a.b"), &*template.of_model("a_b")), ("predictions-a_2Eb", "predictions-a_b"));
        assert_ne!(template.of_model(&"x".repeat(300)), template.of_model(&"x".repeat(301)));
        assert_eq!(TopicTemplate::parse("{model_name}", &KAFKA).unwrap().of_model(".."), "_2E_2E");
        let fixed = TopicTemplate::parse("predictions", &KAFKA).unwrap();
        assert_eq!(fixed.fixed(), Some("predictions"));
        #[cfg(feature = "kafka")]
        assert_eq!(
            (fixed.ledger(), template.ledger()),
            ("predictions-ledger".to_owned(), "predictions-_predlog_ledger".to_owned())
        );
        assert_eq!(TopicTemplate::parse("predictions.{model_name}", &NATS).unwrap().of_model("a.b *"), "predictions.a_2Eb_20_2A");
        assert!(TopicTemplate::parse("predictions..x", &NATS).is_err());
        for bad in ["", ".", "..", "a b", "a/{model_name}", "{model_name}{model_name}", "{model}", &"x".repeat(250)] {
            assert!(TopicTemplate::parse(bad, &KAFKA).is_err(), "{bad}");
        }
    }
}
