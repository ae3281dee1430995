//! The S3 sink as a [`Format`] of the archiver: a range of messages becomes a file for each directory, all finished together.

use super::config::{Compatibility, SinkConfig};
use super::convert::{Converters, KEY, conform};
use super::file::{Added, File, extension};
use super::partitioner::{Extractor, next_rotation, object_key, time_of};
use super::record::{Part, Record};
use super::schema::Schema;
use super::transform;
use crate::archive::ScratchDir;
use crate::archive::encoder::{EncodeError, Encoder, Format, Message, Object, Pushed, Rejection};
use crate::clock::Timestamp;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

/// What a file costs before it has rows.
const FILE_BYTES: usize = 1_024;
/// A range ends after so many messages without a row too, so that its offset is committed some time.
const MAX_SKIPPED: u64 = 100_000;

/// The format of a connector.
pub struct S3Sink {
    shared: Arc<Shared>,
}

struct Shared {
    config: SinkConfig,
    converters: Converters,
    with_key: bool,
    extension: String,
    scratch: Arc<ScratchDir>,
    files: AtomicU64,
}

impl S3Sink {
    /// The format of this configuration; files in the making lie in `scratch`.
    ///
    /// # Errors
    /// A registry's client cannot be made of its settings.
    pub fn new(config: &SinkConfig, scratch: Arc<ScratchDir>) -> Result<S3Sink, String> {
        let shared = Shared {
            converters: Converters::new(config)?,
            with_key: transform::needs_key(&config.transforms),
            extension: extension(&config.format),
            config: config.clone(),
            scratch,
            files: AtomicU64::new(0),
        };
        Ok(S3Sink { shared: Arc::new(shared) })
    }
}

impl Format for S3Sink {
    fn open(&self, topic: &str, partition: i32, _first_offset: i64) -> Result<Box<dyn Encoder>, EncodeError> {
        let schedule = &self.shared.config.rotation.schedule;
        Ok(Box::new(Range {
            shared: self.shared.clone(),
            source: topic.to_owned(),
            partition,
            files: Vec::new(),
            index: HashMap::new(),
            rows: 0,
            skipped: 0,
            first_time: 0,
            last_directory: String::new(),
            ends_at: schedule.as_ref().and_then(|(ms, zone)| next_rotation(now_ms(), *ms, zone)),
        }))
    }
}

fn now_ms() -> i64 {
    Timestamp::from(SystemTime::now()).micros() / 1_000
}

struct Range {
    shared: Arc<Shared>,
    /// The topic that the messages lie in.
    source: String,
    partition: i32,
    files: Vec<OpenFile>,
    /// By topic and directory.
    index: HashMap<(String, String), usize>,
    rows: u64,
    /// Messages that added none: `flush.size` does not count them.
    skipped: u64,
    /// The time of the first row.
    first_time: i64,
    last_directory: String,
    /// When the schedule ends it.
    ends_at: Option<i64>,
}

struct OpenFile {
    topic: String,
    directory: String,
    file: File,
    schema: Option<Arc<Schema>>,
    rows: u64,
    first_offset: i64,
}

/// Where a record goes.
struct Place {
    time: i64,
    directory: String,
}

impl Encoder for Range {
    fn push(&mut self, message: &Message<'_>) -> Result<Pushed, EncodeError> {
        if self.is_full() {
            return Ok(Pushed::Rotate);
        }
        let pushed = self.take(message)?;
        if matches!(pushed, Pushed::Taken { rows: 0 } | Pushed::Rejected(_)) {
            self.skipped += 1;
        }
        Ok(pushed)
    }

    fn memory(&self) -> usize {
        self.files.iter().map(|file| FILE_BYTES + file.file.memory()).sum()
    }

    fn is_due(&self, now: Timestamp) -> bool {
        let now = now.micros() / 1_000;
        self.is_full() || self.ends_at.is_some_and(|end| now >= end) || self.rows > 0 && self.is_over(now)
    }

    fn finish(self: Box<Self>) -> Result<Vec<Object>, EncodeError> {
        let (names, extension) = (&self.shared.config.names, &self.shared.extension);
        let mut objects = Vec::with_capacity(self.files.len());
        for file in self.files.into_iter().filter(|file| file.rows > 0) {
            let name = if names.by_source { &self.source } else { &file.topic };
            let place = (self.partition, file.first_offset);
            let key = object_key(names, &file.topic, &file.directory, name, place, extension);
            objects.push(Object { key, content: file.file.finish()?, rows: file.rows, table: None });
        }
        Ok(objects)
    }
}

impl Range {
    fn is_full(&self) -> bool {
        self.rows >= self.shared.config.rotation.flush_size || self.skipped >= MAX_SKIPPED
    }

    fn take(&mut self, message: &Message<'_>) -> Result<Pushed, EncodeError> {
        let shared = self.shared.clone();
        let mut record = match shared.converters.record(message, shared.with_key)? {
            Ok(record) => record,
            Err(why) => return Ok(shared.unreadable(why)),
        };
        if record.value.value.is_none() {
            return Ok(match (shared.config.ignore_nulls, shared.config.report_nulls) {
                (true, false) => Pushed::Taken { rows: 0 },
                (true, true) => task_refuses("behavior.on.null.values=ignore: the message has no value".to_owned()),
                (false, _) => task_refuses(
                    "behavior.on.null.values=fail: the message has no value; set it to ignore to leave such out".to_owned(),
                ),
            });
        }
        if let Err((class, why)) = transform::apply(&shared.config.transforms, &mut record) {
            return Ok(Pushed::Rejected(Rejection { why, stage: "TRANSFORMATION", class }));
        }
        let place = match self.place(&record) {
            Ok(place) => place,
            Err(why) => return Ok(task_refuses(why)),
        };
        if self.rows > 0 && self.ends_before(&place) {
            return Ok(Pushed::Rotate);
        }
        let bytes = message.value.map_or(0, <[u8]>::len);
        let added = self.add(record, &place, bytes)?;
        if added == (Pushed::Taken { rows: 1 }) {
            if self.rows == 0 {
                self.first_time = place.time;
            }
            self.rows += 1;
            self.last_directory = place.directory;
        }
        Ok(added)
    }

