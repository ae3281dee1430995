//! `predlog archive`: topics to objects.

use super::load;
use super::signals::Signals;
use crate::archive::{Archiver, Counters, Job, metrics};
use crate::connect;
use crate::error::{Error, ErrorKind};
use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::net::TcpListener;

/// How often the progress is told.
const TELL: Duration = Duration::from_secs(5);
const METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const STEP: Duration = Duration::from_millis(100);

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The configuration file (else the file that PREDLOG_CONFIG names, else the defaults)
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Archive as this configuration of Kafka Connect's S3 sink says, with the brokers of [kafka]
    #[arg(long, value_name = "FILE")]
    connect: Option<PathBuf>,
    /// Store what the topics have now, then end
    #[arg(long)]
    until_end: bool,
}

pub(super) fn run(arguments: Arguments) -> Result<ExitCode, Error> {
    let config = load(arguments.config, None, None)?;
    let job = match &arguments.connect {
        Some(path) => {
            let sink = connect::load(path)?;
            sink.warnings.iter().for_each(|warning| tracing::warn!(connector = sink.name, "{warning}"));
            connect::job(&sink, &config, &|name| std::env::var(name).ok(), arguments.until_end)?
        }
        None => Job::predictions(&config, arguments.until_end)?,
    };
    let archiver = Archiver::new(job);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Error::new(ErrorKind::Storage, format!("cannot wait for signals: {error}")))?;
    let listener = match config.archive.metrics_addr {
        Some(addr) => Some(runtime.block_on(TcpListener::bind(addr)).map_err(|error| {
            Error::new(
                ErrorKind::Server,
                format!("cannot listen on archive.metrics_addr={addr}: {error}; choose another address, or stop what is there"),
            )
        })?),
        None => None,
    };
    let (stop, counters, ended) = (archiver.stop_flag(), archiver.counters(), AtomicBool::new(false));
    let started = Instant::now();
    let bar = bar(arguments.until_end);
    let result = std::thread::scope(|scope| {
        let (ended, counters, bar) = (&ended, &counters, &bar);
        let watching = scope.spawn(move || watch(&runtime, listener, &stop, ended, counters, bar));
        let result = archiver.run();
        ended.store(true, Ordering::Release);
        let watched = watching.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        result.and(watched)
    });
    eprintln!("{}", told(&counters, started.elapsed()));
    result?;
    if arguments.until_end && archiver.stop_flag().load(Ordering::Acquire) {
        return Err(Error::new(
            ErrorKind::Storage,
            "stopped by a signal before the end: what is not stored stays in Kafka, for the next run",
        ));
    }
    Ok(ExitCode::SUCCESS)
}

/// Tells the progress until the archiver has ended; a signal ends it.
fn watch(
    runtime: &tokio::runtime::Runtime,
    listener: Option<TcpListener>,
    stop: &AtomicBool,
    ended: &AtomicBool,
    counters: &Arc<Counters>,
    bar: &ProgressBar,
) -> Result<(), Error> {
    let started = Instant::now();
    let mut told_at = Instant::now();
    runtime.block_on(async {
        let mut signals = Signals::listen()?;
        if let Some(listener) = listener {
            let shown = counters.clone();
            let routes = Router::new()
                .route("/metrics", get(async move || ([(CONTENT_TYPE, METRICS)], metrics::encode(&shown))))
                .route("/healthz", get(async || "ok\n"));
            tokio::spawn(axum::serve(listener, routes).into_future());
        }
        while !ended.load(Ordering::Acquire) {
            tokio::select! {
                () = signals.next() => stop.store(true, Ordering::Release),
                () = tokio::time::sleep(STEP) => {}
            }
            show(bar, counters);
            if bar.is_hidden() && told_at.elapsed() >= TELL {
                told_at = Instant::now();
                eprintln!("{}", told(counters, started.elapsed()));
            }
        }
        bar.finish_and_clear();
        Ok(())
    })
}

/// For a run that ends, where somebody looks on; others are told a line every few seconds.
fn bar(until_end: bool) -> ProgressBar {
    if !until_end || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let template = "{wide_bar} {human_pos} of {human_len} messages, {per_sec}, {eta} left";
    // The template is right, or it is indicatif's own.
    ProgressBar::no_length().with_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()))
}

fn show(bar: &ProgressBar, counters: &Counters) {
    let stored = counters.messages.load(Ordering::Relaxed);
    bar.set_length(stored + counters.lag());
    bar.set_position(stored);
}

fn told(counters: &Counters, elapsed: Duration) -> String {
    let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    let (messages, rows, bytes) = (count(&counters.messages), count(&counters.rows), count(&counters.bytes));
    let (rejected, duplicates, lag) = (count(&counters.rejected), count(&counters.duplicates), counters.lag());
    format!(
        "stored messages={messages} rows={rows} bytes={bytes} in {:.1} s, duplicates={duplicates} rejected={rejected}, waiting messages={lag}",
        elapsed.as_secs_f64()
    )
}
