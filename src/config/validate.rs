//! What a type cannot say: ranges, and keys that do not go together. All problems are found, not only the first.

use super::problem::without_credentials;
use super::source::Sources;
use super::{Backlog, Config, Mode, SinkType, Store};
use crate::error::{Error, ErrorKind};
use crate::lane::BUFFERS;
use crate::logger::Overflow;
use bytesize::ByteSize;
use humantime_serde::re::humantime::format_duration;
use std::fmt::Display;
use std::time::Duration;

const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(86_400);
/// Longer than anything here can last, and still far from where sums of durations overflow.
const CENTURY: Duration = Duration::from_secs(100 * 365 * 86_400);

pub(super) fn check(config: &Config, sources: &Sources) -> Result<(), Error> {
    let mut checks = Checks { sources, problems: sources.problems().to_vec() };
    checks.mode(config);
    checks.direct(config);
    checks.queue(config);
    checks.batches(config);
    checks.upload(config);
    checks.server(config);
    checks.archive(config);
    checks.sinks(config);
    if checks.problems.is_empty() { Ok(()) } else { Err(Error::new(ErrorKind::Config, checks.problems.join("\n"))) }
}

struct Checks<'a> {
    sources: &'a Sources,
    problems: Vec<String>,
}

impl Checks<'_> {
    fn wrong(&mut self, key: &str, value: impl Display, expected: impl Display) {
        let origin = self.sources.origin(key);
        if !self.sources.stands_in(&origin) {
            self.problems.push(format!("{origin}: {key}={value}: expected {expected}"));
        }
    }

    fn conflict(&mut self, left: (&str, String), right: (&str, String), why: &str) {
        let (from, other) = (self.sources.origin(left.0), self.sources.origin(right.0));
        if !self.sources.stands_in(&from) && !self.sources.stands_in(&other) {
            self.problems.push(format!("{from}: {}={} conflicts with {other}: {}={}: {why}", left.0, left.1, right.0, right.1));
        }
    }

    fn size(&mut self, key: &str, value: ByteSize, least: ByteSize, most: ByteSize) {
        if value < least || value > most {
            self.wrong(key, value, format_args!("{least} to {most}"));
        }
    }

    fn duration(&mut self, key: &str, value: Duration, least: Duration, most: Duration) {
        if value < least || value > most {
            let range = format!("{} to {}", format_duration(least), format_duration(most));
            self.wrong(key, format_duration(value), range);
        }
    }

    fn count(&mut self, key: &str, value: u64, least: u64, most: u64) {
        if value < least || value > most {
            self.wrong(key, value, format_args!("{least} to {most}"));
        }
    }

    fn mode(&mut self, config: &Config) {
        match config.mode {
            Mode::Direct => {}
            Mode::Kafka => {
                if cfg!(not(feature = "kafka")) {
                    self.wrong("mode", "\"kafka\"", "\"direct\": this build was made without the feature `kafka`");
                }
                return self.kafka(config);
            }
            Mode::Nats => {
                if cfg!(not(feature = "nats")) {
                    self.wrong("mode", "\"nats\"", "\"direct\": this build was made without the feature `nats`");
                }
                return self.nats(config);
            }
        }
        let missing = match config.direct.store {
            Store::Sqlite if cfg!(not(feature = "sqlite")) => Some("sqlite"),
            Store::Parquet if cfg!(not(feature = "parquet")) => Some("parquet"),
            _ => None,
        };
        if let Some(feature) = missing {
            let expected = format!("a store that this build has: it was built without the feature `{feature}`");
            self.wrong("direct.store", format!("\"{feature}\""), expected);
        }
    }

    fn sinks(&mut self, config: &Config) {
        for (key, value, expected) in crate::modes::fanout::problems(config) {
            self.wrong(&key, value, expected);
        }
        for (at, sink) in config.sinks.iter().enumerate() {
            let key = |name: &str| format!("sinks[{at}].{name}");
            let built = match sink.kind {
                SinkType::Sqlite => cfg!(feature = "sqlite"),
                SinkType::Parquet => cfg!(feature = "parquet"),
                SinkType::Kafka => cfg!(feature = "kafka"),
                SinkType::Nats => cfg!(feature = "nats"),
            };
            let name = sink.kind.name();
            if !built {
                let expected = format!("a type that this build has: it was built without the feature `{name}`");
                self.wrong(&key("type"), format!("{name:?}"), expected);
            }
            // A broker's section is that of its mode, which has been looked at if it is the mode.
            match sink.kind {
                SinkType::Kafka if config.mode != Mode::Kafka => self.kafka(config),
                SinkType::Nats if config.mode != Mode::Nats => self.nats(config),
                _ => {}
            }
            self.size(&key("max_bytes"), sink.max_bytes, ByteSize::mib(1), ByteSize::pib(1));
            if let Some(retain) = sink.retain {
                self.duration(&key("retain"), retain, SECOND, CENTURY);
            }
            if let Some(bytes) = sink.retain_bytes {
                self.size(&key("retain_bytes"), bytes, ByteSize::mib(1), ByteSize::pib(1));
            }
        }
    }

    fn kafka(&mut self, config: &Config) {
        let kafka = &config.kafka;
        for problem in crate::sink::kafka::problems(kafka) {
            self.wrong(&problem.key, problem.value, problem.expected);
        }
        #[cfg(feature = "kafka")]
        self.problems.extend(crate::sink::kafka::conflicts(kafka));
        self.duration("kafka.linger", kafka.linger, Duration::ZERO, Duration::from_secs(60));
        self.duration("kafka.deadline", kafka.deadline, MILLISECOND * 100, Duration::from_secs(900));
        self.size("kafka.max_message_bytes", kafka.max_message_bytes, ByteSize::kib(32), ByteSize::mb(1_000));
        self.count("kafka.partitions", u64::from(kafka.partitions), 1, 100_000);
        self.count("kafka.replication", u64::from(kafka.replication), 1, 100);
    }

    fn nats(&mut self, config: &Config) {
        let nats = &config.nats;
        for problem in crate::sink::nats::problems(nats) {
            self.wrong(&problem.key, problem.value, problem.expected);
        }
        self.duration("nats.linger", nats.linger, Duration::ZERO, Duration::from_secs(60));
        self.duration("nats.deadline", nats.deadline, MILLISECOND * 100, Duration::from_secs(900));
        self.duration("nats.duplicate_window", nats.duplicate_window, MILLISECOND * 100, 366 * DAY);
        // NATS takes no message of more than 64 MiB.
        self.size("nats.max_message_bytes", nats.max_message_bytes, ByteSize::kib(32), ByteSize::mib(64));
        self.count("nats.replicas", u64::from(nats.replicas), 1, 5);
    }

    fn direct(&mut self, config: &Config) {
        let direct = &config.direct;
        if direct.dir.as_os_str().is_empty() {
            self.wrong("direct.dir", "\"\"", "a directory");
        }
        if let Some(retain) = direct.retain {
            self.duration("direct.retain", retain, SECOND, CENTURY);
        }
        if let Some(bytes) = direct.retain_bytes {
            self.size("direct.retain_bytes", bytes, ByteSize::mib(1), ByteSize::pib(1));
        }
        if direct.backlog == Backlog::Kafka && config.mode == Mode::Nats {
            let why = "predictions would go to both; use \"upload\", or predlog migrate --to nats";
            self.conflict(("direct.backlog", "\"kafka\"".to_owned()), ("mode", "\"nats\"".to_owned()), why);
        }
        if direct.backlog == Backlog::Kafka && config.mode == Mode::Kafka && config.upload.url.is_none() {
            let why = "nothing was to be uploaded, so nothing waits; what a store keeps goes to Kafka by predlog migrate";
            self.conflict(("direct.backlog", "\"kafka\"".to_owned()), ("upload.url", "not set".to_owned()), why);
        }
    }

    fn queue(&mut self, config: &Config) {
        let logger = &config.logger;
        self.size("logger.queue_bytes", logger.queue_bytes, ByteSize::mib(1), ByteSize::gib(64));
        self.size("logger.max_record_bytes", logger.max_record_bytes, ByteSize::kib(1), ByteSize::mib(64));
        self.size("logger.spool_max_bytes", logger.spool_max_bytes, ByteSize::mib(1), ByteSize::pib(1));
        if let Some(lanes) = logger.lanes {
            self.count("logger.lanes", lanes as u64, 1, crate::lane::MAX_LANES as u64);
        }
        if logger.overflow == Overflow::Block {
            self.duration("logger.block_limit", logger.block_limit, MILLISECOND, Duration::from_secs(60));
        }
        // Each lane has a few buffers, and each must take a whole record.
        if logger.max_record_bytes.as_u64().saturating_mul(BUFFERS as u64) > logger.queue_bytes.as_u64() {
            self.conflict(
                ("logger.max_record_bytes", logger.max_record_bytes.to_string()),
                ("logger.queue_bytes", logger.queue_bytes.to_string()),
                &format!("the queue must have room for {BUFFERS} of the largest records"),
            );
        }
    }

    fn batches(&mut self, config: &Config) {
        let (batch, rotation) = (&config.batch, &config.rotation);
        self.count("batch.max_rows", batch.max_rows, 1, 10_000_000);
        self.size("batch.max_bytes", batch.max_bytes, ByteSize::kib(1), ByteSize::gib(4));
        self.duration("batch.max_age", batch.max_age, MILLISECOND, DAY);
        if batch.max_bytes > config.logger.queue_bytes {
            self.conflict(
                ("batch.max_bytes", batch.max_bytes.to_string()),
                ("logger.queue_bytes", config.logger.queue_bytes.to_string()),
                "a batch waits in the queue, so it cannot be larger",
            );
        }
        self.count("rotation.max_rows", rotation.max_rows, 1, 1_000_000_000);
        self.size("rotation.max_bytes", rotation.max_bytes, ByteSize::kib(1), ByteSize::tib(1));
        self.duration("rotation.max_age", rotation.max_age, MILLISECOND, CENTURY);
        self.duration("rotation.max_idle", rotation.max_idle, MILLISECOND, CENTURY);
        if let Some(schedule) = rotation.schedule {
            self.duration("rotation.schedule", schedule, SECOND, 366 * DAY);
        }
        self.duration("ledger.every", config.ledger.every, MILLISECOND, DAY);
        self.duration("sqlite.busy_timeout", config.sqlite.busy_timeout, Duration::ZERO, Duration::from_secs(60));
    }

    fn archive(&mut self, config: &Config) {
        let archive = &config.archive;
        self.size("archive.memory", archive.memory, ByteSize::mib(8), ByteSize::tib(1));
        self.size("archive.dedupe_bytes", archive.dedupe_bytes, ByteSize::kib(64), ByteSize::gib(16));
        self.count("archive.threads", archive.threads as u64, 0, 1_024);
        for (key, value) in [("archive.group", &archive.group), ("archive.dead_letter_prefix", &archive.dead_letter_prefix)] {
            let plain = |c: char| c.is_ascii_alphanumeric() || "._-/".contains(c);
            if value.is_empty() || !value.chars().all(plain) || value.split('/').any(|part| matches!(part, "" | "." | "..")) {
                self.wrong(key, format_args!("{value:?}"), "letters, digits, '.', '_' and '-'");
            }
        }
        if let Some(empty) = archive.topics.iter().find(|topic| topic.is_empty() || *topic == "^") {
            self.wrong("archive.topics", format_args!("{empty:?}"), "names of topics, or regular expressions that begin with ^");
        }
    }

    fn upload(&mut self, config: &Config) {
        const SCHEMES: [&str; 4] = ["s3", "gs", "az", "file"];
        let upload = &config.upload;
        self.duration("upload.every", upload.every, SECOND, 366 * DAY);
        self.count("upload.max_rows", upload.max_rows, 1, 1_000_000_000);
        self.size("upload.multipart_bytes", upload.multipart_bytes, ByteSize::mib(5), ByteSize::gib(5));
        self.size("upload.max_disk_bytes", upload.max_disk_bytes, ByteSize::mib(1), ByteSize::pib(1));
        let Some(url) = &upload.url else {
            if let Some(endpoint) = &upload.endpoint {
                let endpoint = format!("{:?}", without_credentials(endpoint));
                self.conflict(
                    ("upload.endpoint", endpoint),
                    ("upload.url", "not set".to_owned()),
                    "set upload.url to the bucket, such as \"s3://bucket/prefix\"",
                );
            }
            return;
        };
        let safe = without_credentials(url);
        let scheme = url.split_once("://").map(|(scheme, _)| scheme);
        if !scheme.is_some_and(|scheme| SCHEMES.contains(&scheme)) {
            let near = scheme.and_then(|scheme| super::problem::nearest(scheme, SCHEMES));
            let near = near.map_or_else(String::new, |near| format!("; did you mean \"{near}://\"?"));
            let expected = format!("s3://bucket/prefix, gs://bucket/prefix, az://container/prefix or file:///directory{near}");
            self.wrong("upload.url", format!("{safe:?}"), expected);
        } else if safe != *url {
            let expected = "no credentials in it: give them by the cloud's own environment variables or profile";
            self.wrong("upload.url", format!("{safe:?}"), expected);
        }
        if cfg!(not(feature = "upload")) {
            self.wrong("upload.url", format!("{safe:?}"), "nothing: this build was made without the feature `upload`");
        }
        self.endpoint(config);
    }

    fn endpoint(&mut self, config: &Config) {
        let upload = &config.upload;
        let Some(endpoint) = &upload.endpoint else { return };
        let safe = format!("{:?}", without_credentials(endpoint));
        if !endpoint.starts_with("http://") && !endpoint.starts_with("https://") {
            self.wrong("upload.endpoint", safe, "https://host:port, or http://host:port with upload.allow_http = true");
        } else if without_credentials(endpoint) != *endpoint {
            self.wrong("upload.endpoint", safe, "no credentials in it");
        } else if endpoint.starts_with("http://") && !upload.allow_http && !is_loopback(endpoint) {
            self.conflict(
                ("upload.endpoint", safe),
                ("upload.allow_http", "false".to_owned()),
                "set upload.allow_http = true if credentials and data may cross that network unencrypted",
            );
        }
    }

    fn server(&mut self, config: &Config) {
        let server = &config.server;
        self.size("server.max_body", server.max_body, ByteSize::kib(1), ByteSize::gib(1));
        self.count("server.max_requests", server.max_requests as u64, 1, 65_536);
        self.duration("server.read_timeout", server.read_timeout, MILLISECOND, DAY);
        self.duration("server.wait_timeout", server.wait_timeout, MILLISECOND, DAY);
        self.duration("server.shutdown_deadline", server.shutdown_deadline, MILLISECOND, DAY);
        self.duration("server.idempotency_window", server.idempotency_window, SECOND, 30 * DAY);
        self.count("server.idempotency_keys", server.idempotency_keys as u64, 1, 10_000_000);
    }
}

/// Whether an `http://host:port` is this machine: nothing crosses a network then.
fn is_loopback(endpoint: &str) -> bool {
    let authority = endpoint.trim_start_matches("http://").split('/').next().unwrap_or_default();
    let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host).trim_matches(['[', ']']);
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}
