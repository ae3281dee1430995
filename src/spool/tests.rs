use super::*;
use crate::batch::{Chunk, Origin};
use crate::clock::Timestamp;
use crate::record::{Prediction, writer_of_line};
use proptest::prelude::*;
use std::time::Duration;
use uuid::Uuid;

fn now(seconds: u64) -> Now {
    Now {
        monotonic: Duration::from_secs(seconds),
        wall: Timestamp::from_micros(1_763_868_858_000_000 + seconds as i64 * 1_000_000),
    }
}

fn writer(lane: u8) -> Writer {
    Writer::new(Uuid::from_u128(0x0190_c0de), lane)
}

fn line(model: &str, lane: u8, seq: u64) -> Vec<u8> {
    let mut line = Vec::new();
    let at = Timestamp::from_micros(1_763_868_858_000_000 + seq as i64);
    crate::record::encode::encode(&mut line, &Prediction::new(model, "1", &seq, &0.5).id("x"), at, 1 << 20).unwrap();
    line.extend_from_slice(format!(",\"writer\":\"{}\",\"seq\":{seq}}}\n", writer(lane)).as_bytes());
    line
}

fn lines(models: &[&str], lane: u8, seqs: std::ops::Range<u64>) -> Vec<u8> {
    seqs.flat_map(|seq| line(models[seq as usize % models.len()], lane, seq)).collect()
}

fn append(spool: &mut Spool, id: u64, lane: u8, first: u64, text: &[u8]) -> io::Result<u64> {
    let rows = text.iter().filter(|&&byte| byte == b'\n').count() as u64;
    let chunks = vec![Chunk::from_lines(writer(lane), rows, first, first + rows - 1, text)];
    spool.append(&Batch { id, origin: Origin::Live, chunks }, now(id), |_, _, _| true)
}

/// Every record under `root`, as (model, writer, seq), in order of segment and place.
fn stored(root: &Path) -> Vec<(String, Writer, u64)> {
    let mut stored = Vec::new();
    for path in segments(root).unwrap() {
        let Some(segment) = open_closed(&path).unwrap() else { continue };
        let mut reader = segment::SegmentReader::open(&path).unwrap();
        let mut raw = Vec::new();
        for frame in &segment.frames {
            reader.load(frame, &mut raw).unwrap();
            for chunk in frame.chunks(&raw) {
                stored.extend(chunk.lines().map(|(seq, line)| {
                    assert_eq!(writer_of_line(line), Some((chunk.writer, seq)));
                    (segment.model_name.clone(), chunk.writer, seq)
                }));
            }
        }
    }
    stored
}

#[test]
fn keeps_each_models_records_in_order_in_a_segment_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = Spool::new(dir.path().to_owned()).unwrap();
    let models = ["wine", "../x", "wine2"];
    assert_eq!(append(&mut spool, 1, 0, 0, &lines(&models, 0, 0..30)).unwrap(), 30);
    assert_eq!(append(&mut spool, 2, 0, 30, &lines(&models, 0, 30..60)).unwrap(), 30);
    let stored = stored(dir.path());
    assert_eq!(stored.len(), 60);
    for model in models {
        let seqs: Vec<u64> = stored.iter().filter(|(name, ..)| name == model).map(|(.., seq)| *seq).collect();
        assert!(seqs.len() == 20 && seqs.is_sorted(), "{model} {seqs:?}");
    }
    assert_eq!(spool.open_rows(), 60);
}

#[test]
fn a_large_batch_is_cut_into_frames_that_fit_in_memory() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = Spool::new(dir.path().to_owned()).unwrap();
    append(&mut spool, 1, 0, 0, &lines(&["wine"], 0, 0..20_000)).unwrap();
    let closed = spool.rotate(&RotationSettings::default(), now(1), true);
    let frames = &closed[0].0.frames;
    assert!(frames.len() > 2 && frames.iter().all(|frame| (frame.raw_bytes as usize) < FRAME_LIMIT), "{}", frames.len());
    assert_eq!(closed[0].0.rows, 20_000);
    assert_eq!(stored(dir.path()).len(), 20_000);
}

#[test]
fn large_batches_can_be_stored_as_they_are_and_zstd_reads_them_all_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = Spool::new(dir.path().to_owned()).unwrap().raw_from(100_000);
    let (few, many) = (lines(&["wine"], 0, 0..100), lines(&["wine"], 0, 100..20_000));
    append(&mut spool, 1, 0, 0, &few).unwrap();
    let compressed = spool.open_bytes();
    assert!(compressed < few.len() as u64 / 2, "{compressed}");
    append(&mut spool, 2, 0, 100, &many).unwrap();
    assert!(spool.open_bytes() > compressed + many.len() as u64);
    let file = std::fs::read(&segments(dir.path()).unwrap()[0]).unwrap();
    assert!(zstd::decode_all(&file[..]).unwrap() == [few, many].concat(), "zstdcat shows the lines");
    assert_eq!(stored(dir.path()).len(), 20_000);
}

