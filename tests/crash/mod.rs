//! A child that logs until it is killed, and the proof that what it was told is kept is stored once.

use crate::stored::{self, Row};
use predlog::{Config, Logger, Outcome};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

const THREADS: u64 = 2;
/// Numbers that one child may use.
pub const PER_CHILD: u64 = 1_000_000;

/// The child: logs `{"n": first + k}` at `rate` a second from two threads until it is killed, and notes each accepted `k` in the mapped file `seen`,
/// which survives the kill as the lanes do.
pub fn log_until_killed(config: &Config, rate: u64, seen: &Path, first: u64) {
    let seen = map_seen(seen);
    let (logger, _guard) = Logger::open(config).expect("the logger opens");
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (logger, seen) = (logger.clone(), &seen);
            scope.spawn(move || {
                let start = Instant::now();
                for n in (thread..PER_CHILD).step_by(THREADS as usize) {
                    // Until the parent kills it, or for as long as its numbers last.
                    while start.elapsed().as_micros() < u128::from(n) * 1_000_000 / u128::from(rate) {
                        std::thread::sleep(Duration::from_micros(200));
                    }
                    if let Outcome::Accepted { .. } = logger.log_parts("wine", "1", &serde_json::json!({"n": first + n}), &0.5) {
                        seen[n as usize].store(1, Ordering::Release);
                    }
                }
            });
        }
    });
}

/// One byte for each number of a child.
fn map_seen(path: &Path) -> Box<[&'static AtomicU8]> {
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).expect("the file opens");
    file.set_len(PER_CHILD).expect("it grows");
    // SAFETY: the file is this test's own, is never cut, and its bytes are only reached as atomics until the process ends.
    let map = Box::leak(Box::new(unsafe { memmap2::MmapMut::map_mut(&file).expect("it maps") }));
    // SAFETY: an AtomicU8 is a byte in memory; the map lives as long as the process.
    map.iter_mut().map(|byte| unsafe { AtomicU8::from_ptr(byte) }).collect()
}

/// What a killed child noted.
pub struct Noted {
    seen: PathBuf,
    first: u64,
}

/// Waits until the child has noted so many records.
pub fn wait_until_noted(child: &mut Child, seen: &Path, count: usize) {
    let deadline = Instant::now() + Duration::from_secs(30);
    let noted = || std::fs::read(seen).map_or(0, |seen| seen.iter().filter(|byte| **byte == 1).count());
    while noted() < count {
        let runs = child.try_wait().expect("its state").is_none();
        assert!(Instant::now() < deadline && runs, "the child of {} does not log {count} records", seen.display());
    }
}

/// Waits until the child has logged something, and then a random part of `within`; then kill -9.
pub fn kill_at_random(mut child: Child, seen: PathBuf, first: u64, within: Duration) -> Noted {
    wait_until_noted(&mut child, &seen, 1);
    std::thread::sleep(within.mul_f64(fastrand::f64()));
    child.kill().expect("kill -9");
    child.wait().expect("it is gone");
    Noted { seen, first }
}

/// A start without a kill delivers what all the others left; `then` runs before it ends.
pub fn drain(config: &Config, then: impl FnOnce()) {
    let writers = config.direct.dir.join("writers");
    let (logger, guard) = Logger::open(config).expect("the logger opens");
    let deadline = Instant::now() + Duration::from_secs(60);
    // A lock file each: this process's, and those of the dead that are not delivered yet.
    while stored::files(&writers).iter().filter(|path| path.ends_with("lock") && !is_unnamed(path)).count() > 1 {
        assert!(Instant::now() < deadline, "what dead processes left is not taken over after 60 s");
        std::thread::yield_now();
    }
    assert!(logger.flush(Duration::from_secs(60)), "{:?}", logger.health());
    then();
    let report = guard.shutdown(Duration::from_secs(60));
    println!("  recovered by the last start: {}", report.recovered);
    assert_eq!(report.problem, None);
    let left: Vec<PathBuf> = stored::files(&writers).into_iter().filter(|path| !is_unnamed(path)).collect();
    assert_eq!(left, Vec::<PathBuf>::new(), "nothing is left behind");
}

/// A kill may have come before a directory had its name; those go after a minute.
fn is_unnamed(path: &Path) -> bool {
    path.components().any(|part| part.as_os_str().to_string_lossy().starts_with('.') && part.as_os_str().len() == 37)
}

/// Every accepted number is among the rows, and no row twice.
pub fn assert_stored(what: &str, rows: &[Row], noted: &[Noted], least: usize) {
    let mut times: BTreeMap<u64, u32> = BTreeMap::new();
    let mut keys = BTreeSet::new();
    for row in rows {
        *times.entry(row.inputs["n"].as_u64().expect("a number")).or_default() += 1;
        assert!(keys.insert((row.writer.clone(), row.seq)), "stored twice: writer={} seq={}", row.writer, row.seq);
    }
    assert_eq!(times.values().filter(|&&times| times > 1).count(), 0, "numbers stored twice");
    let mut total = 0;
    for Noted { seen, first } in noted {
        let seen = std::fs::read(seen).expect("what the child noted");
        let accepted: Vec<u64> = (0..PER_CHILD).filter(|&n| seen[n as usize] == 1).collect();
        let missing: Vec<&u64> = accepted.iter().filter(|&n| !times.contains_key(&(first + n))).collect();
        assert!(missing.is_empty(), "accepted and not stored: {} of child {first}, such as {:?}", missing.len(), missing.first());
        total += accepted.len();
    }
    assert!(total > least, "the children logged only {total} records");
    println!("  {what}: {total} accepted over {} kills, {} stored, none missing, none twice", noted.len(), rows.len());
}
