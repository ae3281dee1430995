//! `predlog audit`: it says exactly what is missing, there twice or dropped, and is satisfied only with what is whole.
//!
//! This program is its own child: `child <dir> <store>` logs until it is killed.

mod killed;
#[path = "../stored/mod.rs"]
mod stored;
mod tamper;

use predlog::audit::{AuditReport, Hour, Target, Window, audit};
use predlog::clock::Timestamp;
use predlog::config::Store;
use predlog::{Config, Durability, Guard, Logger, Outcome, Overflow, Prediction};
use rusqlite::Connection;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};
use tamper::tamper;

const LIMIT: Duration = Duration::from_secs(60);
const STORES: [Store; 2] = [Store::Sqlite, Store::Parquet];
/// 2026-11-23T03:00:00Z.
const HOUR: i64 = 1_795_402_800_000_000;

/// A test and its name.
macro_rules! tests {
    ($($name:ident),* $(,)?) => { [$((stringify!($name), $name as fn())),*] };
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if arguments.get(1).is_some_and(|first| first == "child") {
        return killed::child(Path::new(&arguments[2]), &arguments[3]);
    }
    if arguments.iter().any(|argument| argument == "--list") {
        return;
    }
    let filter = arguments.iter().skip(1).find(|argument| !argument.starts_with('-'));
    let tests = tests![
        a_clean_store_is_complete,
        rows_removed_doubled_and_dropped_are_told_to_the_number,
        interleaved_models_and_hours_are_told_apart,
        a_running_logger_is_not_incomplete,
        what_a_killed_process_left_is_stated_by_the_next,
        a_ledger_that_is_missing_or_torn_proves_nothing,
        whole_files_that_are_missing_are_named,
        what_retention_deletes_is_expired_not_missing,
        several_processes_share_a_directory,
        a_bucket_is_audited_like_a_directory,
        an_empty_directory_is_not_complete,
        the_program_says_it_and_exits_by_it,
    ];
    let mut run = 0;
    for (name, test) in tests.into_iter().filter(|(name, _)| filter.is_none_or(|filter| name.contains(filter.as_str()))) {
        test();
        run += 1;
        println!("test {name} ... ok");
    }
    println!("{run} passed, 0 failed");
}

fn config(dir: &Path, store: Store) -> Config {
    let mut config = Config::default();
    config.direct.dir = dir.to_owned();
    config.direct.store = store;
    config.batch.max_age = Duration::from_millis(5);
    config.logger.lanes = Some(2);
    config
}

fn open(dir: &Path, store: Store) -> (Logger, Guard) {
    Logger::open(&config(dir, store)).expect("the logger opens")
}

fn log(logger: &Logger, model: &str, hour: i64, n: u64) -> Outcome {
    let at = Timestamp::from_micros(HOUR + hour * 3_600_000_000 + (n % 3_600_000).cast_signed() * 1_000);
    logger.log(Prediction::new(model, "1", &json!({"n": n}), &0.5).timestamp(at))
}

fn accept(logger: &Logger, model: &str, hour: i64, count: u64) {
    for n in 0..count {
        assert!(matches!(log(logger, model, hour, n), Outcome::Accepted { .. }));
    }
}

fn end(guard: Guard) -> predlog::Report {
    let report = guard.shutdown(LIMIT);
    assert_eq!(report.problem, None);
    assert_eq!(report.accepted, report.delivered, "statements are in no count: {report:?}");
    report
}

fn audited(dir: &Path) -> AuditReport {
    audit(&Target::Directory(dir.to_owned()), Window::default(), &mut |_| ()).expect("the audit runs")
}

fn hour<'a>(report: &'a AuditReport, model: &str, at: &str) -> &'a Hour {
    let found = report.hours.iter().find(|hour| hour.model_name.as_deref() == Some(model) && hour.hour.as_deref() == Some(at));
    found.unwrap_or_else(|| panic!("no {model} at {at}:\n{report}"))
}

