//! A segment becomes sorted files with each of its rows once, or nothing happens.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::Path;

use arrow_array::cast::AsArray;
use arrow_array::types::{Int64Type, TimestampMicrosecondType};
use arrow_array::{Array, RecordBatch};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use predlog::format::path::{MAX_COMPONENT_BYTES, model_partition, parse_file_name};
use predlog::format::schema::ModelSchema;
use predlog::format::seal::{FrameInfo, FrameSource, SealError, SealJob, SealedFile, seal};

const WRITER: &str = "0198c0de-0000-7000-8000-00000000000a";
/// 2026-11-23T00:00:00Z
const MIDNIGHT: i64 = 1_795_392_000_000_000;

#[derive(Clone, Default)]
struct Frames {
    infos: Vec<FrameInfo>,
    data: Vec<Vec<u8>>,
    /// A frame that cannot be read.
    broken: Option<usize>,
}

impl FrameSource for Frames {
    fn frames(&self) -> &[FrameInfo] {
        &self.infos
    }

    fn load(&mut self, index: usize, into: &mut Vec<u8>) -> io::Result<()> {
        if self.broken == Some(index) {
            return Err(io::Error::other("a bad checksum"));
        }
        into.extend_from_slice(&self.data[index]);
        Ok(())
    }
}

impl Frames {
    fn add(&mut self, rows: &[(i64, String)]) {
        let data: Vec<u8> = rows.iter().flat_map(|(_, line)| line.bytes().chain([b'\n'])).collect();
        let times = rows.iter().map(|(time, _)| *time);
        self.infos.push(FrameInfo {
            min_ts: times.clone().min().unwrap_or(i64::MAX),
            max_ts: times.max().unwrap_or(i64::MIN),
            rows: rows.len() as u64,
            raw_bytes: data.len() as u64,
        });
        self.data.push(data);
    }
}

fn row(micros: i64, lane: u8, seq: u64, inputs: &str) -> (i64, String) {
    let time = jiff::Timestamp::from_microsecond(micros).expect("a time");
    let line = format!(
        "{{\"timestamp\":\"{time:.6}\",\"model_name\":\"wine\",\"id\":\"{lane}-{seq}\",\"inputs\":{inputs},\"outputs\":{{\"score\":0.5}},\
         \"writer\":\"{WRITER}-{lane:02x}\",\"seq\":{seq}}}"
    );
    (micros, line)
}

/// Two lanes that take turns by the frame, their times interleaved and a little out of order, around midnight.
fn two_lanes(rows: u64, per_frame: u64) -> Frames {
    let mut frames = Frames::default();
    for start in (0..rows).step_by(per_frame as usize) {
        for lane in 0..2u8 {
            let lines: Vec<(i64, String)> = (start..(start + per_frame).min(rows))
                .map(|seq| {
                    let jitter = [0, 7, -7, 0][(seq % 4) as usize];
                    let time = MIDNIGHT + (seq as i64 - rows as i64 / 2) * 10 + i64::from(lane) * 3 + jitter;
                    row(time, lane, seq, &format!("{{\"x\":{seq},\"name\":\"n{}\"}}", seq % 5))
                })
                .collect();
            frames.add(&lines);
        }
    }
    frames
}

struct Sealed {
    directory: tempfile::TempDir,
    schema: ModelSchema,
    bad: Vec<String>,
    result: Result<Vec<SealedFile>, SealError>,
}

fn run_in(directory: tempfile::TempDir, schema: ModelSchema, model: &str, memory: usize, frames: &Frames) -> Sealed {
    let (mut schema, mut bad, mut source) = (schema, Vec::new(), frames.clone());
    let mut on_bad = |line: &[u8], error: &_| bad.push(format!("{}: {error}", String::from_utf8_lossy(line)));
    let mut publish = |file: &SealedFile, _: &ModelSchema| {
        if file.path.exists() { Err(io::Error::other("published too early")) } else { Ok(()) }
    };
    let mut job = SealJob::new(model, directory.path(), &mut schema, &mut on_bad, &mut publish);
    job.memory_bytes = memory;
    job.window_bytes = 20_000;
    job.fsync = true;
    let result = seal(job, &mut source);
    Sealed { directory, schema, bad, result }
}

fn run(frames: &Frames) -> Sealed {
    run_in(tempfile::tempdir().expect("a directory"), ModelSchema::default(), "wine", 8 << 20, frames)
}

fn read(path: &Path) -> Vec<RecordBatch> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(path).expect("a file")).expect("Parquet");
    reader.build().expect("a reader").collect::<Result<_, _>>().expect("rows")
}

