//! Predictions, of our loggers or of others, to the Parquet layout of simple mode.

#[cfg(feature = "avro")]
mod avro;
mod conform;
mod envelope;
mod file;
mod lines;
mod schemas;
mod seen;

use super::encoder::{EncodeError, Encoder, Format, Message, Object, Pushed};
use super::job::TableTarget;
use super::scratch::ScratchDir;
use crate::clock::Timestamp;
use crate::config::{Config, TableKind};
use crate::format::decode::arrow_schema;
use crate::format::path::{LAYOUT, day_of};
use crate::format::schema::ModelSchema;
use crate::ship::{Target, UploadSettings};
use arrow_schema::{DataType, Field, Schema};
use conform::TableColumns;
use file::{OpenFile, Shared};
use lines::{Line, from_foreign, is_packed};
use parking_lot::Mutex;
use schemas::Schemas;
use seen::Seen;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A range with fields that have no column ends this long after the first of them: the next one has columns for them.
const NEWS_WAIT: Duration = Duration::from_secs(10);

/// The format of predictions: `predictions/model_name=…/date=…/<topic>+<partition>+<first offset>-<last offset>.parquet`, and in a table's file `+<columns>`
/// before its end.
pub struct Predictions {
    shared: Arc<Common>,
}

struct Common {
    schemas: Schemas,
    scratch: Arc<ScratchDir>,
    max_rows: u64,
    table: TableKind,
    /// Bytes that the memory of a partition's records may take.
    seen_bytes: usize,
    /// By topic partition, while no range of it is open.
    seen: Mutex<HashMap<(String, i32), Seen>>,
    files: AtomicU64,
    #[cfg(feature = "avro")]
    avro: Option<avro::Avro>,
}

impl Predictions {
    /// The format that `[archive]`, `[rotation]`, `[upload]` and `[kafka.registry]` describe.
    ///
    /// # Errors
    /// The target, or the client of the registry, cannot be made of its settings.
    pub fn new(config: &Config, scratch: Arc<ScratchDir>) -> Result<Self, String> {
        #[cfg(feature = "avro")]
        let avro = match &config.kafka.registry.url {
            Some(_) => Some(avro::Avro::new(&config.kafka.registry)?),
            None => None,
        };
        let target = Target::open(&config.upload).map_err(|error| error.to_string())?.ok_or("upload.url is not set")?;
        let is_table = config.archive.table == TableKind::Delta;
        let columns = is_table.then(|| TableColumns::new(delta_table(&config.upload).store));
        Ok(Predictions {
            shared: Arc::new(Common {
                schemas: Schemas::new(target, columns)?,
                table: config.archive.table,
                scratch,
                max_rows: config.rotation.max_rows,
                seen_bytes: usize::try_from(config.archive.dedupe_bytes.as_u64()).unwrap_or(usize::MAX),
                seen: Mutex::default(),
                files: AtomicU64::new(0),
                #[cfg(feature = "avro")]
                avro,
            }),
        })
    }
}

/// The table that all predictions below this URL are: at the directory that they lie in, with the partitions of their paths as columns.
pub(super) fn delta_table(upload: &UploadSettings) -> TableTarget {
    let url = upload.url.as_ref().map(|url| format!("{}/{LAYOUT}", url.trim_end_matches('/')));
    let mut columns = arrow_schema(&ModelSchema::default()).fields().to_vec();
    columns.push(Arc::new(Field::new("model_name", DataType::Utf8, true)));
    columns.push(Arc::new(Field::new("date", DataType::Date32, true)));
    TableTarget {
        store: UploadSettings { url, ..upload.clone() },
        schema: Arc::new(Schema::new(columns)),
        partition_columns: vec!["model_name", "date"],
    }
}

impl Format for Predictions {
    fn open(&self, topic: &str, partition: i32, _first_offset: i64) -> Result<Box<dyn Encoder>, EncodeError> {
        let seen = self.shared.seen.lock().remove(&(topic.to_owned(), partition)).unwrap_or_default();
        Ok(Box::new(Range {
            common: self.shared.clone(),
            topic: topic.to_owned(),
            partition,
            seen,
            files: Vec::new(),
            index: HashMap::new(),
            last: None,
            news: None,
            duplicates: 0,
        }))
    }

    fn restore(&self, topic: &str, partition: i32, state: Option<&[u8]>) -> Result<(), EncodeError> {
        // Where a commit was refused for another writer's columns, partitions are taken over anew.
        self.shared.schemas.forget_table();
        let seen = match state {
            Some(state) => Seen::decode(state).ok_or_else(|| {
                EncodeError(format!("{topic}+{partition}: the stored state is not one of predlog's; was it changed?"))
            })?,
            None => Seen::default(),
        };
        self.shared.seen.lock().insert((topic.to_owned(), partition), seen);
        Ok(())
    }
}

/// A range in the making: a file for each model and day.
struct Range {
    common: Arc<Common>,
    topic: String,
    partition: i32,
    seen: Seen,
    files: Vec<OpenFile>,
    /// By the raw JSON text of the model's name, and the day.
    index: HashMap<(Box<[u8]>, i64), usize>,
    /// Where the last row went.
    last: Option<(Box<[u8]>, i64, usize)>,
    /// When a row first had a field without a column.
    news: Option<Timestamp>,
    duplicates: u64,
}

impl Encoder for Range {
    fn push(&mut self, message: &Message<'_>) -> Result<Pushed, EncodeError> {
        let Some(value) = message.value else { return Ok(Pushed::Taken { rows: 0 }) };
        let one = value.strip_suffix(b"\n").unwrap_or(value);
        if memchr::memchr(b'\n', one).is_some() && is_packed(message) {
            return self.packed(one, message);
        }
        match self.line(value, message)? {
            Ok(rows) => Ok(Pushed::Taken { rows }),
            Err(reason) => Ok(Pushed::Rejected(reason.into())),
        }
    }

