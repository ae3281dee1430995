use super::*;
use crate::batch::BatchSettings;
use crate::sink::SinkErrorKind;
use crate::sink::memory::MemorySink;
use bytesize::ByteSize;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::Path;

const LONG: Duration = Duration::from_secs(30);

fn settings(overflow: Overflow, durability: Durability) -> LoggerSettings {
    LoggerSettings { overflow, durability, queue_bytes: ByteSize::mib(4), lanes: Some(2), ..LoggerSettings::default() }
}

fn open(settings: LoggerSettings, dir: &Path, sink: &MemorySink) -> (Logger, Guard) {
    let batch = BatchSettings { max_age: Duration::from_millis(5), ..BatchSettings::default() };
    Logger::builder(settings).batch(batch).dir(dir).sink(Box::new(sink.clone())).open().unwrap()
}

fn log(logger: &Logger, count: u64) -> u64 {
    (0..count).filter(|n| matches!(logger.log_parts("m", "1", &json!({"n": n}), &0.5), Outcome::Accepted { .. })).count() as u64
}

fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + LONG;
    while !holds() {
        assert!(Instant::now() < deadline, "{what} does not hold after {LONG:?}");
        std::thread::yield_now();
    }
}

fn unique(sink: &MemorySink) -> u64 {
    let records = sink.records();
    let keys: BTreeSet<_> = records.iter().map(|record| (record.writer, record.seq)).collect();
    assert_eq!(keys.len(), records.len(), "no record twice");
    keys.len() as u64
}

fn assert_balances(report: &Report) {
    let shutdown = report.dropped.get("shutdown").copied().unwrap_or(0);
    assert_eq!(report.accepted, report.delivered + report.on_disk + shutdown, "{report:?}");
}

#[test]
fn everything_accepted_is_delivered_and_the_report_balances() {
    for durability in [Durability::Memory, Durability::Process, Durability::Fsync] {
        for overflow in [Overflow::Spill, Overflow::Drop, Overflow::Block] {
            let (dir, sink) = (tempfile::tempdir().unwrap(), MemorySink::new());
            let (logger, guard) = open(settings(overflow, durability), dir.path(), &sink);
            let accepted = std::thread::scope(|scope| {
                let threads: Vec<_> = (0..3).map(|_| scope.spawn(|| log(&logger, 2_000))).collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).sum::<u64>()
            });
            assert!(logger.wait_durable(LONG));
            assert!(logger.flush(LONG));
            assert_eq!(unique(&sink), accepted);
            let report = guard.shutdown(LONG);
            assert_balances(&report);
            assert_eq!((report.accepted, report.delivered, report.problem.clone()), (accepted, accepted, None));
            assert_eq!(logger.log_parts("m", "1", &1, &2), Outcome::Dropped(DropReason::Closed));
            let writers = dir.path().join("writers");
            assert!(!writers.exists() || std::fs::read_dir(writers).unwrap().next().is_none(), "a clean end leaves nothing");
        }
    }
}

#[test]
fn a_failing_sink_spills_and_gets_all_when_it_heals() {
    let (dir, sink) = (tempfile::tempdir().unwrap(), MemorySink::new());
    let (logger, guard) = open(settings(Overflow::Spill, Durability::Process), dir.path(), &sink);
    let before = log(&logger, 100);
    assert!(logger.flush(LONG));
    sink.fail_with(Some(SinkErrorKind::Unavailable));
    // Far more than the lanes hold: only the spool can have taken it.
    let mut during = 0;
    while during < 30_000 {
        during += log(&logger, 500);
        wait_for("room in the lanes", || logger.snapshot().queue_bytes < 1 << 20);
    }
    assert!(logger.health().is_err());
    wait_for("all in the spool", || logger.snapshot().on_disk == during);
    assert!(!logger.flush(Duration::from_millis(50)), "what is not delivered is not flushed");
    sink.fail_with(None);
    assert!(logger.flush(LONG));
    logger.health().unwrap();
    assert_eq!(unique(&sink), before + during);
    let report = guard.shutdown(LONG);
    assert_balances(&report);
    assert_eq!(report.delivered, before + during);
}