const FIRST: &str = "2026-11-23T03:00:00Z";
const SECOND: &str = "2026-11-23T04:00:00Z";

fn database(dir: &Path) -> Connection {
    Connection::open(dir.join("predictions.db")).expect("the database opens")
}

fn a_clean_store_is_complete() {
    for store in STORES {
        let dir = tempfile::tempdir().unwrap();
        let (logger, guard) = open(dir.path(), store);
        accept(&logger, "wine", 0, 1_000);
        accept(&logger, "wine2", 0, 500);
        assert_eq!(end(guard).accepted, 1_500);
        let report = audited(dir.path());
        assert!(report.complete, "{report}");
        assert_eq!((report.total.accepted, report.total.stored), (1_500, 1_500));
        assert_eq!(hour(&report, "wine", FIRST).counts.accepted, 1_000);
        assert_eq!(hour(&report, "wine2", FIRST).counts.accepted, 500);
        assert!(report.to_string().contains("complete: 1500 accepted"), "{report}");
        let rows = match store {
            Store::Sqlite => stored::sqlite(dir.path()),
            Store::Parquet => stored::parquet(dir.path()),
        };
        assert_eq!(rows.len(), 1_500, "statements are not among the predictions");
    }
}

fn rows_removed_doubled_and_dropped_are_told_to_the_number() {
    for store in STORES {
        let dir = tempfile::tempdir().unwrap();
        let mut config = config(dir.path(), store);
        config.logger.lanes = Some(1);
        config.logger.overflow = Overflow::Drop;
        config.logger.queue_bytes = bytesize::ByteSize::mib(1);
        config.logger.max_record_bytes = bytesize::ByteSize::kib(100);
        config.batch.max_bytes = bytesize::ByteSize::mib(1);
        // Nothing leaves the lanes of itself, so that they overflow where the test wants it.
        config.batch.max_age = Duration::from_secs(3_600);
        let (logger, guard) = Logger::open(&config).unwrap();
        accept(&logger, "wine", 0, 1_000);
        assert!(logger.flush(LIMIT));
        let large = json!({"text": "x".repeat(90_000)});
        let large = || logger.log(Prediction::new("wine", "1", &large, &0.5).timestamp(Timestamp::from_micros(HOUR)));
        let (mut taken, mut dropped) = (0, 0);
        while dropped < 5 {
            match large() {
                Outcome::Accepted { .. } => taken += 1,
                Outcome::Dropped(_) => dropped += 1,
            }
        }
        let accepted = end(guard).accepted;
        assert_eq!(accepted, 1_000 + taken);
        tamper(dir.path(), store, &[10, 11, 500], &[20, 700]);
        let report = audited(dir.path());
        assert!(!report.complete);
        let counts = &hour(&report, "wine", FIRST).counts;
        assert_eq!((counts.accepted, counts.stored, counts.missing, counts.twice), (accepted, accepted - 3, 3, 2), "{report}");
        assert_eq!(counts.dropped, BTreeMap::from([("queue_full".to_owned(), 5)]));
        let ranges: Vec<_> = report.missing.iter().map(|range| (range.first, range.last, range.model_names.clone())).collect();
        assert_eq!(ranges, [(10, 11, vec!["wine".to_owned()]), (500, 500, vec!["wine".to_owned()])]);
        assert_eq!(report.twice.iter().map(|range| (range.first, range.last)).collect::<Vec<_>>(), [(20, 20), (700, 700)]);
        assert_eq!(report.problems, ["missing=3 twice=2 dropped=5 (queue_full)"]);
    }
}

