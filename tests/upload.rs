//! The upload against a real S3 server, its failures, and a directory: what is sealed is stored once, and local files go when that is proven.
#![cfg(all(feature = "upload", feature = "sqlite"))]

mod support;

use futures_util::TryStreamExt;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt, path::Path as Key};
use predlog::outbox::{Outbox, Relative};
use predlog::ship::{Event, Feed, Nudge, Observer, Retain, ShipStatus, Shipper, UploadErrorKind, UploadSettings, probe};
use std::collections::BTreeMap;
use std::fs;
use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};
use support::fault_proxy::FaultProxy;
use support::process::{free_address, wait_until};
use support::s3::Minio;
use support::toxiproxy::Toxiproxy;
use tempfile::TempDir;

const LONG: Duration = Duration::from_secs(120);
const BUCKET: &str = "models";

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// A store's directory, with sealed files in it.
struct Local {
    dir: TempDir,
    outbox: Outbox,
}

impl Local {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let outbox = Outbox::open(dir.path(), false).unwrap();
        Local { dir, outbox }
    }

    /// Seals the `n`-th file, below `top`.
    fn seal_in(&self, top: &str, model: &str, n: u64, bytes: &[u8]) -> Relative {
        let name = format!("0198c0de-0000-7000-8000-00000000000a-00-{n}-{n}.parquet");
        let relative: Relative = format!("{top}/model_name={model}/date=2026-11-23/{name}").parse().unwrap();
        let staged = self.dir.path().join(format!("staged-{n}"));
        fs::write(&staged, bytes).unwrap();
        self.outbox.publish(&staged, &relative).unwrap();
        relative
    }

    fn seal(&self, n: u64, bytes: &[u8]) -> Relative {
        self.seal_in("predictions", "wine", n, bytes)
    }

    fn start(&self, settings: &UploadSettings) -> Shipper {
        self.start_with(settings, Retain::default(), None)
    }

    fn start_with(&self, settings: &UploadSettings, retain: Retain, feed: Option<Box<dyn Feed>>) -> Shipper {
        Shipper::start(settings.clone(), self.dir.path(), retain, feed, Arc::new(|_| {})).unwrap()
    }

    /// Ships everything that is pending, with a shipper of its own.
    fn ship(&self, settings: &UploadSettings) -> ShipStatus {
        let shipper = self.start(settings);
        assert!(shipper.ship_now(LONG), "{:?}", shipper.status());
        assert_eq!(self.outbox.pending().unwrap(), []);
        shipper.stop()
    }
}

fn content(n: u64, size: usize) -> Vec<u8> {
    (0..size).map(|at| (at as u64 * 31 + n) as u8).collect()
}

/// The bucket's server, and the settings that lead to it.
struct Remote {
    minio: Minio,
    keys: TempDir,
}

impl Remote {
    fn new() -> Self {
        let minio = Minio::start();
        minio.create_bucket(BUCKET);
        Remote { minio, keys: tempfile::tempdir().unwrap() }
    }

    fn settings(&self) -> UploadSettings {
        self.settings_through(&self.minio.endpoint())
    }

    fn settings_through(&self, endpoint: &str) -> UploadSettings {
        let file = self.keys.path().join("credentials");
        let (id, secret) = (self.minio.access_key(), self.minio.secret_key());
        fs::write(&file, format!("[default]\naws_access_key_id = {id}\naws_secret_access_key = {secret}\n")).unwrap();
        UploadSettings {
            url: Some(format!("s3://{BUCKET}/team/a")),
            endpoint: Some(endpoint.to_owned()),
            region: Some("us-east-1".to_owned()),
            credentials_file: Some(file),
            every: Duration::from_secs(1),
            ..UploadSettings::default()
        }
    }

    fn objects(&self) -> BTreeMap<String, ObjectMeta> {
        let store = self.minio.store(BUCKET);
        block_on(async {
            let objects: Vec<ObjectMeta> = store.list(None).try_collect().await.unwrap();
            objects.into_iter().map(|object| (object.location.to_string(), object)).collect()
        })
    }

    fn bytes(&self, relative: &Relative) -> Vec<u8> {
        let store = self.minio.store(BUCKET);
        let key = Key::parse(format!("team/a/{}", relative.key())).unwrap();
        block_on(async { store.get(&key).await.unwrap().bytes().await.unwrap().to_vec() })
    }