const FRAME_LIMIT: usize = frame::FRAME_BYTES + 1_000;

#[test]
fn rotates_by_its_settings_and_opens_a_new_segment_after() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = Spool::new(dir.path().to_owned()).unwrap();
    let settings = RotationSettings { max_rows: 10, ..RotationSettings::default() };
    append(&mut spool, 1, 0, 0, &lines(&["wine"], 0, 0..9)).unwrap();
    assert!(spool.rotate(&settings, now(1), false).is_empty());
    append(&mut spool, 2, 0, 9, &lines(&["wine"], 0, 9..10)).unwrap();
    let closed = spool.rotate(&settings, now(2), false);
    assert_eq!(closed[0].1, Some(RotationReason::Rows));
    append(&mut spool, 3, 0, 10, &lines(&["wine"], 0, 10..11)).unwrap();
    assert_eq!(segments(dir.path()).unwrap().len(), 2);
}

#[test]
fn many_models_do_not_keep_many_files_open() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = Spool::new(dir.path().to_owned()).unwrap();
    for step in 0..300 {
        append(&mut spool, step, 0, step, &line(&format!("m{step}"), 0, step)).unwrap();
        spool.rotate(&RotationSettings::default(), now(1), false);
    }
    assert_eq!(spool.open.len(), MAX_OPEN_SEGMENTS);
    assert_eq!(stored(dir.path()).len(), 300);
}

#[test]
fn a_batch_of_many_models_keeps_few_files_open() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = Spool::new(dir.path().to_owned()).unwrap();
    let models: Vec<String> = (0..300).map(|at| format!("m{at}")).collect();
    let models: Vec<&str> = models.iter().map(String::as_str).collect();
    for batch in 0..2 {
        let seqs = batch * 300..(batch + 1) * 300;
        assert_eq!(append(&mut spool, batch, 0, seqs.start, &lines(&models, 0, seqs)).unwrap(), 300);
        spool.sync().unwrap();
        let links = std::fs::read_dir("/proc/self/fd").unwrap().filter_map(|fd| std::fs::read_link(fd.unwrap().path()).ok());
        assert_eq!(links.filter(|link| link.starts_with(dir.path())).count(), MAX_OPEN_SEGMENTS);
    }
    // A batch that fails is taken back from all of them.
    let mut bad = lines(&models, 0, 600..900);
    bad.extend_from_slice(b"{\"not\":\"ours\"}\n");
    append(&mut spool, 2, 0, 600, &bad).unwrap_err();
    assert_eq!(stored(dir.path()).len(), 600);
    spool.rotate(&RotationSettings::default(), now(1), false);
    assert_eq!(spool.open.len(), MAX_OPEN_SEGMENTS);
}

#[test]
fn a_failed_batch_leaves_nothing_and_the_next_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = Spool::new(dir.path().to_owned()).unwrap();
    append(&mut spool, 1, 0, 0, &lines(&["a", "b"], 0, 0..10)).unwrap();
    let mut bad = lines(&["a", "b", "c"], 0, 10..20);
    bad.extend_from_slice(b"{\"not\":\"ours\"}\n");
    assert_eq!(append(&mut spool, 2, 0, 10, &bad).unwrap_err().kind(), io::ErrorKind::InvalidData);
    assert_eq!(stored(dir.path()).len(), 10);
    append(&mut spool, 3, 0, 10, &lines(&["a", "b"], 0, 10..20)).unwrap();
    assert_eq!(stored(dir.path()).len(), 20);
    spool.rotate(&RotationSettings::default(), now(9), true);
    assert_eq!(segments(dir.path()).unwrap().len(), 2, "the segment that the failed batch opened is gone");
}

