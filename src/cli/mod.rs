//! The program `predlog`. Standard output is for results, standard error for logs and problems.

mod archive;
mod audit;
mod check;
mod compact;
mod connect;
mod memory;
mod migrate;
mod replay;
mod serve;
mod signals;

use crate::config::Config;
use crate::error::{Error, ErrorKind};
use crate::modes::fanout;
use clap::{Parser, Subcommand};
use std::ffi::OsString;
use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use tracing_subscriber::EnvFilter;

/// Something did not work.
const FAILED: u8 = 1;
/// The configuration is wrong: nothing was tried. clap uses the same number for wrong arguments.
const WRONG_CONFIG: u8 = 2;

/// Keeps every prediction of a model server, in SQLite or Parquet, and uploads them in batches.
#[derive(Debug, Parser)]
#[command(version, arg_required_else_help = true, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  predlog serve                                    listen on 127.0.0.1:8642, keep predictions in ./predlog-data/predictions.db
  predlog serve --config config/simple.toml        the same, from a file that shows every key
  PREDLOG_DIRECT__STORE=parquet predlog serve      keep Parquet files instead; every key is a variable too
  predlog check --config config/simple.toml        say what would happen, and try the directory, the store and the bucket
  predlog check --config config/kafka.toml         … or the brokers, the topic and the fallback's directory
  predlog check --config config/nats.toml          … or the servers, the stream and the fallback's directory
  predlog archive --config config/archive.toml     store the topics of Kafka mode as Parquet in a bucket
  predlog connect --config config/kafka.toml       take S3 sink connectors on 127.0.0.1:8083, in place of Kafka Connect
  predlog audit --config config/simple.toml        prove that every accepted prediction is stored, once
  predlog replay --config config/kafka.toml        send what the brokers have refused again, once the reason is gone
  predlog migrate --from sqlite:predlog-data/predictions.db --to kafka --config config/kafka.toml
                                                   send what was stored before to the topic
  predlog compact --table s3://bucket/table --dry-run
                                                   put the small files of a Delta table together

RUST_LOG sets what is logged on standard error: RUST_LOG=debug, RUST_LOG=predlog=trace.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Take predictions over HTTP until SIGTERM or SIGINT
    #[command(
        after_help = "The first signal drains what was accepted, up to server.shutdown_deadline; a second one stops at once."
    )]
    Serve {
        /// The configuration file (else the file that PREDLOG_CONFIG names, else the defaults)
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// The address to listen on, instead of server.addr; port 0 takes a free one
        #[arg(long)]
        addr: Option<SocketAddr>,
        /// The directory for everything that is written, instead of direct.dir, kafka.fallback.dir and nats.fallback.dir
        #[arg(long)]
        dir: Option<PathBuf>,
    },
    /// Store Kafka's topics as Parquet, exactly once, until SIGTERM or SIGINT
    #[command(
        after_help = "What is not stored when it stops stays in Kafka, for the next run. Any number of instances with one archive.group share the partitions."
    )]
    Archive(archive::Arguments),
    /// Run connectors of Kafka Connect's S3 sink, and serve Connect's REST API, until SIGTERM or SIGINT
    #[command(after_help = connect::HELP)]
    Connect(connect::Arguments),
    /// Compare what is stored with what was accepted: by model and hour, what is missing, there twice or dropped
    #[command(
        after_help = "Exits with 0 only when every accepted record is stored once and none was dropped, with 1 when not, with 2 when asked wrongly."
    )]
    Audit(audit::Arguments),
    /// Send the dead letters again: records that the brokers, or the store, have refused
    #[command(after_help = replay::HELP)]
    Replay(replay::Arguments),
    /// Send the history of a store to Kafka, to NATS or to the bucket
    #[command(after_help = migrate::HELP)]
    Migrate(migrate::Arguments),
    /// Put the small files of a Delta table, or of a bucket's partitions, together
    #[command(after_help = compact::HELP)]
    Compact(compact::Arguments),
    /// Say what a configuration would do, and try everything that it needs
    #[command(
        after_help = "Exits with 0 when all is well, with 1 when something does not work, with 2 when the configuration is wrong."
    )]
    Check {
        /// The configuration file (else the file that PREDLOG_CONFIG names, else the defaults)
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
}

/// Runs the program with the process's arguments.
pub fn main() -> ExitCode {
    memory::keep();
    run(std::env::args_os())
}

/// Runs the program with the given arguments, of which the first is its name: for a host whose own arguments are not the program's, such as
/// Python. Wrong arguments and `--help` end the process.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = Cli::parse_from(arguments);
    // The NATS client tells of each try to connect; predlog tells once what came of it.
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info,async_nats=off"));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // A log that goes to a file has no colours.
    let log = log.with_ansi(std::io::stderr().is_terminal()).with_filter_reloading();
    let levels = log.reload_handle();
    log.init();
    let set_levels = move |directives: &str| {
        let filter = EnvFilter::try_new(directives).map_err(|error| error.to_string())?;
        levels.reload(filter).map_err(|error| error.to_string())
    };
    let result = match cli.command {
        Command::Serve { config, addr, dir } => load(config, addr, dir).and_then(|config| serve::run(&config)),
        Command::Archive(arguments) => archive::run(arguments),
        Command::Connect(arguments) => connect::run(arguments, set_levels),
        Command::Audit(arguments) => audit::run(arguments),
        Command::Replay(arguments) => replay::run(arguments),
        Command::Migrate(arguments) => migrate::run(arguments),
        Command::Compact(arguments) => compact::run(arguments),
        Command::Check { config } => load(config, None, None).and_then(|config| check::run(&config)),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            for line in error.to_string().lines() {
                eprintln!("error: {line}");
            }
            ExitCode::from(if error.kind() == ErrorKind::Config { WRONG_CONFIG } else { FAILED })
        }
    }
}

fn load(path: Option<PathBuf>, addr: Option<SocketAddr>, dir: Option<PathBuf>) -> Result<Config, Error> {
    let mut config = Config::load(path.as_deref())?;
    if let Some(addr) = addr {
        config.server.addr = addr;
    }
    if let Some(dir) = dir {
        config.kafka.fallback.dir.clone_from(&dir);
        config.nats.fallback.dir.clone_from(&dir);
        config.direct.dir = dir;
    }
    config.validate()?;
    Ok(config)
}

/// What `--sink` names: one of `[[sinks]]`, as if it were the only one.
fn of_sink(config: Config, name: Option<&str>) -> Result<Config, Error> {
    let Some(name) = name else { return Ok(config) };
    let mut sinks = fanout::each(&config);
    sinks.find_map(|(known, sink)| (known == name).then_some(sink)).ok_or_else(|| {
        let names: Vec<String> = fanout::each(&config).map(|(known, _)| format!("{known:?}")).collect();
        let known = if names.is_empty() { "there are none".to_owned() } else { names.join(", ") };
        Error::new(ErrorKind::Config, format!("--sink={name:?}: expected the name of one of [[sinks]]: {known}"))
    })
}

/// Writes to standard output. Nobody reading it (`predlog serve | head -1`) is no reason to stop.
fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    if let Err(error) = out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        tracing::debug!(%error, "standard output is closed");
    }
}
