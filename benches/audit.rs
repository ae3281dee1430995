//! How fast an audit reads, and what memory it takes: `cargo bench --bench audit [-- rows]`.
//!
//! Files of two models that share four lanes, so that each has every other seq of a lane.

mod support;

use arrow_array::{Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow_schema::{DataType, Field, Schema, TimeUnit};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use predlog::audit::{Target, Window, audit};
use rusqlite::{Connection, params};
use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;
use support::peak_rss_mib;

const ROWS: u64 = 20_000_000;
const LANES: u64 = 4;
const MODELS: [&str; 2] = ["wine", "churn"];
/// Rows of one model in one file.
const FILE_ROWS: u64 = 1_000_000;
/// 2026-11-23T00:00:00Z.
const START: i64 = 1_795_392_000_000_000;
const STEP: i64 = 50;

fn main() {
    let rows = std::env::args().skip(1).find_map(|argument| argument.parse().ok()).unwrap_or(ROWS);
    let rows = rows.next_multiple_of(FILE_ROWS * 2);
    let dir = tempfile::tempdir().expect("a temporary directory");
    let made = Instant::now();
    (0..rows / (FILE_ROWS * 2)).for_each(|at| files(dir.path(), at));
    ledger(dir.path(), rows);
    println!("{rows} rows were written in {:.1} s", made.elapsed().as_secs_f64());
    // From here on the peak is the audit's own: making the files took more.
    fs::write("/proc/self/clear_refs", "5").expect("the peak starts anew");
    let before = peak_rss_mib();
    let start = Instant::now();
    let report = audit(&Target::Directory(dir.path().to_owned()), Window::default(), &mut |_| ()).expect("the audit runs");
    let seconds = start.elapsed().as_secs_f64();
    assert!(report.complete && report.total.accepted == rows, "{report}");
    println!("{rows} rows were audited in {seconds:.2} s: {:.1} million rows a second", rows as f64 / seconds / 1e6);
    println!("peak memory: {:.1} MiB, of which {:.1} before the audit", peak_rss_mib(), before);
}

fn writer(lane: u64) -> String {
    format!("0198c0de-0000-7000-8000-00000000000a-{lane:02x}")
}

/// The `n`-th record: its lane, its seq there, its time.
fn record(n: u64) -> (u64, u64, i64) {
    (n % LANES, n / LANES, START + n as i64 * STEP)
}

/// The `at`-th file of each model: of two records of a lane that follow each other, each has one.
fn files(dir: &Path, at: u64) {
    for (number, model) in MODELS.iter().enumerate() {
        let from = at * FILE_ROWS * 2;
        let mine = (from..from + FILE_ROWS * 2).filter(|n| (n / LANES) % 2 == number as u64).map(record);
        let (mut writers, mut seqs, mut times) = (Vec::new(), Vec::new(), Vec::new());
        for (lane, seq, time) in mine {
            writers.push(writer(lane));
            seqs.push(seq as i64);
            times.push(time);
        }
        let time = DataType::Timestamp(TimeUnit::Microsecond, Some("+00:00".into()));
        let fields = [("writer", DataType::Utf8), ("seq", DataType::Int64), ("timestamp", time)];
        let schema = Arc::new(Schema::new(fields.map(|(name, kind)| Field::new(name, kind, true)).to_vec()));
        let batch = RecordBatch::try_new(
            Arc::clone(&schema),
            vec![
                Arc::new(StringArray::from(writers)),
                Arc::new(Int64Array::from(seqs)),
                Arc::new(TimestampMicrosecondArray::from(times).with_timezone("+00:00")),
            ],
        )
        .expect("columns");
        let properties = ["seq", "timestamp"].iter().fold(WriterProperties::builder(), |properties, column| {
            let column = parquet::schema::types::ColumnPath::from(*column);
            let properties = properties.set_column_dictionary_enabled(column.clone(), false);
            properties.set_column_encoding(column, Encoding::DELTA_BINARY_PACKED)
        });
        let name = KeyValue::new("predlog.model_name".to_owned(), (*model).to_owned());
        let level = ZstdLevel::try_new(1).expect("a level");
        let properties = properties.set_compression(Compression::ZSTD(level)).set_key_value_metadata(Some(vec![name])).build();
        let directory = dir.join(format!("predictions/model_name={model}/date=2026-11-23"));
        fs::create_dir_all(&directory).expect("a directory");
        let file = File::create(directory.join(format!("{at:06}.parquet"))).expect("a file");
        let mut out = ArrowWriter::try_new(file, schema, Some(properties)).expect("a writer");
        out.write(&batch).expect("rows");
        out.close().expect("the file is whole");
    }
}

/// What four lanes would have stated, hour by hour.
fn ledger(dir: &Path, rows: u64) {
    const HOUR: i64 = 3_600_000_000;
    let database = Connection::open(dir.join("predictions.db")).expect("a database");
    let columns = "timestamp, kind, about, first, last, model_name, hour, rows, reason, writer, seq";
    database.execute_batch(&format!("CREATE TABLE ledger({columns})")).expect("a table");
    let insert = format!("INSERT INTO ledger({columns}) VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, NULL, ?9, ?10)");
    let mut insert = database.prepare(&insert).expect("a statement");
    let (mut stated, per_hour) = (0, (HOUR / STEP) as u64);
    let mut state = |kind: &str, lane: u64, first: u64, last: u64, model: Option<&str>, hour: u64, count: u64| {
        let hour = model.map(|_| format!("2026-11-{:02}T{:02}:00:00Z", 23 + hour / 24, hour % 24));
        let values =
            params![START, kind, writer(lane), first as i64, last as i64, model, hour, count as i64, writer(255), stated];
        insert.execute(values).expect("an entry");
        stated += 1;
    };
    for lane in 0..LANES {
        for hour in 0..rows.div_ceil(per_hour) {
            let (first, behind) = (hour * per_hour / LANES, ((hour + 1) * per_hour).min(rows) / LANES);
            for (number, model) in MODELS.iter().enumerate() {
                let count = (first..behind).filter(|seq| seq % 2 == number as u64).count() as u64;
                state("accepted", lane, first, behind - 1, Some(model), hour, count);
            }
        }
        state("end", lane, 0, rows / LANES - 1, None, 0, rows / LANES);
    }
}