fn interleaved_models_and_hours_are_told_apart() {
    for store in STORES {
        let dir = tempfile::tempdir().unwrap();
        let mut config = config(dir.path(), store);
        config.logger.lanes = Some(1);
        let (logger, guard) = Logger::open(&config).unwrap();
        for n in 0..3_000 {
            let model = ["wine", "wine2", "a/b\"c"][n as usize % 3];
            assert!(matches!(log(&logger, model, i64::from(n >= 1_500), n), Outcome::Accepted { .. }));
        }
        end(guard);
        assert!(audited(dir.path()).complete);
        // One of each model: wine at 3, wine2 at 4 and 1600 (of the second hour), a/b"c at 5.
        tamper(dir.path(), store, &[3, 4, 5, 1_600], &[]);
        let report = audited(dir.path());
        let missing = |model: &str, at: &str| hour(&report, model, at).counts.missing;
        assert_eq!((missing("wine", FIRST), missing("wine2", FIRST), missing("a/b\"c", FIRST)), (1, 1, 1), "{report}");
        assert_eq!((missing("wine", SECOND), missing("wine2", SECOND), missing("a/b\"c", SECOND)), (0, 1, 0), "{report}");
        assert_eq!(report.total.missing, 4);
        let second = Window { since: Some(Timestamp::from_micros(HOUR + 3_600_000_000)), until: None };
        let late = audit(&Target::Directory(dir.path().to_owned()), second, &mut |_| ()).unwrap();
        assert_eq!((late.total.accepted, late.total.missing), (1_500, 1), "{late}");
    }
}

fn a_running_logger_is_not_incomplete() {
    for store in STORES {
        let dir = tempfile::tempdir().unwrap();
        let mut config = config(dir.path(), store);
        config.ledger.every = Duration::from_millis(10);
        let (logger, guard) = Logger::open(&config).unwrap();
        let deadline = Instant::now() + LIMIT;
        let (mut n, mut stated) = (0, 0);
        while stated < 2_000 {
            for _ in 0..200 {
                n += u64::from(matches!(log(&logger, "wine", 0, n), Outcome::Accepted { .. }));
            }
            let report = audited(dir.path());
            // Before the first statement there is nothing to be proven by.
            let silent = report.problems.iter().all(|problem| problem.contains("ledger"));
            assert!(report.complete || (stated == 0 && silent), "{report}");
            stated = report.total.accepted;
            assert!(Instant::now() < deadline, "{report}");
        }
        end(guard);
        let report = audited(dir.path());
        assert!(report.complete && report.total.accepted == n, "{report}");
    }
}

fn what_a_killed_process_left_is_stated_by_the_next() {
    for store in STORES {
        let dir = tempfile::tempdir().unwrap();
        killed::kill_child(dir.path(), store);
        let report = audited(dir.path());
        assert_eq!(report.total.missing, 0, "{report}");
        assert!(report.notes.iter().any(|note| note.contains("without a last statement")), "{report}");
        killed::take_over(dir.path(), store);
        let report = audited(dir.path());
        assert!(report.complete, "{report}");
        assert_eq!((report.total.accepted, report.total.stored), (2_000, 2_000), "{report}");
        let rows = match store {
            Store::Sqlite => stored::sqlite(dir.path()),
            Store::Parquet => stored::parquet(dir.path()),
        };
        let last = rows.iter().filter(|row| row.writer.ends_with("-00")).map(|row| row.seq).max().unwrap();
        tamper(dir.path(), store, &[0, last], &[1]);
        let report = audited(dir.path());
        assert_eq!((report.total.missing, report.total.twice), (2, 1), "the last record is missed too: {report}");
    }
}

