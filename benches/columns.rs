//! Lines to columns to Parquet, beside arrow-json and serde_json in the same run. `cargo bench --bench columns [-- rows [decode|decoder|shapes|encode|seal|sealer]]`.

#[path = "support/shapes.rs"]
mod shapes;

use std::hint::black_box;
use std::io::{self, Cursor};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow_array::RecordBatch;
use arrow_json::ReaderBuilder;
use arrow_schema::SchemaRef;
use parquet::arrow::arrow_writer::{ArrowWriter, ArrowWriterOptions};
use predlog::format::decode::{RowDecoder, arrow_schema};
use predlog::format::infer::Inference;
use predlog::format::parquet::{Order, writer_properties};
use predlog::format::schema::ModelSchema;
use predlog::format::seal::{FrameInfo, FrameSource, SealJob, seal};
use serde::Deserialize;

const MODEL: &str = "wine";
const FRAME_ROWS: usize = 700;
const WINDOW_ROWS: usize = 2_900;
const ROUNDS: usize = 5;

/// Predictions of about 359 bytes: uuid id, 12 mixed features, score, label, latency.
fn lines(count: usize) -> Vec<String> {
    let mut random = fastrand::Rng::with_seed(7);
    let start: jiff::Timestamp = "2026-11-23T03:34:18Z".parse().expect("a timestamp");
    (0..count)
        .map(|row| {
            let time = start + Duration::from_micros(row as u64 * 20);
            let id = uuid::Builder::from_random_bytes(random.u128(..).to_be_bytes()).into_uuid();
            let score = random.f64();
            format!(
                "{{\"timestamp\":\"{time:.6}\",\"model_name\":\"{MODEL}\",\"id\":\"{id}\",\"inputs\":{{\"age\":{},\"pay\":{:.2},\
                 \"term\":{},\"plan\":\"{}\",\"ph\":{:.2},\"alc\":{:.1},\"x\":{:.3},\"on\":{},\"n\":{},\"cc\":\"{}\",\"so2\":{}.0,\
                 \"y\":{:.2}}},\"outputs\":{{\"score\":{score},\"label\":\"{}\"}},\"latency_ms\":{:.3},\
                 \"writer\":\"0198c0de-0000-7000-8000-00000000000a-0{}\",\"seq\":{}}}",
                random.u32(18..90),
                random.f64() * 90_000.0,
                random.u32(0..240),
                ["basic", "plus", "pro"][random.usize(..3)],
                2.8 + random.f64(),
                8.0 + random.f64() * 6.0,
                random.f64(),
                random.bool(),
                random.u32(..500),
                ["DE", "FR", "US", "GB", "IT"][random.usize(..5)],
                random.u32(5..200),
                random.f64(),
                if score > 0.5 { "good" } else { "bad" },
                random.f64() * 10.0,
                row % 2,
                row / 2,
            )
        })
        .collect()
}

/// Processor time of this thread: all work here is on one, and other processes' load does not count. Wall time where the kernel does not tell.
fn now(start: Instant) -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let on_processor = text.split(' ').next().and_then(|nanos| nanos.parse().ok());
    on_processor.map_or_else(|| start.elapsed(), Duration::from_nanos)
}

/// The median of some rounds, after one that warms up.
fn time(mut work: impl FnMut()) -> Duration {
    work();
    let start = Instant::now();
    let mut times: Vec<Duration> = (0..ROUNDS)
        .map(|_| {
            let before = now(start);
            work();
            now(start) - before
        })
        .collect();
    times.sort();
    times[ROUNDS / 2]
}

struct Table {
    rows: usize,
    bytes: usize,
    base: Duration,
}

impl Table {
    fn head(&mut self, title: &str) {
        println!("\n{title:<44} {:>10} {:>9} {:>9} {:>7}", "lines/s", "ns/line", "MB/s", "ratio");
    }

    fn row(&mut self, name: &str, took: Duration, is_base: bool) {
        if is_base {
            self.base = took;
        }
        let seconds = took.as_secs_f64();
        println!(
            "  {name:<42} {:>10.0} {:>9.0} {:>9.0} {:>6.2}x",
            self.rows as f64 / seconds,
            seconds * 1e9 / self.rows as f64,
            self.bytes as f64 / seconds / 1e6,
            self.base.as_secs_f64() / seconds
        );
    }
}

/// The segment as frames in memory: what the spool decompresses.
struct Frames {
    infos: Vec<FrameInfo>,
    data: Vec<Vec<u8>>,
}

