use super::*;
use crate::record::writer_of_line;
use proptest::prelude::*;

const BUFFER: usize = 1 << 12;

fn process() -> Uuid {
    Uuid::from_u128(0x0190_c0de)
}

fn lines(lanes: &Lanes, taken: &[Taken]) -> Vec<(u64, String)> {
    taken
        .iter()
        .flat_map(|taken| lanes.chunk(taken).lines().map(|(seq, line)| (seq, String::from_utf8(line.to_vec()).unwrap())))
        .collect()
}

fn accept(lanes: &Lanes, line: &[u8]) -> u64 {
    match lanes.push(line) {
        Push::Accepted { seq, .. } => seq,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_pushed_is_taken_in_order_with_writer_and_seq() {
    let lanes = Lanes::in_memory(process(), 1, BUFFER).unwrap();
    assert_eq!((accept(&lanes, b"{\"a\":1"), accept(&lanes, b"{\"a\":2")), (0, 1));
    let taken = lanes.take();
    let writer = Writer::new(process(), 0);
    assert_eq!(
        lines(&lanes, &taken),
        (0..2).map(|seq| (seq, format!("{{\"a\":{},\"writer\":\"{writer}\",\"seq\":{seq}}}\n", seq + 1))).collect::<Vec<_>>()
    );
    assert_eq!(accept(&lanes, b"{\"a\":3"), 2);
    let mut in_flight = lanes.take();
    assert_eq!(in_flight[0].first_seq, 2, "while the first is on its way, the next is taken");
    for seq in 3..BUFFERS as u64 {
        assert_eq!(accept(&lanes, b"{\"a\":4"), seq);
        in_flight.extend(lanes.take());
    }
    assert_eq!(accept(&lanes, b"{\"a\":5"), BUFFERS as u64);
    assert!(lanes.take().is_empty(), "no other buffer is free");
    taken.into_iter().for_each(|taken| lanes.release(taken));
    assert_eq!(lanes.take()[0].first_seq, BUFFERS as u64);
}

#[test]
fn a_full_lane_says_so_and_takes_again_when_a_buffer_is_released() {
    let lanes = Lanes::in_memory(process(), 1, BUFFER).unwrap();
    let line = vec![b'x'; 1_000];
    let mut woken = 0;
    while let Push::Accepted { wake, .. } = lanes.push(&line) {
        woken += usize::from(wake);
    }
    assert_eq!(woken, BUFFERS - 1, "only a move to another buffer wakes the worker");
    let accepted = lanes.accepted()[0];
    assert_eq!(lanes.pending().rows, accepted);
    assert_eq!(lanes.push(&line), Push::Full);
    let taken = lanes.take();
    assert_eq!(taken[0].first_seq, 0, "the oldest buffer first");
    taken.into_iter().for_each(|taken| lanes.release(taken));
    assert_eq!(accept(&lanes, &line), accepted, "a line that was refused took no seq");
}

#[test]
fn one_thread_fills_all_lanes_before_it_is_refused() {
    let lanes = Lanes::in_memory(process(), 3, BUFFER).unwrap();
    let line = vec![b'x'; 1_000];
    while matches!(lanes.push(&line), Push::Accepted { .. }) {}
    let accepted = lanes.accepted();
    assert!(accepted.iter().all(|&rows| rows == accepted[0] && rows > 0), "{accepted:?}");
    assert!(
        lanes.pending().bytes + (3 * BUFFERS * 1_100) as u64 > lanes.capacity(),
        "{:?} of {}",
        lanes.pending(),
        lanes.capacity()
    );
}

#[test]
fn a_line_longer_than_a_buffer_is_refused_and_does_no_harm() {
    let lanes = Lanes::in_memory(process(), 1, BUFFER).unwrap();
    assert_eq!(lanes.push(&vec![b'x'; BUFFER]), Push::Full);
    assert!(matches!(lanes.push(&vec![b'x'; Lanes::max_line(BUFFER)]), Push::Accepted { .. }));
}

#[test]
fn a_closed_lane_takes_nothing() {
    let lanes = Lanes::in_memory(process(), 2, BUFFER).unwrap();
    lanes.close();
    assert_eq!(lanes.push(b"{"), Push::Closed);
}

#[test]
fn threads_lose_nothing_and_every_lane_is_gapless() {
    let lanes = Lanes::in_memory(process(), 3, 1 << 16).unwrap();
    let stop = std::sync::atomic::AtomicBool::new(false);
    let mut seen = vec![0; 3];
    std::thread::scope(|scope| {
        let callers: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| (0..20_000).filter(|_| matches!(lanes.push(b"{\"a\":1"), Push::Accepted { .. })).count() as u64)
            })
            .collect();
        let worker = scope.spawn(|| {
            let mut seen = vec![0; 3];
            loop {
                let last = stop.load(Ordering::Acquire);
                let taken = lanes.take();
                let empty = taken.is_empty();
                for taken in taken {
                    for (seq, line) in lanes.chunk(&taken).lines() {
                        assert_eq!(writer_of_line(line), Some((taken.writer, seq)));
                        assert_eq!(seq, seen[usize::from(taken.writer.lane())]);
                        seen[usize::from(taken.writer.lane())] += 1;
                    }
                    lanes.release(taken);
                }
                if last && empty {
                    return seen;
                }
            }
        });
        let accepted: u64 = callers.into_iter().map(|caller| caller.join().unwrap()).sum();
        stop.store(true, Ordering::Release);
        seen = worker.join().unwrap();
        assert_eq!(seen.iter().sum::<u64>(), accepted);
    });
    assert_eq!(seen, lanes.accepted());
}

