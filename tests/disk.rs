//! A full disk, a directory that nobody may write to, a database that another process has locked or that is damaged: `log()` answers all the while, no
//! thread panics, what is dropped is counted by its reason, and when it is over everything accepted is stored once.
//!
//! This program is its own child. The disk that fills up is a tmpfs in a mount namespace of the child's own (`unshare`), so no real disk is filled.

mod stored;

use bytesize::ByteSize;
use predlog::config::Store;
use predlog::{Config, Guard, Logger, Outcome};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const LONG: Duration = Duration::from_secs(60);
/// Whom the operating system denies what root may do.
const NOBODY: u32 = 65_534;

type Case = fn(&Path);

const CASES: [(&str, bool, Case); 8] = [
    ("sqlite-full", true, |dir| full(dir, &config(dir, Store::Sqlite), Caller::default())),
    ("parquet-full", true, |dir| full(dir, &config(dir, Store::Parquet), Caller::default())),
    ("parquet-full-raw", true, |dir| full(dir, &raw(dir), Caller { text_bytes: 40_000, ..Caller::default() })),
    ("sqlite-full-of-rows", true, full_of_rows),
    ("sqlite-readonly", false, |dir| readonly(dir, Store::Sqlite)),
    ("parquet-readonly", false, |dir| readonly(dir, Store::Parquet)),
    ("sqlite-locked", false, locked),
    ("sqlite-damaged", false, damaged),
];

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    match arguments.get(1).map(String::as_str) {
        Some("child") => {
            // A panic of any thread, the worker's and the sealers' too, ends the case.
            std::panic::set_hook(Box::new(|panic| {
                eprintln!("{panic}");
                std::process::abort();
            }));
            let case = CASES.iter().find(|case| case.0 == arguments[2]).expect("a case");
            return (case.2)(Path::new(&arguments[3]));
        }
        Some("hold") => return hold(Path::new(&arguments[2])),
        Some("damage") => return damage(Path::new(&arguments[2])),
        Some("--list") => return,
        _ => {}
    }
    for (name, mounts, _) in CASES {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let status = command(mounts).args(["child", name]).arg(dir.path()).status().expect("the child starts");
        assert!(
            status.success(),
            "case {name} failed with {status}; where it may not mount, run the tests as root or allow user namespaces"
        );
        println!("test {name} ... ok");
    }
    println!("{} passed, 0 failed", CASES.len());
}

/// This program, in a mount namespace of its own if it `mounts`.
fn command(mounts: bool) -> Command {
    let this = std::env::current_exe().expect("this program");
    if !mounts {
        return Command::new(this);
    }
    let mut unshare = Command::new("unshare");
    unshare.arg("--mount");
    if !rustix::process::geteuid().is_root() {
        unshare.arg("--map-root-user");
    }
    unshare.arg(this);
    unshare
}

fn config(dir: &Path, store: Store) -> Config {
    let mut config = Config::default();
    config.direct.dir = dir.join("data");
    config.direct.store = store;
    config.logger.queue_bytes = ByteSize::mib(4);
    config.logger.max_record_bytes = ByteSize::kib(64);
    config.batch.max_age = Duration::from_millis(10);
    config.rotation.max_rows = 2_000;
    config.sqlite.busy_timeout = Duration::from_millis(200);
    config
}

/// Parquet, with batches so large that segments are not compressed.
fn raw(dir: &Path) -> Config {
    let mut config = config(dir, Store::Parquet);
    config.logger.queue_bytes = ByteSize::mib(64);
    config.logger.lanes = Some(2);
    config.batch.max_age = Duration::from_millis(100);
    config.rotation.max_rows = 500;
    config
}

fn open(dir: &Path, store: Store) -> (Logger, Guard) {
    Logger::open(&config(dir, store)).expect("the logger opens")
}

/// Numbered records, and how long the calls took.
struct Caller {
    text_bytes: usize,
    next: u64,
    accepted: BTreeSet<u64>,
    /// By the reason that the call itself gave.
    dropped: BTreeMap<&'static str, u64>,
    nanos: Vec<u64>,
}

impl Default for Caller {
    fn default() -> Self {
        Caller { text_bytes: 300, next: 0, accepted: BTreeSet::new(), dropped: BTreeMap::new(), nanos: Vec::new() }
    }
}