/// (timestamp, writer, seq) of all rows of a file.
fn rows_of(path: &Path) -> Vec<(i64, String, i64)> {
    let mut rows = Vec::new();
    for batch in read(path) {
        let times = batch.column_by_name("timestamp").expect("timestamp").as_primitive::<TimestampMicrosecondType>();
        let writers = batch.column_by_name("writer").expect("writer").as_string::<i32>();
        let seqs = batch.column_by_name("seq").expect("seq").as_primitive::<Int64Type>();
        rows.extend((0..batch.num_rows()).map(|at| (times.value(at), writers.value(at).to_owned(), seqs.value(at))));
    }
    rows
}

/// All files below a directory, by their path relative to it.
fn tree(root: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut open = vec![root.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(directory).expect("a directory") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                open.push(path);
            } else {
                let name = path.strip_prefix(root).expect("below the root").to_str().expect("UTF-8").to_owned();
                found.insert(name, fs::read(&path).expect("a file"));
            }
        }
    }
    found
}

/// Every row once, each file sorted and of one day, named and described by what is in it.
fn check(sealed: &Sealed, want: u64) -> Vec<SealedFile> {
    let files = sealed.result.as_ref().expect("sealed").clone();
    let mut seen = Vec::new();
    for file in &files {
        let rows = rows_of(&file.path);
        assert!(rows.is_sorted_by_key(|row| row.0));
        assert_eq!((rows.len() as u64, rows[0].0, rows[rows.len() - 1].0), (file.rows, file.min_ts, file.max_ts));
        assert_eq!(file.bytes, fs::metadata(&file.path).expect("a file").len());
        assert_eq!(file.min_ts.div_euclid(86_400_000_000), file.max_ts.div_euclid(86_400_000_000));
        let date = if file.min_ts < MIDNIGHT { "date=2026-11-22" } else { "date=2026-11-23" };
        let name = parse_file_name(file.relative.rsplit('/').next().expect("a name")).expect("our name");
        assert!(file.relative.contains(date));
        let seqs = rows.iter().filter(|row| row.1 == name.writer).map(|row| row.2 as u64);
        assert_eq!((seqs.clone().min(), seqs.max()), (Some(name.first_seq), Some(name.last_seq)));
        let described: u64 = file.writers.iter().flat_map(|(_, ranges)| ranges).map(|(first, last)| last - first + 1).sum();
        assert_eq!(described, file.rows);
        seen.extend(rows.into_iter().map(|row| (row.1, row.2)));
    }
    assert_eq!(seen.len() as u64, want);
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len() as u64, want, "no row is there twice");
    assert_eq!(tree(sealed.directory.path()).len(), files.len(), "nothing else is left");
    files
}

#[test]
fn overlapping_frames_become_one_sorted_file_a_day_with_the_same_bytes_each_time() {
    let frames = two_lanes(3_000, 200);
    let (one, two) = (run(&frames), run(&frames));
    assert_eq!(check(&one, 6_000).len(), 2);
    assert_eq!(tree(one.directory.path()), tree(two.directory.path()));
    // Again over the same files, as after a crash, now with the schema known: the same.
    let before = tree(one.directory.path());
    for path in before.keys() {
        fs::remove_file(one.directory.path().join(path)).expect("removed");
    }
    let again = run_in(one.directory, one.schema, "wine", 8 << 20, &frames);
    assert_eq!(tree(again.directory.path()), before);
}

#[test]
fn overlap_beyond_the_memory_makes_more_files_but_each_is_sorted() {
    let frames = two_lanes(3_000, 500);
    let sealed = run_in(tempfile::tempdir().expect("a directory"), ModelSchema::default(), "wine", 1_000, &frames);
    assert!(check(&sealed, 6_000).len() > 2);
}