#[test]
fn without_a_spool_a_full_queue_drops_and_counts_why() {
    for (overflow, kind, reason) in [
        (Overflow::Drop, SinkErrorKind::Unavailable, DropReason::SinkUnavailable),
        (Overflow::Block, SinkErrorKind::NoSpace, DropReason::NoSpace),
    ] {
        let (dir, sink) = (tempfile::tempdir().unwrap(), MemorySink::new());
        let mut settings = settings(overflow, Durability::Process);
        settings.block_limit = Duration::from_micros(10);
        let (logger, guard) = open(settings, dir.path(), &sink);
        sink.fail_with(Some(kind));
        log(&logger, 1);
        wait_for("the failure is noticed", || logger.health().is_err());
        let mut dropped = 0;
        while dropped < 100 {
            let outcome = logger.log_parts("m", "1", &json!({"text": "x".repeat(10_000)}), &0.5);
            dropped += u64::from(matches!(outcome, Outcome::Dropped(why) if why == reason));
        }
        let accepted = logger.snapshot().accepted;
        sink.fail_with(None);
        assert!(logger.flush(LONG));
        assert_eq!(unique(&sink), accepted);
        assert!(matches!(logger.log_parts("m", "1", &1, &2), Outcome::Accepted { .. }), "it takes records again");
        let report = guard.shutdown(LONG);
        assert_balances(&report);
        assert!(report.dropped[reason.name()] >= 100);
    }
}

#[test]
fn blocking_waits_for_room() {
    let (dir, sink) = (tempfile::tempdir().unwrap(), MemorySink::new());
    let mut settings = settings(Overflow::Block, Durability::Memory);
    settings.block_limit = LONG;
    let (logger, guard) = open(settings, dir.path(), &sink);
    assert_eq!(log(&logger, 60_000), 60_000, "nothing is dropped, though the lanes hold far less");
    let report = guard.shutdown(LONG);
    assert_eq!((report.delivered, report.dropped.len()), (60_000, 0));
}

#[test]
fn who_has_time_waits_for_room_until_a_deadline() {
    let (dir, sink) = (tempfile::tempdir().unwrap(), MemorySink::new());
    let (logger, guard) = open(settings(Overflow::Drop, Durability::Process), dir.path(), &sink);
    let text = json!({"text": "x".repeat(1_000)});
    let until = |deadline| logger.log_until(Prediction::new("m", "1", &text, &0.5), deadline);
    for _ in 0..20_000 {
        assert!(matches!(until(Instant::now() + LONG), Outcome::Accepted { .. }), "though the lanes hold far less");
    }
    assert!(logger.flush(LONG));
    sink.fail_with(Some(SinkErrorKind::Unavailable));
    let soon = Instant::now() + Duration::from_millis(20);
    while matches!(until(soon), Outcome::Accepted { .. }) {}
    assert!(Instant::now() >= soon, "it is dropped when the time is over, not before");
    sink.fail_with(None);
    let report = guard.shutdown(LONG);
    assert_balances(&report);
    assert_eq!(report.dropped.values().sum::<u64>(), 1);
}

#[test]
fn what_cannot_be_delivered_by_the_deadline_is_on_disk_and_the_next_start_delivers_it() {
    let (dir, sink) = (tempfile::tempdir().unwrap(), MemorySink::new());
    sink.fail_with(Some(SinkErrorKind::Unavailable));
    for overflow in [Overflow::Spill, Overflow::Drop] {
        let (logger, guard) = open(settings(overflow, Durability::Process), dir.path(), &sink);
        let accepted = log(&logger, 300);
        let report = guard.shutdown(Duration::from_millis(50));
        assert_balances(&report);
        assert_eq!((report.delivered, report.on_disk), (0, accepted));
        assert!(report.problem.is_some());
    }
    sink.fail_with(None);
    let (logger, guard) = open(settings(Overflow::Spill, Durability::Process), dir.path(), &sink);
    wait_for("both are delivered", || sink.records().len() == 600);
    assert_eq!(logger.snapshot().recovered, 600);
    let report = guard.shutdown(LONG);
    assert_eq!((unique(&sink), report.accepted, report.recovered), (600, 0, 600));
}

#[test]
fn a_segment_that_cannot_be_read_holds_up_no_other() {
    let (dir, sink) = (tempfile::tempdir().unwrap(), MemorySink::new());
    sink.fail_with(Some(SinkErrorKind::Unavailable));
    let settings = settings(Overflow::Spill, Durability::Process);
    let (logger, guard) = open(settings.clone(), dir.path(), &sink);
    let left = log(&logger, 300);
    guard.shutdown(Duration::from_millis(50));
    sink.fail_with(None);
    // A directory in a file's place, whose every read fails, in the home that comes first.
    let home = dir.path().join("writers").join(uuid::Uuid::from_u128(1).to_string());
    let unreadable = home.join("spool/m/1-1.ndjson.zst");
    std::fs::create_dir_all(&unreadable).unwrap();
    std::fs::write(home.join("lock"), "").unwrap();
    let (logger, guard) = open(settings, dir.path(), &sink);
    wait_for("what can be read is delivered", || sink.records().len() as u64 == left);
    assert!(logger.snapshot().sink_failures > 0);
    let own = log(&logger, 10);
    assert!(logger.flush(LONG));
    let report = guard.shutdown(Duration::from_millis(50));
    assert_eq!((report.delivered, report.problem, unreadable.exists()), (own, None, true));
}

