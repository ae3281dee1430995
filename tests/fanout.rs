//! `[[sinks]]`: one call, more than one sink, each with its own progress.

mod stored;
mod support;

use axum::body::Body;
use axum::http::Request;
use predlog::config::ServerSettings;
use predlog::server::State;
use predlog::{Config, Logger, Outcome, Overflow, Report};
use serde_json::json;
use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};
use support::process::wait_until;
use tower::ServiceExt;

const LONG: Duration = Duration::from_secs(60);

fn config(dir: &Path, sinks: &str) -> Config {
    let mut config = Config::from_toml(sinks).expect("a configuration");
    config.direct.dir = dir.join("main");
    config.batch.max_age = Duration::from_millis(10);
    config
}

fn log(logger: &Logger, numbers: std::ops::Range<u64>) {
    for n in numbers {
        let outcome = logger.log_parts("wine", "1", &json!({"n": n}), &0.5);
        assert!(matches!(outcome, Outcome::Accepted { .. }), "{outcome:?}");
    }
}

fn numbers(rows: &[stored::Row]) -> Vec<u64> {
    let mut numbers: Vec<u64> = rows.iter().map(|row| row.inputs["n"].as_u64().expect("a number")).collect();
    numbers.sort_unstable();
    numbers
}

fn assert_complete(report: &Report, rows: u64) {
    assert_eq!((report.accepted, report.delivered, report.on_disk), (rows, rows, 0), "{report:?}");
    assert_eq!(report.problem, None);
}

#[test]
fn each_sink_has_every_record_once_with_the_same_id_and_time() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path(), "[[sinks]]\ntype = \"parquet\"\n[[sinks]]\ntype = \"sqlite\"\nname = \"recent\"");
    let (logger, guard) = Logger::open(&config).expect("the logger opens");
    assert_eq!(logger.sinks().collect::<Vec<_>>(), ["parquet", "recent"]);
    log(&logger, 0..5_000);
    assert!(logger.flush(LONG));
    assert_eq!(logger.sink("recent").expect("a sink").snapshot().delivered, 5_000, "a flush is of all sinks");
    assert!(logger.sink("other").is_none());
    let report = guard.shutdown(LONG);
    assert_complete(&report, 5_000);
    assert_eq!(report.sinks.keys().collect::<Vec<_>>(), ["parquet", "recent"]);
    report.sinks.values().for_each(|report| assert_complete(report, 5_000));

    let main = stored::sqlite(&config.direct.dir);
    let ids = |rows: &[stored::Row]| rows.iter().map(|row| row.id.clone()).collect::<BTreeSet<_>>();
    for rows in
        [stored::parquet(&config.direct.dir.join("sinks/parquet")), stored::sqlite(&config.direct.dir.join("sinks/recent"))]
    {
        assert_eq!(numbers(&rows), (0..5_000).collect::<Vec<_>>());
        assert_eq!(ids(&rows), ids(&main));
    }
}

/// What the server of this logger answers.
fn get(logger: &Logger, path: &str) -> (u16, String) {
    let router = predlog::server::router(State::new(logger.clone(), ServerSettings::default()));
    let request = Request::get(path).body(Body::empty()).expect("a request");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let response = router.oneshot(request).await.expect("an answer");
        let status = response.status().as_u16();
        let body = axum::body::to_bytes(response.into_body(), 1 << 20).await.expect("a body");
        (status, String::from_utf8_lossy(&body).into_owned())
    })
}

#[test]
fn a_sink_that_is_down_costs_the_others_nothing_and_catches_up() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path(), "[[sinks]]\ntype = \"sqlite\"\nname = \"recent\"");
    config.sqlite.busy_timeout = Duration::from_millis(20);
    let (logger, guard) = Logger::open(&config).expect("the logger opens");
    log(&logger, 0..100);
    assert!(logger.flush(LONG));
    let other = config.direct.dir.join("sinks/recent");
    let lock = rusqlite::Connection::open(other.join("predictions.db")).expect("the database");
    lock.execute_batch("BEGIN EXCLUSIVE").expect("a lock");
    log(&logger, 100..30_000);
    wait_until("the main sink has all", LONG, || logger.snapshot().delivered == 30_000);
    let sink = logger.sink("recent").expect("the sink");
    wait_until("the other sink says why it waits", LONG, || sink.health().is_err());
    assert_eq!(logger.health(), Ok(()), "the main sink is well");
    let (status, text) = get(&logger, "/readyz");
    assert!(status == 200 && text.starts_with("ready\nsink recent waits: sink=sqlite: "), "{status} {text}");
    let (_, text) = get(&logger, "/metrics");
    for line in ["predlog_delivered_total 30000", "predlog_sink_up 1", "predlog_sink_sink_up{sink=\"recent\"} 0"] {
        assert!(text.lines().any(|found| found.starts_with(line)), "{line} is not in\n{text}");
    }
    let (_, text) = get(&logger, "/v1/status");
    let status: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!((&status["healthy"], &status["delivered"]), (&true.into(), &30_000.into()), "{text}");
    let recent = &status["sinks"]["recent"];
    assert_eq!((&recent["healthy"], &recent["delivered"]), (&false.into(), &100.into()), "{text}");
    assert!(recent["problem"].as_str().is_some_and(|why| why.starts_with("sink=sqlite: ")), "{text}");
    assert_eq!(sink.snapshot().delivered, 100);
    lock.execute_batch("ROLLBACK").expect("the lock ends");
    assert!(logger.flush(LONG), "{:?}", sink.health());
    let report = guard.shutdown(LONG);
    assert_complete(&report, 30_000);
    assert_complete(&report.sinks["recent"], 30_000);
    assert_eq!(numbers(&stored::sqlite(&other)), (0..30_000).collect::<Vec<_>>());
}

