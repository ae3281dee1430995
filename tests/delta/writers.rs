//! Several writers of one table at one time.

use super::files::{PARTITIONS, directory, empty_schema, file};
use super::readers::{Totals, totals};
use predlog::delta::{AppTransaction, Commit, CommitOutcome, DeltaSettings, DeltaTable};
use predlog::format::schema::ModelSchema;
use std::path::Path;
use std::thread;

const WRITERS: u64 = 4;
const COMMITS: u64 = 25;
const ROWS: u64 = 5;

fn open(path: &Path) -> DeltaTable {
    let settings = DeltaSettings { checkpoint_every: 20, ..DeltaSettings::default() };
    DeltaTable::open_or_create(&directory(path), settings, &empty_schema(), &PARTITIONS).unwrap()
}

/// Commits ranges one after the other; each writer has an application of its own, and from the middle on a column of its own.
fn write(path: &Path, writer: u64) {
    let (table, mut sticky) = (open(path), ModelSchema::default());
    for n in 0..COMMITS {
        let more = if n < COMMITS / 2 { String::new() } else { format!(r#","extra_{writer}":1"#) };
        let first = (writer * COMMITS + n) * ROWS;
        let (encoded, add) = file(path, &mut sticky, "wine", &format!("w{writer}"), first..first + ROWS, &more);
        let previous = (n > 0).then_some(n as i64 - 1);
        let txn = AppTransaction { app_id: format!("predictions/{writer}"), version: n as i64, previous };
        let outcome = table.commit(Commit { adds: vec![add], txns: vec![txn], schemas: vec![&encoded.schema] }).unwrap();
        assert!(matches!(outcome, CommitOutcome::Committed(_)), "writer {writer}, commit {n}: {outcome:?}");
    }
}

#[test]
fn four_writers_store_every_row_once_and_all_columns() {
    let dir = tempfile::tempdir().unwrap();
    thread::scope(|scope| {
        for writer in 0..WRITERS {
            let path = dir.path();
            scope.spawn(move || write(path, writer));
        }
    });
    let table = open(dir.path());
    assert_eq!(table.version(), WRITERS * COMMITS, "each commit is a version");
    let schema = table.schema().unwrap();
    let arrow_schema::DataType::Struct(inputs) = schema.field_with_name("inputs").unwrap().data_type() else { panic!() };
    for writer in 0..WRITERS {
        assert!(inputs.iter().any(|field| *field.name() == format!("extra_{writer}")), "{inputs:?}");
    }
    let rows = WRITERS * COMMITS * ROWS;
    let expected = Totals { rows, ids: rows, seq: (0..rows).sum(), age: (0..rows).sum() };
    assert_eq!(totals("delta-rs", dir.path().to_str().unwrap()), expected);
}

#[test]
fn of_writers_with_the_same_range_one_stores_it() {
    let dir = tempfile::tempdir().unwrap();
    let outcomes: Vec<CommitOutcome> = thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS)
            .map(|_| {
                scope.spawn(|| {
                    let (table, mut sticky) = (open(dir.path()), ModelSchema::default());
                    let (encoded, add) = file(dir.path(), &mut sticky, "wine", "w", 0..10, "");
                    let txn = AppTransaction { app_id: "predictions/0".into(), version: 10, previous: None };
                    table.commit(Commit { adds: vec![add], txns: vec![txn], schemas: vec![&encoded.schema] }).unwrap()
                })
            })
            .collect();
        writers.into_iter().map(|writer| writer.join().unwrap()).collect()
    });
    assert_eq!(outcomes.iter().filter(|outcome| matches!(outcome, CommitOutcome::Committed(_))).count(), 1, "{outcomes:?}");
    assert_eq!(outcomes.iter().filter(|outcome| **outcome == CommitOutcome::AlreadyStored).count(), 3, "{outcomes:?}");
    let expected = Totals { rows: 10, ids: 10, seq: 45, age: 45 };
    assert_eq!(totals("delta-rs", dir.path().to_str().unwrap()), expected);
}
