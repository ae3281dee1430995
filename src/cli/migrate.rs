//! `predlog migrate`: a store's history to somewhere else.

use super::{FAILED, load, say};
use crate::config::{Backlog, Config, Mode};
use crate::error::{Error, ErrorKind};
use crate::logger::builder::make_home;
use crate::modes;
use crate::resend::parquet::ParquetSource;
use crate::resend::sqlite::SqliteSource;
use crate::resend::{self, Source, State};
use crate::ship::{Event, Feed, Retain, Shipper, SqliteFeed, UploadSettings, noted};
use crate::sink::sqlite::SqliteSettings;
use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

pub(super) const HELP: &str = "\
Each record keeps its writer and seq. A SQLite row becomes the line that was logged, byte for byte; a Parquet row one with the same values. How far it came is noted in
a file beside the source (<source>.sent-to-kafka, <source>.sent-to-nats): it may be stopped at any moment and run again, which sends one batch twice at most, and when all
was sent, nothing. Delete that file to send everything again. For the bucket the store itself knows what is there, of one bucket: for a second one, copy the objects of the first.

It may run beside a server that writes to the store: run it again for what came meanwhile. Parquet files that are not finished yet are no history.

Exits with 0 when all was sent, with 1 when not, with 2 when asked wrongly.

Examples:
  predlog migrate --from sqlite:predlog-data/predictions.db --to kafka --config config/kafka.toml
  predlog migrate --from parquet:predlog-data --to nats --config config/nats.toml
  PREDLOG_UPLOAD__URL=s3://predictions/team predlog migrate --from sqlite:predlog-data/predictions.db --to upload";

/// The longest that the brokers may be away.
const PATIENCE: Duration = Duration::from_secs(60);
/// The longest that the bucket may take nothing.
const UPLOAD_PATIENCE: Duration = Duration::from_secs(60);
/// Without a terminal: a line each.
const TELL_EVERY: Duration = Duration::from_secs(10);

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The store: sqlite:PATH of its file, or parquet:DIR with its predictions/
    #[arg(long, value_name = "STORE")]
    from: From,
    /// Where to, as the configuration says
    #[arg(long)]
    to: To,
    /// The configuration file (else the file that PREDLOG_CONFIG names, else the defaults)
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Clone, Debug)]
enum From {
    Sqlite(PathBuf),
    Parquet(PathBuf),
}

