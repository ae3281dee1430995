//! A prediction, and the JSON line that it becomes (its shape is in ARCHITECTURE.md, "The line").

mod actuals;
pub(crate) mod encode;
mod key;
mod tokens;

pub use actuals::{ACTUALS_SUFFIX, Actuals, MAX_ACTUALS_MODEL_NAME_BYTES, actuals_of};
pub use key::Key;
pub use tokens::Tokens;

use crate::clock::Timestamp;
use serde::Serialize;
use std::fmt;
use std::str::FromStr;
use uuid::Uuid;

/// The longest `id`, in bytes.
pub const MAX_ID_BYTES: usize = 256;
/// The longest `model_name`, in bytes of UTF-8.
pub const MAX_MODEL_NAME_BYTES: usize = 256;
/// The longest `model_version`, `request_id` and `traceparent`, in bytes.
pub const MAX_TEXT_BYTES: usize = 1024;

/// One prediction, borrowed from the caller for the time of the call: nothing is copied but into the line.
///
/// `inputs` and `outputs` are any `Serialize`; an object's fields become typed columns, anything else is kept in a column `value`.
///
/// ```
/// use predlog::Prediction;
/// #[derive(serde::Serialize)]
/// struct Wine { alcohol: f64, ph: f64 }
/// #[derive(serde::Serialize)]
/// struct Quality { score: f64 }
/// let prediction = Prediction::new("wine", "1", &Wine { alcohol: 9.4, ph: 3.51 }, &Quality { score: 5.2 })
///     .id("order-17")
///     .latency_ms(0.8);
/// # let _ = prediction;
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Prediction<'a, I: ?Sized, O: ?Sized> {
    pub(crate) model_name: &'a str,
    pub(crate) model_version: Option<&'a str>,
    pub(crate) inputs: &'a I,
    pub(crate) outputs: &'a O,
    pub(crate) id: Option<&'a str>,
    pub(crate) timestamp: Option<Timestamp>,
    pub(crate) request_id: Option<&'a str>,
    pub(crate) row_index: Option<u64>,
    pub(crate) status_code: Option<u16>,
    pub(crate) error: Option<&'a str>,
    pub(crate) latency_ms: Option<f64>,
    pub(crate) sample_weight: Option<f64>,
    pub(crate) metadata: &'a [(&'a str, &'a str)],
    pub(crate) traceparent: Option<&'a str>,
}

impl<'a, I: Serialize + ?Sized, O: Serialize + ?Sized> Prediction<'a, I, O> {
    /// What a model said of some inputs. An empty `model_version` is one that is not known.
    pub fn new(model_name: &'a str, model_version: &'a str, inputs: &'a I, outputs: &'a O) -> Self {
        Prediction {
            model_name,
            model_version: (!model_version.is_empty()).then_some(model_version),
            inputs,
            outputs,
            id: None,
            timestamp: None,
            request_id: None,
            row_index: None,
            status_code: None,
            error: None,
            latency_ms: None,
            sample_weight: None,
            metadata: &[],
            traceparent: None,
        }
    }

    /// Names the prediction: 1 to [`MAX_ID_BYTES`] bytes. Without it the logger makes a UUIDv7.
    #[must_use]
    pub fn id(mut self, id: &'a str) -> Self {
        self.id = Some(id);
        self
    }

    /// When the prediction was made. Without it: the time of the call.
    #[must_use]
    pub fn timestamp(mut self, timestamp: Timestamp) -> Self {
        self.timestamp = Some(timestamp);
        self
    }

    /// The request that this prediction answers, when a request has several.
    #[must_use]
    pub fn request_id(mut self, request_id: &'a str) -> Self {
        self.request_id = Some(request_id);
        self
    }

    /// The instance's place in its request, from 0. One past `i64::MAX`, the largest of its column, is kept as metadata of that name.
    #[must_use]
    pub fn row_index(mut self, row_index: u64) -> Self {
        self.row_index = Some(row_index);
        self
    }

    /// The HTTP status of the answer.
    #[must_use]
    pub fn status_code(mut self, status_code: u16) -> Self {
        self.status_code = Some(status_code);
        self
    }

    /// What went wrong.
    #[must_use]
    pub fn error(mut self, error: &'a str) -> Self {
        self.error = Some(error);
        self
    }

    /// How long the prediction took, in milliseconds.
    #[must_use]
    pub fn latency_ms(mut self, latency_ms: f64) -> Self {
        self.latency_ms = Some(latency_ms);
        self
    }

    /// The weight of this prediction in statistics.
    #[must_use]
    pub fn sample_weight(mut self, sample_weight: f64) -> Self {
        self.sample_weight = Some(sample_weight);
        self
    }

    /// Anything else, as text. A key given twice keeps both; readers take the last.
    #[must_use]
    pub fn metadata(mut self, metadata: &'a [(&'a str, &'a str)]) -> Self {
        self.metadata = metadata;
        self
    }

    /// The W3C trace context of the request.
    #[must_use]
    pub fn traceparent(mut self, traceparent: &'a str) -> Self {
        self.traceparent = Some(traceparent);
        self
    }
}