#[test]
fn the_index_knows_what_the_segments_hold() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = Spool::new(dir.path().to_owned()).unwrap();
    append(&mut spool, 1, 0, 0, &lines(&["a", "b\"c"], 0, 0..10)).unwrap();
    let mut index = SpoolIndex::default();
    for path in segments(dir.path()).unwrap() {
        index.add(&open_closed(&path).unwrap().unwrap());
    }
    assert!(index.contains(b"a", writer(0), 8) && index.contains(br#"b\"c"#, writer(0), 9));
    assert!(!index.contains(b"a", writer(0), 10) && !index.contains(b"a", writer(1), 8) && !index.contains(b"z", writer(0), 8));
    let again = lines(&["a", "b\"c"], 0, 0..12);
    let chunks = vec![Chunk::from_lines(writer(0), 12, 0, 11, &again)];
    let batch = Batch { id: 2, origin: Origin::Replay, chunks };
    assert_eq!(spool.append(&batch, now(2), |model, writer, seq| !index.contains(model, writer, seq)).unwrap(), 2);
}

#[test]
fn a_segment_whose_first_frame_is_torn_holds_nothing_and_is_not_damaged() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = Spool::new(dir.path().to_owned()).unwrap();
    append(&mut spool, 1, 0, 0, &lines(&["wine"], 0, 0..100)).unwrap();
    let path = &segments(dir.path()).unwrap()[0];
    let bytes = std::fs::read(path).unwrap();
    for len in [0, 1, bytes.len() / 2, bytes.len() - 1] {
        std::fs::write(path, &bytes[..len]).unwrap();
        assert!(holds_nothing(path).unwrap(), "{len} of {} bytes", bytes.len());
    }
    let mut damaged = bytes.clone();
    damaged[bytes.len() - 1] ^= 1;
    for bytes in [bytes, damaged] {
        std::fs::write(path, bytes).unwrap();
        assert!(!holds_nothing(path).unwrap());
    }
}

#[test]
fn zstd_reads_a_segment_as_lines() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = Spool::new(dir.path().to_owned()).unwrap();
    let text = lines(&["wine"], 0, 0..10);
    append(&mut spool, 1, 0, 0, &text[..]).unwrap();
    append(&mut spool, 2, 0, 10, &lines(&["wine"], 0, 10..20)).unwrap();
    let file = std::fs::File::open(&segments(dir.path()).unwrap()[0]).unwrap();
    let decoded = zstd::stream::decode_all(file).unwrap();
    assert_eq!(decoded, [text, lines(&["wine"], 0, 10..20)].concat());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Cut at any byte, a segment gives all frames that are whole, and no error.
    #[test]
    fn a_torn_end_costs_only_the_torn_frame(cut in 0.0f64..1.0) {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = Spool::new(dir.path().to_owned()).unwrap();
        (0..5).for_each(|step| { append(&mut spool, step, 0, step * 10, &lines(&["wine"], 0, step * 10..step * 10 + 10)).unwrap(); });
        let path = &segments(dir.path()).unwrap()[0];
        let bytes = std::fs::read(path).unwrap();
        let whole = segment::read(path).unwrap().frames;
        let cut = (bytes.len() as f64 * cut) as u64;
        std::fs::write(path, &bytes[..cut as usize]).unwrap();
        let contents = segment::read(path).unwrap();
        prop_assert_eq!(contents.damaged, 0);
        prop_assert_eq!(contents.frames.len(), whole.iter().filter(|frame| frame.offset + frame.total_bytes() <= cut).count());
    }

    /// A flipped byte costs at most the frame that it is in, and is counted.
    #[test]
    fn damage_costs_one_frame_and_is_counted(at in 0.0f64..1.0, flip in 1u8..) {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = Spool::new(dir.path().to_owned()).unwrap();
        (0..5).for_each(|step| { append(&mut spool, step, 0, step * 10, &lines(&["wine"], 0, step * 10..step * 10 + 10)).unwrap(); });
        let path = &segments(dir.path()).unwrap()[0];
        let mut bytes = std::fs::read(path).unwrap();
        let at = ((bytes.len() - 1) as f64 * at) as usize;
        let whole = segment::read(path).unwrap().frames;
        bytes[at] ^= flip;
        std::fs::write(path, bytes).unwrap();
        let contents = segment::read(path).unwrap();
        let hit = whole.iter().position(|frame| (frame.offset..frame.offset + frame.total_bytes()).contains(&(at as u64))).unwrap();
        let last = hit + 1 == whole.len();
        prop_assert!(contents.damaged > 0 || last);
        let expected: Vec<_> = whole.into_iter().enumerate().filter(|(index, _)| *index != hit).map(|(_, frame)| frame).collect();
        prop_assert_eq!(contents.frames, expected);
    }
}

#[test]
fn a_bit_that_changes_in_a_frame_is_noticed_when_it_is_loaded() {
    for raw_from in [0, u64::MAX] {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = Spool::new(dir.path().to_owned()).unwrap().raw_from(raw_from);
        append(&mut spool, 1, 0, 0, &lines(&["wine"], 0, 0..100)).unwrap();
        let path = segments(dir.path()).unwrap().remove(0);
        let segment = open_closed(&path).unwrap().unwrap();
        let mut bytes = std::fs::read(&path).unwrap();
        let last = bytes.len() - 20;
        bytes[last] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        let loaded = segment::SegmentReader::open(&path).unwrap().load(&segment.frames[0], &mut Vec::new());
        assert!(loaded.is_err(), "raw_from={raw_from}");
    }
}