    fn put(&self, relative: &Relative, bytes: &[u8]) {
        let store = self.minio.store(BUCKET);
        let key = Key::parse(format!("team/a/{}", relative.key())).unwrap();
        block_on(store.put(&key, bytes.to_vec().into())).unwrap();
    }

    /// Exactly these are stored.
    fn assert_stored(&self, files: &[(Relative, Vec<u8>)]) {
        let keys: Vec<String> = self.objects().into_keys().collect();
        let mut wanted: Vec<String> = files.iter().map(|(file, _)| format!("team/a/{}", file.key())).collect();
        wanted.sort();
        assert_eq!(keys, wanted);
        for (file, bytes) in files {
            assert!(self.bytes(file) == *bytes, "{file} has other bytes");
        }
    }
}

fn many(local: &Local, range: std::ops::Range<u64>, size: usize) -> Vec<(Relative, Vec<u8>)> {
    range.map(|n| (local.seal(n, &content(n, size)), content(n, size))).collect()
}

#[test]
fn files_arrive_under_their_keys_and_exports_leave_the_disk() {
    let (remote, local) = (Remote::new(), Local::new());
    let files = [
        (local.seal_in("predictions", "wine", 0, b"one"), b"one".to_vec()),
        (local.seal_in("predictions", "a%2Fb é+&", 1, b""), Vec::new()),
        (local.seal_in("export/predictions", "wine", 2, b"three"), b"three".to_vec()),
    ];
    let status = local.ship(&remote.settings());
    remote.assert_stored(&files);
    assert_eq!((status.uploaded_files, status.uploaded_bytes, status.failures, status.pending_files), (3, 8, 0, 0));
    assert_eq!(status.lag(), Duration::ZERO);
    let left: Vec<bool> = files.iter().map(|(file, _)| local.outbox.path(file).exists()).collect();
    assert_eq!(left, [true, true, false]);
}

#[test]
fn what_is_there_already_is_kept_and_what_differs_is_replaced() {
    let (remote, local) = (Remote::new(), Local::new());
    let large = content(2, (5 << 20) + 1);
    let settings = UploadSettings { multipart_bytes: bytesize::ByteSize::mib(5), ..remote.settings() };
    let files = [
        (local.seal(1, b"small"), b"small".to_vec()),
        (local.seal(2, &large), large.clone()),
        (local.seal(3, b"mine"), b"mine".to_vec()),
    ];
    remote.put(&files[2].0, b"another try's");
    local.ship(&settings);
    remote.assert_stored(&files);
    let before = remote.objects();
    assert!(before[&format!("team/a/{}", files[1].0.key())].e_tag.as_ref().unwrap().contains("-2"), "not in two parts");
    // As after a kill between the put and the removal of the marker.
    files.iter().for_each(|(file, _)| local.outbox.announce(file).unwrap());
    assert_eq!(local.ship(&settings).uploaded_files, 3);
    assert_eq!(remote.objects(), before);
    for conditional_put in [false, true] {
        local.outbox.announce(&files[0].0).unwrap();
        local.ship(&UploadSettings { conditional_put, ..settings.clone() });
    }
    assert_eq!(remote.objects(), before);
}

#[test]
fn a_file_of_many_parts_arrives_whole() {
    let (remote, local) = (Remote::new(), Local::new());
    let bytes = content(1, 17 << 20);
    let files = [(local.seal(1, &bytes), bytes)];
    let settings = UploadSettings { multipart_bytes: bytesize::ByteSize::mib(5), ..remote.settings() };
    local.ship(&settings);
    remote.assert_stored(&files);
}

#[test]
fn a_server_that_is_killed_and_comes_back_gets_everything_once() {
    let (mut remote, local) = (Remote::new(), Local::new());
    if !remote.minio.keeps_data() {
        eprintln!("needs a server whose data outlives it: moto's does not");
        return;
    }
    let mut files = many(&local, 0..40, 200_000);
    let shipper = local.start(&remote.settings());
    wait_until("some are uploaded", LONG, || shipper.status().uploaded_files > 0);
    remote.minio.stop();
    files.extend(many(&local, 40..50, 1_000));
    shipper.nudge().nudge();
    wait_until("a failure is seen", LONG, || shipper.status().failures > 0);
    let down = shipper.status();
    assert!(down.last_error.as_ref().is_some_and(|error| error.contains("url=s3://")), "{down:?}");
    assert!(!shipper.ship_now(Duration::from_millis(50)));
    remote.minio.start_again();
    assert!(shipper.ship_now(LONG), "{:?}", shipper.status());
    remote.assert_stored(&files);
    assert_eq!((shipper.status().last_error, local.outbox.pending().unwrap()), (None, vec![]));
}

