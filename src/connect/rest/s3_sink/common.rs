//! The keys of every sink of Connect.

use super::key::Default::{Is, Null, Required};
use super::key::{Default, Key, Kind};

pub(super) const COMMON: &str = "Common";
pub(super) const ERRORS: &str = "Error Handling";
pub(super) const TRANSFORMS: &str = "Transforms";
pub(super) const PREDICATES: &str = "Predicates";

/// More tasks are refused: a task costs memory in every answer.
const MAX_TASKS: i64 = 1_024;

const VERSION: &str = crate::connect::rest::VERSION;
const JSON: &str = "org.apache.kafka.connect.json.JsonConverter";
const HEADERS: &str = "org.apache.kafka.connect.storage.SimpleHeaderConverter";
const ANY: i64 = i32::MAX as i64;

#[expect(clippy::too_many_arguments, reason = "a row of a table")]
const fn row(
    name: &'static str,
    kind: Kind,
    default: Default,
    importance: &'static str,
    group: &'static str,
    order: i32,
    width: &'static str,
    display: &'static str,
    doc: &'static str,
) -> Key {
    Key { name, kind, default, importance, group, order, width, display, doc }
}

/// In Connect's order.
#[rustfmt::skip] // A table.
pub(super) const KEYS: &[Key] = &[
    row("name", Kind::Name, Required, "HIGH", COMMON, 1, "MEDIUM", "Connector name", "The connector's name, unique in this worker."),
    row("connector.class", Kind::Filled, Required, "HIGH", COMMON, 2, "LONG", "Connector class", "The connector's class: io.confluent.connect.s3.S3SinkConnector, or S3SinkConnector or S3Sink for short."),
    row("connector.plugin.version", Kind::Text, Is(VERSION), "MEDIUM", COMMON, 3, "MEDIUM", "Connector version", "The connector's version."),
    row("tasks.max", Kind::Int(1, MAX_TASKS), Is("1"), "HIGH", COMMON, 4, "SHORT", "Tasks max", "How many tasks the connector may use."),
    row("tasks.max.enforce", Kind::Boolean, Is("true"), "LOW", COMMON, 5, "SHORT", "Enforce tasks max", "(Deprecated) Whether a connector may not have more tasks than tasks.max."),
    row("key.converter", Kind::Class, Is(JSON), "LOW", COMMON, 6, "SHORT", "Key converter class", "How the keys of messages are read."),
    row("key.converter.plugin.version", Kind::Text, Is(VERSION), "LOW", COMMON, 7, "SHORT", "Key converter version", "The key converter's version."),
    row("value.converter", Kind::Class, Is(JSON), "LOW", COMMON, 8, "SHORT", "Value converter class", "How the values of messages are read."),
    row("value.converter.plugin.version", Kind::Text, Is(VERSION), "LOW", COMMON, 9, "SHORT", "Value converter version", "The value converter's version."),
    row("header.converter", Kind::Class, Is(HEADERS), "LOW", COMMON, 10, "SHORT", "Header converter class", "How the headers of messages are read."),
    row("header.converter.plugin.version", Kind::Text, Is(VERSION), "LOW", COMMON, 11, "SHORT", "Header converter version", "The header converter's version."),
    row("transforms", Kind::List, Is(""), "LOW", TRANSFORMS, 12, "LONG", "Transforms", "Aliases of the transformations that records go through, in order."),
    row("predicates", Kind::List, Is(""), "LOW", PREDICATES, 13, "LONG", "Predicates", "Aliases of the predicates that transformations use."),
    row("config.action.reload", Kind::OneOf(&["none", "restart"]), Is("restart"), "LOW", COMMON, 14, "MEDIUM", "Reload Action", "What happens when a configuration provider has new values: none or restart."),
    row("errors.retry.timeout", Kind::Long, Is("0"), "MEDIUM", ERRORS, 1, "MEDIUM", "Retry Timeout for Errors", "For how many milliseconds a failed operation is tried again; -1 is for ever."),
    row("errors.retry.delay.max.ms", Kind::Long, Is("60000"), "MEDIUM", ERRORS, 2, "MEDIUM", "Maximum Delay Between Retries for Errors", "The longest pause between two tries, in milliseconds."),
    row("errors.tolerance", Kind::OneOf(&["none", "all"]), Is("none"), "MEDIUM", ERRORS, 3, "SHORT", "Error Tolerance", "none: a message that cannot be stored ends the task; all: it is left out."),
    row("errors.log.enable", Kind::Boolean, Is("false"), "MEDIUM", ERRORS, 4, "SHORT", "Log Errors", "Whether tolerated errors are logged."),
    row("errors.log.include.messages", Kind::Boolean, Is("false"), "MEDIUM", ERRORS, 5, "SHORT", "Log Error Details", "Whether the log has the topic, partition and offset of what failed."),
    row("topics", Kind::List, Is(""), "HIGH", COMMON, 4, "LONG", "Topics", "The topics to store, separated by commas."),
    row("topics.regex", Kind::Text, Is(""), "HIGH", COMMON, 4, "LONG", "Topics regex", "A regular expression of the topics to store. Either this or topics."),
    row("errors.deadletterqueue.topic.name", Kind::Text, Is(""), "MEDIUM", ERRORS, 6, "MEDIUM", "Dead Letter Queue Topic Name", "The topic for messages that cannot be stored; empty: there is none."),
    row("errors.deadletterqueue.topic.replication.factor", Kind::Short, Is("3"), "MEDIUM", ERRORS, 7, "MEDIUM", "Dead Letter Queue Topic Replication Factor", "Replicas of the dead letter topic, when it has to be created."),
    row("errors.deadletterqueue.context.headers.enable", Kind::Boolean, Is("false"), "MEDIUM", ERRORS, 8, "MEDIUM", "Enable Error Context Headers", "Whether dead letters have headers that say why: __connect.errors.…"),
];

/// For each alias in `transforms`, below `transforms.<alias>.`
#[rustfmt::skip] // A table.
pub(super) const TRANSFORM: &[Key] = &[
    row("type", Kind::Class, Required, "HIGH", TRANSFORMS, 0, "LONG", "Transformation type", "The transformation's class."),
    row("negate", Kind::Boolean, Is("false"), "LOW", TRANSFORMS, 1, "NONE", "Negate", "Whether it goes for the records that the predicate is false for."),
    row("predicate", Kind::Text, Null, "LOW", TRANSFORMS, 2, "NONE", "Predicate", "The alias of the predicate that says which records it goes for."),
];

/// Of JsonConverter, below `key.converter.` and `value.converter.`, when that is set.
#[rustfmt::skip] // A table.
pub(super) const JSON_CONVERTER: &[Key] = &[
    row("schemas.enable", Kind::Boolean, Is("true"), "HIGH", "Schemas", 0, "MEDIUM", "Enable Schemas", "Whether a message is an envelope with its schema. Not given: both forms are taken."),
    row("schemas.cache.size", Kind::Int(0, ANY), Is("1000"), "HIGH", "Schemas", 1, "MEDIUM", "Schema Cache Size", "How many schemas are kept."),
    row("decimal.format", Kind::OneOf(&["BASE64", "NUMERIC"]), Is("BASE64"), "LOW", "Serialization", 0, "MEDIUM", "Decimal Format", "How decimals are written."),
    row("replace.null.with.default", Kind::Boolean, Is("true"), "LOW", "Schemas", 2, "MEDIUM", "Replace null with default", "Whether a null in a field with a default becomes the default."),
];
