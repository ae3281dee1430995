//! `predlog connect`.

use super::signals::Signals;
use super::{load, say};
use crate::archive::Job;
use crate::config::Config;
use crate::connect::rest::{self, Herder, Level, Loggers, S3Sink, State};
use crate::connect::{self, Connector, Runner, SinkConfig, Store};
use crate::error::{Error, ErrorKind};
use crate::server;
use crate::sink::kafka::topics;
use clap::Args;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;

pub(super) const HELP: &str = "\
The brokers are those of [kafka] in the configuration: kafka.brokers, kafka.client and so on. Connectors come by the REST API, and are kept in --data-dir:

  curl -X PUT -H 'content-type: application/json' -d @examples/connect/my-model-connector.json \\
    http://127.0.0.1:8083/connectors/my-model-connector/config

Who reads a connector reads its whole configuration, credentials too, and there is no authentication: as with Kafka Connect, keep it on the loopback
address, or behind a proxy that has some.";

/// A request's head must be there in this time.
const READ_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a stop waits for requests.
const SHUTDOWN: Duration = Duration::from_secs(10);

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The configuration file (else the file that PREDLOG_CONFIG names, else the defaults)
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The address to listen on; port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:8083")]
    addr: SocketAddr,
    /// The directory that connectors are kept in
    #[arg(long, value_name = "DIR", default_value = "predlog-connect")]
    data_dir: PathBuf,
}

/// `set_levels` changes what is logged; it takes what `RUST_LOG` takes.
pub(super) fn run(
    arguments: Arguments,
    set_levels: impl Fn(&str) -> Result<(), String> + Send + Sync + 'static,
) -> Result<ExitCode, Error> {
    let config = load(arguments.config.clone(), None, None)?;
    let client = topics(&config.kafka).map_err(|why| Error::new(ErrorKind::Config, why))?.client;
    let level = std::env::var("RUST_LOG").ok().and_then(|level| Level::parse(&level)).unwrap_or(Level::Info);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Error::new(ErrorKind::Server, format!("cannot start the runtime: {error}")))?;
    runtime.block_on(serve(
        &arguments,
        Runner::new(client, move |connector| job(connector, &config)),
        Loggers::new(level, set_levels),
    ))
}

/// What archives for a connector.
fn job(connector: &Connector, config: &Config) -> Result<Job, Error> {
    let given = connector.config.iter().filter_map(|(key, value)| Some((key.clone(), value.clone()?))).collect();
    let sink = SinkConfig::parse(&connector.name, given)?;
    sink.warnings.iter().for_each(|warning| tracing::warn!(connector = sink.name, "{warning}"));
    connect::job(&sink, config, &|name| std::env::var(name).ok(), false)
}

async fn serve(arguments: &Arguments, runner: Runner, loggers: Loggers) -> Result<ExitCode, Error> {
    let mut signals = Signals::listen()?;
    let addr = arguments.addr;
    let unusable = |error: std::io::Error| {
        Error::new(ErrorKind::Server, format!("cannot listen on addr={addr}: {error}; name another by --addr, or port 0"))
    };
    let listener = TcpListener::bind(addr).await.map_err(unusable)?;
    let addr = listener.local_addr().map_err(unusable)?;
    let store = Store::open(&arguments.data_dir)?;
    if !addr.ip().is_loopback() {
        tracing::warn!(%addr, "others can reach this address, and there is no authentication: put a proxy that has it before");
    }
    let kept = store.count();
    let herder = Arc::new(Herder::start(store, Box::new(runner), Box::new(S3Sink)));
    let dir = arguments.data_dir.display();
    say(&format!("Connect's REST API is on http://{addr}, with connectors={kept} of {dir}\n"));
    let router = rest::router(State::new(herder.clone(), loggers, &addr.to_string()));
    server::answer(listener, router, READ_TIMEOUT, SHUTDOWN, signals.next()).await;
    tokio::task::spawn_blocking(move || herder.shut_down())
        .await
        .map_err(|error| Error::new(ErrorKind::Storage, format!("the shutdown failed: {error}")))?;
    say("all connectors have stopped; they go on with the next start\n");
    Ok(ExitCode::SUCCESS)
}