impl Caller {
    /// About 5,000 records a second for 20 ms.
    fn log(&mut self, logger: &Logger) {
        for _ in 0..100 {
            let inputs = serde_json::json!({"n": self.next, "text": "x".repeat(self.text_bytes)});
            let start = Instant::now();
            let outcome = logger.log_parts("wine", "1", &inputs, &0.5);
            self.nanos.push(start.elapsed().as_nanos() as u64);
            match outcome {
                Outcome::Accepted { .. } => drop(self.accepted.insert(self.next)),
                Outcome::Dropped(reason) => *self.dropped.entry(reason.name()).or_default() += 1,
            }
            self.next += 1;
        }
        std::thread::sleep(Duration::from_millis(20));
    }

    fn log_until(&mut self, logger: &Logger, what: &str, mut holds: impl FnMut(&Logger) -> bool) {
        let deadline = Instant::now() + LONG;
        while !holds(logger) {
            assert!(Instant::now() < deadline, "{what}: not so after {LONG:?}; {:?} {:?}", logger.health(), logger.snapshot());
            self.log(logger);
        }
    }

    fn print_latency(&mut self, what: &str) {
        self.nanos.sort_unstable();
        let at = |quantile: f64| self.nanos[((self.nanos.len() - 1) as f64 * quantile) as usize] as f64 / 1e3;
        println!(
            "  {what}: log() p50 {:.1} us, p99 {:.1} us, max {:.1} us over {} calls",
            at(0.5),
            at(0.99),
            at(1.0),
            self.nanos.len()
        );
    }

    /// Everything accepted is stored, once, and the report balances.
    fn check(&self, dir: &Path, store: Store, logger: &Logger, guard: Guard) {
        self.check_report(logger, guard);
        let data = dir.join("data");
        self.check_rows(match store {
            Store::Sqlite => stored::sqlite(&data),
            Store::Parquet => stored::parquet(&data),
        });
    }

    fn check_report(&self, logger: &Logger, guard: Guard) {
        assert!(logger.flush(LONG), "flushed; {:?}", logger.health());
        let report = guard.shutdown(LONG);
        let accepted = self.accepted.len() as u64;
        assert_eq!((report.accepted, report.delivered, report.on_disk), (accepted, accepted, 0), "{report:?}");
        let dropped: BTreeMap<_, _> =
            report.dropped.iter().filter(|(_, count)| **count > 0).map(|(name, count)| (*name, *count)).collect();
        assert_eq!(dropped, self.dropped, "what is counted is what the calls answered");
        println!("  accepted {}, dropped {:?}", report.accepted, report.dropped);
    }

    fn check_rows(&self, rows: Vec<stored::Row>) {
        let numbers: BTreeSet<u64> = rows.iter().map(|row| row.inputs["n"].as_u64().expect("a number")).collect();
        assert_eq!(rows.len(), numbers.len(), "nothing is stored twice");
        assert_eq!(numbers, self.accepted, "what was accepted is what is stored");
    }
}

/// Why it takes no records, which names where.
fn problem(logger: &Logger, dir: &Path) -> String {
    let problem = logger.health().expect_err("it takes no records");
    assert!(problem.contains(dir.join("data").to_str().expect("UTF-8")), "no path in: {problem}");
    problem
}

fn dropped(logger: &Logger, reason: &str) -> u64 {
    logger.snapshot().dropped.iter().find(|(name, _)| *name == reason).map_or(0, |(_, count)| *count)
}

/// A small disk: room for the lanes, and for what the test itself keeps there.
fn mount(dir: &Path, config: &Config) {
    let size = format!("size={}m", config.logger.queue_bytes.as_u64() / (1 << 20) + 44);
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(dir).status().expect("mount starts");
    assert!(mounted.success(), "cannot mount a tmpfs");
}

fn full(dir: &Path, config: &Config, mut caller: Caller) {
    mount(dir, config);
    let (logger, guard) = Logger::open(config).expect("the logger opens");
    caller.log(&logger);
    assert!(logger.flush(LONG));

    let filler = dir.join("filler");
    let mut file = std::fs::File::create(&filler).expect("a file");
    while file.write_all(&[0; 4096]).is_ok() {}
    drop(file);
    caller.log_until(&logger, "drops are counted as no_space", |logger| dropped(logger, "no_space") > 1_000);
    let problem = problem(&logger, dir);
    assert!(problem.to_lowercase().contains("space") || problem.contains("full"), "{problem}");
    caller.print_latency(&format!("{:?}, {} bytes a record, disk full", config.direct.store, caller.text_bytes));

    std::fs::remove_file(filler).expect("removed");
    caller.log_until(&logger, "it recovers", |logger| logger.health().is_ok());
    caller.log(&logger);
    caller.check(dir, config.direct.store, &logger, guard);
}

