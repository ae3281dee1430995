//! From the lines of a batch to messages in librdkafka's hands.

#[cfg(feature = "parquet")]
use super::encoded::Encoder;
use super::headers::Marked;
use super::prober::Missing;
use super::produce::{Natives, Outgoing, Producer, Topic};
use super::reports::{Opaque, Reports};
use super::settings::{KafkaSettings, Key, Packing};
use crate::batch::{Batch, Chunk};
use crate::ledger::is_ledger;
use crate::record::{Writer, raw_id, raw_model_name};
use crate::sink::Kept;
use crate::sink::broker::flight::Mark;
use crate::sink::broker::packing::{Pack, Packer, Place};
use crate::sink::broker::topic::TopicTemplate;
use rdkafka::producer::Producer as _;
use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

/// Records without a key go to one partition in runs of this many, so that a replay is cut the same way whatever its batches are.
const RUN: u64 = 1024;
/// Messages that are named and handed over together.
const GROUP: usize = 512;
/// Bytes around the lines of a message: its headers and Kafka's own.
const MESSAGE_OVERHEAD: usize = 1024;

/// Makes messages of lines.
pub(super) struct Messages {
    template: TopicTemplate,
    key: Key,
    packing: Packing,
    pub(super) headers: bool,
    pub(super) marked: Marked,
    pub(super) max_payload: usize,
    /// By the raw text of a model's name; of one topic for all, by nothing.
    by_model: HashMap<Vec<u8>, usize>,
    pub(super) topics: Vec<Topic>,
    ledger: Option<Topic>,
    pub(super) natives: Natives,
    packer: Packer,
    /// Makes values of lines; without it a value is a line.
    #[cfg(feature = "parquet")]
    pub(super) encoder: Option<Encoder>,
    /// The value that was made last.
    #[cfg(feature = "parquet")]
    pub(super) value: Vec<u8>,
}

impl std::fmt::Debug for Messages {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Messages").field("template", &self.template).finish_non_exhaustive()
    }
}

/// Which topics there are.
pub(super) trait Topics {
    /// A topic is written to for the first time.
    fn met(&self, topic: &str);

    /// Topics that are not there: what is for them must not hold up others.
    fn missing(&self) -> Missing;

    /// Whether the ledger's topic is there (`Ok(Err)`: why not).
    ///
    /// # Errors
    /// The brokers have not said so yet.
    fn has_ledger(&self, topic: &str) -> Result<Result<(), String>, String>;
}

/// The batch at hand.
pub(super) struct Flow<'a> {
    pub(super) reports: &'a Reports,
    pub(super) slot: u16,
    pub(super) next: u32,
    marks: Vec<Mark>,
    group: Vec<Outgoing<'a>>,
    group_topic: usize,
    missing: Missing,
    /// What records of the batch must wait for.
    pub(super) waits: Result<(), String>,
}

impl Flow<'_> {
    /// `true` when the line's topic is missing: the line is with the dead letters then.
    pub(super) fn has_no_topic(&mut self, topic: &Topic, writer: Writer, seq: u64, line: &[u8]) -> bool {
        let Some(why) = self.missing.get(topic.name()) else { return false };
        let mark = Mark { index: self.next, writer, first_seq: seq, last_seq: seq };
        let opaque = Opaque { slot: self.slot, index: self.next, hash: 0 };
        self.next += 1;
        self.reports.flight().expect(self.slot, 1, &[mark]);
        self.reports.bury(opaque, topic.name(), why, line.strip_suffix(b"\n").unwrap_or(line));
        true
    }
}

impl Messages {
    /// # Errors
    /// The settings make no encoder.
    pub(super) fn new(settings: &KafkaSettings, template: TopicTemplate) -> Result<Self, String> {
        Ok(Messages {
            template,
            key: settings.key,
            packing: settings.packing,
            headers: settings.headers,
            marked: Marked::default(),
            max_payload: (settings.max_message_bytes.as_u64() as usize).saturating_sub(MESSAGE_OVERHEAD),
            by_model: HashMap::new(),
            topics: Vec::new(),
            ledger: None,
            natives: Natives::default(),
            packer: Packer::default(),
            #[cfg(feature = "parquet")]
            encoder: Encoder::open(settings)?,
            #[cfg(feature = "parquet")]
            value: Vec::new(),
        })
    }

    /// What records wait for beside the brokers, if any do.
    pub(super) fn waits_for(&mut self) -> Option<String> {
        #[cfg(feature = "parquet")]
        return self.encoder.as_mut().and_then(Encoder::waits_for);
        #[cfg(not(feature = "parquet"))]
        None
    }

