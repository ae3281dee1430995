//! `predlog check`: what a configuration would do, and whether everything that it needs works.

use super::serve::place;
use super::{FAILED, say};
use crate::config::kafka::Format;
use crate::config::{Backlog, Config, Mode, Store};
use crate::error::{Error, ErrorKind};
use crate::logger::Durability;
use crate::modes::fanout;
use crate::ship;
use bytesize::ByteSize;
use humantime_serde::re::humantime::format_duration;
use rustix::fs::{FallocateFlags, fallocate, statvfs};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

/// The longest that a broker may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// A file that the check makes and removes again.
const PROBE: &str = ".predlog-check";

pub(super) fn run(config: &Config) -> Result<ExitCode, Error> {
    say(&plan(config));
    for dir in fanout::left_behind(config) {
        say(&format!("warning: {}: {}\n", dir.display(), fanout::LEFT_BEHIND));
    }
    let mut tried = Tried::default();
    let key = match config.mode {
        Mode::Direct => "direct.dir",
        Mode::Kafka => "kafka.fallback.dir",
        Mode::Nats => "nats.fallback.dir",
    };
    try_all(config, key, &mut tried)?;
    for (at, (name, sink)) in fanout::each(config).enumerate() {
        say(&format!("sink {name}:\n"));
        try_all(&sink, &format!("sinks[{at}].dir"), &mut tried)?;
    }
    Ok(if tried.problems == 0 { ExitCode::SUCCESS } else { ExitCode::from(FAILED) })
}

/// `key` names the directory.
fn try_all(config: &Config, key: &str, tried: &mut Tried) -> Result<(), Error> {
    let dir = match config.mode {
        Mode::Direct => &config.direct.dir,
        Mode::Kafka => &config.kafka.fallback.dir,
        Mode::Nats => &config.nats.fallback.dir,
    };
    let usable = tried.note("directory", directory(dir, key));
    if usable && config.logger.durability != Durability::Memory {
        tried.note("queue", queue(dir, config.logger.queue_bytes));
    }
    match config.mode {
        Mode::Direct => {
            if usable {
                tried.note("store", store(config));
            }
        }
        Mode::Kafka => {
            tried.note("brokers", crate::sink::kafka::check(&config.kafka, config.ledger.enabled, ANSWER_WITHIN));
            if config.kafka.format == Format::Avro {
                tried.note("registry", crate::sink::kafka::check_registry(&config.kafka.registry));
            }
        }
        Mode::Nats => {
            tried.note("servers", crate::sink::nats::check(&config.nats, config.ledger.enabled, ANSWER_WITHIN));
        }
    }
    // A broker's mode uploads what direct mode has left.
    if config.upload.url.is_some() {
        tried.note("bucket", bucket(config)?);
    }
    Ok(())
}

/// What was tried, each on its own line: what works on standard output, problems on standard error.
#[derive(Default)]
struct Tried {
    problems: usize,
}

impl Tried {
    fn note(&mut self, what: &str, result: Result<String, String>) -> bool {
        match result {
            Ok(found) => say(&format!("ok: {what}: {found}\n")),
            Err(problem) => {
                self.problems += 1;
                eprintln!("error: {what}: {problem}");
                return false;
            }
        }
        true
    }
}

fn plan(config: &Config) -> String {
    let logger = &config.logger;
    let named = |name: &dyn std::fmt::Debug| format!("{name:?}").to_lowercase();
    let queue = format!("{}, durability={}, overflow={}", logger.queue_bytes, named(&logger.durability), named(&logger.overflow));
    let wheres = match config.mode {
        Mode::Direct => plan_direct(config),
        Mode::Kafka => plan_kafka(config),
        Mode::Nats => plan_nats(config),
    };
    format!("{wheres}{}queue:     {queue}\nlistens:   {}\n", plan_backlog(config), config.server.addr)
}

/// What becomes of what direct mode has left, in a broker's mode.
fn plan_backlog(config: &Config) -> String {
    let dir = config.direct.dir.display();
    match (config.mode, config.direct.backlog, &config.upload.url) {
        (Mode::Kafka, Backlog::Kafka, _) => format!("backlog:   what direct mode has left in {dir} goes to the topic\n"),
        (Mode::Kafka | Mode::Nats, Backlog::Upload, Some(url)) => {
            format!("backlog:   what direct mode has left in {dir} is uploaded to {url}\n")
        }
        _ => String::new(),
    }
}

fn plan_kafka(config: &Config) -> String {
    let kafka = &config.kafka;
    let named = |name: &dyn std::fmt::Debug| format!("{name:?}").to_lowercase();
    let security = match (kafka.tls.enabled, kafka.sasl.mechanism) {
        (false, None) => "none".to_owned(),
        (true, None) => "TLS".to_owned(),
        (tls, Some(mechanism)) => format!("{}{}", mechanism.name(), if tls { " over TLS" } else { ", not encrypted" }),
    };
    format!(
        "mode:      kafka\nbrokers:   {}\ntopic:     {}, format={}, packing={}, compression={}\nsecurity:  {security}\nfallback:  {}, up to {}\n",
        kafka.brokers,
        kafka.topic,
        named(&kafka.format),
        named(&kafka.packing),
        named(&kafka.compression),
        kafka.fallback.dir.display(),
        kafka.fallback.max_bytes,
    )
}

