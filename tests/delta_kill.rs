//! kill -9 at random moments of writers of one Delta table: files that were put and not committed are in no version, and every row is stored once.
//!
//! This program is its own child: `child <table> <application>` commits ranges from where the table says that it was, until it is killed.

#[path = "delta/files.rs"]
mod files;
mod support;

use files::{PARTITIONS, directory, empty_schema, file};
use predlog::delta::{AppTransaction, Commit, DeltaSettings, DeltaTable};
use predlog::format::schema::ModelSchema;
use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

const KILLS: u64 = 20;
const ROWS: u64 = 3;
const APPLICATIONS: [&str; 2] = ["predictions/0", "predictions/1"];

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    match arguments.get(1).map(String::as_str) {
        Some("child") => return child(Path::new(&arguments[2]), &arguments[3]),
        Some("--list") => return,
        _ => {}
    }
    kills();
    println!("test {KILLS} kills of each of two writers: every row is stored once ... ok");
    println!("1 passed, 0 failed");
}

fn open(path: &Path) -> DeltaTable {
    let settings = DeltaSettings { checkpoint_every: 7, ..DeltaSettings::default() };
    DeltaTable::open_or_create(&directory(path), settings, &empty_schema(), &PARTITIONS).expect("the table opens")
}

/// Commits `ROWS` rows at a time from where the table says that the application is.
fn child(path: &Path, app_id: &str) {
    let (table, mut sticky) = (open(path), ModelSchema::default());
    loop {
        let previous = table.txn_version(app_id).expect("the table answers");
        let first = previous.map_or(0, |version| u64::try_from(version).expect("a count"));
        let writer = app_id.replace('/', "-");
        let (encoded, mut add) = file(path, &mut sticky, "wine", &writer, first..first + ROWS, "");
        // As a restarted writer does that does not know of the first try: another name for the same rows.
        let unique = add.path.replace(".parquet", &format!("-{}.parquet", std::process::id()));
        std::fs::rename(path.join(&add.path), path.join(&unique)).expect("the file is renamed");
        add.path = unique;
        let version = i64::try_from(first + ROWS).expect("a count");
        let txns = vec![AppTransaction { app_id: app_id.to_owned(), version, previous }];
        // As two that commit now and then: one that never rests would leave the other no version.
        std::thread::sleep(Duration::from_millis(fastrand::u64(1..10)));
        table.commit(Commit { adds: vec![add], txns, schemas: vec![&encoded.schema] }).expect("it is committed");
    }
}

/// A writer, and what ends it with this program.
fn start(path: &Path, app_id: &str) -> (Child, Child) {
    let this = std::env::current_exe().expect("this program");
    let child = Command::new(this).arg("child").arg(path).arg(app_id).spawn().expect("the child starts");
    let end = support::process::end_with_this_process(&child);
    (child, end)
}

fn kills() {
    let dir = tempfile::tempdir().expect("a directory");
    let table = open(dir.path());
    for _ in 0..KILLS {
        let before = APPLICATIONS.map(|app_id| table.txn_version(app_id).expect("the table answers"));
        let mut children = APPLICATIONS.map(|app_id| start(dir.path(), app_id));
        let deadline = Instant::now() + Duration::from_secs(60);
        // Each has committed something; then a random moment of the next one.
        for (at, app_id) in APPLICATIONS.iter().enumerate() {
            while table.txn_version(app_id).expect("the table answers") == before[at] {
                assert!(Instant::now() < deadline, "{app_id} commits nothing");
            }
        }
        std::thread::sleep(Duration::from_millis(fastrand::u64(0..60)));
        for (child, end) in &mut children {
            child.kill().expect("kill -9");
            child.wait().expect("it is gone");
            drop(end.stdin.take());
            end.wait().expect("it is gone too");
        }
    }
    let mut expected = 0;
    for app_id in APPLICATIONS {
        expected += u64::try_from(table.txn_version(app_id).expect("the table answers").unwrap_or(0)).expect("a count");
    }
    let ids: Vec<String> = table_ids(dir.path());
    let distinct: BTreeSet<&String> = ids.iter().collect();
    let put = walk(dir.path());
    println!(
        "  {} versions, {} rows, {put} files put, {} of them committed",
        table.version(),
        ids.len(),
        ids.len() as u64 / ROWS
    );
    assert_eq!(ids.len() as u64, expected, "as many rows as the applications' versions say");
    assert_eq!(distinct.len(), ids.len(), "no row twice");
}

/// The ids of the table's rows, by delta-rs.
fn table_ids(path: &Path) -> Vec<String> {
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join(".cache/venv/bin/python");
    let script = "import sys, deltalake; print('\\n'.join(deltalake.DeltaTable(sys.argv[1]).to_pyarrow_table(columns=['id'])['id'].to_pylist()))";
    let output =
        Command::new(python).args(["-c", script]).arg(path).output().expect("Python starts: tests/services/install.sh readers");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}

/// The Parquet files below the table, the log apart.
fn walk(path: &Path) -> usize {
    let mut files = 0;
    for entry in std::fs::read_dir(path).expect("a directory").map(|entry| entry.expect("an entry").path()) {
        if entry.is_dir() && !entry.ends_with("_delta_log") {
            files += walk(&entry);
        } else if entry.extension().is_some_and(|extension| extension == "parquet") {
            files += 1;
        }
    }
    files
}