fn a_ledger_that_is_missing_or_torn_proves_nothing() {
    for store in STORES {
        let dir = tempfile::tempdir().unwrap();
        let mut config = config(dir.path(), store);
        config.ledger.every = Duration::from_millis(1);
        config.rotation.max_age = Duration::from_millis(1);
        let (logger, guard) = Logger::open(&config).unwrap();
        for _ in 0..5 {
            accept(&logger, "wine", 0, 100);
            assert!(logger.flush(LIMIT));
        }
        end(guard);
        assert!(audited(dir.path()).complete);
        let kept = match store {
            Store::Sqlite => {
                let database = database(dir.path());
                assert_eq!(database.execute("DELETE FROM ledger WHERE seq = 1", []), Ok(1));
                true
            }
            Store::Parquet => {
                let files = stored::files(&dir.path().join("ledger"));
                std::fs::remove_file(&files[0]).unwrap();
                files.len() > 1
            }
        };
        assert!(kept, "the ledger is more than what was removed");
        let report = audited(dir.path());
        assert!(!report.complete && report.total.missing == 0, "{report}");
        assert!(report.problems.iter().any(|problem| problem.contains("the ledger lacks entries")), "{report}");
        match store {
            Store::Sqlite => assert!(database(dir.path()).execute("DELETE FROM ledger", []).is_ok()),
            Store::Parquet => std::fs::remove_dir_all(dir.path().join("ledger")).unwrap(),
        }
        let report = audited(dir.path());
        assert!(!report.complete && report.problems[0].contains("there is no ledger"), "{report}");
    }
}

fn whole_files_that_are_missing_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let (logger, guard) = open(dir.path(), Store::Parquet);
    accept(&logger, "wine", 0, 700);
    accept(&logger, "wine2", 0, 300);
    end(guard);
    std::fs::remove_dir_all(dir.path().join("predictions/model_name=wine")).unwrap();
    let report = audited(dir.path());
    assert_eq!(hour(&report, "wine", FIRST).counts.missing, 700, "{report}");
    assert_eq!(hour(&report, "wine2", FIRST).counts.missing, 0, "{report}");
    let file = stored::files(&dir.path().join("predictions")).remove(0);
    std::fs::copy(&file, file.with_file_name("copy.parquet")).unwrap();
    assert_eq!(hour(&audited(dir.path()), "wine2", FIRST).counts.twice, 300);
    std::fs::write(&file, "PAR1").unwrap();
    let report = audited(dir.path());
    assert!(report.problems.iter().any(|problem| problem.contains("cannot be read")), "{report}");
}

fn what_retention_deletes_is_expired_not_missing() {
    // Old by any clock that runs this test.
    const OLD: i64 = -20_000;
    for store in STORES {
        let dir = tempfile::tempdir().unwrap();
        let (logger, guard) = open(dir.path(), store);
        accept(&logger, "wine", OLD, 400);
        end(guard);
        let mut config = config(dir.path(), store);
        config.direct.retain = Some(Duration::from_secs(1));
        let (logger, guard) = Logger::open(&config).unwrap();
        let deadline = Instant::now() + LIMIT;
        let stored = || match store {
            Store::Sqlite => stored::sqlite(dir.path()).len(),
            Store::Parquet => stored::files(&dir.path().join("predictions")).len(),
        };
        while stored() > 0 {
            assert!(Instant::now() < deadline, "retention deletes");
            std::thread::yield_now();
        }
        let report = audited(dir.path());
        assert!(report.complete, "{report}");
        // A file of the ledger may have gone by now, too.
        assert_eq!(report.total.accepted, report.total.expired, "{report}");
        assert!(store == Store::Parquet || report.total.expired == 400, "{report}");
        accept(&logger, "wine", 0, 10);
        end(guard);
        let report = audited(dir.path());
        assert!(report.complete && report.total.missing == 0, "{report}");
    }
}

fn several_processes_share_a_directory() {
    for store in STORES {
        let dir = tempfile::tempdir().unwrap();
        let loggers: Vec<_> = (0..3).map(|_| open(dir.path(), store)).collect();
        loggers.iter().enumerate().for_each(|(at, (logger, _))| accept(logger, "wine", 0, 100 * (at as u64 + 1)));
        loggers.into_iter().for_each(|(_, guard)| drop(end(guard)));
        killed::kill_child(dir.path(), store);
        killed::take_over(dir.path(), store);
        let report = audited(dir.path());
        assert!(report.complete && report.total.accepted == 2_600, "{report}");
    }
}