fn plan_nats(config: &Config) -> String {
    let nats = &config.nats;
    let tls =
        nats.tls.ca_file.is_some() || nats.tls.cert_file.is_some() || nats.servers.urls().any(|url| url.starts_with("tls://"));
    format!(
        "mode:      nats\nservers:   {}\nsubject:   {}, packing={}\nstream:    {}{}\nsecurity:  auth={}, {}\nfallback:  {}, up to {}\n",
        nats.servers,
        nats.subject,
        format!("{:?}", nats.packing).to_lowercase(),
        nats.stream,
        if nats.create_stream { ", made if it is missing" } else { "" },
        nats.auth.method(),
        if tls { "TLS" } else { "TLS if the server asks for it" },
        nats.fallback.dir.display(),
        nats.fallback.max_bytes,
    )
}

fn plan_direct(config: &Config) -> String {
    let direct = &config.direct;
    let name = match direct.store {
        Store::Sqlite => "sqlite",
        Store::Parquet => "parquet",
    };
    let retain = match (direct.retain, direct.retain_bytes) {
        (None, None) => "for ever".to_owned(),
        (Some(age), None) => format!("for {}", format_duration(age)),
        (None, Some(bytes)) => format!("up to {bytes}"),
        (Some(age), Some(bytes)) => format!("for {}, up to {bytes}", format_duration(age)),
    };
    let upload = config.upload.url.as_deref().map_or_else(
        || "nowhere: upload.url is not set".to_owned(),
        |url| {
            let endpoint = config.upload.endpoint.as_deref().map_or_else(String::new, |endpoint| format!(" at {endpoint}"));
            match direct.store {
                Store::Sqlite => format!("{url}{endpoint}, every {}", format_duration(config.upload.every)),
                Store::Parquet => format!("{url}{endpoint}, each file when it is finished"),
            }
        },
    );
    format!(
        "mode:      direct\nstore:     {name}\nkept in:   {}\nretained:  {retain}\nuploaded:  {upload}\n",
        place(direct.store, &direct.dir)
    )
}

fn directory(dir: &Path, key: &str) -> Result<String, String> {
    let shown = dir.display();
    let tried = |doing: &str, error: io::Error| {
        format!("cannot {doing} dir={shown}: {error}; give this user the right to, or name another by {key}")
    };
    fs::create_dir_all(dir).map_err(|error| tried("make", error))?;
    let probe = dir.join(PROBE);
    let written = write_synced(&probe);
    let removed = fs::remove_file(&probe);
    written.map_err(|error| tried("write and sync a file in", error))?;
    removed.map_err(|error| tried("remove a file in", error))?;
    let space = statvfs(dir).map_err(|error| tried("ask for the free space of", error.into()))?;
    let free = ByteSize::b(space.f_bavail.saturating_mul(space.f_frsize));
    Ok(format!("dir={shown} can be written and synced; free={free}"))
}

fn write_synced(path: &Path) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(b"predlog check")?;
    file.sync_all()
}

/// Reserves what the lanes would, so that a disk without room is found now.
fn queue(dir: &Path, bytes: ByteSize) -> Result<String, String> {
    let probe = dir.join(PROBE);
    let reserved = File::create(&probe)
        .and_then(|file| fallocate(&file, FallocateFlags::empty(), 0, bytes.as_u64()).map_err(io::Error::from));
    let removed = fs::remove_file(&probe);
    match reserved.and(removed) {
        Ok(()) => Ok(format!("logger.queue_bytes={bytes} can be reserved")),
        Err(error) => Err(format!(
            "cannot reserve logger.queue_bytes={bytes} in dir={}: {error}; free some space, or set it lower",
            dir.display()
        )),
    }
}

fn store(config: &Config) -> Result<String, String> {
    let shown = place(config.direct.store, &config.direct.dir);
    match config.direct.store {
        Store::Sqlite => {
            use crate::sink::Sink;
            let mut sink = crate::sink::sqlite::SqliteSink::open(crate::modes::direct::sqlite_settings(config))
                .map_err(|error| error.to_string())?;
            sink.probe().map_err(|error| error.to_string())?;
        }
        Store::Parquet => {
            let files = config.direct.dir.join("predictions");
            fs::create_dir_all(&files).map_err(|error| format!("cannot make path={}: {error}", files.display()))?;
        }
    }
    Ok(format!("{shown} takes records"))
}

/// Puts, gets and deletes an object.
fn bucket(config: &Config) -> Result<Result<String, String>, Error> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Error::new(ErrorKind::Upload, format!("cannot start the runtime: {error}")))?;
    let url = config.upload.url.as_deref().unwrap_or_default();
    let probed = runtime.block_on(ship::probe(&config.upload)).map_err(|error| error.to_string());
    Ok(probed.map(|()| format!("url={url} takes, gives and deletes objects")))
}