/// A bucket that is away for so long that the rows which wait for it take the whole disk: once it is back, they leave for it with no help.
fn full_of_rows(dir: &Path) {
    let elsewhere = tempfile::tempdir().expect("a directory on another disk");
    let bucket = elsewhere.path().join("bucket");
    let mut config = config(dir, Store::Sqlite);
    config.upload.url = Some(format!("file://{}", bucket.display()));
    // Neither of these asks for an upload before the disk does.
    config.upload.every = Duration::from_secs(3_600);
    config.upload.max_rows = 20_000;
    config.direct.retain_bytes = Some(ByteSize::mib(4));
    mount(dir, &config);
    std::fs::write(&bucket, b"in the way").expect("a file");
    let (logger, guard) = Logger::open(&config).expect("the logger opens");
    let mut caller = Caller { text_bytes: 4_000, ..Caller::default() };
    caller.log_until(&logger, "drops are counted as no_space", |logger| dropped(logger, "no_space") > 1_000);
    problem(&logger, dir);
    caller.print_latency("Sqlite, 4000 bytes a record, disk full of rows");

    std::fs::remove_file(&bucket).expect("removed");
    caller.log_until(&logger, "it recovers", |logger| logger.health().is_ok() && logger.snapshot().uploaded_files > 0);
    caller.log(&logger);
    caller.check_report(&logger, guard);
    caller.check_rows(stored::parquet(&bucket));
}

/// Files that are open stay writable; new ones cannot be made. SQLite has all of its files open, so its database is locked as well: the spool, where
/// the records would go then, is what cannot be made.
fn readonly(dir: &Path, store: Store) {
    let data = dir.join("data");
    std::fs::create_dir(&data).expect("a directory");
    // Started before the user changes, who may not reach this program.
    let mut holder = Holder::start(&data);
    if rustix::process::geteuid().is_root() {
        for path in [dir, &data] {
            std::os::unix::fs::chown(path, Some(NOBODY), Some(NOBODY)).expect("chown");
        }
        // SAFETY: setuid only changes this process's user, before any other thread runs.
        assert_eq!(unsafe { libc::setuid(NOBODY) }, 0, "setuid");
    }
    let (logger, guard) = open(dir, store);
    let mut caller = Caller::default();
    caller.log(&logger);
    assert!(logger.flush(LONG));

    match store {
        Store::Sqlite => holder.hold(),
        // A segment is open, which takes records until it is full: then it can neither be sealed nor followed by another.
        Store::Parquet => caller.log_until(&logger, "a segment is open", |logger| logger.snapshot().on_disk > 0),
    }
    set_modes(&data, 0o555);
    caller.log_until(&logger, "drops are counted", |logger| dropped(logger, "sink_unavailable") > 1_000);
    problem(&logger, dir);
    let refused = Logger::open(&config(dir, store)).expect_err("nobody can start here now").to_string();
    assert!(refused.contains(data.to_str().expect("UTF-8")), "no path in: {refused}");
    caller.print_latency(&format!("{store:?}, directory read-only"));

    set_modes(&data, 0o755);
    if store == Store::Sqlite {
        // The spool alone takes the records now.
        caller.log_until(&logger, "the spool takes the records", |logger| logger.snapshot().on_disk > 0);
    }
    holder.release();
    caller.log_until(&logger, "it recovers", |logger| logger.health().is_ok());
    caller.check(dir, store, &logger, guard);
}

/// Sets the mode of a directory and of all below it.
fn set_modes(dir: &Path, mode: u32) {
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(mode)).expect("chmod");
    for entry in std::fs::read_dir(dir).expect("the directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            set_modes(&path, mode);
        }
    }
}

fn locked(dir: &Path) {
    let (logger, guard) = open(dir, Store::Sqlite);
    let mut caller = Caller::default();
    caller.log(&logger);
    assert!(logger.flush(LONG));

    let mut holder = Holder::start(&dir.join("data"));
    holder.hold();
    caller.log_until(&logger, "the lock is noticed", |logger| logger.health().is_err_and(|why| why.contains("lock")));
    problem(&logger, dir);
    let before = caller.accepted.len();
    caller.log_until(&logger, "the spool takes the records", |logger| logger.snapshot().on_disk > 5_000);
    assert!(
        caller.accepted.len() > before + 1_000 && logger.snapshot().dropped.is_empty(),
        "nothing is dropped: the spool has it"
    );
    caller.print_latency("Sqlite, locked");

    holder.release();
    caller.log_until(&logger, "it recovers", |logger| logger.health().is_ok());
    caller.check(dir, Store::Sqlite, &logger, guard);
}

