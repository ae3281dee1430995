//! `predlog audit`: whether every accepted record is stored once.

use super::{FAILED, load, of_sink, say};
use crate::audit::{self, Target, Window};
use crate::clock::Timestamp;
use crate::config::Mode;
use crate::error::{Error, ErrorKind};
use clap::Args;
use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The configuration file (else the file that PREDLOG_CONFIG names, else the defaults)
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// What to audit instead of direct.dir, or of the topic in Kafka mode and the stream in NATS mode: sqlite:PATH, a directory, or s3://… (gs://, az://, file:///) with the rest of [upload]
    #[arg(long, value_name = "WHAT")]
    from: Option<String>,
    /// Audit the bucket of upload.url; what waits for its upload in direct.dir counts as pending
    #[arg(long, conflicts_with = "from")]
    bucket: bool,
    /// Audit this one of [[sinks]]
    #[arg(long, value_name = "NAME", conflicts_with_all = ["from", "bucket"])]
    sink: Option<String>,
    /// Only the hours from the one of this time on, RFC 3339
    #[arg(long, value_name = "TIME", value_parser = Timestamp::parse)]
    since: Option<Timestamp>,
    /// Only the hours that start before this time, RFC 3339
    #[arg(long, value_name = "TIME", value_parser = Timestamp::parse)]
    until: Option<Timestamp>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: Arguments) -> Result<ExitCode, Error> {
    let window = Window { since: arguments.since, until: arguments.until };
    let (json, target) = (arguments.json, target(arguments)?);
    let mut progress = Progress::new();
    let report = audit::audit(&target, window, &mut |rows| progress.tell(rows))?;
    progress.clear();
    if json {
        let text = serde_json::to_string_pretty(&report)
            .map_err(|error| Error::new(ErrorKind::Storage, format!("the report cannot be written as JSON: {error}")))?;
        say(&format!("{text}\n"));
    } else {
        say(&report.to_string());
    }
    Ok(if report.complete { ExitCode::SUCCESS } else { ExitCode::from(FAILED) })
}

fn target(arguments: Arguments) -> Result<Target, Error> {
    let Some(from) = arguments.from else {
        let config = of_sink(load(arguments.config, None, None)?, arguments.sink.as_deref())?;
        if !arguments.bucket {
            return Ok(match config.mode {
                Mode::Direct => Target::Directory(config.direct.dir),
                Mode::Kafka => Target::kafka(&config.kafka),
                Mode::Nats => Target::nats(&config.nats),
            });
        }
        if config.upload.url.is_none() {
            return Err(Error::new(ErrorKind::Config, "--bucket needs upload.url: expected s3://bucket/prefix or the like"));
        }
        return Ok(Target::Bucket(Box::new(config.upload), Some(config.direct.dir)));
    };
    if let Some(path) = from.strip_prefix("sqlite:") {
        return Ok(Target::Sqlite(path.into()));
    }
    if !from.contains("://") {
        return Ok(Target::Directory(from.into()));
    }
    let mut config = crate::config::Config::load(arguments.config.as_deref())?;
    config.upload.url = Some(from);
    config.validate()?;
    Ok(Target::Bucket(Box::new(config.upload), None))
}

/// A line on standard error that changes, where a person looks at it.
struct Progress {
    shown: bool,
    last: Option<Instant>,
}

impl Progress {
    fn new() -> Self {
        Progress { shown: false, last: std::io::stderr().is_terminal().then(Instant::now) }
    }

    fn tell(&mut self, rows: u64) {
        if let Some(last) = &mut self.last
            && last.elapsed() > Duration::from_millis(500)
        {
            *last = Instant::now();
            self.shown = true;
            // Nobody reading it is no reason to stop.
            let _ = write!(std::io::stderr(), "\r{rows} rows");
        }
    }

    fn clear(&self) {
        if self.shown {
            let _ = write!(std::io::stderr(), "\r{:30}\r", "");
        }
    }
}
