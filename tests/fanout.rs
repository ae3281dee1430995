//! `[[sinks]]`: one call, more than one sink, each with its own progress.

mod stored;
mod support;

use predlog::{Config, Logger, Outcome, Report};
use serde_json::json;
use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;
use support::process::wait_until;

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
    assert_eq!(sink.snapshot().delivered, 100);
    lock.execute_batch("ROLLBACK").expect("the lock ends");
    assert!(logger.flush(LONG), "{:?}", sink.health());
    let report = guard.shutdown(LONG);
    assert_complete(&report, 30_000);
    assert_complete(&report.sinks["recent"], 30_000);
    assert_eq!(numbers(&stored::sqlite(&other)), (0..30_000).collect::<Vec<_>>());
}

#[test]
fn a_sink_that_may_not_wait_on_more_disk_drops_its_own_records_and_counts_them() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path(), "[[sinks]]\ntype = \"sqlite\"\nname = \"recent\"\nmax_bytes = \"1MiB\"");
    config.logger.queue_bytes = bytesize::ByteSize::mib(8);
    config.sqlite.busy_timeout = Duration::from_millis(20);
    let (logger, guard) = Logger::open(&config).expect("the logger opens");
    log(&logger, 0..1);
    assert!(logger.flush(LONG));
    let other = config.direct.dir.join("sinks/recent");
    let lock = rusqlite::Connection::open(other.join("predictions.db")).expect("the database");
    lock.execute_batch("BEGIN EXCLUSIVE").expect("a lock");
    let sink = logger.sink("recent").expect("the sink");
    let dropped = || sink.snapshot().dropped.iter().map(|(_, count)| count).sum::<u64>();
    let mut logged = 1;
    while dropped() < 1_000 {
        log(&logger, logged..logged + 1_000);
        logged += 1_000;
        // The main sink is not what is to be full.
        wait_until("the main sink keeps up", LONG, || logger.snapshot().delivered == logged);
        assert!(logged < 5_000_000, "nothing is dropped");
    }
    lock.execute_batch("ROLLBACK").expect("the lock ends");
    assert!(logger.flush(LONG), "{:?} {:?}, sink: {:?} {:?}", logger.health(), logger.snapshot(), sink.health(), sink.snapshot());
    let report = guard.shutdown(LONG);
    assert_complete(&report, logged);
    assert_eq!(report.dropped.values().sum::<u64>(), 0, "{report:?}");
    let of_sink = &report.sinks["recent"];
    let dropped: u64 = of_sink.dropped.values().sum();
    assert_eq!(of_sink.accepted + dropped, logged, "{of_sink:?}");
    assert_eq!(stored::sqlite(&other).len() as u64, of_sink.delivered);
    assert_eq!(of_sink.delivered, of_sink.accepted);
    assert_eq!(of_sink.dropped.keys().copied().collect::<Vec<_>>(), ["sink_unavailable"], "{of_sink:?}");
}
