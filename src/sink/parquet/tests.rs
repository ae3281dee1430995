use super::*;
use crate::clock::{Clock, SystemClock};
use crate::logger::home::Home;
use crate::sink::conformance::{self, Harness, Row};
use arrow_array::cast::AsArray;
use arrow_array::types::{Int64Type, TimestampMicrosecondType};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::Value;
use std::fs::File;
use tempfile::TempDir;

struct Store {
    dir: TempDir,
    home: Option<Home>,
    blocked: bool,
}

impl Store {
    fn new() -> Self {
        Store { dir: tempfile::tempdir().unwrap(), home: None, blocked: false }
    }

    fn sink(&mut self) -> ParquetSink {
        self.home = None;
        let dead = Home::dead(self.dir.path()).unwrap();
        let home = Home::create(self.dir.path(), crate::unique::uuid).unwrap();
        let settings = ParquetSettings {
            dir: self.dir.path().to_owned(),
            spool: home.spool(),
            rotation: RotationSettings::default(),
            fsync: false,
            max_disk_bytes: u64::MAX,
            uploads: false,
        };
        self.home = Some(home);
        let mut sink = ParquetSink::open(settings, Arc::default()).unwrap();
        for home in dead {
            spool::segments(&home.spool()).unwrap().iter().for_each(|segment| sink.adopt(segment).unwrap());
            home.remove_if_empty().unwrap();
        }
        sink
    }
}

impl Harness for Store {
    fn open(&mut self) -> Box<dyn Sink> {
        Box::new(self.sink())
    }

    fn stored(&mut self) -> Vec<Row> {
        // What was closed early lies in segments: a start, and an end that waits, seal them.
        seal_all(self.sink());
        let mut rows = Vec::new();
        read_dir(&self.dir.path().join("predictions"), &mut rows);
        rows
    }

    fn fail(&mut self, _failing: bool) -> bool {
        // A full disk is the failure that matters here; tests/disk.rs has one.
        false
    }
}

impl Store {
    fn block(&mut self, failing: bool) {
        // Root may write anywhere, so a directory without permission is no obstacle: a file in the place of the spool is one for everybody.
        let spool = self.home.as_ref().unwrap().spool();
        if failing != self.blocked {
            let aside = spool.with_extension("aside");
            if failing {
                std::fs::rename(&spool, &aside).unwrap();
                std::fs::write(&spool, "").unwrap();
            } else {
                std::fs::remove_file(&spool).unwrap();
                std::fs::rename(&aside, &spool).unwrap();
            }
            self.blocked = failing;
        }
    }
}

fn seal_all(mut sink: ParquetSink) {
    let clock = SystemClock::default();
    sink.maintain(clock.now(), true).unwrap();
    while !sink.sealers.segments().is_empty() {
        assert!(clock.now().monotonic.as_secs() < 30, "segments are not sealed after 30 s");
        std::thread::yield_now();
    }
    sink.close(clock.now()).unwrap();
}

fn read_dir(dir: &Path, rows: &mut Vec<Row>) {
    let Ok(entries) = std::fs::read_dir(dir) else { return };
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() {
            read_dir(&path, rows);
        } else {
            read_file(&path, rows);
        }
    }
}

fn read_file(path: &Path, rows: &mut Vec<Row>) {
    let builder = ParquetRecordBatchReaderBuilder::try_new(File::open(path).unwrap()).unwrap();
    let pairs = builder.metadata().file_metadata().key_value_metadata().cloned().unwrap();
    let model_name = pairs.iter().find(|pair| pair.key == "predlog.model_name").unwrap().value.clone().unwrap();
    for batch in builder.build().unwrap() {
        let batch = batch.unwrap();
        let mut writer =
            arrow_json::WriterBuilder::new().with_explicit_nulls(false).build::<_, arrow_json::writer::JsonArray>(Vec::new());
        // All but the timestamp: to write "UTC" as text takes a table of time zones.
        let others: Vec<usize> = (0..batch.num_columns()).filter(|&at| batch.schema().field(at).name() != "timestamp").collect();
        writer.write(&batch.project(&others).unwrap()).unwrap();
        writer.finish().unwrap();
        let values: Vec<Value> = serde_json::from_slice(&writer.into_inner()).unwrap();
        let timestamps = batch.column_by_name("timestamp").unwrap().as_primitive::<TimestampMicrosecondType>();
        let seqs = batch.column_by_name("seq").unwrap().as_primitive::<Int64Type>();
        for (at, value) in values.iter().enumerate() {
            rows.push(Row {
                writer: value["writer"].as_str().unwrap().to_owned(),
                seq: seqs.value(at) as u64,
                id: value["id"].as_str().unwrap().to_owned(),
                model_name: model_name.clone(),
                timestamp: timestamps.value(at),
                inputs: value["inputs"].clone(),
                outputs: value["outputs"].clone(),
            });
        }
    }
}

#[test]
fn keeps_the_contract() {
    conformance::run(Store::new);
}

#[test]
fn a_disk_bound_refuses_records_and_says_which_key() {
    let mut store = Store::new();
    let mut sink = store.sink();
    sink.settings.max_disk_bytes = 0;
    let error = sink.write(&Batch { id: 1, origin: Origin::Live, chunks: Vec::new() }).unwrap_err();
    assert_eq!(error.kind, SinkErrorKind::NoSpace);
    assert!(error.to_string().contains("upload.max_disk_bytes=0"), "{error}");
    assert_eq!(sink.probe().unwrap_err().kind, SinkErrorKind::NoSpace);
}

#[test]
fn a_blocked_spool_fails_the_probe_and_heals() {
    let mut store = Store::new();
    let mut sink = store.sink();
    sink.probe().unwrap();
    store.block(true);
    assert!(sink.probe().is_err());
    store.block(false);
    sink.probe().unwrap();
}

#[test]
fn a_segment_that_is_sealed_again_after_a_crash_gives_the_same_files() {
    let mut store = Store::new();
    let mut sink = store.sink();
    let lines = conformance::Lines::of(0, "wine", 0..500);
    conformance::store(&mut sink, 1, Origin::Live, &[&lines]);
    let segment = spool::segments(&sink.settings.spool).unwrap().remove(0);
    let copy = store.dir.path().join("copy");
    std::fs::copy(&segment, &copy).unwrap();
    seal_all(sink);
    let files = |dir: &Path| {
        let mut found = Vec::new();
        collect(dir, &mut found);
        found
    };
    let before = files(&store.dir.path().join("predictions"));
    assert_eq!(before.len(), 1);
    // The crash came after the rename and before the segment was removed.
    std::fs::rename(copy, &segment).unwrap();
    assert_eq!(store.stored().len(), 500);
    assert_eq!(files(&store.dir.path().join("predictions")), before);
}

#[test]
fn a_segment_is_taken_over_as_often_as_processes_die() {
    let mut store = Store::new();
    let mut sink = store.sink();
    conformance::store(&mut sink, 1, Origin::Live, &[&conformance::Lines::of(0, "wine", 0..5)]);
    // None of them lives to seal it.
    let in_the_way = store.dir.path().join("predictions");
    std::fs::write(&in_the_way, "").unwrap();
    for _ in 0..10 {
        drop(sink);
        sink = store.sink();
    }
    drop(sink);
    std::fs::remove_file(in_the_way).unwrap();
    assert_eq!(store.stored().len(), 5);
}

fn collect(dir: &Path, found: &mut Vec<(PathBuf, Vec<u8>)>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, found);
        } else {
            let bytes = std::fs::read(&path).unwrap();
            found.push((path, bytes));
        }
    }
}
