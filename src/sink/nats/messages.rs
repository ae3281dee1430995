//! From the lines of a batch to messages.

use super::settings::{NatsSettings, Packing};
use crate::batch::Batch;
use crate::ledger::{LEDGER_MODEL, is_ledger};
use crate::record::{Writer, raw_model_name};
use crate::sink::Kept;
use crate::sink::broker::flight::Mark;
use crate::sink::broker::topic::TopicTemplate;
use async_nats::Subject;
use async_nats::header::{HeaderMap, HeaderName, HeaderValue, NATS_MESSAGE_ID};
use bytes::{Bytes, BytesMut};
use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

/// A message of many records has those of one writer, of one model, and of one run of this many numbers: a replay, which comes model by model
/// from the spool, is then cut where the live records were, and its messages have the same ids. Only the last message of a batch ends elsewhere.
const RUN: u64 = 64;
/// A message is full at so many bytes, whatever it has.
const PACK_BYTES: usize = 128 * 1024;
/// Bytes around the lines of a message: its headers and those of the protocol.
const MESSAGE_OVERHEAD: usize = 1024;
/// Models that are remembered.
const MAX_MODELS: usize = 10_000;

/// Records of one writer. No two that have other records have the same name, or the stream would drop one of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    writer: Writer,
    first: u64,
    last: u64,
    /// A bit for each number from `first` on.
    set: u64,
}

impl Span {
    fn of(writer: Writer, seq: u64) -> Self {
        Span { writer, first: seq, last: seq, set: 1 }
    }

    fn add(&mut self, seq: u64) {
        self.last = seq;
        self.set |= 1 << (seq - self.first);
    }

    /// Whether `seq` is the next of the same run.
    fn takes(&self, seq: u64) -> bool {
        seq > self.last && seq / RUN == self.first / RUN
    }

    fn is_gapless(&self) -> bool {
        u64::from(self.set.count_ones()) == self.last - self.first + 1
    }

    /// `<writer>-<seq>`, `<writer>-<first>-<last>`, or, where numbers between them are elsewhere, with the set of these in hexadecimal.
    fn id(&self) -> String {
        let Span { writer, first, last, set } = self;
        match (first == last, self.is_gapless()) {
            (true, _) => format!("{writer}-{first}"),
            (false, true) => format!("{writer}-{first}-{last}"),
            (false, false) => format!("{writer}-{first}-{last}-{set:x}"),
        }
    }

    fn seqs(&self) -> String {
        if self.first == self.last { self.first.to_string() } else { format!("{}-{}", self.first, self.last) }
    }

    /// A mark for each run without a gap.
    fn marks(&self, index: u32, into: &mut Vec<Mark>) {
        let start = into.len();
        for seq in (self.first..=self.last).filter(|seq| self.set >> (seq - self.first) & 1 == 1) {
            match into[start..].last_mut() {
                Some(mark) if mark.last_seq + 1 == seq => mark.last_seq = seq,
                _ => into.push(Mark { index, writer: self.writer, first_seq: seq, last_seq: seq }),
            }
        }
    }
}

/// A message on its way.
#[derive(Clone, Debug)]
pub(super) struct Outgoing {
    /// The batch's slot in the flight, and the message's place in it.
    pub(super) slot: u16,
    pub(super) index: u32,
    pub(super) since: Instant,
    pub(super) subject: Subject,
    pub(super) payload: Bytes,
    pub(super) span: Span,
}

impl Outgoing {
    /// It has statements of the ledger, not predictions.
    pub(super) fn is_ledger(&self) -> bool {
        is_ledger(self.span.writer)
    }
}

/// Makes messages of lines.
#[derive(Debug)]
pub(super) struct Messages {
    template: TopicTemplate,
    packing: Packing,
    max_payload: usize,
    /// By the raw text of its name. The subject may be one for all.
    models: HashMap<Vec<u8>, Model>,
}

#[derive(Clone, Debug)]
struct Model {
    number: usize,
    subject: Subject,
}

/// A message in the making.
struct Pack {
    subject: Subject,
    lines: BytesMut,
    span: Span,
}

/// A batch's messages, as far as they are made.
pub(super) struct Made {
    slot: u16,
    since: Instant,
    pub(super) messages: Vec<Outgoing>,
    pub(super) marks: Vec<Mark>,
}