    /// The client was replaced: its topics go with it.
    pub(super) fn forget_topics(&mut self) {
        self.by_model.clear();
        self.topics.clear();
        self.ledger = None;
    }

    /// Hands the batch over, but for what `skip` has. `topics` knows what is there, and is told of each topic that was not met before.
    pub(super) fn send(
        &mut self,
        batch: &Batch<'_>,
        skip: &Kept,
        producer: &Arc<Producer>,
        slot: u16,
        topics: &dyn Topics,
    ) -> Result<(), String> {
        // What a batch that failed on its way in here has left was not sent, and comes again.
        self.packer.finish();
        let reports = producer.context().clone();
        let (group, missing) = (Vec::with_capacity(GROUP), topics.missing());
        let mut flow =
            Flow { reports: &reports, slot, next: 0, marks: Vec::new(), group, group_topic: 0, missing, waits: Ok(()) };
        for chunk in &batch.chunks {
            let skip = skip.get(&chunk.writer);
            if is_ledger(chunk.writer) {
                self.send_statements(&mut flow, chunk, producer, topics)?;
                continue;
            }
            #[cfg(feature = "parquet")]
            if self.encoder.is_some() {
                self.send_encoded(&mut flow, chunk, skip, producer, topics)?;
                continue;
            }
            for (seq, line) in chunk.lines() {
                if skip.is_some_and(|seqs| seqs.contains(seq)) {
                    continue;
                }
                let topic = self.topic_of(line, producer, topics)?;
                if self.topics.get(topic).is_some_and(|topic| flow.has_no_topic(topic, chunk.writer, seq, line)) {
                    continue;
                }
                let hash = self.hash_of(chunk.writer, seq);
                if self.packing == Packing::Ndjson {
                    let key = self.key_of(line).map(Cow::into_owned);
                    let place = Place { topic, key, hash };
                    if let Some(pack) = self.packer.add(&place, self.max_payload, chunk.writer, seq, line) {
                        self.send_pack(&mut flow, pack);
                    }
                    continue;
                }
                if flow.group.len() == GROUP || flow.group_topic != topic {
                    self.send_group(&mut flow);
                    flow.group_topic = topic;
                }
                let opaque = Opaque { slot, index: flow.next, hash };
                flow.marks.push(Mark { index: flow.next, writer: chunk.writer, first_seq: seq, last_seq: seq });
                flow.next += 1;
                flow.group.push(Outgoing { payload: line.strip_suffix(b"\n").unwrap_or(line), key: self.key_of(line), opaque });
            }
        }
        self.send_group(&mut flow);
        for pack in self.packer.finish() {
            self.send_pack(&mut flow, pack);
        }
        flow.waits
    }

    pub(super) fn topic_of(&mut self, line: &[u8], producer: &Arc<Producer>, topics: &dyn Topics) -> Result<usize, String> {
        let model = match self.template.fixed() {
            // It is asked for each record.
            Some(_) if !self.topics.is_empty() => return Ok(0),
            Some(_) => &[][..],
            None => raw_model_name(line).ok_or("a line is not one that log() made")?,
        };
        if let Some(&topic) = self.by_model.get(model) {
            return Ok(topic);
        }
        let name = match self.template.fixed() {
            Some(name) => name.to_owned(),
            None => {
                let quoted = [b"\"", model, b"\""].concat();
                let name: String =
                    serde_json::from_slice(&quoted).map_err(|error| format!("a model's name cannot be read: {error}"))?;
                self.template.of_model(&name)
            }
        };
        self.topics.push(Topic::new(producer, &name, self.key == Key::None)?);
        self.by_model.insert(model.to_vec(), self.topics.len() - 1);
        topics.met(&name);
        Ok(self.topics.len() - 1)
    }

    /// Statements of the ledger go to a topic of their own. Where that is missing they become dead letters: they must not hold up predictions.
    fn send_statements(
        &mut self,
        flow: &mut Flow<'_>,
        chunk: &Chunk<'_>,
        producer: &Arc<Producer>,
        topics: &dyn Topics,
    ) -> Result<(), String> {
        let name = self.template.ledger();
        let there = topics.has_ledger(&name)?;
        if self.ledger.is_none() {
            self.ledger = Some(Topic::new(producer, &name, true)?);
        }
        let Some(topic) = &self.ledger else { return Ok(()) };
        for (seq, line) in chunk.lines() {
            let mark = Mark { index: flow.next, writer: chunk.writer, first_seq: seq, last_seq: seq };
            let opaque = Opaque { slot: flow.slot, index: flow.next, hash: run_hash(chunk.writer, 0) };
            flow.next += 1;
            flow.reports.flight().expect(flow.slot, 1, &[mark]);
            let payload = line.strip_suffix(b"\n").unwrap_or(line);
            match &there {
                Ok(()) => {
                    let message = Outgoing { payload, key: None, opaque };
                    let marks = [mark];
                    let headers = self.marked.headers(b"application/json", &marks);
                    topic.produce_with_headers(&message, headers.as_slice(), flow.reports);
                }
                Err(why) => flow.reports.bury(opaque, &name, why, payload),
            }
        }
        Ok(())
    }