#[test]
fn a_line_of_one_kilobyte_a_second_is_waited_for() {
    if !Toxiproxy::installed() {
        eprintln!("needs toxiproxy, which needs Go");
        return;
    }
    let (remote, local, toxiproxy) = (Remote::new(), Local::new(), Toxiproxy::start());
    let proxy = toxiproxy.proxy(remote.minio.address());
    for stream in ["upstream", "downstream"] {
        proxy.add_toxic(&serde_json::json!({"type": "bandwidth", "stream": stream, "attributes": {"rate": 1}}));
    }
    let files = many(&local, 0..2, 3_000);
    local.ship(&remote.settings_through(&proxy.endpoint()));
    remote.assert_stored(&files);
}

#[test]
fn errors_of_the_server_are_tried_again() {
    let (remote, local) = (Remote::new(), Local::new());
    let proxy = FaultProxy::start(remote.minio.address());
    let mut files = Vec::new();
    for (round, status) in [500, 503].into_iter().enumerate() {
        proxy.answer_with(status);
        let shipper = local.start(&remote.settings_through(&proxy.endpoint()));
        files.extend(many(&local, round as u64 * 10..round as u64 * 10 + 3, 1_000));
        shipper.nudge().nudge();
        wait_until("failures are seen", LONG, || shipper.status().failures >= 2);
        assert!(shipper.status().last_error.unwrap().contains(&status.to_string()));
        assert!(shipper.status().lag() > Duration::ZERO && proxy.forwarded() == round as u64 * 3);
        proxy.pass();
        assert!(shipper.ship_now(LONG), "{:?}", shipper.status());
        remote.assert_stored(&files);
        // Each was put once, and nothing was asked besides.
        assert_eq!(proxy.forwarded(), (round as u64 + 1) * 3);
    }
}

#[test]
fn a_put_whose_answer_was_lost_is_found_again() {
    let (remote, local) = (Remote::new(), Local::new());
    let proxy = FaultProxy::start(remote.minio.address());
    proxy.forward_then_answer_with(500);
    let files = many(&local, 0..1, 1_000);
    let shipper = local.start(&remote.settings_through(&proxy.endpoint()));
    wait_until("a failure is seen", LONG, || shipper.status().failures > 0);
    let before = remote.objects();
    assert_eq!(before.len(), 1);
    proxy.pass();
    assert!(shipper.ship_now(LONG));
    remote.assert_stored(&files);
    assert_eq!(remote.objects(), before);
}

#[test]
fn a_probe_says_what_is_wrong_and_leaves_nothing() {
    let remote = Remote::new();
    let good = remote.settings();
    block_on(probe(&good)).unwrap();
    assert_eq!(remote.objects().len(), 0);
    block_on(probe(&UploadSettings::default())).unwrap();

    let keys = remote.keys.path().join("wrong");
    fs::write(
        &keys,
        format!("[default]\naws_access_key_id={}\naws_secret_access_key=guessed-secret\n", remote.minio.access_key()),
    )
    .unwrap();
    let refused = format!("http://{}", free_address());
    for (settings, kind, advice) in [
        (
            UploadSettings { url: Some("s3://no-such-bucket".into()), ..good.clone() },
            UploadErrorKind::NotFound,
            "create the bucket",
        ),
        (UploadSettings { credentials_file: Some(keys), ..good.clone() }, UploadErrorKind::Denied, "check the credentials"),
        (UploadSettings { endpoint: Some(refused), ..good.clone() }, UploadErrorKind::Unavailable, "check that the endpoint"),
        (UploadSettings { url: Some("ftp://x".into()), ..good.clone() }, UploadErrorKind::Settings, "expected s3://"),
    ] {
        let error = block_on(probe(&settings)).unwrap_err();
        let text = error.to_string();
        assert_eq!(error.kind, kind, "{text}");
        let names = ["url=", advice].iter().all(|part| text.contains(part));
        assert!(names && !text.contains("guessed-secret") && !text.contains(remote.minio.secret_key()), "{text}");
    }
}