/// The directory as a kill would leave it: everything but the locks of a live process.
fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_dir(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[test]
fn a_killed_process_is_recovered_from_lanes_and_spool_once() {
    let (dir, image) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (sink, other) = (MemorySink::new(), MemorySink::new());
    sink.fail_with(Some(SinkErrorKind::Unavailable));
    let (logger, _guard) = open(settings(Overflow::Spill, Durability::Process), dir.path(), &sink);
    let spooled = log(&logger, 500);
    wait_for("all in the spool", || logger.snapshot().on_disk == spooled);
    copy_dir(dir.path(), image.path());
    let settings = settings(Overflow::Spill, Durability::Process);
    let (restarted, guard) = open(settings.clone(), image.path(), &other);
    wait_for("the spool is delivered", || other.records().len() as u64 == spooled);
    drop(restarted);
    let report = guard.shutdown(LONG);
    assert_eq!((report.recovered, unique(&other)), (spooled, spooled));
    // The same image once more, as if the restart had been killed before it removed anything: the sink has all of it already.
    copy_dir(dir.path(), image.path());
    let (_again, guard) = open(settings, image.path(), &other);
    wait_for("the image is empty", || std::fs::read_dir(image.path().join("writers")).unwrap().count() == 1);
    guard.shutdown(LONG);
    assert_eq!(unique(&other), spooled);
}

struct Hostile<'a>(&'a Logger);

impl Serialize for Hostile<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let _ = self.0.log_parts("nested", "1", &1, &2);
        serializer.serialize_u8(7)
    }
}

struct Panics;

impl Serialize for Panics {
    fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        panic!("a Serialize that panics")
    }
}

#[test]
fn a_serialize_that_logs_fails_or_panics_does_no_harm() {
    let (dir, sink) = (tempfile::tempdir().unwrap(), MemorySink::new());
    let (logger, guard) = open(settings(Overflow::Spill, Durability::Process), dir.path(), &sink);
    let invalid = Outcome::Dropped(DropReason::Invalid(crate::Invalid::Unserializable));
    assert_eq!(logger.log_parts("m", "1", &Panics, &2), invalid);
    assert_eq!(logger.log_parts("m", "1", &std::collections::BTreeMap::from([((1, 2), 3)]), &2), invalid);
    assert!(matches!(logger.log_parts("m", "1", &Hostile(&logger), &2), Outcome::Accepted { .. }));
    let report = guard.shutdown(LONG);
    assert_eq!((report.delivered, report.dropped["invalid"]), (2, 2));
    let values: Vec<Value> = sink.records().iter().map(|record| serde_json::from_slice(&record.line).unwrap()).collect();
    assert!(values.iter().any(|value| value["inputs"] == json!(7)) && values.iter().any(|value| value["model_name"] == "nested"));
}

#[test]
fn a_clock_of_the_callers_dates_the_records() {
    struct Fixed;
    impl Clock for Fixed {
        fn wall(&self) -> crate::clock::Timestamp {
            crate::clock::Timestamp::from_micros(0)
        }
        fn now(&self) -> crate::clock::Now {
            let elapsed = crate::clock::SystemClock::default().now().monotonic;
            crate::clock::Now { monotonic: elapsed, wall: self.wall() }
        }
    }
    let sink = MemorySink::new();
    let settings = settings(Overflow::Drop, Durability::Memory);
    let (logger, guard) = Logger::builder(settings).clock(Arc::new(Fixed)).sink(Box::new(sink.clone())).open().unwrap();
    assert_eq!(log(&logger, 1), 1);
    guard.shutdown(LONG);
    assert!(sink.records()[0].line.starts_with(b"{\"timestamp\":\"1970-01-01T00:00:00.000000Z\""));
}

#[test]
fn what_cannot_start_says_why() {
    let error = Logger::builder(LoggerSettings::default()).open().unwrap_err();
    assert!(error.to_string().contains("Builder::sink"), "{error}");
    let error = Logger::builder(LoggerSettings::default()).sink(Box::new(MemorySink::new())).open().unwrap_err();
    assert!(error.to_string().contains("durability") && error.to_string().contains("Builder::dir"), "{error}");
    let file = tempfile::NamedTempFile::new().unwrap();
    let error = Logger::builder(LoggerSettings::default()).dir(file.path()).sink(Box::new(MemorySink::new())).open().unwrap_err();
    assert!(error.to_string().contains(&file.path().display().to_string()), "{error}");
}