    /// The text of the key: what another producer of the same id, or name, would write.
    pub(super) fn key_of<'a>(&self, line: &'a [u8]) -> Option<Cow<'a, [u8]>> {
        match self.key {
            Key::Id => raw_id(line).map(unescaped),
            Key::ModelName => raw_model_name(line).map(unescaped),
            Key::None => None,
        }
    }

    /// What the partition of a record without a key is made of.
    pub(super) fn hash_of(&self, writer: Writer, seq: u64) -> u16 {
        if self.key == Key::None { run_hash(writer, seq) } else { 0 }
    }

    fn send_group(&mut self, flow: &mut Flow<'_>) {
        let Some(topic) = self.topics.get(flow.group_topic).filter(|_| !flow.group.is_empty()) else { return };
        flow.reports.flight().expect(flow.slot, flow.group.len(), &flow.marks);
        if self.headers {
            for (message, mark) in flow.group.iter().zip(&flow.marks) {
                let headers = self.marked.headers(b"application/json", std::slice::from_ref(mark));
                topic.produce_with_headers(message, headers.as_slice(), flow.reports);
            }
        } else {
            topic.produce(&flow.group, &mut self.natives, flow.reports);
        }
        flow.group.clear();
        flow.marks.clear();
    }

    fn send_pack(&mut self, flow: &mut Flow<'_>, mut pack: Pack) {
        let Some(topic) = self.topics.get(pack.place.topic) else { return };
        let index = flow.next;
        flow.next += 1;
        pack.marks.iter_mut().for_each(|mark| mark.index = index);
        flow.reports.flight().expect(flow.slot, 1, &pack.marks);
        let opaque = Opaque { slot: flow.slot, index, hash: pack.place.hash };
        let message = Outgoing { payload: &pack.lines, key: pack.place.key.as_deref().map(Cow::Borrowed), opaque };
        if self.headers {
            let headers = self.marked.headers(b"application/x-ndjson", &pack.marks);
            topic.produce_with_headers(&message, headers.as_slice(), flow.reports);
        } else {
            topic.produce(&[message], &mut self.natives, flow.reports);
        }
        self.packer.reuse(pack);
    }
}

/// A JSON string's text, of what stands between its quotes.
fn unescaped(raw: &[u8]) -> Cow<'_, [u8]> {
    if memchr::memchr(b'\\', raw).is_none() {
        return Cow::Borrowed(raw);
    }
    let text = serde_json::from_slice::<String>(&[b"\"", raw, b"\""].concat());
    text.map_or(Cow::Borrowed(raw), |text| Cow::Owned(text.into_bytes()))
}

/// Where a run of a writer's records goes: the same number for the same run, and other runs elsewhere.
fn run_hash(writer: Writer, seq: u64) -> u16 {
    let (high, low) = writer.process().as_u64_pair();
    let mut hash = high ^ low.rotate_left(32) ^ u64::from(writer.lane()) << 56;
    hash = (hash ^ (seq / RUN)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    hash ^= hash >> 29;
    (hash.wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 48) as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use uuid::Uuid;

    #[test]
    fn a_key_is_the_text_that_others_would_write() {
        for (raw, text) in [("order-17", "order-17"), (r#"a\"b\\c\td"#, "a\"b\\c\td"), (r"\u00e9", "é"), ("é", "é")] {
            assert_eq!(&*unescaped(raw.as_bytes()), text.as_bytes());
        }
    }

    #[test]
    fn a_run_stays_together_and_runs_are_spread() {
        let writer = Writer::new(Uuid::now_v7(), 3);
        assert_eq!(run_hash(writer, 0), run_hash(writer, RUN - 1));
        let partitions: BTreeSet<u16> = (0..64).map(|run| (run_hash(writer, run * RUN) >> 1) % 6).collect();
        assert_eq!(partitions.len(), 6);
    }
}