impl Made {
    fn push(&mut self, subject: Subject, payload: Bytes, span: Span) {
        let index = self.messages.len() as u32;
        span.marks(index, &mut self.marks);
        self.messages.push(Outgoing { slot: self.slot, index, since: self.since, subject, payload, span });
    }

    fn push_pack(&mut self, pack: Pack) {
        self.push(pack.subject, pack.lines.freeze(), pack.span);
    }
}

impl Messages {
    pub(super) fn new(settings: &NatsSettings, template: TopicTemplate) -> Self {
        let max_payload = (settings.max_message_bytes.as_u64() as usize).saturating_sub(MESSAGE_OVERHEAD);
        Messages { template, packing: settings.packing, max_payload, models: HashMap::new() }
    }

    /// Copies the batch's lines into messages, but for what `skip` has.
    ///
    /// # Errors
    /// A line is not ours.
    pub(super) fn make(&mut self, batch: &Batch<'_>, skip: &Kept, slot: u16) -> Result<Made, String> {
        let mut made = Made { slot, since: Instant::now(), messages: Vec::new(), marks: Vec::new() };
        let mut open: BTreeMap<(Writer, usize), Pack> = BTreeMap::new();
        let one_each = self.packing == Packing::None;
        // One allocation for all lines, which the messages share.
        let mut copies = BytesMut::with_capacity(if one_each { batch.bytes() as usize } else { 0 });
        if self.models.len() > MAX_MODELS {
            self.models.clear();
        }
        for chunk in &batch.chunks {
            let skip = skip.get(&chunk.writer);
            for (seq, line) in chunk.lines().filter(|(seq, _)| !skip.is_some_and(|seqs| seqs.contains(*seq))) {
                let model = self.model_of(line)?;
                if one_each {
                    copies.extend_from_slice(line.strip_suffix(b"\n").unwrap_or(line));
                    made.push(model.subject.clone(), copies.split().freeze(), Span::of(chunk.writer, seq));
                    continue;
                }
                let (key, subject) = ((chunk.writer, model.number), model.subject.clone());
                match open.get_mut(&key) {
                    Some(pack) if pack.span.takes(seq) && pack.lines.len() + line.len() <= self.max_payload.min(PACK_BYTES) => {
                        pack.span.add(seq);
                        pack.lines.extend_from_slice(line);
                    }
                    _ => {
                        let fresh = Pack { subject, lines: line.into(), span: Span::of(chunk.writer, seq) };
                        open.insert(key, fresh).into_iter().for_each(|full| made.push_pack(full));
                    }
                }
            }
        }
        open.into_values().for_each(|pack| made.push_pack(pack));
        Ok(made)
    }

    fn model_of(&mut self, line: &[u8]) -> Result<&Model, String> {
        let raw = raw_model_name(line).ok_or("a line is not one that log() made")?;
        if !self.models.contains_key(raw) {
            let quoted = [b"\"", raw, b"\""].concat();
            let name: String =
                serde_json::from_slice(&quoted).map_err(|error| format!("a model's name cannot be read: {error}"))?;
            let subject = if name == LEDGER_MODEL { self.template.ledger_subject() } else { self.template.of_model(&name) };
            let model = Model { number: self.models.len(), subject: subject.into() };
            self.models.insert(raw.to_vec(), model);
        }
        self.models.get(raw).ok_or_else(|| "a model that was just added is gone".to_owned())
    }
}

/// Headers say whose records a message has; the lines themselves do so too.
pub(super) fn headers(span: &Span, packing: Packing, all: bool) -> HeaderMap {
    const CONTENT_TYPE: HeaderName = HeaderName::from_static("content-type");
    const WRITER: HeaderName = HeaderName::from_static("predlog-writer");
    const SEQ: HeaderName = HeaderName::from_static("predlog-seq");
    let mut headers = HeaderMap::new();
    headers.insert(NATS_MESSAGE_ID, span.id());
    if all {
        let kind = if packing == Packing::None { "application/json" } else { "application/x-ndjson" };
        headers.insert(CONTENT_TYPE, HeaderValue::from(kind));
        headers.insert(WRITER, span.writer.to_string());
        headers.insert(SEQ, span.seqs());
    }
    headers
}