fn a_bucket_is_audited_like_a_directory() {
    for store in STORES {
        let (dir, bucket) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mut config = config(dir.path(), store);
        config.upload.url = Some(format!("file://{}", bucket.path().display()));
        config.upload.every = Duration::from_secs(3_600);
        config.ledger.every = Duration::from_millis(10);
        let audited = |from: Option<&Path>| {
            let target = Target::Bucket(Box::new(config.upload.clone()), from.map(Path::to_owned));
            audit(&target, Window::default(), &mut |_| ()).expect("the audit runs")
        };
        let (logger, guard) = Logger::open(&config).unwrap();
        accept(&logger, "wine", 0, 600);
        let deadline = Instant::now() + LIMIT;
        let mut report = audited(Some(dir.path()));
        while report.total.accepted < 600 {
            assert!(Instant::now() < deadline, "{report}");
            report = audited(Some(dir.path()));
        }
        assert!(report.complete && report.total.pending == 600, "what waits here is on its way: {report}");
        accept(&logger, "wine2", 1, 400);
        end(guard);
        for from in [None, Some(dir.path())] {
            let report = audited(from);
            assert!(report.complete, "{report}");
            assert_eq!((report.total.accepted, report.total.stored, report.total.pending), (1_000, 1_000, 0), "{report}");
        }
        let lost = stored::files(&bucket.path().join("predictions/model_name=wine2"));
        lost.iter().for_each(|path| std::fs::remove_file(path).unwrap());
        let report = audited(Some(dir.path()));
        assert!(!report.complete);
        assert_eq!(
            hour(&report, "wine2", SECOND).counts.missing,
            400,
            "what is here and was uploaded is missing there: {report}"
        );
        assert_eq!(hour(&report, "wine", FIRST).counts.missing, 0, "{report}");
    }
}

fn an_empty_directory_is_not_complete() {
    let dir = tempfile::tempdir().unwrap();
    let report = audited(dir.path());
    assert!(!report.complete && report.problems[0].contains("neither a table nor a ledger"), "{report}");
    assert!(audit(&Target::Directory(dir.path().join("nowhere")), Window::default(), &mut |_| ()).is_err());
    let mut config = config(dir.path(), Store::Sqlite);
    config.logger.durability = Durability::Memory;
    let (_, guard) = Logger::open(&config).unwrap();
    end(guard);
    let report = audited(dir.path());
    assert!(report.complete, "a logger that was asked nothing said so: {report}");
}

fn the_program_says_it_and_exits_by_it() {
    let dir = tempfile::tempdir().unwrap();
    let (logger, guard) = open(dir.path(), Store::Sqlite);
    accept(&logger, "wine", 0, 10);
    end(guard);
    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_predlog"));
        let output = command.arg("audit").args(arguments).env_remove("PREDLOG_CONFIG").env_remove("RUST_LOG").output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let path = dir.path().to_str().unwrap();
    let (code, out, _) = run(&["--from", path]);
    assert_eq!((code, out.lines().last()), (Some(0), Some("complete: 10 accepted, each there once")), "{out}");
    let sqlite = format!("sqlite:{path}/predictions.db");
    tamper(dir.path(), Store::Sqlite, &[4], &[]);
    let (code, out, _) = run(&["--from", &sqlite, "--json"]);
    let report: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &report["complete"], &report["total"]["missing"]), (Some(1), &json!(false), &json!(1)));
    assert_eq!(report["hours"][0]["model_name"], "wine");
    assert_eq!(run(&["--since", "yesterday"]).0, Some(2));
    assert_eq!(run(&["--bucket", "--config", "/nowhere.toml"]).0, Some(2));
    assert_eq!(run(&["--from", "/nowhere/at/all"]).0, Some(1));
}