#[test]
fn a_field_that_comes_late_is_in_all_files() {
    let mut frames = two_lanes(400, 50);
    let first = run(&frames);
    frames.add(&[row(MIDNIGHT + 10_000, 5, 0, r#"{"x":1,"late":[true]}"#), (MIDNIGHT + 10_001, "{\"bad".into())]);
    let sealed = run_in(tempfile::tempdir().expect("a directory"), first.schema.clone(), "wine", 8 << 20, &frames);
    for file in check(&sealed, 801) {
        let batch = &read(&file.path)[0];
        let inputs = batch.column_by_name("inputs").expect("inputs").as_struct();
        assert_eq!(inputs.column_names(), ["x", "name", "late"]);
        assert_eq!(batch.column_by_name("inputs_json").expect("inputs_json").null_count(), batch.num_rows());
    }
    assert_eq!(sealed.bad.len(), 1, "reported once, though the segment was read three times: {:?}", sealed.bad);
    assert!(sealed.bad[0].starts_with("{\"bad: line is not JSON"));
}

#[test]
fn bad_lines_cost_no_good_neighbour() {
    let mut frames = Frames::default();
    frames.add(&[row(MIDNIGHT, 0, 0, "{\"x\":1}")]);
    frames.data[0].extend_from_slice(b"\xff\xfe\n\n{\"timestamp\":\"2026-11-23T00:00:00.000001Z\",\"id\":}\n{}\n");
    frames.data[0].extend_from_slice(row(MIDNIGHT + 1, 0, 1, "{\"x\":2}").1.as_bytes());
    let sealed = run(&frames);
    check(&sealed, 2);
    assert_eq!(sealed.bad.len(), 3, "{:?}", sealed.bad);
}

#[test]
fn rows_earlier_than_their_frame_says_do_not_break_the_order() {
    let mut frames = two_lanes(200, 50);
    for info in &mut frames.infos {
        info.min_ts += 2_000;
    }
    assert!(check(&run(&frames), 400).len() >= 2);
}

#[test]
fn a_failure_leaves_nothing_and_can_be_tried_again() {
    let mut frames = two_lanes(3_000, 200);
    frames.broken = Some(frames.infos.len() - 1);
    let schema = run(&two_lanes(10, 10)).schema;
    let failed = run_in(tempfile::tempdir().expect("a directory"), schema, "wine", 8 << 20, &frames);
    assert!(matches!(failed.result, Err(SealError::Load { .. })));
    assert!(tree(failed.directory.path()).is_empty());

    frames.broken = None;
    let directory = failed.directory;
    let (mut schema, mut calls) = (failed.schema, 0);
    let mut refuse = |_: &SealedFile, _: &ModelSchema| {
        calls += 1;
        if calls == 2 { Err(io::Error::from(io::ErrorKind::StorageFull)) } else { Ok(()) }
    };
    let mut bad = |_: &[u8], _: &_| {};
    let error =
        seal(SealJob::new("wine", directory.path(), &mut schema, &mut bad, &mut refuse), &mut frames).expect_err("refused");
    assert_eq!(error.io_kind(), Some(io::ErrorKind::StorageFull));
    assert!(tree(directory.path()).is_empty());
    check(&run_in(directory, schema, "wine", 8 << 20, &frames), 6_000);
}

#[test]
fn a_name_too_long_for_a_path_is_a_column() {
    let frames = two_lanes(20, 10);
    let name = "é/".repeat(100);
    let sealed = run_in(tempfile::tempdir().expect("a directory"), ModelSchema::default(), &name, 8 << 20, &frames);
    for file in check(&sealed, 40) {
        assert!(
            file.relative.split('/').all(|part| part.len() <= MAX_COMPONENT_BYTES)
                && file.relative.contains(&model_partition(&name))
        );
        let batch = &read(&file.path)[0];
        assert!(
            batch
                .column_by_name("model_name_full")
                .expect("the name")
                .as_string::<i32>()
                .iter()
                .all(|found| found == Some(&name))
        );
        let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(&file.path).expect("a file")).expect("Parquet");
        let pairs = reader.metadata().file_metadata().key_value_metadata().expect("metadata").clone();
        let get = |key: &str| pairs.iter().find(|pair| pair.key == key).and_then(|pair| pair.value.clone());
        assert_eq!(get("predlog.model_name").as_deref(), Some(name.as_str()));
        assert_eq!(get("predlog.writers"), Some(file.writers.to_json()));
    }
}

#[test]
fn lines_without_a_writer_are_sealed_under_a_name_of_ours() {
    let mut frames = Frames::default();
    let lines = [3, 1, 2].map(|at| {
        let time = jiff::Timestamp::from_microsecond(MIDNIGHT + at).expect("a time");
        (MIDNIGHT + at, format!("{{\"id\":\"{at}\",\"timestamp\":\"{time}\"}}"))
    });
    frames.add(&lines);
    let (one, two) = (run(&frames), run(&frames));
    assert_eq!(tree(one.directory.path()), tree(two.directory.path()));
    let files = one.result.expect("sealed");
    let name = parse_file_name(files[0].relative.rsplit('/').next().expect("a name")).expect("our name");
    assert_eq!((name.first_seq, name.last_seq, files[0].rows), (0, 2, 3));
    assert!(run(&Frames::default()).result.expect("nothing").is_empty());
}