    fn memory(&self) -> usize {
        self.files.iter().map(OpenFile::memory).sum()
    }

    fn is_due(&self, now: Timestamp) -> bool {
        // Wall time is given; what it is compared with is the same clock's.
        self.news.is_some_and(|since| now.micros() - since.micros() >= NEWS_WAIT.as_micros() as i64)
    }

    fn duplicates(&self) -> u64 {
        self.duplicates
    }

    fn state(&mut self) -> Option<Vec<u8>> {
        if self.seen.is_empty() {
            return None;
        }
        if self.seen.keep_within(self.common.seen_bytes) {
            let partition = format!("{}+{}", self.topic, self.partition);
            tracing::debug!(partition, "the oldest stored records are forgotten: archive.dedupe_bytes");
        }
        // Compressing into memory does not fail.
        self.seen.encode().ok()
    }

    fn finish(mut self: Box<Self>) -> Result<Vec<Object>, EncodeError> {
        let mut objects = Vec::with_capacity(self.files.len());
        let common = self.common.clone();
        for file in std::mem::take(&mut self.files) {
            let rows = file.rows;
            if rows > 0 {
                objects.push(file.finish(&self.topic, self.partition, &common.shared())?);
            }
        }
        common.seen.lock().insert((self.topic.clone(), self.partition), std::mem::take(&mut self.seen));
        Ok(objects)
    }
}

impl Common {
    fn shared(&self) -> Shared<'_> {
        Shared { schemas: &self.schemas, max_rows: self.max_rows, table: self.table }
    }

    /// `Ok(Err(_))`: why it is none.
    #[cfg(feature = "avro")]
    fn avro_record(&self, message: &[u8]) -> Result<Result<String, String>, EncodeError> {
        match &self.avro {
            Some(avro) => avro.record(message),
            None => Ok(Err("an Avro message: set kafka.registry.url to read it".to_owned())),
        }
    }

    #[cfg(not(feature = "avro"))]
    fn avro_record(&self, _: &[u8]) -> Result<Result<String, String>, EncodeError> {
        Ok(Err("an Avro message: this build was made without the feature `avro`".to_owned()))
    }

    fn next_path(&self) -> PathBuf {
        self.scratch.path().join(format!("{}.parquet", self.files.fetch_add(1, Ordering::Relaxed)))
    }
}

impl Range {
    fn packed(&mut self, value: &[u8], message: &Message<'_>) -> Result<Pushed, EncodeError> {
        let (mut rows, mut rejected) = (0, Vec::new());
        for line in value.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
            match self.line(line, message)? {
                Ok(taken) => rows += taken,
                Err(reason) => rejected.push((line.to_vec(), reason)),
            }
        }
        Ok(if rejected.is_empty() { Pushed::Taken { rows } } else { Pushed::Partly { rows, rejected } })
    }

    /// `Ok(Err(_))`: why it cannot be stored.
    #[inline]
    fn line(&mut self, value: &[u8], message: &Message<'_>) -> Result<Result<u64, String>, EncodeError> {
        if let Some(line) = Line::ours(value) {
            if !self.seen.insert(value) {
                self.duplicates += 1;
                return Ok(Ok(0));
            }
            return self.row(&line, message);
        }
        let made = if value.first() == Some(&0) {
            match self.common.avro_record(value)? {
                Ok(record) => from_foreign(record.as_bytes(), message),
                Err(reason) => Err(reason),
            }
        } else {
            from_foreign(value, message)
        };
        let made = match made {
            Ok(made) => made,
            Err(reason) => return Ok(Err(reason)),
        };
        // One of ours in another form has its writer and seq still.
        if !self.seen.insert(&made) {
            self.duplicates += 1;
            return Ok(Ok(0));
        }
        match Line::ours(&made) {
            Some(line) => self.row(&line, message),
            None => Ok(Err("not a record".to_owned())),
        }
    }

    #[inline]
    fn row(&mut self, line: &Line<'_>, message: &Message<'_>) -> Result<Result<u64, String>, EncodeError> {
        let day = day_of(line.timestamp);
        let place = match &self.last {
            Some((model, last_day, place)) if *last_day == day && **model == *line.raw_model => *place,
            _ => match self.place(line.raw_model, day, message.offset) {
                Ok(place) => place,
                Err(reason) => return Ok(Err(reason)),
            },
        };
        let file = &mut self.files[place];
        if let Err(error) = file.push(line.bytes, message.offset, &self.common.shared())? {
            return Ok(Err(error.to_string()));
        }
        if self.news.is_none() && file.has_news() {
            self.news = Some(Timestamp::from(std::time::SystemTime::now()));
        }
        Ok(Ok(1))
    }

    fn place(&mut self, raw_model: &[u8], day: i64, offset: i64) -> Result<usize, String> {
        let key = (Box::from(raw_model), day);
        let place = match self.index.get(&key) {
            Some(place) => *place,
            None => {
                let quoted = [b"\"", raw_model, b"\""].concat();
                let model: String = serde_json::from_slice(&quoted).map_err(|error| format!("model_name: {error}"))?;
                self.files.push(OpenFile::new(model, day, self.common.next_path(), offset));
                self.index.insert(key.clone(), self.files.len() - 1);
                self.files.len() - 1
            }
        };
        self.last = Some((key.0, day, place));
        Ok(place)
    }
}