/// Logs until `sink` has dropped a thousand records, and the main one none; returns how many that took.
fn log_until_dropped(logger: &Logger, sink: &Logger, first: u64) -> u64 {
    let start = Instant::now();
    let mut logged = first;
    while sink.snapshot().dropped.iter().map(|(_, count)| count).sum::<u64>() < 1_000 {
        log(logger, logged..logged + 1_000);
        logged += 1_000;
        // The main sink is not what is to be full.
        wait_until("the main sink keeps up", LONG, || logger.snapshot().delivered == logged);
        assert!(start.elapsed() < LONG, "{logged}: nothing is dropped, or a call waits");
    }
    logged
}

/// The main sink has all that was logged; the other all but what it dropped, and says why. Returns how many it has.
fn assert_only_the_other_dropped(report: &Report, name: &str, logged: u64, reason: &str) -> u64 {
    assert_complete(report, logged);
    assert_eq!(report.dropped.values().sum::<u64>(), 0, "{report:?}");
    let of_sink = &report.sinks[name];
    assert_eq!(of_sink.dropped.keys().copied().collect::<Vec<_>>(), [reason], "{of_sink:?}");
    assert_eq!(of_sink.accepted + of_sink.dropped[reason], logged, "{of_sink:?}");
    assert_eq!((of_sink.delivered, of_sink.on_disk), (of_sink.accepted, 0), "{of_sink:?}");
    of_sink.delivered
}

#[test]
fn a_sink_that_may_not_wait_on_more_disk_drops_its_own_records_and_counts_them() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path(), "[[sinks]]\ntype = \"sqlite\"\nname = \"recent\"\nmax_bytes = \"1MiB\"");
    config.logger.queue_bytes = bytesize::ByteSize::mib(8);
    config.sqlite.busy_timeout = Duration::from_millis(20);
    // A call that waited for this sink would wait as long as the test may take.
    (config.logger.overflow, config.logger.block_limit) = (Overflow::Block, LONG);
    let (logger, guard) = Logger::open(&config).expect("the logger opens");
    log(&logger, 0..1);
    assert!(logger.flush(LONG));
    let other = config.direct.dir.join("sinks/recent");
    let lock = rusqlite::Connection::open(other.join("predictions.db")).expect("the database");
    lock.execute_batch("BEGIN EXCLUSIVE").expect("a lock");
    let sink = logger.sink("recent").expect("the sink");
    let logged = log_until_dropped(&logger, &sink, 1);
    lock.execute_batch("ROLLBACK").expect("the lock ends");
    assert!(logger.flush(LONG), "{:?} {:?}, sink: {:?} {:?}", logger.health(), logger.snapshot(), sink.health(), sink.snapshot());
    let delivered = assert_only_the_other_dropped(&guard.shutdown(LONG), "recent", logged, "sink_unavailable");
    assert_eq!(stored::sqlite(&other).len() as u64, delivered);
}

#[test]
fn a_parquet_sink_that_cannot_finish_files_is_bounded_too() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path(), "[[sinks]]\ntype = \"parquet\"\nmax_bytes = \"1MiB\"");
    config.logger.queue_bytes = bytesize::ByteSize::mib(8);
    let other = config.direct.dir.join("sinks/parquet");
    std::fs::create_dir_all(&other).expect("a directory");
    std::fs::write(other.join("predictions"), "in the way").expect("a file");
    let (logger, guard) = Logger::open(&config).expect("the logger opens");
    let sink = logger.sink("parquet").expect("the sink");
    let logged = log_until_dropped(&logger, &sink, 0);
    assert_eq!(logger.health(), Ok(()));
    assert!(sink.health().is_err_and(|problem| problem.contains("max_bytes")), "{:?}", sink.health());
    std::fs::remove_file(other.join("predictions")).expect("the way is free");
    assert!(logger.flush(LONG), "{:?} {:?}", sink.health(), sink.snapshot());
    let delivered = assert_only_the_other_dropped(&guard.shutdown(LONG), "parquet", logged, "no_space");
    assert_eq!(stored::parquet(&other).len() as u64, delivered);
}

#[test]
#[cfg(feature = "kafka")]
fn what_the_main_sink_takes_is_not_too_large_for_the_queue_of_another() {
    let dir = tempfile::tempdir().unwrap();
    let toml = "[kafka]\nbrokers = \"127.0.0.1:1\"\nmax_message_bytes = \"32KiB\"\n[[sinks]]\ntype = \"kafka\"";
    let mut config = config(dir.path(), toml);
    config.logger.max_record_bytes = bytesize::ByteSize::mib(4);
    config.logger.lanes = Some(8);
    let (logger, guard) = Logger::open(&config).expect("the logger opens");
    let outcome = logger.log_parts("wine", "1", &json!({"text": "x".repeat(3 << 20)}), &0.5);
    assert!(matches!(outcome, Outcome::Accepted { .. }), "{outcome:?}");
    wait_until("the main sink has it", LONG, || logger.snapshot().delivered == 1);
    // No message of this sink's can hold it, so it is a dead letter there.
    let sink = logger.sink("kafka").expect("the sink");
    wait_until("the other sink has put it aside", LONG, || sink.snapshot().unstorable == 1);
    let of_sink = guard.shutdown(Duration::ZERO).sinks.remove("kafka").expect("the sink's report");
    assert_eq!((of_sink.accepted, of_sink.delivered), (1, 1), "{of_sink:?}");
    assert_eq!(of_sink.dropped.values().sum::<u64>(), 0, "{of_sink:?}");
}