    fn place(&self, record: &Record<'_>) -> Result<Place, String> {
        let partitioner = &self.shared.config.partitioner;
        let now = now_ms();
        let time = partitioner.extractor().map_or(Ok(now), |extractor| time_of(extractor, record, now))?;
        Ok(Place { time, directory: partitioner.directory(record, time)? })
    }

    /// By records' times: another directory, or too late a time. Not by the wall clock, which a range that is read again would have another of.
    fn ends_before(&self, place: &Place) -> bool {
        let config = &self.shared.config;
        let Some(interval) = config.rotation.interval_ms else { return false };
        config.partitioner.extractor().is_some_and(|extractor| *extractor != Extractor::Wallclock)
            && (place.time - self.first_time >= interval
                || config.rotation.by_directory && place.directory != self.last_directory)
    }

    /// The same by the wall clock.
    fn is_over(&self, now: i64) -> bool {
        let config = &self.shared.config;
        let Some(interval) = config.rotation.interval_ms else { return false };
        config.partitioner.extractor() == Some(&Extractor::Wallclock) && now - self.first_time >= interval
    }

    fn add(&mut self, record: Record<'_>, place: &Place, bytes: usize) -> Result<Pushed, EncodeError> {
        let at = self.file(&record, &place.directory);
        let has_rows = self.rows > 0;
        let file = &mut self.files[at];
        let mut part = record.value;
        if file.rows == 0 {
            file.schema = part.schema.clone();
        }
        match change(self.shared.config.compatibility, part.schema.as_ref(), file.schema.as_ref()) {
            Change::None => part.schema.clone_from(&file.schema),
            Change::Project => match project(part, file.schema.as_ref()) {
                Ok(projected) => part = projected,
                Err(why) => return Ok(task_refuses(why)),
            },
            Change::Other if has_rows => return Ok(Pushed::Rotate),
            Change::Other => {}
            Change::Refused(why) => return Ok(task_refuses(why)),
        }
        Ok(match file.file.add(part, bytes)? {
            Added::Yes => {
                if file.rows == 0 {
                    file.first_offset = record.offset;
                }
                file.rows += 1;
                Pushed::Taken { rows: 1 }
            }
            Added::OtherColumns => Pushed::Rotate,
            Added::No(why) => task_refuses(why),
        })
    }

    fn file(&mut self, record: &Record<'_>, directory: &str) -> usize {
        // Nearly all records go where the one before went.
        if let Some(last) = self.files.last()
            && last.topic == record.topic
            && last.directory == directory
        {
            return self.files.len() - 1;
        }
        let shared = &self.shared;
        *self.index.entry((record.topic.to_string(), directory.to_owned())).or_insert_with_key(|(topic, directory)| {
            let path = shared.scratch.path().join(shared.files.fetch_add(1, Ordering::Relaxed).to_string());
            let file = File::new(&shared.config.format, path);
            let (topic, directory) = (topic.clone(), directory.clone());
            self.files.push(OpenFile { topic, directory, file, schema: None, rows: 0, first_offset: 0 });
            self.files.len() - 1
        })
    }
}

impl Shared {
    /// A key or a value that its converter does not understand.
    fn unreadable(&self, why: String) -> Pushed {
        let (stage, converter) = match why.starts_with(KEY) {
            true => ("KEY_CONVERTER", &self.config.key_converter),
            false => ("VALUE_CONVERTER", &self.config.value_converter),
        };
        Pushed::Rejected(Rejection { why, stage, class: converter.kind.class() })
    }
}

fn task_refuses(why: String) -> Pushed {
    Pushed::Rejected(Rejection { why, stage: "TASK_PUT", class: "io.confluent.connect.s3.S3SinkTask" })
}

/// What a record's schema means for a file that has rows of another.
#[derive(Debug, PartialEq, Eq)]
enum Change {
    /// It is the same.
    None,
    /// The record is made to fit.
    Project,
    /// The file ends.
    Other,
    /// It cannot be told.
    Refused(String),
}

fn change(compatibility: Compatibility, record: Option<&Arc<Schema>>, file: Option<&Arc<Schema>>) -> Change {
    let (record, file) = match (record, file) {
        (None, None) => return Change::None,
        (Some(record), Some(file)) if Arc::ptr_eq(record, file) || record == file => return Change::None,
        (Some(record), Some(file)) if compatibility != Compatibility::None => (record, file),
        _ => return Change::Other,
    };
    let (Some(record), Some(file)) = (record.version, file.version) else {
        return Change::Refused(
            "schema.compatibility: expected schemas with a version; set it to NONE for those without".to_owned(),
        );
    };
    let ends = match compatibility {
        Compatibility::Forward => record < file,
        _ => record > file,
    };
    if ends { Change::Other } else { Change::Project }
}

fn project(part: Part, schema: Option<&Arc<Schema>>) -> Result<Part, String> {
    let (Some(value), Some(schema)) = (part.value, schema) else { return Ok(Part::default()) };
    let value = conform(value, schema).map_err(|why| format!("cannot be projected to the file's schema: value{why}"))?;
    Ok(Part { schema: Some(schema.clone()), value: Some(value) })
}

#[cfg(test)]
mod tests;