impl FrameSource for Frames {
    fn frames(&self) -> &[FrameInfo] {
        &self.infos
    }

    fn load(&mut self, index: usize, into: &mut Vec<u8>) -> io::Result<()> {
        into.extend_from_slice(&self.data[index]);
        Ok(())
    }
}

fn micros(line: &str) -> i64 {
    line[14..41].parse::<jiff::Timestamp>().expect("a timestamp").as_microsecond()
}

/// Two lanes whose frames follow each other, each a frame of its own time.
fn frames(lines: &[&str]) -> Frames {
    let mut frames = Frames { infos: Vec::new(), data: Vec::new() };
    for chunk in lines.chunks(2 * FRAME_ROWS) {
        for lane in 0..2 {
            let lane: Vec<&&str> = chunk.iter().skip(lane).step_by(2).collect();
            let (Some(first), Some(last)) = (lane.first(), lane.last()) else { continue };
            let data: Vec<u8> = lane.iter().flat_map(|line| line.bytes().chain([b'\n'])).collect();
            frames.infos.push(FrameInfo {
                min_ts: micros(first),
                max_ts: micros(last),
                rows: lane.len() as u64,
                raw_bytes: data.len() as u64,
            });
            frames.data.push(data);
        }
    }
    frames
}

fn decode(schema: &ModelSchema, lines: &[&str], mut each: impl FnMut(RecordBatch)) {
    let mut decoder = RowDecoder::new(schema);
    for line in lines {
        decoder.push_line(line.as_bytes()).expect("a row");
        if decoder.rows() == WINDOW_ROWS {
            each(decoder.finish().expect("columns"));
        }
    }
    each(decoder.finish().expect("columns"));
}

fn arrow_json(schema: &SchemaRef, text: &[u8], mut each: impl FnMut(RecordBatch)) {
    let builder = ReaderBuilder::new(Arc::clone(schema)).with_batch_size(1_024).with_coerce_primitive(true);
    let reader = builder.build(Cursor::new(text)).expect("a reader");
    for batch in reader {
        each(batch.expect("rows"));
    }
}

#[derive(Deserialize)]
#[expect(dead_code, reason = "only the work of filling it is measured")]
struct Row<'a> {
    timestamp: &'a str,
    model_name: &'a str,
    id: &'a str,
    #[serde(borrow)]
    inputs: Inputs<'a>,
    #[serde(borrow)]
    outputs: Outputs<'a>,
    latency_ms: f64,
    writer: &'a str,
    seq: u64,
}

#[derive(Deserialize)]
#[expect(dead_code, reason = "only the work of filling it is measured")]
struct Inputs<'a> {
    age: i64,
    pay: f64,
    term: i64,
    plan: &'a str,
    ph: f64,
    alc: f64,
    x: f64,
    on: bool,
    n: i64,
    cc: &'a str,
    so2: f64,
    y: f64,
}

#[derive(Deserialize)]
#[expect(dead_code, reason = "only the work of filling it is measured")]
struct Outputs<'a> {
    score: f64,
    label: &'a str,
}

fn infer(lines: &[&str]) -> ModelSchema {
    let mut inference = Inference::new();
    for line in lines {
        inference.push_line(line.as_bytes()).expect("a line");
    }
    inference.schema()
}

fn encode<'a>(schema: &ModelSchema, rows: usize, batches: impl IntoIterator<Item = &'a RecordBatch>) -> usize {
    let schema = arrow_schema(schema);
    let properties = writer_properties(&schema, MODEL, rows as u64, Order::Timestamp).expect("properties");
    let options = ArrowWriterOptions::new().with_properties(properties).with_skip_arrow_metadata(true);
    let mut writer = ArrowWriter::try_new_with_options(Vec::new(), schema, options).expect("a writer");
    for batch in batches {
        writer.write(batch).expect("written");
        if writer.in_progress_size() >= 8 << 20 {
            writer.flush().expect("written");
        }
    }
    writer.into_inner().expect("written").len()
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let rows = arguments.first().and_then(|rows| rows.parse().ok()).unwrap_or(200_000);
    let only = arguments.get(1).cloned().unwrap_or_default();
    // One text for all, so that none has its bytes nearer than another.
    let text: String = lines(rows).iter().flat_map(|line| [line.as_str(), "\n"]).collect();
    let lines: Vec<&str> = text.lines().collect();
    let text = text.as_bytes();
    println!("{rows} lines, {:.1} bytes each; a second is one of processor time", text.len() as f64 / rows as f64);
    let schema = infer(&lines);
    let mut table = Table { rows, bytes: text.len(), base: Duration::ZERO };
    let mut batches = Vec::new();
    decode(&schema, &lines, |batch| batches.push(batch));

    if only.is_empty() || only == "decode" {
        decode_table(&mut table, &schema, &lines, text);
    }
    if only == "sealer" {
        table.head("lines to sealed Parquet");
        let took = time_seal(&lines, &schema, &mut 0);
        table.row("predlog seal, known schema", took, true);
    }
    if only == "decoder" {
        table.head("lines to columns");
        table.row("predlog RowDecoder", time(|| decode(&schema, &lines, |batch| drop(black_box(batch)))), true);
    }
    if only.is_empty() || only == "shapes" {
        shapes_table(rows / 4);
    }
    if only.is_empty() || only == "encode" {
        table.head("columns to Parquet, in memory");
        let mut size = 0;
        let took = time(|| size = encode(&schema, rows, &batches));
        table.row(&format!("ArrowWriter, our properties, {:.1} B/line", size as f64 / rows as f64), took, true);
    }
    if only.is_empty() || only == "seal" {
        seal_table(&mut table, &schema, &lines, text);
    }
}

