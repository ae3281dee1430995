use super::*;
use crate::batch::{Batch, Chunk, Origin};
use crate::record::Writer;
use crate::sink::Sink;
use crate::sink::sqlite::SqliteSink;
use std::collections::BTreeMap;

struct Bench {
    dir: tempfile::TempDir,
    outbox: Outbox,
    sink: SqliteSink,
    upload: UploadSettings,
    next_seq: u64,
}

/// Each file's bytes by its path.
type Files = BTreeMap<Relative, Vec<u8>>;

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let outbox = Outbox::open(dir.path(), false).unwrap();
        let sink = SqliteSink::open(settings(dir.path())).unwrap();
        let upload = UploadSettings { max_rows: 100, every: Duration::from_secs(3_600), ..UploadSettings::default() };
        Bench { dir, outbox, sink, upload, next_seq: 0 }
    }

    fn feed(&self) -> SqliteFeed {
        SqliteFeed::open(settings(self.dir.path()), &self.upload, Arc::new(Stats::default())).unwrap()
    }

    /// Logs `rows` rows of `model`, just now, with the inputs `key`.
    fn log(&mut self, model: &str, rows: u64, key: &str) {
        let writer = Writer::new(uuid::Uuid::from_u128(7), 0);
        let (first, now) = (self.next_seq, Timestamp::from(SystemTime::now()));
        self.next_seq += rows;
        let line = |seq| {
            format!(
                "{{\"timestamp\":\"{now}\",\"model_name\":\"{model}\",\"id\":\"i{seq}\",\"inputs\":{{\"{key}\":{seq}.5}},\"outputs\":{{\"y\":1}},\
                 \"writer\":\"{writer}\",\"seq\":{seq}}}\n"
            )
        };
        let text: String = (first..self.next_seq).map(line).collect();
        let chunk = Chunk::from_lines(writer, rows, first, self.next_seq - 1, text.as_bytes());
        let id = self.next_seq;
        self.sink.write(&Batch { id, origin: Origin::Live, chunks: vec![chunk] }).unwrap();
        assert_eq!(self.sink.commit().unwrap(), Some(id));
    }

    fn files(&self) -> Files {
        let pending = self.outbox.pending().unwrap();
        pending.into_iter().map(|entry| (entry.relative.clone(), fs::read(self.outbox.path(&entry.relative)).unwrap())).collect()
    }

    /// As the shipper does once a file is proven stored.
    fn uploaded(&self, file: &Relative) {
        self.outbox.done(file).unwrap();
        self.outbox.delete(file).unwrap();
    }
}

fn settings(dir: &Path) -> SqliteSettings {
    SqliteSettings { dir: dir.to_owned(), ..SqliteSettings::default() }
}

#[test]
fn rows_wait_until_they_are_many_or_old_or_asked_for() {
    let mut bench = Bench::new();
    let mut feed = bench.feed();
    assert_eq!(feed.fill(&bench.outbox, true), Ok(false));
    bench.log("wine", 99, "x");
    assert_eq!(feed.fill(&bench.outbox, false), Ok(false));
    assert!(feed.oldest().is_some());
    bench.log("wine", 1, "x");
    assert_eq!(feed.fill(&bench.outbox, false), Ok(true));
    bench.files().keys().for_each(|file| bench.uploaded(file));
    assert_eq!(feed.settle(&bench.outbox), Ok(true));
    bench.log("wine", 1, "x");
    assert_eq!(feed.fill(&bench.outbox, false), Ok(false));
    assert_eq!(feed.fill(&bench.outbox, true), Ok(true));
    bench.files().keys().for_each(|file| bench.uploaded(file));
    assert_eq!(feed.settle(&bench.outbox), Ok(true));
    assert_eq!((feed.fill(&bench.outbox, true), feed.oldest()), (Ok(false), None));

    bench.upload.every = Duration::from_nanos(1);
    bench.log("wine", 1, "x");
    assert_eq!(bench.feed().fill(&bench.outbox, false), Ok(true));
}

#[test]
fn a_plan_is_done_when_every_one_of_its_files_is_proven_stored() {
    let mut bench = Bench::new();
    let mut feed = bench.feed();
    bench.log("wine", 30, "x");
    bench.log("a/b", 30, "x");
    bench.log("wine", 60, "x");
    assert_eq!(feed.fill(&bench.outbox, false), Ok(true));
    let files: Vec<Relative> = bench.files().into_keys().collect();
    assert!(files.iter().all(Relative::is_export));
    let models = |part: &str| files.iter().filter(|file| file.key().contains(&format!("/model_name={part}/"))).count();
    assert!(models("wine") >= 1 && models("a%2Fb") >= 1 && models("wine") + models("a%2Fb") == files.len());
    for file in &files {
        assert_eq!((feed.fill(&bench.outbox, false), feed.settle(&bench.outbox)), (Ok(true), Ok(false)));
        bench.uploaded(file);
    }
    assert_eq!(feed.settle(&bench.outbox), Ok(true));
    // At most max_rows at a time: 20 are left.
    assert_eq!(feed.fill(&bench.outbox, false), Ok(false));
    assert_eq!(feed.fill(&bench.outbox, true), Ok(true));
}

#[test]
fn a_crash_anywhere_repeats_the_same_names_and_bytes() {
    let mut bench = Bench::new();
    bench.log("wine", 50, "x");
    bench.log("iris", 50, "y");
    assert_eq!(bench.feed().fill(&bench.outbox, false), Ok(true));
    let made = bench.files();
    // More rows, with more columns, must not change what the plan has.
    bench.log("wine", 500, "z");

    // Before the first upload; after some; after one whose file is still there; and after all, before the plan is done.
    let names: Vec<Relative> = made.keys().cloned().collect();
    for uploaded in 0..=names.len() {
        names[..uploaded].iter().for_each(|file| bench.uploaded(file));
        if let Some(half) = names.get(uploaded) {
            bench.outbox.done(half).unwrap();
        }
        let mut feed = bench.feed();
        assert_eq!(feed.fill(&bench.outbox, false), Ok(true));
        assert_eq!(bench.files(), made, "after {uploaded}");
        assert_eq!(feed.settle(&bench.outbox), Ok(false));
    }
}

#[test]
fn an_export_that_is_proven_stored_is_swept_at_the_start() {
    let mut bench = Bench::new();
    let mut feed = bench.feed();
    bench.log("wine", 100, "x");
    feed.fill(&bench.outbox, false).unwrap();
    let files: Vec<Relative> = bench.files().into_keys().collect();
    files.iter().for_each(|file| bench.outbox.done(file).unwrap());
    feed.settle(&bench.outbox).unwrap();
    assert!(bench.outbox.path(&files[0]).exists());
    assert_eq!(bench.feed().fill(&bench.outbox, false), Ok(false));
    assert!(!bench.outbox.path(&files[0]).exists());
}

#[test]
fn an_export_that_was_deleted_is_made_again() {
    let mut bench = Bench::new();
    let mut feed = bench.feed();
    bench.log("wine", 100, "x");
    feed.fill(&bench.outbox, false).unwrap();
    let made = bench.files();
    bench.outbox.delete(made.keys().next().unwrap()).unwrap();
    assert_eq!(feed.settle(&bench.outbox), Ok(false));
    assert_eq!(feed.fill(&bench.outbox, false), Ok(true));
    assert_eq!(bench.files(), made);
}
