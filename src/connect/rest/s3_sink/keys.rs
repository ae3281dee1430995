//! The keys of the S3 sink, with the defaults that its maker documents.

use super::key::Default::{Is, Null, Required};
use super::key::{Default, Key, Kind};

const S3: &str = "S3";
const CONNECTOR: &str = "Connector";
const STORAGE: &str = "Storage";
const PARTITIONER: &str = "Partitioner";

/// S3's own: no part but the last may be smaller.
const MIN_PART: i64 = 5 * 1024 * 1024;
const ANY: i64 = i32::MAX as i64;

const CREDENTIALS: &str = "com.amazonaws.auth.DefaultAWSCredentialsProviderChain";
const DEFAULT_PARTITIONER: &str = "io.confluent.connect.storage.partitioner.DefaultPartitioner";
const COMPATIBILITY: &[&str] = &["NONE", "BACKWARD", "FORWARD", "FULL"];
const CODECS: &[&str] = &["none", "gzip", "snappy", "lz4", "zstd", "brotli", "lzo"];

const fn row(
    group: &'static str,
    order: i32,
    name: &'static str,
    kind: Kind,
    default: Default,
    importance: &'static str,
    doc: &'static str,
) -> Key {
    Key { name, kind, default, importance, group, order, width: "LONG", display: name, doc }
}

