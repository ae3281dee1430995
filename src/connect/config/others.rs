//! Keys of the maker's that change nothing here, and those that would and cannot.

use super::reader::Reader;

/// Keys that say how the maker's program works, and nothing of what is stored: they are known, and a warning says why they have no effect.
const WITHOUT_EFFECT: &[(&str, &str)] = &[
    ("schema.cache.size", "all schemas are kept"),
    ("retry.backoff.ms", "requests are made again with a growing pause"),
    ("s3.part.retries", "requests are made again until they succeed"),
    ("s3.retry.backoff.ms", "requests are made again with a growing pause"),
    ("errors.retry.timeout", "what may pass is tried again until it succeeds"),
    ("errors.retry.delay.max.ms", "requests are made again with a growing pause"),
    ("shutdown.timeout.ms", "what is not stored at a stop is read again"),
    ("s3.http.send.expect.continue", "requests are sent at once"),
    ("auto.register.schemas", "a sink registers no schemas"),
    ("use.latest.version", "a sink registers no schemas"),
    ("schema.registry.url", "converters have keys of their own: value.converter.schema.registry.url"),
    ("enhanced.avro.schema.support", "names of Avro's are not stored"),
    ("connect.meta.data", "Connect's notes on schemas are not stored"),
    ("header.converter", "headers are not stored"),
    ("config.action.reload", "configurations are not reloaded"),
    ("tasks.max.enforce", "a connector never has more tasks than it may"),
    ("errors.log.include.messages", "values are never logged"),
    ("s3.send.digest", "each request says what it carries"),
    ("s3.elastic.buffer.enable", "memory is bounded by archive.memory"),
    ("s3.elastic.buffer.init.capacity", "memory is bounded by archive.memory"),
    ("s3.object.tagging.key.value.pairs", "s3.object.tagging is false"),
    ("s3.object.behavior.on.tagging.error", "s3.object.tagging is false"),
    ("enable.conditional.writes", "what is stored is decided before it is put"),
    ("max.files.scan.limit", "what is stored is decided before it is put"),
    ("max.write.duration.ms", "the group is served while files are stored"),
    ("avro.codec", "it is for AvroFormat"),
    ("confluent.license", "there is none"),
];

/// Keys that cannot be done, the value that asks for nothing, and what to do.
const UNSUPPORTED: &[(&str, &str, &str)] = &[
    ("s3.ssea.name", "", "the bucket's own default encryption"),
    ("s3.sse.customer.key", "", "the bucket's own default encryption"),
    ("s3.sse.kms.key.id", "", "the bucket's own default encryption"),
    ("s3.acl.canned", "", "a policy of the bucket"),
    ("s3.wan.mode", "false", "false, or the accelerated endpoint as store.url"),
    ("s3.proxy.url", "", "HTTPS_PROXY in the environment"),
    ("s3.proxy.user", "", "HTTPS_PROXY in the environment"),
    ("s3.proxy.password", "", "HTTPS_PROXY in the environment"),
    ("s3.object.tagging", "false", "false"),
    ("store.kafka.keys", "false", "false, or the key as a field"),
    ("store.kafka.headers", "false", "false"),
    ("keys.format.class", "", "no such key"),
    ("headers.format.class", "", "no such key"),
    ("predicates", "", "no predicates: they are not supported"),
    ("allow.optional.map.keys", "false", "false"),
    ("json.decimal.format", "BASE64", "BASE64"),
    ("s3.schema.partition.affix.type", "NONE", "NONE"),
    ("partitioner.max.open.files", "-1", "-1: archive.memory bounds what is open"),
    ("hive.integration", "false", "false, and a table over the objects"),
    ("s3.sse.key", "", "the bucket's own default encryption"),
    ("tombstone.encoded.partition", "", "behavior.on.null.values=ignore"),
];

/// What paces the consumer of a Connect worker, and changes nothing of what is stored.
const CONSUMER_WITHOUT_EFFECT: &[&str] = &[
    "max.poll.records",
    "max.poll.interval.ms",
    "fetch.min.bytes",
    "fetch.max.bytes",
    "fetch.max.wait.ms",
    "max.partition.fetch.bytes",
    "receive.buffer.bytes",
    "partition.assignment.strategy",
];

pub(super) fn check(reader: &mut Reader) {
    for (key, why) in WITHOUT_EFFECT {
        if let Some(value) = reader.text(key) {
            reader.warn(key, &value, &format!("has no effect here: {why}"));
        }
    }
    for (key, neutral, instead) in UNSUPPORTED {
        if let Some(value) = reader.text(key)
            && !value.eq_ignore_ascii_case(neutral)
        {
            reader.wrong(key, &value, &format!("{instead} (this is not supported)"));
        }
    }
    for rest in reader.below("predicates.") {
        let key = format!("predicates.{rest}");
        let value = reader.text(&key).unwrap_or_default();
        reader.wrong(&key, &value, "no predicates (they are not supported)");
    }
    for rest in reader.below("consumer.override.") {
        if CONSUMER_WITHOUT_EFFECT.contains(&&*rest) {
            let key = format!("consumer.override.{rest}");
            let value = reader.text(&key).unwrap_or_default();
            reader.warn(&key, &value, "has no effect here: it is for how Connect's own consumer is paced");
        }
    }
    for client in ["producer.override.", "admin.override.", "consumer.override."] {
        for rest in reader.below(client) {
            let key = format!("{client}{rest}");
            let value = reader.text(&key).unwrap_or_default();
            reader.wrong(
                &key,
                &value,
                "the clients' properties in [kafka.properties] of the configuration file (this is not supported)",
            );
        }
    }
}
