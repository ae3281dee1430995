//! Which directory a record goes to, and what its object is called.

mod pattern;
mod time;

pub use pattern::Pattern;
pub(super) use time::{next_rotation, zone};

use super::config::Names;
use super::record::Record;
use super::value::Value;
use crate::format::path::model_stem;
use jiff::Timestamp;
use jiff::tz::TimeZone;

/// How records are divided into directories.
#[derive(Clone, Debug)]
pub enum Partitioner {
    /// By Kafka's partition: `partition=0`.
    Default,
    /// By the values of these fields: `country=de/model=a`.
    Field(Vec<String>),
    /// By time.
    Time(Layout),
}

/// Directories of time.
#[derive(Clone, Debug)]
pub struct Layout {
    /// How long a directory's records span, in milliseconds.
    pub duration_ms: i64,
    /// What it is called.
    pub pattern: Pattern,
    /// In which zone.
    pub timezone: TimeZone,
    /// Where a record's time is.
    pub extractor: Extractor,
}

/// Where a record's time is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Extractor {
    /// It is the time at which the record is read: the same record, read again after a crash, may go to another directory.
    Wallclock,
    /// The message's own.
    Record,
    /// A field of the value: milliseconds since 1970, or ISO 8601.
    RecordField(String),
}

impl Partitioner {
    /// Where a record's time is, if directories are made of it.
    pub fn extractor(&self) -> Option<&Extractor> {
        match self {
            Partitioner::Time(layout) => Some(&layout.extractor),
            _ => None,
        }
    }

    /// The directory of a record whose time is `time_ms`, below its topic's.
    ///
    /// # Errors
    /// Why it has none.
    pub fn directory(&self, record: &Record<'_>, time_ms: i64) -> Result<String, String> {
        match self {
            Partitioner::Default => Ok(format!("partition={}", record.partition)),
            Partitioner::Field(names) => {
                let parts: Result<Vec<_>, _> = names.iter().map(|name| field(record, name)).collect();
                Ok(parts?.join("/"))
            }
            Partitioner::Time(layout) => layout.directory(time_ms),
        }
    }
}

impl Layout {
    fn directory(&self, time_ms: i64) -> Result<String, String> {
        let begin = time::begin_of(time_ms, self.duration_ms, &self.timezone);
        let begin = Timestamp::from_millisecond(begin)
            .map_err(|_| format!("timestamp={time_ms} is no time: expected milliseconds since 1970"))?;
        let text = self.pattern.format(&begin.to_zoned(self.timezone.clone()));
        // The pattern's own slashes make directories; names of zones have some too, and no part may lead elsewhere.
        Ok(text.split('/').filter(|part| !part.is_empty()).map(escaped).collect::<Vec<_>>().join("/"))
    }
}

fn field(record: &Record<'_>, name: &str) -> Result<String, String> {
    let value = record.value.value.as_ref().and_then(|value| value.at(name));
    let text = match value {
        Some(Value::Text(text)) => text.clone(),
        Some(Value::Bool(value)) => value.to_string(),
        Some(Value::Number(number)) if !number.is_f64() => number.to_string(),
        Some(Value::Null) => "null".to_owned(),
        Some(_) => return Err(format!("partition.field.name={name}: expected text, a whole number or a boolean in it")),
        None => return Err(format!("partition.field.name={name}: the record has no such field")),
    };
    Ok(format!("{}={}", escaped(name), escaped(&text)))
}

/// One directory's name, whatever is in it; `=` stays.
fn escaped(text: &str) -> String {
    match text.split_once('=') {
        Some((name, value)) => format!("{}={}", escaped(name), escaped(value)),
        None if text.is_empty() => String::new(),
        None => model_stem(text),
    }
}

/// The time of a record.
///
/// # Errors
/// Why it has none.
pub(super) fn time_of(extractor: &Extractor, record: &Record<'_>, now_ms: i64) -> Result<i64, String> {
    match extractor {
        Extractor::Wallclock => Ok(now_ms),
        Extractor::Record => record.timestamp.ok_or_else(|| "timestamp.extractor=Record: the message has no time".to_owned()),
        Extractor::RecordField(name) => {
            let wrong =
                |found: String| format!("timestamp.field={name}: expected milliseconds since 1970 or ISO 8601, found {found}");
            match record.value.value.as_ref().and_then(|value| value.at(name)) {
                Some(Value::Number(number)) => {
                    // As Java's Number.longValue().
                    number
                        .as_i64()
                        .or_else(|| number.as_f64().map(|number| number as i64))
                        .ok_or_else(|| wrong(number.to_string()))
                }
                Some(Value::Text(text)) => time::parse(text).ok_or_else(|| wrong(format!("{text:?}"))),
                Some(other) => Err(wrong(other.to_string())),
                None => Err(format!("timestamp.field={name}: the record has no such field")),
            }
        }
    }
}

/// An object's key: `<topics.dir>/<topic>/<directory>/<name>+<partition>+<offset><extension>`. The name is the topic's, where only one source's messages get it.
pub(super) fn object_key(
    names: &Names,
    topic: &str,
    directory: &str,
    name: &str,
    (partition, offset): (i32, i64),
    extension: &str,
) -> String {
    let Names { topics_dir, file_delim, pad_width, .. } = names;
    let slash = if topics_dir.is_empty() { "" } else { "/" };
    format!(
        "{topics_dir}{slash}{topic}/{directory}/{name}{file_delim}{partition}{file_delim}{offset:0width$}{extension}",
        width = *pad_width
    )
}

#[cfg(test)]
mod tests;