#[rustfmt::skip] // A table.
pub(super) const KEYS: &[Key] = &[
    row(CONNECTOR, 1, "format.class", Kind::Class, Required, "HIGH", "The objects' format: a class of io.confluent.connect.s3.format, or parquet, json or bytearray for short."),
    row(CONNECTOR, 2, "flush.size", Kind::Int(1, ANY), Required, "HIGH", "How many records of a topic partition make an object."),
    row(CONNECTOR, 3, "rotate.interval.ms", Kind::Long, Is("-1"), "HIGH", "The milliseconds that the records of an object span at most, by the timestamp extractor's time; -1: any."),
    row(CONNECTOR, 4, "rotate.schedule.interval.ms", Kind::Long, Is("-1"), "MEDIUM", "Objects end at each multiple of these milliseconds since midnight in timezone; -1: they do not."),
    row(CONNECTOR, 5, "schema.cache.size", Kind::Int(0, ANY), Is("1000"), "LOW", "How many schemas are kept."),
    row(CONNECTOR, 6, "retry.backoff.ms", Kind::Long, Is("5000"), "LOW", "The pause before a failed request is made again, in milliseconds."),
    row(CONNECTOR, 7, "shutdown.timeout.ms", Kind::Long, Is("3000"), "MEDIUM", "How long a stop waits for what is being stored, in milliseconds."),
    row(CONNECTOR, 8, "filename.offset.zero.pad.width", Kind::Int(0, 20), Is("10"), "LOW", "How many digits the offset in an object's name has at least."),
    row(CONNECTOR, 9, "schema.compatibility", Kind::OneOf(COMPATIBILITY), Is("NONE"), "HIGH", "Which change of the schema does not end an object."),
    row(S3, 1, "s3.bucket.name", Kind::Filled, Required, "HIGH", "The bucket."),
    row(S3, 2, "s3.region", Kind::Text, Is("us-west-2"), "MEDIUM", "The bucket's region."),
    row(S3, 3, "s3.part.size", Kind::Int(MIN_PART, ANY), Is("26214400"), "HIGH", "Bytes of a part of a multipart upload."),
    row(S3, 4, "s3.credentials.provider.class", Kind::Class, Is(CREDENTIALS), "LOW", "Where credentials come from."),
    row(S3, 5, "aws.access.key.id", Kind::Text, Is(""), "HIGH", "The access key; empty: the provider has it."),
    row(S3, 6, "aws.secret.access.key", Kind::Password, Is(""), "HIGH", "The secret key; empty: the provider has it."),
    row(S3, 7, "s3.ssea.name", Kind::Text, Is(""), "LOW", "How the store encrypts objects."),
    row(S3, 8, "s3.sse.customer.key", Kind::Password, Is(""), "LOW", "The key for SSE-C."),
    row(S3, 9, "s3.sse.kms.key.id", Kind::Text, Is(""), "LOW", "The key's id for SSE-KMS."),
    row(S3, 10, "s3.acl.canned", Kind::Text, Null, "LOW", "The canned ACL of objects."),
    row(S3, 11, "s3.wan.mode", Kind::Boolean, Is("false"), "MEDIUM", "Whether S3's accelerated endpoint is used."),
    row(S3, 12, "s3.compression.type", Kind::OneOf(&["none", "gzip"]), Is("none"), "LOW", "How JSON and byte array objects are compressed."),
    row(S3, 13, "s3.compression.level", Kind::Int(-1, 9), Is("-1"), "LOW", "How hard gzip works; -1: its default."),
    row(S3, 14, "s3.part.retries", Kind::Int(0, ANY), Is("3"), "MEDIUM", "How often a failed request is made again."),
    row(S3, 15, "s3.retry.backoff.ms", Kind::Long, Is("200"), "LOW", "The pause before a request is made again, in milliseconds."),
    row(S3, 16, "s3.http.send.expect.continue", Kind::Boolean, Is("true"), "LOW", "Whether a request waits for the store's consent to its body."),
    row(S3, 17, "s3.path.style.access.enabled", Kind::Boolean, Is("true"), "LOW", "Whether the bucket is in the path, not in the host's name."),
    row(S3, 18, "s3.proxy.url", Kind::Text, Is(""), "LOW", "A proxy between this and the store."),
    row(S3, 19, "s3.proxy.user", Kind::Text, Null, "LOW", "The proxy's user."),
    row(S3, 20, "s3.proxy.password", Kind::Password, Is(""), "LOW", "The proxy's password."),
    row(S3, 21, "s3.object.tagging", Kind::Boolean, Is("false"), "LOW", "Whether objects have tags of their offsets and count."),
    row(S3, 22, "parquet.codec", Kind::OneOf(CODECS), Is("snappy"), "LOW", "How Parquet is compressed."),
    row(S3, 23, "behavior.on.null.values", Kind::OneOf(&["ignore", "fail", "write"]), Is("fail"), "LOW", "What becomes of a message without a value."),
    row(S3, 24, "format.bytearray.extension", Kind::Text, Is(".bin"), "LOW", "How the names of byte array objects end."),
    row(S3, 25, "format.bytearray.separator", Kind::Text, Null, "LOW", "What is between the records of a byte array object; not given: a line's end."),
    row(S3, 26, "store.kafka.keys", Kind::Boolean, Is("false"), "LOW", "Whether the keys of messages are stored too."),
    row(S3, 27, "store.kafka.headers", Kind::Boolean, Is("false"), "LOW", "Whether the headers of messages are stored too."),
    row(STORAGE, 1, "storage.class", Kind::Class, Required, "HIGH", "The storage: io.confluent.connect.s3.storage.S3Storage."),
    row(STORAGE, 2, "topics.dir", Kind::Text, Is("topics"), "HIGH", "What the names of all objects begin with."),
    row(STORAGE, 3, "store.url", Kind::Text, Null, "HIGH", "The store's endpoint; not given: S3's own in the region."),
    row(STORAGE, 4, "directory.delim", Kind::Text, Is("/"), "MEDIUM", "What separates the directories of an object's name."),
    row(STORAGE, 5, "file.delim", Kind::Text, Is("+"), "MEDIUM", "What separates topic, partition and offset in an object's name."),
    row(PARTITIONER, 1, "partitioner.class", Kind::Class, Is(DEFAULT_PARTITIONER), "HIGH", "How records are divided into directories."),
    row(PARTITIONER, 2, "partition.field.name", Kind::List, Is(""), "MEDIUM", "The fields that FieldPartitioner divides by."),
    row(PARTITIONER, 3, "partition.duration.ms", Kind::Long, Is("-1"), "MEDIUM", "Milliseconds of a directory of TimeBasedPartitioner."),
    row(PARTITIONER, 4, "path.format", Kind::Text, Is(""), "MEDIUM", "A directory of TimeBasedPartitioner, such as 'year'=YYYY/'month'=MM/'day'=dd."),
    row(PARTITIONER, 5, "locale", Kind::Text, Is(""), "MEDIUM", "The locale of names in path.format."),
    row(PARTITIONER, 6, "timezone", Kind::Text, Is(""), "MEDIUM", "The time zone of directories and of the rotation's schedule."),
    row(PARTITIONER, 7, "timestamp.extractor", Kind::Class, Is("Wallclock"), "MEDIUM", "A record's time: Wallclock, Record or RecordField."),
    row(PARTITIONER, 8, "timestamp.field", Kind::Text, Is("timestamp"), "MEDIUM", "The field of RecordField."),
];
