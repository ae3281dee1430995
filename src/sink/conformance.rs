//! The suite that every sink passes: call [`run`] from a test of your sink, with a [`Harness`] that opens it and reads it back.

use super::Sink;
use crate::batch::{Batch, Chunk, Origin};
use crate::clock::{Clock, SystemClock, Timestamp};
use crate::record::{Prediction, Writer, encode};
use serde_json::{Value, json};
use std::time::Duration;
use uuid::Uuid;

/// How the suite opens a sink and reads back what it has stored.
pub trait Harness {
    /// Opens the sink: an empty one the first time, and the same one as after a restart each time after.
    fn open(&mut self) -> Box<dyn Sink>;

    /// Everything stored so far, in any order. The sink is closed, or dropped without a close, when this is called.
    fn stored(&mut self) -> Vec<Row>;

    /// Makes the backend fail, or heals it, if the test can: `false` when it cannot, and the cases with failures are then the backend's own.
    fn fail(&mut self, failing: bool) -> bool;
}

/// A stored record, as far as the suite compares it.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Who wrote it.
    pub writer: String,
    /// Its place among that writer's records.
    pub seq: u64,
    /// Its id.
    pub id: String,
    /// Its model.
    pub model_name: String,
    /// UTC microseconds since 1970.
    pub timestamp: i64,
    /// The inputs, as JSON.
    pub inputs: Value,
    /// The outputs, as JSON.
    pub outputs: Value,
}

impl Row {
    /// From the line that was given to the sink.
    pub fn of_line(line: &[u8]) -> Row {
        let value: Value = serde_json::from_slice(line).expect("a line is JSON");
        let text = |key: &str| value[key].as_str().unwrap_or_default().to_owned();
        Row {
            writer: text("writer"),
            seq: value["seq"].as_u64().unwrap_or_default(),
            id: text("id"),
            model_name: text("model_name"),
            timestamp: Timestamp::parse(&text("timestamp")).map_or(0, Timestamp::micros),
            inputs: value["inputs"].clone(),
            outputs: value["outputs"].clone(),
        }
    }
}

type Case<H> = fn(&mut H);

/// Runs every case, each on a fresh harness.
///
/// # Panics
/// Where the sink breaks its contract, with the case's name.
pub fn run<H: Harness>(mut fresh: impl FnMut() -> H) {
    let cases: [(&str, Case<H>); 9] = [
        ("what is committed is stored, to the value", stores_what_is_committed),
        ("what is given twice is stored once", stores_once),
        ("what is given again after a restart is stored once", stores_once_over_restarts),
        ("older records replayed behind newer ones are stored", stores_replays_behind_newer),
        ("a batch cut differently the second time is stored once", stores_once_when_cut_differently),
        ("writers and models do not mix", keeps_writers_and_models_apart),
        ("what was not committed is not owned", loses_nothing_without_commit),
        ("a failure leaves the sink usable and owns nothing", survives_failures),
        ("an empty batch is fine", takes_an_empty_batch),
    ];
    for (name, case) in cases {
        println!("conformance: {name}");
        case(&mut fresh());
    }
}

/// Lines of one writer for the suite: `seqs` of them, from a few models, with awkward text in them.
pub struct Lines {
    writer: Writer,
    lines: Vec<(u64, Vec<u8>)>,
}

impl Lines {
    /// The records `seqs` of lane `lane`, of model `model`.
    pub fn of(lane: u8, model: &str, seqs: impl IntoIterator<Item = u64>) -> Self {
        let writer = Writer::new(Uuid::from_u128(0x0190_c0de), lane);
        let lines = seqs
            .into_iter()
            .map(|seq| {
                let inputs = json!({"alcohol": 9.4 + seq as f64, "color": "rouge \u{1F377} \"x\"", "count": seq, "nested": {"flag": seq % 2 == 0}});
                let outputs = json!({"score": seq as f64 / 3.0});
                let at = Timestamp::from_micros(1_763_868_858_000_000 + seq as i64);
                let id = format!("{lane}-{seq}");
                let mut line = Vec::new();
                encode::encode(&mut line, &Prediction::new(model, "1", &inputs, &outputs).id(&id), at, 1 << 20).expect("a valid prediction");
                line.extend_from_slice(format!(",\"writer\":\"{writer}\",\"seq\":{seq}}}\n").as_bytes());
                (seq, line)
            })
            .collect();
        Lines { writer, lines }
    }

    /// What the sink must have stored.
    pub fn rows(&self) -> Vec<Row> {
        self.lines.iter().map(|(_, line)| Row::of_line(line)).collect()
    }

    fn ndjson(&self) -> Vec<u8> {
        self.lines.iter().flat_map(|(_, line)| line.clone()).collect()
    }

    fn chunk<'a>(&self, ndjson: &'a [u8]) -> Chunk<'a> {
        let first = self.lines.first().map_or(0, |(seq, _)| *seq);
        let last = self.lines.last().map_or(0, |(seq, _)| *seq);
        Chunk::from_lines(self.writer, self.lines.len() as u64, first, last, ndjson)
    }
}

/// Writes `lines` as batch `id`.
fn write(sink: &mut dyn Sink, id: u64, origin: Origin, lines: &[&Lines]) -> Result<(), super::SinkError> {
    let texts: Vec<Vec<u8>> = lines.iter().map(|lines| lines.ndjson()).collect();
    let chunks = lines.iter().zip(&texts).map(|(lines, text)| lines.chunk(text)).collect();
    sink.write(&Batch { id, origin, chunks })
}

