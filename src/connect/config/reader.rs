//! Reads keys one by one, and remembers all that is wrong with them.

use crate::config::problem::{nearest, without_credentials};
use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;

/// Everything that is wrong with a connector's configuration: a line for each, with key, value and what was expected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems(pub Vec<String>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

impl std::error::Error for Problems {}

impl From<Problems> for crate::error::Error {
    fn from(problems: Problems) -> Self {
        crate::error::Error::new(crate::error::ErrorKind::Config, problems.to_string())
    }
}

/// Keys that are not read yet, and what was wrong with those that were.
pub(super) struct Reader {
    left: BTreeMap<String, String>,
    asked: Vec<String>,
    pub problems: Vec<String>,
    pub warnings: Vec<String>,
}

impl Reader {
    pub fn new(given: BTreeMap<String, String>) -> Reader {
        Reader { left: given, asked: Vec::new(), problems: Vec::new(), warnings: Vec::new() }
    }

    /// Values that a Connect worker would have from elsewhere: taken as they stand they would be buckets, topics and passwords of that name.
    pub fn refuse_providers(&mut self) {
        let asks = |value: &str| {
            let inside = value.split("${").skip(1).filter_map(|rest| rest.split_once('}'));
            inside.map(|(reference, _)| reference).any(|reference| reference.contains(':'))
        };
        let found: Vec<_> = self.left.iter().filter(|(_, value)| asks(value)).map(|(key, _)| key.clone()).collect();
        for key in found {
            self.problems.push(format!("{key}: expected the value itself: config providers, ${{provider:…}}, are not supported"));
        }
    }

    /// The value of a key. A blank one counts as not given.
    pub fn text(&mut self, key: &str) -> Option<String> {
        self.exact(key).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
    }

    /// The value with its blanks: separators may be made of them.
    pub fn exact(&mut self, key: &str) -> Option<String> {
        self.asked.push(key.to_owned());
        self.left.remove(key)
    }

    /// The value of a key that must be given; an empty text when it is not.
    pub fn required(&mut self, key: &str, expected: &str) -> String {
        self.text(key).unwrap_or_else(|| {
            self.problems.push(format!("{key} is not set: expected {expected}"));
            String::new()
        })
    }

    /// Values with commas between them.
    pub fn list(&mut self, key: &str) -> Vec<String> {
        let text = self.text(key).unwrap_or_default();
        text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned).collect()
    }

    pub fn bool(&mut self, key: &str, default: bool) -> bool {
        self.choice(key, default, &[("true", true), ("false", false)])
    }

    pub fn number(&mut self, key: &str, default: i64, within: RangeInclusive<i64>) -> i64 {
        let Some(value) = self.text(key) else { return default };
        match value.parse() {
            Ok(number) if within.contains(&number) => number,
            _ => {
                self.wrong(key, &value, &format!("a whole number from {} to {}", within.start(), within.end()));
                default
            }
        }
    }

    /// One of several values, in capitals or not.
    pub fn choice<T: Copy>(&mut self, key: &str, default: T, known: &[(&str, T)]) -> T {
        let Some(value) = self.text(key) else { return default };
        match known.iter().find(|(name, _)| name.eq_ignore_ascii_case(&value)) {
            Some((_, chosen)) => *chosen,
            None => {
                let names: Vec<_> = known.iter().map(|(name, _)| *name).collect();
                self.wrong(key, &value, &format!("one of {}{}", names.join(", "), hint(&value, &names)));
                default
            }
        }
    }

    /// A class, by its full name, its last part, or that without `suffix`.
    pub fn class<T: Copy>(&mut self, key: &str, suffix: &str, known: &[(&str, T)]) -> Option<T> {
        let value = self.text(key)?;
        let is = |full: &str| {
            let short = full.rsplit(['.', '$']).next().unwrap_or(full);
            let stem = short.strip_suffix(suffix).unwrap_or(short);
            value == full || value.eq_ignore_ascii_case(short) || value.eq_ignore_ascii_case(stem)
        };
        let found = known.iter().find(|(full, _)| is(full)).map(|(_, chosen)| *chosen);
        if found.is_none() {
            let names: Vec<_> = known.iter().map(|(name, _)| *name).collect();
            self.wrong(key, &value, &format!("one of {}{}", names.join(", "), hint(&value, &names)));
        }
        found
    }

    pub fn wrong(&mut self, key: &str, value: &str, expected: &str) {
        self.problems.push(format!("{key}={}: expected {expected}", shown(key, value)));
    }

    pub fn warn(&mut self, key: &str, value: &str, why: &str) {
        self.warnings.push(format!("{key}={}: {why}", shown(key, value)));
    }

    /// Keys that begin so and were not read, with what follows.
    pub fn below(&self, prefix: &str) -> Vec<String> {
        self.left.keys().filter_map(|key| key.strip_prefix(prefix)).map(str::to_owned).collect()
    }

    /// What nobody has read is unknown.
    pub fn end(&mut self) {
        for key in std::mem::take(&mut self.left).into_keys() {
            let hint = hint(&key, &self.asked);
            // Its value is not shown: an unknown key may be misspelt, and its value a secret.
            self.warnings.push(format!("{key}: unknown key, without effect{hint}"));
        }
    }
}

fn hint<S: AsRef<str>>(given: &str, known: &[S]) -> String {
    let near = nearest(given, known.iter().map(AsRef::as_ref));
    near.map_or_else(String::new, |name| format!("; did you mean {name}?"))
}

fn shown(key: &str, value: &str) -> String {
    let lower = key.to_ascii_lowercase();
    if ["secret", "password", "access.key", "customer.key", "user.info", "jaas", "token"].iter().any(|word| lower.contains(word))
    {
        return "<hidden>".to_owned();
    }
    format!("{:?}", without_credentials(value))
}
