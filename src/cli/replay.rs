//! `predlog replay`: dead letters once more.

use super::{FAILED, load, of_sink, say};
use crate::config::{Config, Mode};
use crate::error::{Error, ErrorKind};
use crate::logger::builder::make_home;
use crate::modes;
use crate::resend::letters::{self, Replayed};
use bytesize::ByteSize;
use clap::Args;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

pub(super) const HELP: &str = "\
Each record keeps its writer and seq. A file of <dir>/dead-letter goes when all of its records are owned, or are dead letters again in a new file. It may be
stopped at any moment and run again, also beside a running server.

Exits with 0 only when nothing is left, with 1 when something is, with 2 when the configuration is wrong.

Examples:
  predlog replay --config config/kafka.toml --dry-run    say what there is, and send nothing
  predlog replay --config config/kafka.toml              send it
  zstdcat predlog-data/dead-letter/*.zst | jq -r .reason | sort | uniq -c    why it was refused";

/// The longest that the sink may be away.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The configuration file (else the file that PREDLOG_CONFIG names, else the defaults)
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The dead letters of this one of [[sinks]], instead of those of the mode
    #[arg(long, value_name = "NAME")]
    sink: Option<String>,
    /// Say what there is, and send nothing
    #[arg(long)]
    dry_run: bool,
}

pub(super) fn run(arguments: Arguments) -> Result<ExitCode, Error> {
    let mut config = of_sink(load(arguments.config, None, None)?, arguments.sink.as_deref())?;
    let dir = dir_of(&config).to_owned();
    let mut tell = |line: &str| eprintln!("{line}");
    let replayed = if arguments.dry_run {
        letters::count(&dir, &mut tell)?
    } else {
        // A file and what of it is refused again are there together, for a moment.
        for fallback in [&mut config.kafka.fallback, &mut config.nats.fallback] {
            fallback.max_bytes = ByteSize::b(fallback.max_bytes.as_u64().saturating_mul(2));
        }
        send(&config, &dir, &mut tell)?
    };
    let Replayed { sent, refused, left, torn } = replayed;
    say(&format!("sent={sent} refused_again={refused} left={left} torn_files={torn}\n"));
    Ok(if replayed.is_clean() { ExitCode::SUCCESS } else { ExitCode::from(FAILED) })
}

fn send(config: &Config, dir: &Path, tell: &mut dyn FnMut(&str)) -> Result<Replayed, Error> {
    let home = make_home(dir)?;
    let sender = modes::open_sender(config, &home, PATIENCE)?;
    let replayed = letters::replay(dir, sender, tell);
    let removed = home.remove_if_empty();
    removed.map_err(|error| {
        let message = format!("cannot remove this process's directory in dir={}: {error}; the next start does", dir.display());
        Error::new(ErrorKind::Storage, message)
    })?;
    replayed
}

/// Where the dead letters of the mode are.
fn dir_of(config: &Config) -> &Path {
    match config.mode {
        Mode::Direct => &config.direct.dir,
        Mode::Kafka => &config.kafka.fallback.dir,
        Mode::Nats => &config.nats.fallback.dir,
    }
}