/// Writes and commits; panics when it takes the sink longer than 30 s to own the batch.
pub(crate) fn store(sink: &mut dyn Sink, id: u64, origin: Origin, lines: &[&Lines]) {
    write(sink, id, origin, lines).expect("write");
    let clock = SystemClock::default();
    while sink.commit().expect("commit").is_none_or(|owned| owned < id) {
        assert!(clock.now().monotonic < Duration::from_secs(30), "sink={} does not own batch={id} after 30 s", sink.name());
        std::thread::yield_now();
    }
}

fn close(mut sink: Box<dyn Sink>) {
    sink.close(SystemClock::default().now()).expect("close");
}

fn assert_stored(harness: &mut impl Harness, expected: &[&Lines]) {
    let mut stored = harness.stored();
    let mut expected: Vec<Row> = expected.iter().flat_map(|lines| lines.rows()).collect();
    let key = |row: &Row| (row.writer.clone(), row.seq);
    stored.sort_by_key(key);
    expected.sort_by_key(key);
    assert_eq!(stored.len(), expected.len(), "rows stored");
    for (stored, expected) in stored.iter().zip(&expected) {
        assert_eq!(stored, expected);
    }
}

fn stores_what_is_committed(harness: &mut impl Harness) {
    let (first, second) = (Lines::of(0, "wine", 0..100), Lines::of(0, "wine", 100..150));
    let mut sink = harness.open();
    store(&mut *sink, 1, Origin::Live, &[&first]);
    store(&mut *sink, 2, Origin::Live, &[&second]);
    close(sink);
    assert_stored(harness, &[&first, &second]);
}

fn stores_once(harness: &mut impl Harness) {
    let lines = Lines::of(0, "wine", 0..100);
    let mut sink = harness.open();
    store(&mut *sink, 1, Origin::Live, &[&lines]);
    store(&mut *sink, 2, Origin::Replay, &[&lines]);
    close(sink);
    assert_stored(harness, &[&lines]);
}

fn stores_once_over_restarts(harness: &mut impl Harness) {
    let lines = Lines::of(0, "wine", 0..100);
    let mut sink = harness.open();
    store(&mut *sink, 1, Origin::Live, &[&lines]);
    drop(sink);
    let mut sink = harness.open();
    store(&mut *sink, 1, Origin::Replay, &[&lines]);
    close(sink);
    assert_stored(harness, &[&lines]);
}

fn stores_replays_behind_newer(harness: &mut impl Harness) {
    let (older, newer) = (Lines::of(0, "wine", 0..50), Lines::of(0, "wine", 50..80));
    let mut sink = harness.open();
    store(&mut *sink, 1, Origin::Live, &[&newer]);
    store(&mut *sink, 2, Origin::Replay, &[&older]);
    store(&mut *sink, 3, Origin::Replay, &[&older]);
    close(sink);
    assert_stored(harness, &[&older, &newer]);
}

fn stores_once_when_cut_differently(harness: &mut impl Harness) {
    let (first, all) = (Lines::of(0, "wine", 0..60), Lines::of(0, "wine", 0..100));
    let odd = Lines::of(0, "wine", (0..140).filter(|seq| seq % 2 == 1));
    let rest = Lines::of(0, "wine", (100..140).filter(|seq| seq % 2 == 1));
    let mut sink = harness.open();
    store(&mut *sink, 1, Origin::Live, &[&first]);
    store(&mut *sink, 2, Origin::Replay, &[&all]);
    store(&mut *sink, 3, Origin::Replay, &[&odd]);
    close(sink);
    assert_stored(harness, &[&all, &rest]);
}

fn keeps_writers_and_models_apart(harness: &mut impl Harness) {
    let parts = [
        Lines::of(0, "wine", 0..10),
        Lines::of(1, "wine", 0..10),
        Lines::of(2, "../we ird/%41\u{202e}=x", 5..15),
        Lines::of(3, "1", 0..3),
    ];
    let mut sink = harness.open();
    store(&mut *sink, 1, Origin::Live, &parts.each_ref());
    close(sink);
    assert_stored(harness, &parts.each_ref());
}

fn loses_nothing_without_commit(harness: &mut impl Harness) {
    let (kept, dropped) = (Lines::of(0, "wine", 0..10), Lines::of(0, "wine", 10..20));
    let mut sink = harness.open();
    store(&mut *sink, 1, Origin::Live, &[&kept]);
    write(&mut *sink, 2, Origin::Live, &[&dropped]).expect("write");
    drop(sink);
    let mut sink = harness.open();
    store(&mut *sink, 1, Origin::Replay, &[&dropped]);
    close(sink);
    assert_stored(harness, &[&kept, &dropped]);
}

fn survives_failures(harness: &mut impl Harness) {
    let (before, during) = (Lines::of(0, "wine", 0..10), Lines::of(0, "wine", 10..20));
    let mut sink = harness.open();
    store(&mut *sink, 1, Origin::Live, &[&before]);
    if harness.fail(true) {
        for id in 2..5 {
            let failed =
                write(&mut *sink, id, Origin::Live, &[&during]).is_err() || sink.commit().map_or(true, |owned| owned < Some(id));
            assert!(failed, "sink={} took a batch while its backend failed", sink.name());
        }
        assert!(sink.probe().is_err(), "sink={} says it could take records while its backend fails", sink.name());
        harness.fail(false);
    }
    store(&mut *sink, 5, Origin::Live, &[&during]);
    sink.probe().expect("probe");
    close(sink);
    assert_stored(harness, &[&before, &during]);
}

fn takes_an_empty_batch(harness: &mut impl Harness) {
    let mut sink = harness.open();
    store(&mut *sink, 1, Origin::Live, &[]);
    close(sink);
    assert_stored(harness, &[]);
}