fn to_directory(target: &TempDir) -> UploadSettings {
    let url = format!("file://{}/lake", target.path().display());
    UploadSettings { url: Some(url), every: Duration::from_secs(1), ..UploadSettings::default() }
}

#[test]
fn a_directory_is_a_target_too() {
    let (target, local) = (tempfile::tempdir().unwrap(), Local::new());
    let settings = UploadSettings { multipart_bytes: bytesize::ByteSize::mib(5), ..to_directory(&target) };
    block_on(probe(&settings)).unwrap();
    let large = content(1, 6 << 20);
    let files = [(local.seal(1, &large), large), (local.seal_in("export/predictions", "a%2Fb é+&", 2, b"two"), b"two".to_vec())];
    local.ship(&settings);
    let stored = |file: &Relative| fs::read(target.path().join("lake").join(file.key())).unwrap();
    files.iter().for_each(|(file, bytes)| assert!(stored(file) == *bytes, "{file}"));
    // There, with other bytes and with the same.
    fs::write(target.path().join("lake").join(files[0].0.key()), b"torn").unwrap();
    local.outbox.announce(&files[0].0).unwrap();
    local.ship(&settings);
    assert!(stored(&files[0].0) == files[0].1);
    local.outbox.announce(&files[0].0).unwrap();
    local.ship(&settings);
    let all = walk(&target.path().join("lake"));
    assert_eq!(all.len(), 2, "{all:?}");
}

fn walk(dir: &Path) -> Vec<std::path::PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}

#[test]
fn of_two_shippers_of_a_directory_one_ships_at_a_time() {
    let (target, local) = (tempfile::tempdir().unwrap(), Local::new());
    let files = many(&local, 0..60, 10_000);
    let uploads = Arc::new(AtomicU64::new(0));
    let start = || {
        let uploads = uploads.clone();
        let observer: Observer = Arc::new(move |event| {
            if let Event::Uploaded { .. } = event {
                uploads.fetch_add(1, Ordering::SeqCst);
            }
        });
        Shipper::start(to_directory(&target), local.dir.path(), Retain::default(), None, observer).unwrap()
    };
    let (one, two) = (start(), start());
    std::thread::scope(|scope| {
        scope.spawn(|| assert!(one.ship_now(LONG)));
        scope.spawn(|| assert!(two.ship_now(LONG)));
    });
    assert_eq!((uploads.load(Ordering::SeqCst), walk(&target.path().join("lake")).len()), (60, files.len()));

    // Another process holds the lock.
    let lock = fs::File::create(local.dir.path().join("ship.lock")).unwrap();
    wait_until("the lock is free", LONG, || lock.try_lock().is_ok());
    local.seal(99, b"x");
    let nudge: Nudge = one.nudge();
    nudge.nudge();
    assert!(!one.ship_now(Duration::from_millis(300)));
    assert_eq!(local.outbox.pending().unwrap().len(), 1);
    lock.unlock().unwrap();
    assert!(one.ship_now(LONG));
}

#[test]
fn files_go_by_age_and_size_and_never_before_they_are_stored() {
    let (target, local) = (tempfile::tempdir().unwrap(), Local::new());
    let left = |local: &Local| local.outbox.sealed(false).unwrap().into_iter().map(|entry| entry.relative).collect::<Vec<_>>();
    let age = |file: &Relative, by| {
        fs::File::open(local.outbox.path(file)).unwrap().set_modified(SystemTime::now() - by).unwrap();
    };
    let files = many(&local, 0..4, 100);
    for (n, (file, _)) in files.iter().enumerate() {
        age(file, Duration::from_secs(1_000 - n as u64));
    }
    // Nothing is stored while the bucket cannot be reached: nothing goes.
    let away = UploadSettings {
        url: Some("s3://bucket".into()),
        endpoint: Some(format!("http://{}", free_address())),
        credentials_file: Some(local.dir.path().join("keys")),
        ..UploadSettings::default()
    };
    fs::write(local.dir.path().join("keys"), "[default]\naws_access_key_id=a\naws_secret_access_key=b\n").unwrap();
    let shipper = local.start_with(&away, Retain { age: Some(Duration::ZERO), bytes: Some(0) }, None);
    wait_until("failures are seen", LONG, || shipper.status().failures >= 2);
    drop(shipper);
    assert_eq!(left(&local).len(), 4);

    // Stored: the oldest go until the rest is small enough, then what is too old.
    let shipper = local.start_with(&to_directory(&target), Retain { age: None, bytes: Some(200) }, None);
    wait_until("the oldest are gone", LONG, || left(&local).len() == 2);
    drop(shipper);
    assert_eq!(left(&local), [files[2].0.clone(), files[3].0.clone()]);
    age(&files[3].0, Duration::ZERO);
    let shipper = local.start_with(&to_directory(&target), Retain { age: Some(Duration::from_secs(500)), bytes: None }, None);
    wait_until("the old one is gone", LONG, || left(&local).len() == 1);
    drop(shipper);
    assert_eq!(left(&local), [files[3].0.clone()]);

    // Without an upload, age alone counts.
    let fresh = local.seal(9, b"x");
    age(&fresh, Duration::from_secs(1_000));
    let shipper = local.start_with(&UploadSettings::default(), Retain { age: Some(Duration::from_secs(500)), bytes: None }, None);
    wait_until("it is gone", LONG, || left(&local).len() == 1);
    drop(shipper);
    assert!(!local.outbox.is_pending(&fresh));
}

