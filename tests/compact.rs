//! `predlog compact`: fewer files, the same rows; whoever else writes, and wherever it is killed.
#![cfg(feature = "delta")]

#[path = "delta/files.rs"]
mod files;
#[path = "delta/readers.rs"]
mod readers;
mod support;

use files::{PARTITIONS, directory, empty_schema, encode, file, line};
use predlog::compact::{CompactOptions, CompactReport, compact_layout};
use predlog::delta::{Commit, CommitOutcome, DeltaSettings, DeltaTable};
use predlog::format::schema::ModelSchema;
use readers::{Totals, totals};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;
use support::readers::{ReadOptions, read_table};

fn open(path: &Path) -> DeltaTable {
    DeltaTable::open_or_create(&directory(path), DeltaSettings::default(), &empty_schema(), &PARTITIONS).unwrap()
}

/// Everything, now.
fn all() -> CompactOptions {
    CompactOptions { min_age: Duration::ZERO, ..CompactOptions::default() }
}

fn nobody(_: &CompactReport) {}

/// Ten files of ten rows, of two models, with columns that come later.
fn fill(table: &DeltaTable, path: &Path) {
    for model in ["wine", "a/b 100%"] {
        let mut sticky = ModelSchema::default();
        for n in 0..10 {
            let more = if n < 5 { "" } else { r#","grapes":[{"name":"Arinto"}]"# };
            let first = n * 10 + if model == "wine" { 0 } else { 100 };
            let (encoded, add) = file(path, &mut sticky, model, "w", first..first + 10, more);
            table.commit(Commit { adds: vec![add], schemas: vec![&encoded.schema], ..Commit::default() }).unwrap();
        }
    }
}

const FILLED: Totals = Totals { rows: 200, ids: 200, seq: 199 * 100, age: 199 * 100 };

#[test]
fn a_delta_table_has_the_same_rows_in_fewer_files() {
    let dir = tempfile::tempdir().unwrap();
    let (table, path) = (open(dir.path()), dir.path().to_str().unwrap());
    fill(&table, dir.path());
    let before = readers::rows("delta-rs", path);
    let dry = table.optimize(&CompactOptions { dry_run: true, ..all() }, &mut nobody).unwrap();
    assert_eq!((dry.files_before, dry.files_after, table.version()), (20, 2, 20));
    let wine = CompactOptions { partitions: BTreeMap::from([("model_name".into(), "wine".into())]), ..all() };
    let mut told = Vec::new();
    let report = table.optimize(&wine, &mut |report| told.push(report.files_after)).unwrap();
    assert_eq!((report.files_before, report.files_after, report.rows, told), (10, 1, 100, vec![1]));
    assert_eq!(table.optimize(&all(), &mut nobody).unwrap().files_before, 10, "the other model's; one large file stays");
    assert_eq!(table.optimize(&all(), &mut nobody).unwrap(), CompactReport::default());
    for reader in readers::READERS {
        assert_eq!(totals(reader, path), FILLED, "{reader}");
    }
    let sorted = |mut rows: Vec<Value>| {
        rows.sort_by_key(|row| row["seq"].as_u64());
        rows
    };
    assert_eq!(sorted(readers::rows("delta-rs", path)), sorted(before), "each value of each row");
}

#[test]
fn appends_are_no_conflict_and_a_lost_race_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (table, path) = (open(dir.path()), dir.path().to_str().unwrap());
    fill(&table, dir.path());
    let (other, mut sticky) = (open(dir.path()), ModelSchema::default());
    let mut once = Some(());
    let report = table.optimize(&all(), &mut |_| {
        if once.take().is_some() {
            let (encoded, add) = file(dir.path(), &mut sticky, "wine", "late", 200..210, "");
            let outcome = other.commit(Commit { adds: vec![add], schemas: vec![&encoded.schema], ..Commit::default() }).unwrap();
            assert_eq!(outcome, CommitOutcome::Committed(21));
        }
    });
    assert_eq!((report.unwrap().files_after, table.version()), (2, 22));
    let appended = Totals { rows: 210, ids: 210, seq: 209 * 105, age: 209 * 105 };
    assert_eq!(totals("delta-rs", path), appended);
    // Small again, for two that compact at one time.
    let (encoded, add) = file(dir.path(), &mut sticky, "wine", "last", 210..220, "");
    table.commit(Commit { adds: vec![add], schemas: vec![&encoded.schema], ..Commit::default() }).unwrap();
    let report =
        table.optimize(&all(), &mut |_| assert_eq!(other.optimize(&all(), &mut nobody).unwrap().files_after, 1)).unwrap();
    assert_eq!((report.lost_races, report.files_after), (1, 0));
    let all_rows = Totals { rows: 220, ids: 220, seq: 219 * 110, age: 219 * 110 };
    assert_eq!(totals("delta-rs", path), all_rows);
}

/// A prefix of plain files: five of ten rows, of one partition.
struct Layout {
    dir: tempfile::TempDir,
    partition: PathBuf,
}

impl Layout {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut sticky = ModelSchema::default();
        let mut partition = PathBuf::new();
        for n in 0..5_u64 {
            let more = if n < 3 { "" } else { r#","color":"red""# };
            let lines: Vec<String> = (n * 10..n * 10 + 10).map(|seq| line("a/b 100%", "w", seq, more)).collect();
            let encoded = encode("a/b 100%", &mut sticky, &lines);
            let add = encoded.add("a/b 100%", &format!("w-{}-{}.parquet", n * 10, n * 10 + 9));
            encoded.write(&dir.path().join("predictions"), &add);
            partition = dir.path().join("predictions").join(&add.path).parent().unwrap().to_owned();
        }
        Layout { dir, partition }
    }