/// The header of the file is overwritten, and later put back: then the file that was set aside and the new one have everything between them.
fn damaged(dir: &Path) {
    let database = dir.join("data/predictions.db");
    let (logger, guard) = open(dir, Store::Sqlite);
    let mut caller = Caller::default();
    caller.log(&logger);
    assert!(logger.flush(LONG));
    let before = caller.accepted.len();

    // By another process: to close the file here would drop the locks that this one has on it.
    let done = Command::new(std::env::current_exe().expect("this program")).arg("damage").arg(&database).status();
    assert!(done.expect("it starts").success());
    let aside = || {
        let paths = std::fs::read_dir(dir.join("data")).expect("the directory").map(|entry| entry.expect("an entry").path());
        paths.filter(|path| is_set_aside(path)).collect::<Vec<PathBuf>>()
    };
    caller.log_until(&logger, "the damaged file is set aside", |_| !aside().is_empty());
    caller.log_until(&logger, "it recovers", |logger| logger.health().is_ok());
    caller.log(&logger);
    caller.check_report(&logger, guard);
    assert!(caller.dropped.is_empty() && aside().len() == 1, "{:?} {:?}", caller.dropped, aside());

    let mut rows = stored::sqlite(&dir.join("data"));
    let whole = dir.join("whole");
    std::fs::create_dir(&whole).expect("a directory");
    std::fs::rename(&aside()[0], whole.join("predictions.db")).expect("moved");
    put_header(&whole.join("predictions.db"), &std::fs::read(header_of(&database)).expect("the header"));
    let old = stored::sqlite(&whole);
    assert_eq!(old.len(), before, "the damaged file has what was stored before");
    rows.extend(old);
    caller.check_rows(rows);
}

fn is_set_aside(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    name.starts_with("predictions.db.damaged-") && !name.ends_with("-wal") && !name.ends_with("-shm")
}

/// Where the header is kept while the file is damaged.
fn header_of(database: &Path) -> PathBuf {
    database.with_file_name("header")
}

/// Another process that overwrites the database's header, which nothing but the file has: all is checkpointed.
fn damage(database: &Path) {
    let connection = rusqlite::Connection::open(database).expect("the database opens");
    let checkpointed = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, i64>(0));
    assert_eq!(checkpointed, Ok(0), "not busy");
    let bytes = std::fs::read(database).expect("the file");
    std::fs::write(header_of(database), &bytes[..100]).expect("the header is kept");
    put_header(database, &[0xa5; 100]);
}

fn put_header(database: &Path, header: &[u8]) {
    let mut file = std::fs::File::options().write(true).open(database).expect("the file");
    file.write_all(header).expect("the header");
}

/// A process that locks the database when it is told to.
struct Holder(Child);

impl Holder {
    fn start(data: &Path) -> Self {
        let mut command = Command::new(std::env::current_exe().expect("this program"));
        command.arg("hold").arg(data.join("predictions.db")).stdin(Stdio::piped()).stdout(Stdio::piped());
        Holder(command.spawn().expect("the holder starts"))
    }

    fn hold(&mut self) {
        self.0.stdin.as_mut().expect("its input").write_all(b"hold\n").expect("it listens");
        let mut line = String::new();
        BufReader::new(self.0.stdout.take().expect("its output")).read_line(&mut line).expect("a line");
        assert_eq!(line, "held\n");
    }

    fn release(mut self) {
        drop(self.0.stdin.take());
        assert!(self.0.wait().expect("its end").success());
    }
}

/// The holder: holds the lock from the first line of its input until the end of it.
fn hold(database: &Path) {
    let mut input = BufReader::new(std::io::stdin());
    if input.read_line(&mut String::new()).expect("a line") == 0 {
        return;
    }
    let database = rusqlite::Connection::open(database).expect("the database opens");
    database.busy_timeout(LONG).expect("a timeout");
    database.execute_batch("BEGIN EXCLUSIVE").expect("the lock");
    println!("held");
    input.read_to_end(&mut Vec::new()).expect("its end");
}
