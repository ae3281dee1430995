//! `[[sinks]]`: more sinks for one logger. Each is a logger of its own behind the same call, with its own queue, spool, ledger and progress: what holds for
//! the one of `mode` holds for each, and none can slow or lose what another has.

use crate::config::{Backlog, Config, Mode, SinkSettings, SinkType, Store};
use crate::error::Error;
use crate::logger::{Guard, Logger, Overflow};
use std::path::{Path, PathBuf};

/// The directory of the sinks that name none, below the mode's.
const DIR: &str = "sinks";

/// Opens `main` and its other sinks.
pub(super) fn open(config: &Config) -> Result<(Logger, Guard), Error> {
    for dir in left_behind(config) {
        tracing::warn!(dir = %dir.display(), "{LEFT_BEHIND}");
    }
    let (mut logger, mut guard) = super::open_one(config)?;
    for (at, sink) in config.sinks.iter().enumerate() {
        let name = sink.name().to_owned();
        let opened = super::open_one(&config_of(config, sink));
        let other = opened.map_err(|error| Error::new(error.kind(), format!("sinks[{at}] name={name:?}: {error}")))?;
        logger.add_sink(&name, &other.0);
        guard.add_sink(name, other.1);
    }
    Ok((logger, guard))
}

/// What the sink would be as the only one.
pub(crate) fn config_of(config: &Config, sink: &SinkSettings) -> Config {
    let dir = dir_of(config, sink);
    let mut own = Config { sinks: Vec::new(), upload: Default::default(), ..config.clone() };
    own.mode = match sink.kind {
        SinkType::Sqlite | SinkType::Parquet => Mode::Direct,
        SinkType::Kafka => Mode::Kafka,
        SinkType::Nats => Mode::Nats,
    };
    own.direct.store = if sink.kind == SinkType::Parquet { Store::Parquet } else { Store::Sqlite };
    (own.direct.retain, own.direct.retain_bytes) = (sink.retain, sink.retain_bytes);
    own.logger.spool_max_bytes = sink.max_bytes;
    // The parquet store's own segments.
    own.upload.max_disk_bytes = sink.max_bytes;
    if own.logger.overflow == Overflow::Block {
        // A call waits for the sink of `mode` alone.
        own.logger.overflow = Overflow::Spill;
    }
    // What waits in the mode's own directory is the mode's to deliver.
    own.direct.backlog = Backlog::default();
    (own.kafka.fallback.max_bytes, own.nats.fallback.max_bytes) = (sink.max_bytes, sink.max_bytes);
    // One directory for all modes: what another sink's dead processes left is that one's to deliver.
    own.kafka.fallback.dir.clone_from(&dir);
    own.nats.fallback.dir.clone_from(&dir);
    own.direct.dir = dir;
    own
}

pub(crate) fn dir_of(config: &Config, sink: &SinkSettings) -> PathBuf {
    sink.dir.clone().unwrap_or_else(|| dir_of_mode(config).join(DIR).join(sink.name()))
}

fn dir_of_mode(config: &Config) -> &Path {
    match config.mode {
        Mode::Direct => &config.direct.dir,
        Mode::Kafka => &config.kafka.fallback.dir,
        Mode::Nats => &config.nats.fallback.dir,
    }
}

/// What is said of each of [`left_behind`].
pub(crate) const LEFT_BEHIND: &str =
    "records wait here for a sink that is no longer in [[sinks]]: put it back until they are delivered, or delete the directory";

/// Directories of sinks that were taken out of `[[sinks]]` before they had delivered all. (The sink of `mode` has those records too.)
pub(crate) fn left_behind(config: &Config) -> Vec<PathBuf> {
    let waits = |dir: &Path| std::fs::read_dir(dir.join("writers")).is_ok_and(|mut writers| writers.next().is_some());
    let known: Vec<PathBuf> = config.sinks.iter().filter_map(|sink| dir_of(config, sink).canonicalize().ok()).collect();
    let Ok(entries) = std::fs::read_dir(dir_of_mode(config).join(DIR)) else { return Vec::new() };
    let dirs = entries.flatten().map(|entry| entry.path());
    let mut left: Vec<PathBuf> =
        dirs.filter(|dir| waits(dir) && !dir.canonicalize().is_ok_and(|real| known.contains(&real))).collect();
    left.sort();
    left
}