impl FromStr for From {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            Some(("sqlite", path)) if !path.is_empty() => Ok(From::Sqlite(path.into())),
            Some(("parquet", dir)) if !dir.is_empty() => Ok(From::Parquet(dir.into())),
            _ => Err("expected sqlite:PATH or parquet:DIR".to_owned()),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum To {
    /// The topic of [kafka]
    Kafka,
    /// The subject of [nats]
    Nats,
    /// The bucket of [upload]
    Upload,
}

pub(super) fn run(arguments: Arguments) -> Result<ExitCode, Error> {
    let mut config = load(arguments.config, None, None)?;
    match arguments.to {
        To::Kafka => {
            go_to(&mut config, Mode::Kafka)?;
            let target = format!("kafka {} {}", config.kafka.brokers, config.kafka.topic);
            send(&config, &arguments.from, "kafka", &target)
        }
        To::Nats => {
            go_to(&mut config, Mode::Nats)?;
            let target = format!("nats {} {}", config.nats.servers, config.nats.subject);
            send(&config, &arguments.from, "nats", &target)
        }
        To::Upload => upload(&config, &arguments.from),
    }
}

/// The section of a mode that the configuration may not have is not looked at when it is read.
fn go_to(config: &mut Config, mode: Mode) -> Result<(), Error> {
    config.mode = mode;
    // History goes to one place.
    config.sinks.clear();
    config.direct.backlog = Backlog::default();
    config.validate()
}

fn send(config: &Config, from: &From, name: &str, target: &str) -> Result<ExitCode, Error> {
    let path = beside(from, &format!("sent-to-{name}"));
    let _lock = resend::lock(&beside(from, &format!("sent-to-{name}.lock")))?;
    let mut state = State::load(path, target)?;
    let fallback = if config.mode == Mode::Nats { &config.nats.fallback.dir } else { &config.kafka.fallback.dir };
    let home = make_home(fallback)?;
    let mut sender = modes::open_sender(config, &home, PATIENCE)?;
    let mut all = |source: &mut dyn Source, left: u64, state: &mut State| {
        let progress = Progress::start(left, "records");
        let sent = resend::send_all(source, &mut sender, state, &mut |rows| {
            progress.add(rows);
            true
        });
        progress.end();
        sent
    };
    let (sent, foreign) = match from {
        From::Sqlite(path) => {
            let mut source = SqliteSource::open(path)?;
            let left = source.left(&state)?;
            (all(&mut source, left, &mut state)?, source.foreign)
        }
        From::Parquet(dir) => {
            let mut source = ParquetSource::open(dir)?;
            let left = source.left(&state)?;
            (all(&mut source, left, &mut state)?, source.foreign)
        }
    };
    let refused = sender.close()?;
    if let Err(error) = home.remove_if_empty() {
        tracing::warn!(%error, "cannot remove this process's empty directory; the next start does");
    }
    say(&format!("sent={} refused={refused} foreign={foreign}\n", sent - refused.min(sent)));
    if refused > 0 {
        eprintln!("refused records are in {}/dead-letter: see predlog replay", fallback.display());
    }
    Ok(if refused + foreign == 0 { ExitCode::SUCCESS } else { ExitCode::from(FAILED) })
}

/// A file beside the source.
fn beside(from: &From, name: &str) -> PathBuf {
    match from {
        From::Sqlite(path) => {
            let mut path = path.as_os_str().to_owned();
            path.push(format!(".{name}"));
            path.into()
        }
        From::Parquet(dir) => dir.join(format!(".{name}")),
    }
}

/// The store knows what is uploaded, whoever did it: its shipper runs until nothing waits.
fn upload(config: &Config, from: &From) -> Result<ExitCode, Error> {
    let failed = |message: String| Error::new(ErrorKind::Upload, message);
    if config.upload.url.is_none() {
        let message = "--to upload needs upload.url: expected s3://bucket/prefix, gs://…, az://… or file:///directory";
        return Err(Error::new(ErrorKind::Config, message));
    }
    let (dir, feed) = match from {
        From::Sqlite(path) => {
            let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
            let settings = SqliteSettings { dir: dir.to_owned(), ..modes::direct::sqlite_settings(config) };
            if settings.path().file_name() != path.file_name() || !path.exists() {
                let message = format!("path={} is no store: expected a file predictions.db, in its directory", path.display());
                return Err(Error::new(ErrorKind::Storage, message));
            }
            let feed = SqliteFeed::open(settings, &config.upload, Arc::default()).map_err(failed)?;
            (dir.to_owned(), Some(Box::new(feed) as Box<dyn Feed>))
        }
        From::Parquet(dir) if dir.join("predictions").is_dir() => (dir.clone(), None),
        From::Parquet(dir) => {
            let message = format!("dir={} has no predictions/: expected the directory of a Parquet store", dir.display());
            return Err(Error::new(ErrorKind::Storage, message));
        }
    };
    same_target(&config.upload, &dir)?;
    let progress = Arc::new(Progress::start(0, "files"));
    let (files, told) = (Arc::new(AtomicU64::new(0)), Arc::clone(&progress));
    let uploaded = Arc::clone(&files);
    let observer: crate::ship::Observer = Arc::new(move |event| match event {
        Event::Uploaded { .. } => {
            uploaded.fetch_add(1, Ordering::Relaxed);
            told.add(1);
        }
        Event::Pending { files, .. } => told.more(files),
        Event::Failed { .. } | Event::Deleted { .. } => {}
    });
    let shipper = Shipper::start(config.upload.clone(), &dir, Retain::default(), feed, observer);
    let shipper = shipper.map_err(|error| failed(error.to_string()))?;
    let mut before = 0;
    let done = loop {
        if shipper.ship_now(UPLOAD_PATIENCE) {
            break true;
        }
        // As long as files go up, there is no reason to stop.
        if files.load(Ordering::Relaxed) == before {
            break false;
        }
        before = files.load(Ordering::Relaxed);
    };
    progress.end();
    let status = shipper.stop();
    say(&format!("uploaded_files={} uploaded_bytes={}\n", status.uploaded_files, status.uploaded_bytes));
    match status.last_error {
        _ if done => Ok(ExitCode::SUCCESS),
        error => Err(failed(error.unwrap_or_else(|| "another process uploads from this directory; run it again".to_owned()))),
    }
}

/// What is uploaded counts as such wherever it went, so it would not be sent to another target, and what is left would be there alone.
fn same_target(upload: &UploadSettings, dir: &Path) -> Result<(), Error> {
    let failed = |error: std::io::Error| {
        Error::new(ErrorKind::Storage, format!("cannot read where dir={} was uploaded to: {error}", dir.display()))
    };
    let (noted, target) = (noted::targets(dir).map_err(failed)?, noted::name(upload));
    let Some((last, earlier)) = noted.split_last() else { return Ok(()) };
    if *last != target {
        let message = format!(
            "upload.url: what was uploaded from dir={0} is in {last}, and would not be sent to {target}: copy the objects from there with the store's own tool (aws s3 sync, gcloud storage rsync, azcopy), and leave upload.url what it was for those to come. To send what is not uploaded yet to {target} instead, delete {0}/{1}",
            dir.display(),
            noted::FILE,
        );
        return Err(Error::new(ErrorKind::Upload, message));
    }
    let elsewhere: Vec<&str> = earlier.iter().filter(|before| **before != target).map(String::as_str).collect();
    if !elsewhere.is_empty() {
        eprintln!("note: what was uploaded before is in {}, and is not sent again", elsewhere.join(", "));
    }
    Ok(())
}

/// How far it is: a bar where a person looks at it, else a line now and then.
struct Progress {
    bar: ProgressBar,
    unit: &'static str,
    lines: bool,
    told: std::sync::Mutex<Instant>,
}

impl Progress {
    fn start(total: u64, unit: &'static str) -> Self {
        let lines = !std::io::stderr().is_terminal();
        let bar = if lines { ProgressBar::hidden() } else { ProgressBar::new(total) };
        bar.set_length(total);
        let template = format!("{{bar:40}} {{human_pos}} of {{human_len}} {unit}, {{per_sec}}, {{eta}} left");
        if let Ok(style) = ProgressStyle::with_template(&template) {
            bar.set_style(style);
        }
        Progress { bar, unit, lines, told: Instant::now().into() }
    }

    fn add(&self, done: u64) {
        self.bar.inc(done);
        let Ok(mut told) = self.told.lock() else { return };
        if self.lines && told.elapsed() >= TELL_EVERY {
            *told = Instant::now();
            eprintln!("{self}");
        }
    }

    /// So many more wait.
    fn more(&self, waiting: u64) {
        self.bar.set_length(self.bar.position() + waiting);
    }

    fn end(&self) {
        self.bar.finish_and_clear();
        if self.lines {
            eprintln!("{self}");
        }
    }
}

impl std::fmt::Display for Progress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} of {} {}", self.bar.position(), self.bar.length().unwrap_or(0), self.unit)
    }
}
