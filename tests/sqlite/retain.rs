//! Retention, and the uploads that it waits for.

use super::{AT, connect, now, settings, store, stored_seqs, try_store, wine};
use predlog::clock::{Now, Timestamp};
use predlog::sink::sqlite::{SqliteExport, SqliteSettings, SqliteSink, Uploads};
use predlog::sink::{Sink, SinkErrorKind};
use std::path::Path;
use std::time::Duration;

fn maintain_until(sink: &mut SqliteSink, now: Now, mut enough: impl FnMut() -> bool) {
    for _ in 0..200 {
        sink.maintain(now, false).unwrap();
        if enough() {
            return;
        }
    }
    panic!("retention did not reach its goal in 200 steps");
}

/// Bytes of the file when all of the `-wal` file is in it.
fn size(dir: &Path) -> u64 {
    connect(dir).query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
    dir.join("predictions.db").metadata().unwrap().len()
}

#[test]
fn by_age_deletes_what_is_old_and_gives_space_back() {
    for index_timestamp in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let retain = Some(Duration::from_secs(3_600));
        let mut sink = SqliteSink::open(SqliteSettings { retain, index_timestamp, ..settings(dir.path()) }).unwrap();
        store(&mut sink, 1, &wine(1, 0..30_000));
        let before = size(dir.path());
        let wall = Timestamp::from_micros(AT + (29_990 + 3_600) * 1_000_000);
        let later = Now { monotonic: Duration::ZERO, wall };
        maintain_until(&mut sink, later, || stored_seqs(dir.path()).len() == 10 && size(dir.path()) < before / 4);
        assert_eq!(stored_seqs(dir.path()), (29_990..30_000).collect::<Vec<_>>());
        // What was deleted is still known as stored.
        store(&mut sink, 2, &wine(1, 0..100));
        assert_eq!(stored_seqs(dir.path()).len(), 10);
    }
}

#[test]
fn no_more_is_taken_than_may_wait_for_its_upload() {
    let dir = tempfile::tempdir().unwrap();
    let uploads = Some(Uploads { max_rows: 20_000, max_disk_bytes: 1 << 20 });
    let settings = SqliteSettings { uploads, ..settings(dir.path()) };
    let mut sink = SqliteSink::open(settings.clone()).unwrap();
    store(&mut sink, 1, &wine(1, 0..10_000));
    sink.maintain(now(), false).unwrap();
    let more = wine(1, 10_000..10_010);
    assert_eq!(try_store(&mut sink, 2, &more), Err(SinkErrorKind::NoSpace));
    let error = sink.probe().unwrap_err().to_string();
    assert!(error.contains("upload.max_disk_bytes=1048576"), "{error}");
    let mut export = SqliteExport::open(settings).unwrap();
    let plan = export.plan(20_000, now().wall).unwrap().unwrap();
    export.done(&plan, now().wall).unwrap();
    sink.maintain(now(), false).unwrap();
    sink.probe().unwrap();
    store(&mut sink, 2, &more);
}

#[test]
fn by_size_waits_for_the_upload_where_it_is_told_to() {
    let dir = tempfile::tempdir().unwrap();
    let limit = 2 << 20;
    let retain_bytes = Some(bytesize::ByteSize::b(limit));
    let uploads = Some(Uploads { max_rows: 20_000, max_disk_bytes: u64::MAX });
    let settings = SqliteSettings { retain_bytes, uploads, ..settings(dir.path()) };
    let mut sink = SqliteSink::open(settings.clone()).unwrap();
    store(&mut sink, 1, &wine(1, 0..30_000));
    let mut export = SqliteExport::open(settings).unwrap();
    let pending = export.pending().unwrap().unwrap();
    assert_eq!((pending.rows, pending.oldest.micros()), (30_000, AT));
    let first = export.plan(20_000, now().wall).unwrap().unwrap();
    assert_eq!(export.plan(1, now().wall).unwrap().unwrap(), first);
    assert_eq!((first.first_rowid, first.last_rowid, first.models.as_slice()), (1, 20_000, ["wine".to_owned()].as_slice()));
    assert_eq!(export.pending().unwrap().unwrap().rows, 10_000);
    for _ in 0..5 {
        sink.maintain(now(), false).unwrap();
    }
    assert_eq!(stored_seqs(dir.path()).len(), 30_000);

    export.done(&first, now().wall).unwrap();
    for _ in 0..5 {
        sink.maintain(now(), false).unwrap();
    }
    assert_eq!(stored_seqs(dir.path()), (20_000..30_000).collect::<Vec<_>>());

    let second = export.plan(20_000, now().wall).unwrap().unwrap();
    assert_eq!((second.first_rowid, second.last_rowid), (20_001, 30_000));
    export.done(&second, now().wall).unwrap();
    assert_eq!((export.plan(1, now().wall).unwrap(), export.pending().unwrap()), (None, None));
    maintain_until(&mut sink, now(), || size(dir.path()) <= limit);
    let left = stored_seqs(dir.path());
    assert!(left.len() > 4_000 && left.last() == Some(&29_999), "{}", left.len());
}

#[test]
fn a_plan_of_a_file_that_was_set_aside_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut sink = SqliteSink::open(settings(dir.path())).unwrap();
    store(&mut sink, 1, &wine(1, 0..10));
    let mut export = SqliteExport::open(settings(dir.path())).unwrap();
    let plan = export.plan(10, now().wall).unwrap().unwrap();
    std::fs::rename(dir.path().join("predictions.db"), dir.path().join("elsewhere.db")).unwrap();
    std::fs::remove_file(dir.path().join("predictions.db-wal")).unwrap();
    std::fs::remove_file(dir.path().join("predictions.db-shm")).unwrap();
    store(&mut sink, 2, &wine(1, 10..15));
    assert!(export.done(&plan, now().wall).unwrap_err().message.contains("plan again"));
    let again = export.plan(10, now().wall).unwrap().unwrap();
    assert_eq!((again.first_rowid, again.last_rowid), (1, 5));
    assert_ne!(again.store, plan.store);
    let mut lines = 0;
    export.lines(&again, "wine", &mut |_| lines += 1).unwrap();
    assert_eq!(lines, 5);
}
