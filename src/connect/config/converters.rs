//! `key.converter`, `value.converter` and the keys below them.

use super::reader::Reader;
use crate::config::kafka::Secret;

/// How bytes become a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConverterKind {
    /// JSON.
    Json(Envelope),
    /// Avro, with its schema in a registry.
    Avro,
    /// Text.
    String,
    /// Bytes, as they are.
    ByteArray,
}

impl ConverterKind {
    /// The class of Connect's.
    pub fn class(self) -> &'static str {
        match self {
            ConverterKind::Json(_) => "org.apache.kafka.connect.json.JsonConverter",
            ConverterKind::Avro => "io.confluent.connect.avro.AvroConverter",
            ConverterKind::String => "org.apache.kafka.connect.storage.StringConverter",
            ConverterKind::ByteArray => "org.apache.kafka.connect.converters.ByteArrayConverter",
        }
    }
}

/// Whether JSON comes with its schema: `{"schema": …, "payload": …}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Envelope {
    /// `schemas.enable=true`.
    Always,
    /// `schemas.enable=false`.
    Never,
    /// Not given: where it looks like one.
    WhereFound,
}

/// A converter and what it needs.
#[derive(Clone, Debug, PartialEq)]
pub struct ConverterSettings {
    /// Which.
    pub kind: ConverterKind,
    /// The Schema Registry of Avro.
    pub registry: Option<String>,
    /// Its user and password.
    pub credentials: Option<(String, Secret)>,
}

/// Keys that change nothing for one who only reads.
const WITHOUT_EFFECT: [&str; 9] = [
    "schemas.cache.size",
    "decimal.format",
    "replace.null.with.default",
    "auto.register.schemas",
    "use.latest.version",
    "enhanced.avro.schema.support",
    "connect.meta.data",
    "schemas.cache.config",
    "converter.type",
];

#[derive(Clone, Copy)]
enum Class {
    Json,
    Avro,
    String,
    ByteArray,
}

impl ConverterSettings {
    pub(super) fn read(reader: &mut Reader, key: &str) -> ConverterSettings {
        let known = [
            ("org.apache.kafka.connect.json.JsonConverter", Class::Json),
            ("io.confluent.connect.avro.AvroConverter", Class::Avro),
            ("org.apache.kafka.connect.storage.StringConverter", Class::String),
            ("org.apache.kafka.connect.converters.ByteArrayConverter", Class::ByteArray),
        ];
        let is_value = key == "value.converter";
        let class = reader.class(key, "Converter", &known).unwrap_or(if is_value { Class::Json } else { Class::ByteArray });
        let below = |name: &str| format!("{key}.{name}");
        let schemas = match reader.text(&below("schemas.enable")) {
            None => Envelope::WhereFound,
            Some(text) if text.eq_ignore_ascii_case("true") => Envelope::Always,
            Some(text) if text.eq_ignore_ascii_case("false") => Envelope::Never,
            Some(text) => {
                reader.wrong(&below("schemas.enable"), &text, "true or false");
                Envelope::Never
            }
        };
        let registry = reader.text(&below("schema.registry.url"));
        let credentials = credentials(reader, key);
        if let Some(encoding) = reader.text(&below("converter.encoding"))
            && !matches!(encoding.to_ascii_uppercase().as_str(), "UTF8" | "UTF-8")
        {
            reader.wrong(&below("converter.encoding"), &encoding, "UTF-8");
        }
        for name in WITHOUT_EFFECT {
            if let Some(value) = reader.text(&below(name)) {
                reader.warn(&below(name), &value, "has no effect here: it is for those who write");
            }
        }
        let kind = match class {
            Class::Json => ConverterKind::Json(schemas),
            Class::Avro => ConverterKind::Avro,
            Class::String => ConverterKind::String,
            Class::ByteArray => ConverterKind::ByteArray,
        };
        match (kind, &registry) {
            (ConverterKind::Avro, None) => {
                reader.required(&below("schema.registry.url"), "the Schema Registry of AvroConverter, as http://registry:8081");
            }
            (ConverterKind::Avro, Some(url)) if !url.starts_with("http://") && !url.starts_with("https://") => {
                reader.wrong(&below("schema.registry.url"), url, "http://… or https://…");
            }
            (ConverterKind::Avro, Some(_)) | (_, None) => {}
            (_, Some(url)) => reader.warn(&below("schema.registry.url"), url, "has no effect: the converter asks no registry"),
        }
        ConverterSettings { kind, registry, credentials }
    }
}

fn credentials(reader: &mut Reader, key: &str) -> Option<(String, Secret)> {
    let source = format!("{key}.basic.auth.credentials.source");
    match reader.text(&source).as_deref() {
        None | Some("USER_INFO") => {}
        Some(other) => reader.wrong(&source, other, "USER_INFO"),
    }
    let given = ["basic.auth.user.info", "schema.registry.basic.auth.user.info"].map(|name| {
        let name = format!("{key}.{name}");
        reader.text(&name).map(|value| (name, value))
    });
    let (name, info) = given.into_iter().flatten().next()?;
    match info.split_once(':') {
        Some((user, password)) => Some((user.to_owned(), Secret::new(password))),
        None => {
            reader.wrong(&name, &info, "user:password");
            None
        }
    }
}
