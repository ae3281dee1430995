//! What turns a range of messages into objects: one implementation for predictions, one for each kind of Connect connector.

use crate::clock::Timestamp;
use crate::delta::AddFile;
use arrow_schema::SchemaRef;
use std::fmt;
use std::path::PathBuf;

/// A message as it lies in a topic.
#[derive(Clone, Copy)]
pub struct Message<'a> {
    /// Where it lies.
    pub topic: &'a str,
    /// The partition's number.
    pub partition: i32,
    /// Its offset in the partition.
    pub offset: i64,
    /// Milliseconds since 1970, by the producer or the broker. `None` when the message has none.
    pub timestamp: Option<i64>,
    /// Its key, if it has one.
    pub key: Option<&'a [u8]>,
    /// Its value; `None` is a tombstone.
    pub value: Option<&'a [u8]>,
    /// Its headers, read only when asked for: most messages are stored without a look at them.
    pub headers: &'a dyn Headers,
}

impl fmt::Debug for Message<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}+{}+{}", self.topic, self.partition, self.offset)
    }
}

/// A message's headers.
pub trait Headers {
    /// Shows each header, in order, until the visitor answers `false`.
    fn visit(&self, visitor: &mut dyn FnMut(&str, Option<&[u8]>) -> bool);
}

/// A message without headers.
#[derive(Clone, Copy, Debug)]
pub struct NoHeaders;

impl Headers for NoHeaders {
    fn visit(&self, _: &mut dyn FnMut(&str, Option<&[u8]>) -> bool) {}
}

/// What became of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pushed {
    /// It is in the range, with so many rows: none when there is nothing to store of it.
    Taken {
        /// Rows that it added.
        rows: u64,
    },
    /// It cannot be stored, for this reason. Nothing of it is in the range; the engine sends it to the dead letters, or stops, as the settings say.
    Rejected(Rejection),
    /// Some of its records are in the range, the others cannot be stored.
    Partly {
        /// Rows that it added.
        rows: u64,
        /// The text of each of the others, and why.
        rejected: Vec<(Vec<u8>, String)>,
    },
    /// The range must end before this message: push it to the next one. Decided by messages alone, never by time or memory, and never for the first.
    Rotate,
}

/// Why a message cannot be stored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rejection {
    /// In words.
    pub why: String,
    /// Where on its way it failed, as Kafka Connect calls it, such as `VALUE_CONVERTER`; empty for what knows no such stages.
    pub stage: &'static str,
    /// The class of Kafka Connect's that would have refused it.
    pub class: &'static str,
}

impl From<String> for Rejection {
    fn from(why: String) -> Self {
        Rejection { why, ..Rejection::default() }
    }
}

/// Why a range cannot be stored now. Nothing is lost by it: the messages stay in Kafka, and the range is read again.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct EncodeError(pub String);

/// A range of one topic partition in the making: all objects of it are finished together.
///
/// The rows of each object, and its key, must follow from the messages alone: a range that is read again after a crash gives objects with the same keys and
/// the same rows, so an object that is there already is skipped. The bytes may differ (a schema learnt meanwhile).
pub trait Encoder: Send {
    /// Takes the next message.
    ///
    /// # Errors
    /// Nothing can be encoded now (a full disk, a registry that does not answer): the engine drops this encoder and reads the range again later.
    fn push(&mut self, message: &Message<'_>) -> Result<Pushed, EncodeError>;

    /// Memory that is held, in bytes: past the engine's budget it ends the largest ranges early.
    fn memory(&self) -> usize;

    /// The encoder asks for its range to end now, for a reason of its own: a schedule, a schema that has grown.
    fn is_due(&self, now: Timestamp) -> bool {
        let _ = now;
        false
    }

    /// Rows of the range that were left out, since they were stored before.
    fn duplicates(&self) -> u64 {
        0
    }

    /// What [`Format::restore`] must be given to go on after this range, if anything; asked for once, before [`finish`](Encoder::finish).
    fn state(&mut self) -> Option<Vec<u8>> {
        None
    }

    /// Ends the range.
    ///
    /// # Errors
    /// As [`push`](Encoder::push).
    fn finish(self: Box<Self>) -> Result<Vec<Object>, EncodeError>;
}

/// An object to store.
#[derive(Debug)]
pub struct Object {
    /// Its key below the target's URL, escaped already.
    pub key: String,
    /// Its bytes.
    pub content: Content,
    /// Rows in it.
    pub rows: u64,
    /// How it becomes part of the job's table; `None` for an object beside it.
    pub table: Option<TableFile>,
}

impl Object {
    /// Puts another topic into its name, which begins with this one's.
    pub(super) fn rename(&mut self, topic: &str, called: &str) {
        let renamed = |key: &str| {
            let name = key.rfind('/').map_or(0, |slash| slash + 1);
            let rest = key[name..].strip_prefix(topic)?;
            Some(format!("{}{called}{rest}", &key[..name]))
        };
        for key in [Some(&mut self.key), self.table.as_mut().map(|table| &mut table.add.path)].into_iter().flatten() {
            if let Some(new) = renamed(key) {
                *key = new;
            }
        }
    }
}

/// A Parquet file as a part of a Delta table.
#[derive(Clone, Debug)]
pub struct TableFile {
    /// What the table's log says of it.
    pub add: AddFile,
    /// Its columns, without those of partitions.
    pub schema: SchemaRef,
}

/// Where an object's bytes are.
#[derive(Debug)]
pub enum Content {
    /// In memory: for small ones.
    Bytes(Vec<u8>),
    /// In a file of the scratch directory, which the engine removes.
    File(PathBuf),
}

/// Opens an [`Encoder`] for each range.
pub trait Format: Send + Sync {
    /// An encoder for a range of this topic partition that begins at `first_offset`.
    ///
    /// # Errors
    /// It cannot be opened now; the engine tries again.
    fn open(&self, topic: &str, partition: i32, first_offset: i64) -> Result<Box<dyn Encoder>, EncodeError>;

    /// A topic partition is taken over, with the state that was stored with its offset, if there was one. Encoders that were opened for it
    /// before are gone.
    ///
    /// # Errors
    /// The state is not one of this format's.
    fn restore(&self, topic: &str, partition: i32, state: Option<&[u8]>) -> Result<(), EncodeError> {
        let _ = (topic, partition, state);
        Ok(())
    }
}