/// Who wrote a record: one lane of one process. Its records carry a gapless `seq` from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Writer {
    process: Uuid,
    lane: u8,
}

/// The length of a writer's text: `<uuid>-<two hex digits>`.
pub const WRITER_LEN: usize = 39;

impl Writer {
    /// Lane `lane` of the process that named itself `process`.
    pub fn new(process: Uuid, lane: u8) -> Self {
        Writer { process, lane }
    }

    /// The process.
    pub fn process(self) -> Uuid {
        self.process
    }

    /// The lane in the process.
    pub fn lane(self) -> u8 {
        self.lane
    }
}

impl fmt::Display for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{:02x}", self.process.as_hyphenated(), self.lane)
    }
}

impl FromStr for Writer {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("writer={text:?} is not <uuid>-<two hex digits>");
        let (process, lane) = text.split_at_checked(36).ok_or_else(wrong)?;
        let lane = lane.strip_prefix('-').filter(|lane| lane.len() == 2).ok_or_else(wrong)?;
        let writer = Writer {
            process: Uuid::try_parse(process).map_err(|_| wrong())?,
            lane: u8::from_str_radix(lane, 16).map_err(|_| wrong())?,
        };
        // One text for one writer: names are compared as text elsewhere.
        if writer.to_string() == text { Ok(writer) } else { Err(wrong()) }
    }
}

/// What stands between the record and its `seq` at the end of each line.
const SEQ_KEY: &[u8] = b",\"seq\":";
const WRITER_KEY: &[u8] = b",\"writer\":\"";

/// The `seq` at the end of a line that `log()` made.
pub fn seq_of_line(line: &[u8]) -> Option<u64> {
    let (seq, _) = split_tail(line)?;
    Some(seq)
}

/// The writer and the `seq` at the end of a line that `log()` made.
pub fn writer_of_line(line: &[u8]) -> Option<(Writer, u64)> {
    let (seq, head) = split_tail(line)?;
    let head = head.strip_suffix(b"\"")?;
    let (before, writer) = head.split_at_checked(head.len().checked_sub(WRITER_LEN)?)?;
    if !before.ends_with(WRITER_KEY) {
        return None;
    }
    Some((std::str::from_utf8(writer).ok()?.parse().ok()?, seq))
}

/// `…,"seq":17}\n` to 17 and what stands before.
fn split_tail(line: &[u8]) -> Option<(u64, &[u8])> {
    let line = line.strip_suffix(b"\n").unwrap_or(line).strip_suffix(b"}")?;
    let digits = line.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
    let (head, digits) = line.split_at(line.len() - digits);
    let seq = std::str::from_utf8(digits).ok()?.parse().ok()?;
    Some((seq, head.strip_suffix(SEQ_KEY)?))
}

/// The raw JSON text (between the quotes) of a line's `model_name`: it stands at a constant offset.
pub(crate) fn raw_model_name(line: &[u8]) -> Option<&[u8]> {
    const NAME_AT: usize = encode::MODEL_NAME_AT;
    if line.get(NAME_AT - 1) != Some(&b'"') {
        return None;
    }
    let end = crate::json::scan::end_of_string(line, NAME_AT - 1)?;
    line.get(NAME_AT..end - 1)
}

/// The raw JSON text (between the quotes) of a line's `id`, which follows the model's name.
#[cfg(feature = "kafka")]
pub(crate) fn raw_id(line: &[u8]) -> Option<&[u8]> {
    const KEY: &[u8] = b",\"id\":";
    let name_end = encode::MODEL_NAME_AT + raw_model_name(line)?.len() + 1;
    let quote = name_end + KEY.len();
    if line.get(name_end..quote) != Some(KEY) {
        return None;
    }
    let end = crate::json::scan::end_of_string(line, quote)?;
    line.get(quote + 1..end - 1)
}

/// The timestamp of a line that `log()` made, in microseconds since 1970.
pub(crate) fn timestamp_of_line(line: &[u8]) -> Option<i64> {
    let text = line.get(encode::TIMESTAMP_AT..encode::TIMESTAMP_AT + crate::clock::TIMESTAMP_LEN)?;
    crate::clock::parse_fixed(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_writer_is_its_text() {
        let writer = Writer::new(Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0001), 0xab);
        assert_eq!(writer.to_string().len(), WRITER_LEN);
        assert_eq!(writer.to_string().parse(), Ok(writer));
        for bad in ["", "x", &writer.to_string().to_uppercase(), &format!("{writer}0"), &writer.to_string().replace("-ab", "-+b")]
        {
            assert!(bad.parse::<Writer>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_line_says_who_wrote_it_at_its_end() {
        let writer = Writer::new(Uuid::from_u128(1), 2);
        let line = format!("{{\"inputs\":{{\"seq\":9}},\"writer\":\"{writer}\",\"seq\":17}}\n");
        assert_eq!(writer_of_line(line.as_bytes()), Some((writer, 17)));
        assert_eq!(seq_of_line(b"{\"inputs\":{\"seq\":9}}"), None);
        assert_eq!(seq_of_line(b""), None);
    }
}