    fn compact(&self) -> CompactReport {
        compact_layout(&directory(self.dir.path()), &all(), &mut nobody).unwrap()
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(&self.partition).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn rows(&self) -> Vec<Value> {
        let mut rows = read_table("pyarrow", self.dir.path().join("predictions").to_str().unwrap(), &ReadOptions::default());
        rows.sort_by_key(|row| row["seq"].as_u64());
        rows
    }
}

#[test]
fn plain_files_become_one_with_each_value_of_each_row() {
    let layout = Layout::new();
    let before = layout.rows();
    let wrong = CompactOptions { partitions: BTreeMap::from([("date".into(), "2026-11-22".into())]), ..all() };
    assert_eq!(compact_layout(&directory(layout.dir.path()), &wrong, &mut nobody).unwrap(), CompactReport::default());
    let young = CompactOptions { min_age: Duration::from_secs(60), ..all() };
    assert_eq!(compact_layout(&directory(layout.dir.path()), &young, &mut nobody).unwrap(), CompactReport::default());
    let report = layout.compact();
    assert_eq!((report.files_before, report.files_after, report.rows), (5, 1, 50));
    let names = layout.names();
    assert!(matches!(&*names, [name] if name.starts_with("compact-")), "{names:?}");
    assert_eq!(layout.rows(), before);
    assert_eq!(layout.compact(), CompactReport::default(), "nothing is left to do");
    assert_eq!(layout.names(), names);
}

#[test]
fn a_crash_between_any_two_steps_is_repaired_by_the_next_run() {
    let done = {
        let layout = Layout::new();
        layout.compact();
        let name = layout.names().remove(0);
        (name.clone(), fs::read(layout.partition.join(&name)).unwrap())
    };
    let (name, bytes) = done;
    let olds: Vec<String> = Layout::new().names();
    let manifest = serde_json::json!({"object": name, "bytes": bytes.len(), "replaces": olds}).to_string();
    let manifest_name = name.replace("compact-", "_compact-").replace(".parquet", ".json");
    // After the put; after the manifest; after each delete; and when only the manifest is left to delete.
    for step in 0..olds.len() + 2 {
        let layout = Layout::new();
        let before = layout.rows();
        fs::write(layout.partition.join(&name), &bytes).unwrap();
        if step > 0 {
            fs::write(layout.partition.join(&manifest_name), &manifest).unwrap();
            olds.iter().take(step - 1).for_each(|old| fs::remove_file(layout.partition.join(old)).unwrap());
        }
        layout.compact();
        assert_eq!(layout.names(), std::slice::from_ref(&name), "step {step}");
        assert_eq!(layout.rows(), before, "step {step}");
    }
}

#[test]
fn a_prefix_without_files_is_an_error_and_not_all_done() {
    let dir = tempfile::tempdir().unwrap();
    let compact = |options: &CompactOptions| {
        compact_layout(&directory(dir.path()), options, &mut nobody).map_err(|error| error.to_string())
    };
    let one_day = CompactOptions { partitions: BTreeMap::from([("date".into(), "2026-11-22".into())]), ..all() };
    for options in [all(), one_day] {
        let error = compact(&options).unwrap_err();
        assert!(error.contains("no files to compact") && error.contains("predictions/model_name="), "{error}");
    }
    let nested = Layout::new();
    let error = compact_layout(&directory(&nested.dir.path().join("predictions")), &all(), &mut nobody).unwrap_err().to_string();
    assert!(error.contains("no files to compact") && error.contains("above predictions/"), "{error}");
}

#[cfg(feature = "cli")]
#[test]
fn the_program_fails_where_there_is_nothing_and_makes_no_directory() {
    let dir = tempfile::tempdir().unwrap();
    let run = |option: &str, url: &str| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_predlog"));
        let output = command.args(["compact", option, url, "--min-age", "0s"]).env_remove("PREDLOG_CONFIG").output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let missing = dir.path().join("missing");
    for option in ["--table", "--files"] {
        let (code, said) = run(option, &format!("file://{}", missing.display()));
        assert!(code == Some(2) && said.contains(option) && said.contains("no such directory"), "{code:?} {said}");
        assert!(!missing.exists());
        let (code, said) = run(option, &format!("file://{}", dir.path().display()));
        let why = if option == "--table" { "no Delta table" } else { "no files to compact" };
        assert!(code == Some(1) && said.contains(why), "{code:?} {said}");
    }
    let layout = Layout::new();
    let here = layout.dir.path().display().to_string();
    for what in ["to do", "nothing left to do"] {
        assert_eq!(run("--files", &here).0, Some(0), "{what}");
    }
    assert_eq!(layout.names().len(), 1);
}

#[test]
fn a_directory_that_a_store_still_uploads_from_is_refused() {
    let layout = Layout::new();
    fs::create_dir(layout.dir.path().join("outbox")).unwrap();
    fs::write(layout.dir.path().join("outbox/x.parquet.0"), "predictions/x.parquet").unwrap();
    let error = compact_layout(&directory(layout.dir.path()), &all(), &mut nobody).unwrap_err().to_string();
    assert!(error.contains("outbox") && error.contains("bucket"), "{error}");
    assert_eq!(layout.names().len(), 5);
}
