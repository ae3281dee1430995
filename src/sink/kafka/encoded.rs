//! Formats that a line is turned into: a message for each line, whose value is made here.

use super::messages::{Flow, Messages, Topics};
use super::produce::{Header, Outgoing, Producer};
use super::reports::Opaque;
use super::settings::{Format, KafkaSettings};
use crate::batch::Chunk;
use crate::format::connect_json::ConnectJson;
use crate::format::store::SchemaStore;
use crate::format::wire::{EncodeError, Encoded};
use crate::seqs::SeqRanges;
use crate::sink::broker::flight::Mark;
use std::sync::Arc;

/// Makes values of lines.
#[derive(Debug)]
pub(super) enum Encoder {
    ConnectJson(Box<ConnectJson>),
    #[cfg(feature = "avro")]
    Avro(Box<crate::format::avro::Avro>),
}

impl Encoder {
    /// `None` if values are the lines.
    ///
    /// # Errors
    /// The registry's settings make no client, or this build has not the format.
    pub(super) fn open(settings: &KafkaSettings) -> Result<Option<Self>, String> {
        Ok(match settings.format {
            Format::Json => None,
            Format::ConnectJson => {
                Some(Encoder::ConnectJson(Box::new(ConnectJson::new(SchemaStore::new(&settings.fallback.dir)))))
            }
            #[cfg(feature = "avro")]
            Format::Avro => Some(Encoder::Avro(Box::new(crate::format::avro::Avro::new(&settings.registry)?))),
            #[cfg(not(feature = "avro"))]
            Format::Avro => return Err("kafka.format=\"avro\": this build was made without the feature `avro`".to_owned()),
        })
    }

    /// What records wait for, if any do.
    pub(super) fn waits_for(&mut self) -> Option<String> {
        match self {
            Encoder::ConnectJson(_) => None,
            #[cfg(feature = "avro")]
            Encoder::Avro(avro) => avro.waits_for(),
        }
    }

    fn encode<'a>(
        &mut self,
        #[cfg_attr(not(feature = "avro"), expect(unused_variables, reason = "only subjects are named after topics"))] topic: &str,
        line: &'a [u8],
        ahead: impl Iterator<Item = &'a [u8]>,
        out: &mut Vec<u8>,
    ) -> Result<Encoded, EncodeError> {
        match self {
            Encoder::ConnectJson(json) => json.encode(line, ahead, out),
            #[cfg(feature = "avro")]
            Encoder::Avro(avro) => avro.encode(topic, line, ahead, out),
        }
    }

    fn content_type(&self) -> &'static [u8] {
        match self {
            Encoder::ConnectJson(_) => b"application/json",
            #[cfg(feature = "avro")]
            Encoder::Avro(_) => b"application/avro",
        }
    }
}

impl Messages {
    /// Sends the lines, but for those that `skip` has, each as a message of its own. Those that must wait are left out, and `flow` says for what: records of other
    /// models need not wait with them.
    pub(super) fn send_encoded(
        &mut self,
        flow: &mut Flow<'_>,
        chunk: &Chunk<'_>,
        skip: Option<&SeqRanges>,
        producer: &Arc<Producer>,
        topics: &dyn Topics,
    ) -> Result<(), String> {
        let mut lines = chunk.lines();
        while let Some((seq, line)) = lines.next() {
            if skip.is_some_and(|seqs| seqs.contains(seq)) {
                continue;
            }
            let topic = self.topic_of(line, producer, topics)?;
            if self.topics.get(topic).is_some_and(|topic| flow.has_no_topic(topic, chunk.writer, seq, line)) {
                continue;
            }
            let mark = Mark { index: flow.next, writer: chunk.writer, first_seq: seq, last_seq: seq };
            let sent = self.send_as_message(flow, topic, mark, line, lines.clone().map(|(_, line)| line));
            if flow.waits.is_ok() {
                flow.waits = sent;
            }
        }
        Ok(())
    }

    /// Sends a line. One that can be no message is for the dead letters.
    ///
    /// # Errors
    /// It must wait, and for what. Nothing was sent.
    fn send_as_message<'a>(
        &mut self,
        flow: &mut Flow<'_>,
        topic: usize,
        mark: Mark,
        line: &'a [u8],
        ahead: impl Iterator<Item = &'a [u8]>,
    ) -> Result<(), String> {
        let (key, hash) = (self.key_of(line), self.hash_of(mark.writer, mark.first_seq));
        let (Some(encoder), Some(topic)) = (&mut self.encoder, self.topics.get(topic)) else { return Ok(()) };
        let encoded = match encoder.encode(topic.name(), line, ahead, &mut self.value) {
            Err(EncodeError::NotYet(why)) => return Err(why),
            Err(EncodeError::Unencodable(why)) => Err(why),
            Ok(_) if self.value.len() > self.max_payload => {
                let (len, most) = (self.value.len(), self.max_payload);
                Err(format!("the message would have {len} bytes, and kafka.max_message_bytes leaves room for {most}"))
            }
            Ok(encoded) => Ok(encoded),
        };
        let opaque = Opaque { slot: flow.slot, index: flow.next, hash };
        flow.next += 1;
        let mut flight = flow.reports.flight();
        flight.expect(flow.slot, 1, &[mark]);
        flight.keep_line(opaque.slot, opaque.index, line);
        drop(flight);
        let encoded = match encoded {
            Ok(encoded) => encoded,
            Err(reason) => {
                flow.reports.bury(opaque, topic.name(), &reason, line);
                return Ok(());
            }
        };
        let message = Outgoing { payload: &self.value, key, opaque };
        if !self.headers {
            topic.produce(&[message], &mut self.natives, flow.reports);
            return Ok(());
        }
        let (mut digits, marks) = (itoa::Buffer::new(), [mark]);
        let mut headers = self.marked.headers(encoder.content_type(), &marks);
        headers.extend(encoded.schema_id.map(|id| Header { name: c"predlog-schema-id", value: digits.format(id).as_bytes() }));
        topic.produce_with_headers(&message, headers.as_slice(), flow.reports);
        Ok(())
    }
}
