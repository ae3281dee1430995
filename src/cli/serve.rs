//! `predlog serve`.

use super::say;
use super::signals::Signals;
use crate::config::{Config, Mode, Store};
use crate::error::{Error, ErrorKind};
use crate::logger::{Logger, Report};
use crate::modes::fanout;
use crate::server::{self, State};
use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use tokio::net::TcpListener;

/// What the shell calls a process that a signal ended: 128 and the number of SIGINT.
const STOPPED_AT_ONCE: i32 = 130;

pub(super) fn run(config: &Config) -> Result<ExitCode, Error> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Error::new(ErrorKind::Server, format!("cannot start the runtime: {error}")))?;
    runtime.block_on(serve(config))
}

async fn serve(config: &Config) -> Result<ExitCode, Error> {
    let mut signals = Signals::listen()?;
    let addr = config.server.addr;
    let unusable = |error: std::io::Error| {
        Error::new(ErrorKind::Server, format!("cannot listen on server.addr={addr}: {error}; name another by --addr, or port 0"))
    };
    let listener = TcpListener::bind(addr).await.map_err(unusable)?;
    let addr = listener.local_addr().map_err(unusable)?;
    let (logger, guard) = Logger::open(config)?;
    if !addr.ip().is_loopback() {
        tracing::warn!(%addr, "others can reach this address, and there is no authentication: put a proxy that has it before");
    }
    say(&greeting(config, addr));

    let state = State::new(logger, config.server.clone());
    let first = async {
        signals.next().await;
        tracing::info!("stopping: no more requests are taken; a second signal stops at once");
        tokio::spawn(async move {
            signals.next().await;
            // What was accepted lies in the lanes' file: the next start delivers it.
            std::process::exit(STOPPED_AT_ONCE);
        });
    };
    server::serve(listener, state, first)
        .await
        .map_err(|error| Error::new(ErrorKind::Server, format!("serving on {addr} failed: {error}")))?;

    let deadline = config.server.shutdown_deadline;
    let report = tokio::task::spawn_blocking(move || guard.shutdown(deadline))
        .await
        .map_err(|error| Error::new(ErrorKind::Storage, format!("the shutdown failed: {error}")))?;
    say(&farewell(&report));
    Ok(ExitCode::SUCCESS)
}

fn greeting(config: &Config, addr: SocketAddr) -> String {
    let body = r#"{"model_name":"wine","model_version":"1","inputs":{"alcohol":9.4,"ph":3.51},"outputs":{"quality":5.2}}"#;
    let first = format!("curl -d '{body}' -H 'content-type: application/json' http://{addr}/v1/predictions");
    let (whereto, then) = match config.mode {
        Mode::Direct => {
            let (store, dir) = (config.direct.store, &config.direct.dir);
            let upload = config.upload.url.as_ref().map_or_else(String::new, |url| format!("\nand in   {url}"));
            (format!("predictions are kept in {}{upload}", place(store, dir)), query(store, dir))
        }
        Mode::Kafka => {
            let (topic, brokers, dir) = (&config.kafka.topic, &config.kafka.brokers, config.kafka.fallback.dir.display());
            let whereto = format!("predictions go to topic={topic} of {brokers}, and to {dir} while Kafka is away");
            (whereto, format!("kcat -C -e -b {brokers} -t {topic}"))
        }
        Mode::Nats => {
            let (subject, servers, stream) = (&config.nats.subject, &config.nats.servers, &config.nats.stream);
            let dir = config.nats.fallback.dir.display();
            let whereto = format!("predictions go to subject={subject} of {servers}, and to {dir} while NATS is away");
            (whereto, format!("nats -s {servers} stream view {stream}"))
        }
    };
    let mut whereto = whereto;
    for (name, sink) in fanout::each(config) {
        let what = match sink.mode {
            Mode::Direct => place(sink.direct.store, &sink.direct.dir),
            Mode::Kafka => format!("topic={} of {}", sink.kafka.topic, sink.kafka.brokers),
            Mode::Nats => format!("subject={} of {}", sink.nats.subject, sink.nats.servers),
        };
        whereto.push_str(&format!("\nand to {what} (sink {name})"));
    }
    format!("predlog listens on http://{addr}\n{whereto}\n\ntry:      {first}\nand then: {then}\n")
}

/// Where a store keeps its records.
pub(super) fn place(store: Store, dir: &Path) -> String {
    match store {
        Store::Sqlite => dir.join("predictions.db").display().to_string(),
        Store::Parquet => format!("{}/predictions/model_name=…/date=…/", dir.display()),
    }
}

fn query(store: Store, dir: &Path) -> String {
    let dir = dir.display();
    match store {
        Store::Sqlite => format!("sqlite3 {dir}/predictions.db 'select id, model_name, inputs, outputs from predictions'"),
        Store::Parquet => format!(
            "duckdb -c \"select id, model_name, inputs, outputs from read_parquet('{dir}/predictions/*/*/*.parquet', \
             hive_partitioning = true, union_by_name = true)\"   (once a file is finished: see [rotation])"
        ),
    }
}

fn farewell(report: &Report) -> String {
    let dropped: u64 = report.dropped.values().sum();
    let mut text = format!(
        "stopped: accepted={} delivered={} on_disk={} dropped={dropped} recovered={}\n",
        report.accepted, report.delivered, report.on_disk, report.recovered
    );
    for (reason, count) in &report.dropped {
        text.push_str(&format!("dropped: reason={reason} count={count}\n"));
    }
    if let Some(problem) = &report.problem {
        text.push_str(&format!("problem: {problem}\n"));
    }
    for (name, sink) in &report.sinks {
        text.push_str(&format!("sink {name}: {}", farewell(sink)));
    }
    text
}