fn decode_table(table: &mut Table, schema: &ModelSchema, lines: &[&str], text: &[u8]) {
    table.head("lines to columns");
    let arrow = arrow_schema(schema);
    table.row("arrow-json", time(|| arrow_json(&arrow, text, |batch| drop(black_box(batch)))), true);
    let serde = || {
        for line in lines {
            black_box(serde_json::from_str::<Row>(line).expect("a row"));
        }
    };
    table.row("serde_json to a struct (no columns)", time(serde), false);
    table.row("predlog RowDecoder", time(|| decode(schema, lines, |batch| drop(black_box(batch)))), false);
    table.row("predlog Inference", time(|| drop(black_box(infer(lines)))), false);
}

/// Shapes that no prediction of keys fits: each beside arrow-json on the same lines.
fn shapes_table(rows: usize) {
    let mut table = Table { rows, bytes: 0, base: Duration::ZERO };
    table.head("lines whose shape changes, to columns");
    for shape in &shapes::SHAPES {
        let text: String = shape.lines(rows).iter().flat_map(|line| [line.as_str(), "\n"]).collect();
        let lines: Vec<&str> = text.lines().collect();
        let mut schema = infer(&lines);
        schema.inputs.fields.retain(|field| !field.name.starts_with(shapes::EXTRA));
        let peer = shapes::peer_schema(&arrow_schema(&schema), shape);
        table.bytes = text.len();
        println!("  {} ({:.0} bytes a line)", shape.name, text.len() as f64 / rows as f64);
        table.row("  arrow-json", time(|| arrow_json(&peer, text.as_bytes(), |batch| drop(black_box(batch)))), true);
        table.row("  predlog RowDecoder", time(|| decode(&schema, &lines, |batch| drop(black_box(batch)))), false);
    }
}

fn time_seal(lines: &[&str], schema: &ModelSchema, size: &mut u64) -> Duration {
    let mut source = frames(lines);
    time(|| {
        let directory = tempfile::tempdir().expect("a directory");
        let mut schema = schema.clone();
        let (mut bad, mut publish) = (|_: &[u8], _: &_| panic!("no line is bad"), |_: &_, _: &_| Ok(()));
        let job = SealJob::new(MODEL, directory.path(), &mut schema, &mut bad, &mut publish);
        *size = seal(job, &mut source).expect("sealed").iter().map(|file| file.bytes).sum();
    })
}

fn seal_table(table: &mut Table, schema: &ModelSchema, lines: &[&str], text: &[u8]) {
    table.head("lines to sealed Parquet");
    let peer = || {
        let arrow = arrow_schema(schema);
        let file = tempfile::tempfile().expect("a file");
        let properties = writer_properties(&arrow, MODEL, table.rows as u64, Order::Timestamp).expect("properties");
        let mut writer = ArrowWriter::try_new(file, Arc::clone(&arrow), Some(properties)).expect("a writer");
        arrow_json(&arrow, text, |batch| writer.write(&batch).expect("written"));
        writer.close().expect("written");
    };
    let took = time(peer);
    table.row("arrow-json + ArrowWriter, same properties", took, true);
    let mut size = 0;
    table.row("predlog seal, known schema", time_seal(lines, schema, &mut size), false);
    table.row("predlog seal, schema inferred first", time_seal(lines, &ModelSchema::default(), &mut size), false);
    println!("  {:.1} bytes a line in Parquet", size as f64 / table.rows as f64);
}
