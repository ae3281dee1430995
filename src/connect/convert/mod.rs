//! From a message's bytes to a record: converters.

mod avro;
mod conform;
mod envelope;

pub(super) use conform::{conform, unscaled};

use super::config::{ConverterKind, ConverterSettings, Envelope, SinkConfig};
use super::record::{Part, Record};
use super::schema::{Kind, Schema};
use super::value::Value;
use crate::archive::encoder::{EncodeError, Message};
use avro::Avro;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use envelope::Schemas;
use std::borrow::Cow;
use std::sync::Arc;

/// What a reason begins with that is about the key.
pub(super) const KEY: &str = "key: ";

/// Reads keys and values.
pub(super) struct Converters {
    key: Converter,
    value: Converter,
}

enum Converter {
    Json(Envelope, Schemas),
    Avro(Box<Avro>),
    String(Arc<Schema>),
    Bytes(Arc<Schema>),
}

impl Converters {
    /// # Errors
    /// A registry's client cannot be made of its settings.
    pub fn new(config: &SinkConfig) -> Result<Converters, String> {
        Ok(Converters { key: Converter::new(&config.key_converter)?, value: Converter::new(&config.value_converter)? })
    }

    /// Reads a message. Keys are read only where they are asked for: objects do not have them.
    ///
    /// `Ok(Err(_))`: why it is no record.
    ///
    /// # Errors
    /// A registry does not answer.
    pub fn record<'a>(&self, message: &Message<'a>, with_key: bool) -> Result<Result<Record<'a>, String>, EncodeError> {
        let key = if with_key { self.key.read(message.key)? } else { Ok(Part::default()) };
        let value = self.value.read(message.value)?;
        let read = match (key, value) {
            (Ok(key), Ok(value)) => Ok((key, value)),
            (Err(why), _) => Err(format!("{KEY}{why}")),
            (_, Err(why)) => Err(why),
        };
        Ok(read.map(|(key, value)| Record {
            topic: Cow::Borrowed(message.topic),
            partition: message.partition,
            offset: message.offset,
            timestamp: message.timestamp,
            key,
            value,
        }))
    }
}

impl Converter {
    fn new(settings: &ConverterSettings) -> Result<Converter, String> {
        let required = |kind| Arc::new(Schema { optional: false, ..Schema::optional(kind) });
        Ok(match settings.kind {
            ConverterKind::Json(envelope) => Converter::Json(envelope, Schemas::default()),
            ConverterKind::Avro => Converter::Avro(Box::new(Avro::new(settings)?)),
            ConverterKind::String => Converter::String(required(Kind::String)),
            ConverterKind::ByteArray => Converter::Bytes(required(Kind::Bytes)),
        })
    }

    fn read(&self, bytes: Option<&[u8]>) -> Result<Result<Part, String>, EncodeError> {
        let Some(bytes) = bytes else { return Ok(Ok(Part::default())) };
        match self {
            Converter::Json(envelope, schemas) => Ok(schemas.read(bytes, *envelope)),
            Converter::Avro(avro) => avro.read(bytes),
            Converter::String(schema) => Ok(match simdutf8::basic::from_utf8(bytes) {
                Ok(text) => Ok(Part { schema: Some(schema.clone()), value: Some(Value::from(text)) }),
                Err(_) => Err("not UTF-8: expected text of StringConverter".to_owned()),
            }),
            Converter::Bytes(schema) => {
                Ok(Ok(Part { schema: Some(schema.clone()), value: Some(Value::Text(STANDARD.encode(bytes))) }))
            }
        }
    }
}

#[cfg(test)]
mod tests;