/// What is wrong with `[[sinks]]`: key, value and what was expected.
pub(crate) fn problems(config: &Config) -> Vec<(String, String, String)> {
    let mut problems = Vec::new();
    let mut names: Vec<&str> = Vec::new();
    // `./a` and `a` are one.
    let full = |dir: &PathBuf| std::path::absolute(dir).unwrap_or_else(|_| dir.clone());
    let mut dirs = [&config.direct.dir, &config.kafka.fallback.dir, &config.nats.fallback.dir].map(full).to_vec();
    for (at, sink) in config.sinks.iter().enumerate() {
        let mut wrong = |key: &str, value: String, expected: &str| {
            problems.push((format!("sinks[{at}].{key}"), value, expected.to_owned()));
        };
        let (name, dir) = (sink.name(), dir_of(config, sink));
        if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || "_-".contains(c)) {
            wrong("name", format!("{name:?}"), "letters, digits, '_' and '-'");
        } else if names.contains(&name) {
            wrong("name", format!("{name:?}"), "a name that no other sink has");
        }
        names.push(name);
        if sink.dir.as_ref().is_some_and(|dir| dir.as_os_str().is_empty()) {
            wrong("dir", "\"\"".to_owned(), "a directory");
        } else if dirs.contains(&full(&dir)) {
            wrong("dir", dir.display().to_string(), "a directory that neither the mode nor another sink has");
        }
        dirs.push(full(&dir));
        let same = match (sink.kind, config.mode) {
            (SinkType::Kafka, Mode::Kafka) | (SinkType::Nats, Mode::Nats) => true,
            _ => config.sinks[..at]
                .iter()
                .any(|other| other.kind == sink.kind && matches!(sink.kind, SinkType::Kafka | SinkType::Nats)),
        };
        if same {
            wrong("type", format!("{:?}", sink.kind.name()), "a broker that the predictions do not go to already");
        }
        let is_store = matches!(sink.kind, SinkType::Sqlite | SinkType::Parquet);
        if !is_store && (sink.retain.is_some() || sink.retain_bytes.is_some()) {
            wrong("retain", "set".to_owned(), "nothing, for a broker: it has a retention of its own");
        }
    }
    problems
}

/// Each sink's name, and what it would be as the only one.
#[cfg(feature = "cli")]
pub(crate) fn each<'a>(config: &'a Config) -> impl Iterator<Item = (String, Config)> + 'a {
    config.sinks.iter().map(|sink| (sink.name().to_owned(), config_of(config, sink)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems_of(toml: &str) -> String {
        Config::from_toml(toml).map(|_| String::new()).unwrap_or_else(|error| error.to_string())
    }

    #[test]
    fn a_sink_that_was_taken_out_before_it_had_delivered_all_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let text = format!("[direct]\ndir = {:?}\n[[sinks]]\ntype = \"parquet\"\nname = \"kept\"", dir.path());
        let config = Config::from_toml(&text).unwrap();
        let sinks = dir.path().join(DIR);
        for (name, writers) in [("kept", "writers/a"), ("gone", "writers/b"), ("delivered", "writers")] {
            std::fs::create_dir_all(sinks.join(name).join(writers)).unwrap();
        }
        assert_eq!(left_behind(&config), [sinks.join("gone")]);
        assert_eq!(left_behind(&Config { sinks: Vec::new(), ..config }), [sinks.join("gone"), sinks.join("kept")]);
        assert_eq!(left_behind(&Config::default()), [] as [PathBuf; 0]);
    }

    #[test]
    fn what_is_wrong_with_a_sink_is_named() {
        assert_eq!(
            problems_of("[[sinks]]\ntype = \"parquet\"\nretain = \"1d\"\n[[sinks]]\ntype = \"sqlite\"\nname = \"recent\""),
            ""
        );
        for (toml, expected) in [
            ("[[sinks]]\ntype = \"parquet\"\n[[sinks]]\ntype = \"parquet\"", "sinks[1].name=\"parquet\""),
            ("[[sinks]]\ntype = \"sqlite\"\ndir = \"predlog-data\"", "sinks[0].dir=predlog-data"),
            ("[[sinks]]\ntype = \"sqlite\"\ndir = \"\"", "sinks[0].dir=\"\""),
            (
                "[[sinks]]\ntype = \"sqlite\"\nmax_bytes = \"1KiB\"",
                "the given text: sinks[0].max_bytes=1.0 KiB: expected 1.0 MiB to",
            ),
            ("[[sinks]]\ntype = \"sqlite\"\nretain = \"0s\"", "sinks[0].retain=0s: expected 1s to"),
            ("[[sinks]]\ntype = \"sqlite\"\n[[sinks]]\ntype = \"csv\"", "the given text: sinks[1].type=\"csv\": expected one of"),
            ("[[sinks]]\ntype = \"sqlite\"\nretian = \"1d\"", "no key \"retian\" here; did you mean \"retain\"?"),
            ("[[sinks]]\nname = \"recent\"", "sinks[0]=a table: expected a key \"type\" in it"),
            ("[kafka]\nlinger = \"1h\"\n[[sinks]]\ntype = \"kafka\"", "kafka.linger=1h: expected 0s to"),
            ("[[sinks]]\ntype = \"sqlite\"\nname = \"a/b\"", "sinks[0].name=\"a/b\""),
            ("[[sinks]]\ntype = \"csv\"", "expected one of \"sqlite\", \"parquet\""),
            ("[[sinks]]\ntype = \"kafka\"\nretain = \"1d\"", "sinks[0].retain"),
        ] {
            let problems = problems_of(toml);
            assert!(problems.contains(expected), "{toml}: {problems}");
        }
        let config = Config::from_toml("[[sinks]]\ntype = \"parquet\"\nretain = \"1d\"").unwrap();
        let own = config_of(&config, &config.sinks[0]);
        assert_eq!((own.direct.store, own.direct.dir.to_str()), (Store::Parquet, Some("./predlog-data/sinks/parquet")));
        assert!(own.sinks.is_empty() && own.upload.url.is_none() && own.validate().is_ok());
    }
}
