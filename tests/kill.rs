//! kill -9 at random moments: afterwards every record that `log()` accepted is stored exactly once, in both stores.
//!
//! This program is its own child: `child <dir> <store> <seen> <first>` logs at 50,000 records a second from two threads and notes each accepted
//! number in the mapped file `<seen>`, which survives the kill as the lanes do.

mod stored;

use predlog::config::Store;
use predlog::{Config, Logger, Outcome};
use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

const KILLS: u64 = 30;
const RATE: u64 = 50_000;
const THREADS: u64 = 2;
/// Numbers that one child may use.
const PER_CHILD: u64 = 1_000_000;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if arguments.get(1).is_some_and(|word| word == "child") {
        return child(&arguments);
    }
    if arguments.iter().any(|word| word == "--list") {
        return;
    }
    let cases: [(&str, fn()); 2] = [
        ("sqlite: every accepted record is stored once after 30 kills", || kills(Store::Sqlite)),
        ("parquet: every accepted record is stored once after 30 kills", || kills(Store::Parquet)),
    ];
    for (name, case) in cases {
        case();
        println!("test {name} ... ok");
    }
    println!("{} passed, 0 failed", cases.len());
}

fn config(dir: &Path, store: Store) -> Config {
    let mut config = Config::default();
    config.direct.dir = dir.to_owned();
    config.direct.store = store;
    // Small enough that segments are sealed, and lanes swapped, many times within a child's short life.
    config.rotation.max_rows = 3_000;
    config.batch.max_age = Duration::from_millis(10);
    config
}

fn child(arguments: &[String]) {
    let (dir, store, seen) = (Path::new(&arguments[2]), &arguments[3], Path::new(&arguments[4]));
    let first: u64 = arguments[5].parse().expect("a number");
    let store = if store == "Sqlite" { Store::Sqlite } else { Store::Parquet };
    let seen = map_seen(seen);
    let (logger, _guard) = Logger::open(&config(dir, store)).expect("the logger opens");
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (logger, seen) = (logger.clone(), &seen);
            scope.spawn(move || {
                let start = Instant::now();
                for n in (thread..PER_CHILD).step_by(THREADS as usize) {
                    // Until the parent kills it, or for as long as its numbers last.
                    while start.elapsed().as_micros() < u128::from(n) * 1_000_000 / u128::from(RATE) {
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

fn spawn(dir: &Path, store: Store, seen: &Path, first: u64) -> Child {
    let this = std::env::current_exe().expect("this program");
    let first = first.to_string();
    Command::new(this).arg("child").arg(dir).arg(format!("{store:?}")).arg(seen).arg(first).spawn().expect("the child starts")
}

fn kills(store: Store) {
    let work = tempfile::tempdir().expect("a temporary directory");
    let dir = work.path().join("data");
    let mut accepted: Vec<(PathBuf, u64)> = Vec::new();
    for kill in 0..KILLS {
        let (seen, first) = (work.path().join(format!("seen-{kill}")), kill * PER_CHILD);
        let mut child = spawn(&dir, store, &seen, first);
        // It must have started; then any moment will do.
        let deadline = Instant::now() + Duration::from_secs(30);
        while !std::fs::read(&seen).is_ok_and(|seen| seen.contains(&1)) {
            assert!(Instant::now() < deadline && child.try_wait().expect("its state").is_none(), "child {kill} logs nothing");
        }
        std::thread::sleep(Duration::from_micros(fastrand::u64(0..300_000)));
        child.kill().expect("kill -9");
        child.wait().expect("it is gone");
        accepted.push((seen, first));
    }
    drain(&dir, store);
    check(&dir, store, &accepted);
}

/// A start without a kill delivers what all the others left.
fn drain(dir: &Path, store: Store) {
    let (logger, guard) = Logger::open(&config(dir, store)).expect("the logger opens");
    let deadline = Instant::now() + Duration::from_secs(60);
    // A lock file each: this process's, and those of the dead that are not delivered yet.
    let locks = || stored::files(&dir.join("writers")).iter().filter(|path| path.ends_with("lock") && !is_unnamed(path)).count();
    while locks() > 1 {
        assert!(Instant::now() < deadline, "what dead processes left is not taken over after 60 s");
        std::thread::yield_now();
    }
    let report = guard.shutdown(Duration::from_secs(60));
    println!("  recovered by the last start: {}", logger.snapshot().recovered);
    assert_eq!(report.problem, None);
    let left: Vec<PathBuf> = stored::files(&dir.join("writers")).into_iter().filter(|path| !is_unnamed(path)).collect();
    assert_eq!(left, Vec::<PathBuf>::new(), "nothing is left behind");
}

/// A kill may have come before a directory had its name; those go after a minute.
fn is_unnamed(path: &Path) -> bool {
    path.components().any(|part| part.as_os_str().to_string_lossy().starts_with('.') && part.as_os_str().len() == 37)
}

fn check(dir: &Path, store: Store, accepted: &[(PathBuf, u64)]) {
    let rows = match store {
        Store::Sqlite => stored::sqlite(dir),
        Store::Parquet => stored::parquet(dir),
    };
    let mut times: BTreeMap<u64, u32> = BTreeMap::new();
    let mut keys = std::collections::BTreeSet::new();
    for row in &rows {
        *times.entry(row.inputs["n"].as_u64().expect("a number")).or_default() += 1;
        assert!(keys.insert((row.writer.clone(), row.seq)), "stored twice: writer={} seq={}", row.writer, row.seq);
    }
    let twice = times.values().filter(|&&times| times > 1).count();
    assert_eq!(twice, 0, "numbers stored twice");
    let mut total = 0;
    for (seen, first) in accepted {
        let seen = std::fs::read(seen).expect("what the child noted");
        let missing: Vec<u64> = (0..PER_CHILD).filter(|&n| seen[n as usize] == 1 && !times.contains_key(&(first + n))).collect();
        assert!(
            missing.is_empty(),
            "accepted and not stored: {} of child {first}, such as {:?}",
            missing.len(),
            &missing[..missing.len().min(5)]
        );
        total += seen.iter().filter(|&&byte| byte == 1).count();
    }
    assert!(total as u64 > KILLS * 1_000, "the children logged only {total} records");
    println!("  {store:?}: {total} accepted over {KILLS} kills, {} stored, none missing, none twice", rows.len());
}
