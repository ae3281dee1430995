//! Files that are damaged, gone, somebody else's, or on a full disk.

use super::{connect, now, open, settings, store, stored_seqs, try_store, wine};
use predlog::sink::sqlite::SqliteSink;
use predlog::sink::{Sink, SinkErrorKind};
use rusqlite::Connection;
use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

fn set_aside(dir: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let is_database = |path: &PathBuf| {
        let name = path.file_name().unwrap().to_str().unwrap();
        name.starts_with("predictions.db.damaged-") && !name.ends_with("-wal") && !name.ends_with("-shm")
    };
    files.filter(is_database).collect()
}

fn checkpoint(dir: &Path) {
    connect(dir).query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
}

#[test]
fn a_file_that_is_damaged_is_set_aside_and_a_new_one_made() {
    let header = |mut file: File| file.write_all(&[0xa5; 4_096]).unwrap();
    let torn = |file: File| file.set_len(3 * 4_096 + 17).unwrap();
    let kinds: [fn(File); 2] = [header, torn];
    for damage in kinds {
        let dir = tempfile::tempdir().unwrap();
        let mut sink = open(dir.path());
        store(&mut sink, 1, &wine(1, 0..1_000));
        sink.close(now()).unwrap();
        damage(File::options().write(true).open(dir.path().join("predictions.db")).unwrap());
        let mut sink = open(dir.path());
        let more = wine(1, 1_000..1_010);
        let first = try_store(&mut sink, 1, &more);
        if first.is_err() {
            assert_eq!(first, Err(SinkErrorKind::Damaged));
            store(&mut sink, 2, &more);
        }
        assert_eq!(stored_seqs(dir.path()), (1_000..1_010).collect::<Vec<_>>());
        assert_eq!(set_aside(dir.path()).len(), 1);
    }
}

#[test]
fn a_file_that_is_damaged_while_two_have_it_open_is_set_aside_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut sinks = [(1, open(dir.path())), (2, open(dir.path()))];
    for (process, sink) in &mut sinks {
        store(sink, 1, &wine(*process, 0..2_000));
    }
    checkpoint(dir.path());
    let path = dir.path().join("predictions.db");
    let len = path.metadata().unwrap().len() as usize;
    let mut file = File::options().write(true).open(&path).unwrap();
    file.seek(SeekFrom::Start(4_096)).unwrap();
    file.write_all(&vec![0xa5; len - 4_096]).unwrap();
    for (process, sink) in &mut sinks {
        let lines = wine(*process, 2_000..2_010);
        let tries: Vec<_> = (2..6).map(|id| try_store(sink, id, &lines)).take_while(Result::is_err).collect();
        assert!(tries.len() < 4, "{tries:?}");
    }
    assert_eq!(stored_seqs(dir.path()), (2_000..2_010).chain(2_000..2_010).collect::<Vec<_>>());
    assert_eq!(set_aside(dir.path()).len(), 1);
    // What one of them leaves behind when it ends is not the other's.
    let [(_, first), (process, mut second)] = sinks;
    drop(first);
    store(&mut second, 9, &wine(process, 2_010..2_020));
    assert_eq!(stored_seqs(dir.path()).len(), 30);
}

#[test]
fn a_deleted_file_is_made_again_and_no_later_record_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let mut sink = open(dir.path());
    store(&mut sink, 1, &wine(1, 0..10));
    for suffix in ["", "-wal", "-shm"] {
        fs::remove_file(dir.path().join(format!("predictions.db{suffix}"))).unwrap();
    }
    store(&mut sink, 2, &wine(1, 10..20));
    sink.close(now()).unwrap();
    assert_eq!(stored_seqs(dir.path()), (10..20).collect::<Vec<_>>());
}

#[test]
fn files_of_others_and_of_newer_versions_are_refused_and_left_as_they_are() {
    let cases = [
        ("CREATE TABLE theirs(x); INSERT INTO theirs VALUES(1)", "another program"),
        ("PRAGMA application_id = 17", "another program"),
        ("PRAGMA application_id = 1886547047; PRAGMA user_version = 99", "newer"),
    ];
    for (sql, expected) in cases {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("predictions.db");
        Connection::open(&path).unwrap().execute_batch(sql).unwrap();
        let before = fs::read(&path).unwrap();
        let error = SqliteSink::open(settings(dir.path())).unwrap_err();
        assert!(error.message.contains(expected) && error.message.contains("predictions.db"), "{error}");
        assert_eq!(fs::read(&path).unwrap(), before, "{sql}");
    }
}

/// Runs `body` on a file system of 3 MiB: this test again, alone, in a mount namespace of its own.
fn on_a_small_disk(test: &str, body: impl FnOnce(&Path)) {
    const INSIDE: &str = "PREDLOG_TEST_SMALL_DISK";
    if let Some(disk) = std::env::var_os(INSIDE) {
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=3m", "tmpfs"]).arg(&disk).status();
        assert!(mounted.is_ok_and(|status| status.success()), "cannot mount a tmpfs");
        return body(Path::new(&disk));
    }
    let dir = tempfile::tempdir().unwrap();
    let mut unshare = Command::new("unshare");
    unshare.arg("--mount");
    if !rustix::process::geteuid().is_root() {
        unshare.arg("--map-root-user");
    }
    unshare.arg(std::env::current_exe().unwrap()).args(["--exact", &format!("damage::{test}"), "--nocapture"]);
    let output = unshare.env(INSIDE, dir.path()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let why = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("1 passed"), "run the tests as root or allow user namespaces: {said}{why}");
}

#[test]
fn a_full_disk_is_no_space_and_recovers() {
    on_a_small_disk("a_full_disk_is_no_space_and_recovers", fill_and_recover);
}

fn fill_and_recover(disk: &Path) {
    let mut sink = open(disk);
    let lines = wine(1, 0..2_500);
    fs::write(disk.join("ballast"), vec![0u8; 2_600_000]).unwrap();
    assert_eq!(try_store(&mut sink, 1, &lines), Err(SinkErrorKind::NoSpace));
    assert_eq!(try_store(&mut sink, 2, &lines), Err(SinkErrorKind::NoSpace));
    fs::remove_file(disk.join("ballast")).unwrap();
    sink.probe().unwrap();
    store(&mut sink, 3, &lines);
    store(&mut sink, 4, &lines);
    drop(sink);
    assert_eq!(stored_seqs(disk), (0..2_500).collect::<Vec<_>>());
}

#[test]
fn a_disk_that_is_full_at_the_start_is_opened_later() {
    on_a_small_disk("a_disk_that_is_full_at_the_start_is_opened_later", start_full);
}

fn start_full(disk: &Path) {
    let _ = fs::write(disk.join("ballast"), vec![0u8; 4_000_000]);
    let mut sink = open(disk);
    assert_eq!(sink.probe().unwrap_err().kind, SinkErrorKind::NoSpace);
    fs::remove_file(disk.join("ballast")).unwrap();
    store(&mut sink, 1, &wine(1, 0..10));
}