/// A process of the parquet store died between sealing a segment and removing it, with one of two files published.
#[cfg(feature = "parquet")]
#[test]
fn of_a_segment_that_is_half_sealed_only_the_rest_is_delivered() {
    use crate::clock::{Clock, SystemClock, Timestamp};
    use crate::rotation::RotationSettings;
    use crate::sink::Sink;
    use crate::sink::parquet::{ParquetSettings, ParquetSink};
    const DAY: i64 = 86_400_000_000;
    let (dir, sink) = (tempfile::tempdir().unwrap(), MemorySink::new());
    sink.fail_with(Some(SinkErrorKind::Unavailable));
    let (logger, guard) = open(settings(Overflow::Spill, Durability::Process), dir.path(), &sink);
    for n in 0..100 {
        let prediction = Prediction::new("m", "1", &n, &0.5).timestamp(Timestamp::from_micros(DAY * (n % 2)));
        assert!(matches!(logger.log(prediction), Outcome::Accepted { .. }));
    }
    wait_for("all is in the spool", || logger.snapshot().on_disk == 100);
    guard.shutdown(Duration::ZERO);
    sink.fail_with(None);
    let home = home::Home::dead(dir.path()).unwrap().remove(0);
    for segment in crate::spool::segments(&home.spool()).unwrap() {
        std::fs::hard_link(&segment, segment.with_file_name("0-again.ndjson.zst")).unwrap();
        let store = ParquetSettings {
            dir: dir.path().to_owned(),
            spool: dir.path().join("own"),
            rotation: RotationSettings::default(),
            fsync: false,
            max_disk_bytes: u64::MAX,
            uploads: false,
        };
        let mut store = ParquetSink::open(store, Default::default()).unwrap();
        store.adopt(&segment).unwrap();
        let clock = SystemClock::default();
        wait_for("it is sealed", || store.maintain(clock.now(), true).unwrap().pending_bytes == 0);
        store.close(clock.now()).unwrap();
    }
    drop(home);
    std::fs::remove_dir_all(dir.path().join("predictions/model_name=m/date=1970-01-02")).unwrap();
    let (_logger, guard) = open(settings(Overflow::Spill, Durability::Process), dir.path(), &sink);
    wait_for("the rest is delivered", || unique(&sink) >= 50);
    guard.shutdown(LONG);
    let days: BTreeSet<_> = sink.records().iter().map(|record| crate::record::timestamp_of_line(&record.line)).collect();
    assert_eq!((unique(&sink), days), (50, BTreeSet::from([Some(DAY)])));
}

/// A process of the sqlite store died after a commit and before it freed the lanes. The next start has another sink.
#[cfg(feature = "sqlite")]
#[test]
fn what_a_database_has_already_is_not_given_to_another_sink() {
    use crate::sink::Sink;
    use crate::sink::sqlite::{SqliteSettings, SqliteSink};
    let (dir, image) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (failing, sink) = (MemorySink::new(), MemorySink::new());
    failing.fail_with(Some(SinkErrorKind::Unavailable));
    let (logger, _guard) = open(settings(Overflow::Spill, Durability::Process), dir.path(), &failing);
    let spooled = log(&logger, 1_000);
    wait_for("all is in the spool", || logger.snapshot().on_disk == spooled);
    copy_dir(dir.path(), image.path());
    // The store commits the first half of it.
    let home = home::Home::dead(image.path()).unwrap().remove(0);
    let mut store = SqliteSink::open(SqliteSettings { dir: image.path().to_owned(), ..SqliteSettings::default() }).unwrap();
    for path in crate::spool::segments(&home.spool()).unwrap() {
        let (segment, mut raw) = (crate::spool::open_closed(&path).unwrap().unwrap(), Vec::new());
        let frame = &segment.frames[0];
        crate::spool::segment::SegmentReader::open(&path).unwrap().load(frame, &mut raw).unwrap();
        let half = frame.retain(&mut raw, |_, seq| seq < 500);
        let batch = crate::batch::Batch { id: 1, origin: crate::batch::Origin::Replay, chunks: half.chunks(&raw) };
        store.write(&batch).unwrap();
    }
    store.commit().unwrap();
    let stored = crate::sink::sqlite::stored_of(image.path(), home.process().unwrap()).unwrap();
    let stored: u64 = stored.values().map(crate::seqs::SeqRanges::count).sum();
    drop((store, home));
    assert!(stored > 0 && stored < spooled, "{stored}");
    let (logger, guard) = open(settings(Overflow::Spill, Durability::Process), image.path(), &sink);
    wait_for("the image is empty", || std::fs::read_dir(image.path().join("writers")).unwrap().count() == 1);
    assert!(logger.flush(LONG));
    guard.shutdown(LONG);
    assert_eq!(unique(&sink), spooled - stored);
}