#[test]
fn rows_of_sqlite_are_stored_once() {
    use predlog::batch::{Batch, Chunk, Origin};
    use predlog::record::Writer;
    use predlog::ship::SqliteFeed;
    use predlog::sink::Sink;
    use predlog::sink::sqlite::{SqliteSettings, SqliteSink};

    let (target, local) = (tempfile::tempdir().unwrap(), Local::new());
    let sqlite = SqliteSettings { dir: local.dir.path().to_owned(), ..SqliteSettings::default() };
    let upload = UploadSettings { max_rows: 1_000, ..to_directory(&target) };
    let mut sink = SqliteSink::open(sqlite.clone()).unwrap();
    let writer: Writer = "0198c0de-0000-7000-8000-00000000000a-00".parse().unwrap();
    let mut log = |id: u64, seqs: std::ops::Range<u64>| {
        let line = |seq| {
            let model = ["wine", "iris"][seq as usize % 2];
            format!(
                "{{\"timestamp\":\"2026-11-23T03:34:18.123456Z\",\"model_name\":\"{model}\",\"id\":\"i{seq}\",\"inputs\":{{\"x\":{seq}}},\"outputs\":{{}},\"writer\":\"{writer}\",\"seq\":{seq}}}\n"
            )
        };
        let text: String = seqs.clone().map(line).collect();
        let chunks = vec![Chunk::from_lines(writer, seqs.end - seqs.start, seqs.start, seqs.end - 1, text.as_bytes())];
        sink.write(&Batch { id, origin: Origin::Live, chunks }).unwrap();
        assert_eq!(sink.commit().unwrap(), Some(id));
    };
    let start = || {
        let feed = SqliteFeed::open(sqlite.clone(), &upload, Arc::default()).unwrap();
        local.start_with(&upload, Retain::default(), Some(Box::new(feed)))
    };
    log(1, 0..2_500);
    let shipper = start();
    // Two whole plans go by themselves, the rest when it is asked for (or has waited for long enough).
    wait_until("two plans are stored", LONG, || rows(&target).len() >= 2_000);
    assert!(shipper.ship_now(LONG), "{:?}", shipper.status());
    assert_eq!(rows(&target), (0..2_500).collect::<Vec<_>>());
    log(2, 2_500..3_000);
    drop(shipper);
    assert!(start().ship_now(LONG));
    assert_eq!(rows(&target), (0..3_000).collect::<Vec<_>>());
    assert_eq!(walk(&local.dir.path().join("export")), Vec::<std::path::PathBuf>::new());
}

/// The seqs of all rows that are stored, sorted.
fn rows(target: &TempDir) -> Vec<i64> {
    use arrow_array::{cast::AsArray, types::Int64Type};
    let mut seqs = Vec::new();
    for path in walk(&target.path().join("lake")).into_iter().filter(|path| path.extension().is_some_and(|end| end == "parquet"))
    {
        let reader = parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder::try_new(fs::File::open(path).unwrap());
        for batch in reader.unwrap().build().unwrap() {
            let batch = batch.unwrap();
            seqs.extend_from_slice(batch.column_by_name("seq").unwrap().as_primitive::<Int64Type>().values());
        }
    }
    seqs.sort_unstable();
    seqs
}
