//! Delta tables: what is committed is in the table once, whoever else writes, and other readers see the same.
#![cfg(feature = "delta")]

mod files;
mod readers;
#[path = "../support/mod.rs"]
mod support;
mod writers;

use files::{PARTITIONS, block_on, directory, empty_schema, encode, file, line, table_schema};
use predlog::delta::{AppTransaction, Commit, CommitOutcome, DeltaError, DeltaSettings, DeltaTable};
use predlog::format::schema::ModelSchema;
use predlog::ship::UploadSettings;
use readers::{Totals, totals};
use std::path::Path;
use support::s3::Minio;

fn open(path: &Path) -> DeltaTable {
    DeltaTable::open_or_create(&directory(path), DeltaSettings::default(), &empty_schema(), &PARTITIONS).unwrap()
}

fn txn(version: i64, previous: Option<i64>) -> Vec<AppTransaction> {
    vec![AppTransaction { app_id: "predictions/0".into(), version, previous }]
}

#[test]
fn a_table_grows_by_columns_and_each_reader_reads_it_whole() {
    let (dir, mut sticky) = (tempfile::tempdir().unwrap(), ModelSchema::default());
    let table = open(dir.path());
    // A name that the file system, Hive's paths and the log's escapes each have their own ideas of.
    let model = "wine/é 100%=?";
    for (version, more) in
        ["", r#","color":"red""#, r#","origin":{"country":"PT","grapes":[{"name":"Arinto"}]}"#].into_iter().enumerate()
    {
        let (first, version) = (version as u64 * 100, version as u64);
        let (encoded, add) = file(dir.path(), &mut sticky, model, "w", first..first + 100, more);
        let outcome = table.commit(Commit { adds: vec![add], schemas: vec![&encoded.schema], ..Commit::default() }).unwrap();
        assert_eq!(outcome, CommitOutcome::Committed(version + 1));
    }
    let expected = Totals { rows: 300, ids: 300, seq: (0..300).sum(), age: (0..300).sum() };
    let path = dir.path().to_str().unwrap();
    for reader in readers::READERS {
        assert_eq!(totals(reader, path), expected, "{reader}");
    }
    let rows = readers::rows("delta-rs", path);
    let row = rows.iter().find(|row| row["seq"] == 250).unwrap();
    assert_eq!(row["inputs"]["origin"]["grapes"][0]["name"], "Arinto");
    assert_eq!((row["model_name"].as_str(), row["date"].as_str()), (Some(model), Some(files::DATE)));
    assert!(rows.iter().find(|row| row["seq"] == 50).unwrap()["inputs"]["color"].is_null());
}

#[test]
fn a_commit_is_stored_once_and_who_is_late_is_fenced() {
    let (dir, mut sticky) = (tempfile::tempdir().unwrap(), ModelSchema::default());
    let (one, two) = (open(dir.path()), open(dir.path()));
    let mut commit = |table: &DeltaTable, range: std::ops::Range<u64>, previous| {
        let version = i64::try_from(range.end).unwrap();
        let (encoded, add) = file(dir.path(), &mut sticky, "wine", "w", range, "");
        table.commit(Commit { adds: vec![add], txns: txn(version, previous), schemas: vec![&encoded.schema] }).unwrap()
    };
    assert_eq!(one.txn_version("predictions/0").unwrap(), None);
    assert_eq!(commit(&one, 0..10, None), CommitOutcome::Committed(1));
    assert_eq!(commit(&one, 0..10, None), CommitOutcome::AlreadyStored, "the same again");
    assert_eq!(commit(&two, 0..10, None), CommitOutcome::AlreadyStored, "another process, which read the table before");
    assert_eq!(commit(&two, 10..30, Some(10)), CommitOutcome::Committed(2));
    // The zombie still believes that it is at 10. Its range is shorter, then longer than what was stored meanwhile.
    assert_eq!(commit(&one, 10..20, Some(10)), CommitOutcome::AlreadyStored);
    assert_eq!(commit(&one, 10..40, Some(10)), CommitOutcome::Fenced);
    assert_eq!(one.txn_version("predictions/0").unwrap(), Some(30));
    assert_eq!(open(dir.path()).txn_version("predictions/0").unwrap(), Some(30));
    let expected = Totals { rows: 30, ids: 30, seq: (0..30).sum(), age: (0..30).sum() };
    assert_eq!(totals("delta-rs", dir.path().to_str().unwrap()), expected);
}

#[test]
fn a_column_of_another_type_is_refused_by_name_and_nothing_is_written() {
    let (dir, mut sticky) = (tempfile::tempdir().unwrap(), ModelSchema::default());
    let table = open(dir.path());
    let (encoded, add) = file(dir.path(), &mut sticky, "wine", "w", 0..10, "");
    table.commit(Commit { adds: vec![add], schemas: vec![&encoded.schema], ..Commit::default() }).unwrap();
    let text = line("wine", "w", 10, "").replace("\"age\":10", "\"age\":\"ten\"");
    let other = encode("wine", &mut ModelSchema::default(), &[text]);
    let error = table.commit(Commit { schemas: vec![&other.schema], txns: txn(1, None), ..Commit::default() }).unwrap_err();
    assert!(
        matches!(&error, DeltaError::ColumnType { column, table, files } if column == "inputs.age" && table == "long" && files == "string"),
        "{error}"
    );
    assert_eq!((table.version(), table.txn_version("predictions/0").unwrap()), (1, None));
}

#[test]
fn checkpoints_are_written_the_log_is_cleaned_and_the_table_is_read_back() {
    let (dir, mut sticky) = (tempfile::tempdir().unwrap(), ModelSchema::default());
    let settings = DeltaSettings { checkpoint_every: 10, log_retention: std::time::Duration::ZERO, ..DeltaSettings::default() };
    let table = DeltaTable::open_or_create(&directory(dir.path()), settings.clone(), &empty_schema(), &PARTITIONS).unwrap();
    for n in 0..25 {
        let (encoded, add) = file(dir.path(), &mut sticky, "wine", "w", n * 4..n * 4 + 4, "");
        let previous = (n > 0).then_some(n as i64 - 1);
        table.commit(Commit { adds: vec![add], txns: txn(n as i64, previous), schemas: vec![&encoded.schema] }).unwrap();
    }
    let mut names: Vec<String> = std::fs::read_dir(dir.path().join("_delta_log"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names.iter().filter(|name| name.ends_with(".checkpoint.parquet")).count(), 1, "{names:?}");
    assert_eq!(names.iter().filter(|name| name.ends_with(".json")).count(), 6, "versions 20 to 25: {names:?}");
    let again = DeltaTable::open(&directory(dir.path()), settings).unwrap();
    assert_eq!((again.version(), again.txn_version("predictions/0").unwrap()), (25, Some(24)));
    let expected = Totals { rows: 100, ids: 100, seq: (0..100).sum(), age: (0..100).sum() };
    for reader in readers::READERS {
        assert_eq!(totals(reader, dir.path().to_str().unwrap()), expected, "{reader}");
    }
}

#[test]
fn tables_lie_in_buckets_too() {
    let minio = Minio::start();
    minio.create_bucket("models");
    let dir = tempfile::tempdir().unwrap();
    let settings = s3_settings(&minio, "s3://models/tables/a b", dir.path());
    let mut sticky = ModelSchema::default();
    let lines: Vec<String> = (0..50).map(|seq| line("wine", "w", seq, "")).collect();
    let encoded = encode("wine", &mut sticky, &lines);
    let schema = table_schema(&encoded.schema);
    let table = DeltaTable::open_or_create(&settings, DeltaSettings::default(), &schema, &PARTITIONS).unwrap();
    for n in 0..3 {
        let add = encoded.add("wine", &format!("{n}.parquet"));
        encoded.put(&minio.store("models"), "tables/a b", &add);
        let outcome = table.commit(Commit { adds: vec![add], txns: txn(n + 1, (n > 0).then_some(n)), schemas: vec![] }).unwrap();
        assert_eq!(outcome, CommitOutcome::Committed(n as u64 + 1));
    }
    assert_eq!(table.checkpoint().unwrap(), 3);
    let again = DeltaTable::open(&settings, DeltaSettings::default()).unwrap();
    assert_eq!((again.version(), again.txn_version("predictions/0").unwrap()), (3, Some(3)));
    let listed = block_on(async {
        use futures_util::TryStreamExt;
        use object_store::{ObjectStore, path::Path as Key};
        minio.store("models").list(Some(&Key::parse("tables/a b/_delta_log").unwrap())).try_collect::<Vec<_>>().await
    });
    assert_eq!(listed.unwrap().len(), 4 + 2, "four versions, a checkpoint and the pointer to it");
}

/// The settings of a bucket on this server. Its keys are in a file of `dir`, as the environment is the whole process's.
fn s3_settings(minio: &Minio, url: &str, dir: &Path) -> UploadSettings {
    let keys = dir.join("credentials");
    let text = format!("[default]\naws_access_key_id = {}\naws_secret_access_key = {}\n", minio.access_key(), minio.secret_key());
    std::fs::write(&keys, text).unwrap();
    UploadSettings {
        url: Some(url.to_owned()),
        endpoint: Some(minio.endpoint()),
        region: Some("us-east-1".into()),
        credentials_file: Some(keys),
        ..UploadSettings::default()
    }
}

#[test]
fn what_cannot_work_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let settings = directory(dir.path());
    let message = DeltaTable::open(&settings, DeltaSettings::default()).unwrap_err().to_string();
    assert!(message.contains("no Delta table") && message.contains("_delta_log"), "{message}");
    open(dir.path());
    let other =
        DeltaTable::open_or_create(&settings, DeltaSettings::default(), &empty_schema(), &["date"]).unwrap_err().to_string();
    assert!(other.contains(r#"["model_name","date"]"#) && other.contains(r#"["date"]"#), "{other}");
    let escaped =
        UploadSettings { url: Some("s3://models/a%2Fb".into()), region: Some("us-east-1".into()), ..UploadSettings::default() };
    let message = DeltaTable::open(&escaped, DeltaSettings::default()).unwrap_err().to_string();
    assert!(message.contains("a%2Fb") && message.contains("without %"), "{message}");
    let unsafe_store = UploadSettings { conditional_put: false, ..settings };
    let message = DeltaTable::open(&unsafe_store, DeltaSettings::default()).unwrap_err().to_string();
    assert!(message.contains("conditional_put"), "{message}");
    // A table whose commits need what ours have not.
    let log = dir.path().join("_delta_log/00000000000000000001.json");
    let protocol =
        r#"{"protocol":{"minReaderVersion":1,"minWriterVersion":7,"writerFeatures":["rowTracking","domainMetadata"]}}"#;
    std::fs::write(log, protocol).unwrap();
    let message = DeltaTable::open(&directory(dir.path()), DeltaSettings::default()).unwrap_err().to_string();
    assert!(message.contains("rowTracking") || message.contains("domainMetadata"), "{message}");
}
