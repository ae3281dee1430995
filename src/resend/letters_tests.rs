use super::*;
use crate::clock::Timestamp;
use crate::record::Writer;
use crate::sink::SinkErrorKind;
use crate::sink::broker::dead_letter::{DeadLetters, Letter};
use crate::sink::memory::MemorySink;
use crate::stats::Stats;
use std::time::Duration;

const MODEL: &str = "wine";

fn writer() -> Writer {
    Writer::new(Uuid::from_u128(7), 1)
}

fn line(seq: u64) -> Vec<u8> {
    format!(
        "{{\"timestamp\":\"2026-11-23T03:34:18.123456Z\",\"model_name\":\"{MODEL}\",\"writer\":\"{}\",\"seq\":{seq}}}\n",
        writer()
    )
    .into_bytes()
}

/// Buries a frame for each of `frames`, from a seq to before another.
fn bury(dir: &Path, frames: &[(u64, u64)]) -> DeadLetters {
    let mut letters = DeadLetters::new(dir, "kafka", Uuid::from_u128(1), 1 << 30);
    frames.iter().for_each(|&(from, to)| bury_more(&mut letters, from..to));
    letters
}

fn bury_more(letters: &mut DeadLetters, seqs: std::ops::Range<u64>) {
    let lines: Vec<u8> = seqs.flat_map(line).collect();
    let letter = Letter { topic: "t", reason: "too \"large\"", lines: &lines };
    letters.bury(&[letter], Timestamp::from_micros(0), &Stats::default()).unwrap();
}

fn sender(sink: &MemorySink) -> Sender {
    Sender::new(Box::new(sink.clone()), Default::default(), Duration::ZERO, Default::default())
}

fn run(dir: &Path, sink: &MemorySink) -> Result<Replayed, Error> {
    replay(dir, sender(sink), &mut |_| {})
}

fn left_in(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir.join("dead-letter")).unwrap();
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.retain(|name| name != LOCK);
    names.sort();
    names
}

#[test]
fn each_record_is_sent_as_it_was_and_its_file_goes() {
    let (dir, sink) = (tempfile::tempdir().unwrap(), MemorySink::new());
    let mut letters = bury(dir.path(), &[(0, 3), (5, 6)]);
    assert_eq!(count(dir.path(), &mut |_| {}).unwrap(), Replayed { left: 4, ..Replayed::default() });
    assert_eq!(run(dir.path(), &sink).unwrap(), Replayed { sent: 4, ..Replayed::default() });
    assert_eq!(sink.records().into_iter().map(|record| record.line).collect::<Vec<_>>(), [0, 1, 2, 5].map(line));
    assert_eq!(left_in(dir.path()), [""; 0]);
    // The process that wrote them goes on, into a new file.
    bury_more(&mut letters, 7..8);
    assert_eq!(run(dir.path(), &sink).unwrap(), Replayed { sent: 1, ..Replayed::default() });
    assert_eq!(run(dir.path(), &sink).unwrap(), Replayed::default());
    assert_eq!(sink.records().len(), 5);
}

#[test]
fn what_was_owned_before_a_failure_is_not_sent_again() {
    let (dir, sink) = (tempfile::tempdir().unwrap(), MemorySink::new());
    bury(dir.path(), &[(0, 15_000)]);
    sink.fail_with(Some(SinkErrorKind::Unavailable));
    let error = run(dir.path(), &sink).unwrap_err().to_string();
    assert!(error.contains("told to fail") && error.contains("run the command again"), "{error}");
    sink.fail_with(None);
    // As after a kill between two batches.
    let path = files(&dir.path().join("dead-letter")).unwrap().remove(0);
    State::load(sent(&path), TO).unwrap().add(Mark { part: LINES.to_owned(), through: 10_000 }).unwrap();
    assert_eq!(count(dir.path(), &mut |_| {}).unwrap().left, 5_000);
    assert_eq!(run(dir.path(), &sink).unwrap(), Replayed { sent: 5_000, ..Replayed::default() });
    assert_eq!(sink.records().first().map(|record| record.seq), Some(10_000));
    assert_eq!(left_in(dir.path()), [""; 0], "the state goes with its file");
}

#[test]
fn a_torn_end_is_kept_and_what_is_before_it_is_sent() {
    let (dir, sink) = (tempfile::tempdir().unwrap(), MemorySink::new());
    bury(dir.path(), &[(0, 3), (3, 9)]);
    let path = files(&dir.path().join("dead-letter")).unwrap().remove(0);
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() - 3]).unwrap();
    let replayed = run(dir.path(), &sink).unwrap();
    assert_eq!(replayed, Replayed { sent: 3, torn: 1, ..Replayed::default() });
    assert!(!replayed.is_clean());
    assert_eq!(std::fs::read_dir(dir.path().join("damaged")).unwrap().count(), 1);
    assert_eq!(run(dir.path(), &sink).unwrap(), Replayed::default());
}

#[test]
fn a_line_that_no_logger_made_keeps_its_file() {
    let (dir, sink) = (tempfile::tempdir().unwrap(), MemorySink::new());
    let mut letters = bury(dir.path(), &[(0, 2)]);
    let letter = Letter { topic: "t", reason: "r", lines: b"{\"a\":1}\n" };
    letters.bury(&[letter], Timestamp::from_micros(0), &Stats::default()).unwrap();
    assert_eq!(run(dir.path(), &sink).unwrap(), Replayed { sent: 2, left: 1, ..Replayed::default() });
    assert_eq!(run(dir.path(), &sink).unwrap(), Replayed { sent: 0, left: 1, ..Replayed::default() });
}

#[test]
fn one_replay_of_a_directory_runs_at_a_time() {
    let (dir, sink) = (tempfile::tempdir().unwrap(), MemorySink::new());
    bury(dir.path(), &[(0, 1)]);
    let held = lock(&dir.path().join("dead-letter").join(LOCK)).unwrap();
    let error = run(dir.path(), &sink).unwrap_err().to_string();
    assert!(error.contains("another process holds"), "{error}");
    drop(held);
    assert_eq!(run(dir.path(), &sink).unwrap().sent, 1);
}