/// What a killed process leaves: the file as it is at that moment.
fn crash_image(lanes: &Lanes, from: &Path, to: &Path) -> recover::DeadLanes {
    assert!(lanes.capacity() > 0);
    std::fs::copy(from, to).unwrap();
    recover::recover(to).unwrap()
}

fn recovered(dead: &recover::DeadLanes) -> Vec<(u8, u64)> {
    dead.chunks().iter().flat_map(|chunk| chunk.lines().map(|(seq, _)| (chunk.writer.lane(), seq))).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// Random pushes, takes and releases: at every step a crash image gives what was accepted and not released, and nothing else.
    #[test]
    fn a_crash_image_holds_what_was_accepted_and_not_released(steps in proptest::collection::vec((0u8..10, 1usize..600), 1..120)) {
        let dir = tempfile::tempdir().unwrap();
        let (path, image) = (dir.path().join("lanes"), dir.path().join("image"));
        let lanes = Lanes::in_file(&path, process(), 1, BUFFER).unwrap();
        let mut expected: Vec<u64> = Vec::new();
        let mut in_flight: Vec<Taken> = Vec::new();
        for (step, (what, len)) in steps.into_iter().enumerate() {
            match what {
                0 => in_flight.extend(lanes.take()),
                1 => if !in_flight.is_empty() {
                    let taken = in_flight.remove(0);
                    expected.retain(|&seq| seq < taken.first_seq || seq >= taken.first_seq + taken.rows);
                    lanes.release(taken);
                },
                _ => if let Push::Accepted { seq, .. } = lanes.push(&vec![b'x'; len]) {
                    expected.push(seq);
                },
            }
            if step % 5 == 0 {
                let dead = crash_image(&lanes, &path, &image);
                prop_assert_eq!(recovered(&dead).into_iter().map(|(_, seq)| seq).collect::<Vec<_>>(), expected.clone());
            }
        }
    }

    /// A torn or damaged record ends the buffer's records; those before it are all there.
    #[test]
    fn damage_costs_only_what_comes_behind_it(at in 0usize..2_000, flip in 1u8..) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lanes");
        let lanes = Lanes::in_file(&path, process(), 1, BUFFER).unwrap();
        let rows = (0..).take_while(|_| lanes.pending().bytes < 2_000 && matches!(lanes.push(b"{\"a\":1"), Push::Accepted { .. })).count() as u64;
        let frame = lanes.pending().bytes / rows;
        drop(lanes);
        let mut bytes = std::fs::read(&path).unwrap();
        let data = bytes.len() - BUFFERS * BUFFER;
        bytes[data + at] ^= flip;
        std::fs::write(&path, bytes).unwrap();
        let found = recovered(&recover::recover(&path).unwrap()).len() as u64;
        prop_assert!(found >= (at as u64 / frame).min(rows).saturating_sub(1) && found <= rows);
        prop_assert!(found <= at as u64 / frame + 1);
    }
}

#[test]
fn lines_of_an_earlier_use_of_a_buffer_do_not_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lanes");
    let lanes = Lanes::in_file(&path, process(), 1, BUFFER).unwrap();
    for _ in 0..6 {
        while matches!(lanes.push(&[b'x'; 100]), Push::Accepted { wake: false, .. }) {}
        lanes.take().into_iter().for_each(|taken| lanes.release(taken));
    }
    let left = lanes.pending().rows;
    assert!(left > 0);
    drop(lanes);
    assert_eq!(recovered(&recover::recover(&path).unwrap()).len() as u64, left);
}

#[test]
fn a_file_that_is_not_ours_is_named_in_the_error() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lanes");
    std::fs::write(&path, vec![b'x'; 100_000]).unwrap();
    let error = recover::recover(&path).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    assert!(error.to_string().contains("lanes"), "{error}");
}

#[test]
fn a_file_takes_its_space_at_once() {
    use std::os::unix::fs::MetadataExt;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lanes");
    let lanes = Lanes::in_file(&path, process(), 2, 1 << 20).unwrap();
    let metadata = std::fs::metadata(&path).unwrap();
    assert!(metadata.blocks() * 512 >= lanes.capacity(), "blocks={} of 512 bytes for {}", metadata.blocks(), lanes.capacity());
}
