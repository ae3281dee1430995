use super::*;
use object_store::memory::InMemory;
use object_store::throttle::{ThrottleConfig, ThrottledStore};
use object_store::{ObjectStoreExt, PutResult};
use std::sync::Arc;

const RELATIVE: &str = "predictions/model_name=a%2Fb é/date=2026-11-23/0198c0de-0000-7000-8000-00000000000a-0f-0-41.parquet";

struct Bench {
    _dir: tempfile::TempDir,
    outbox: Outbox,
    target: Target,
    pace: Pace,
    stop: watch::Sender<bool>,
    multipart_bytes: u64,
}

impl Bench {
    fn new(store: Arc<dyn ObjectStore>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let outbox = Outbox::open(dir.path(), false).unwrap();
        let target = Target {
            store,
            prefix: Path::parse("a/b%2Fc").unwrap(),
            conditional: true,
            attributes: true,
            shown: "url=test".into(),
        };
        Bench { _dir: dir, outbox, target, pace: Pace::new(), stop: watch::channel(false).0, multipart_bytes: 1_000 }
    }

    fn entry(&self, bytes: &[u8]) -> Entry {
        let staged = self.outbox.root().join("staged");
        std::fs::write(&staged, bytes).unwrap();
        self.outbox.publish(&staged, &RELATIVE.parse().unwrap()).unwrap();
        self.outbox.pending().unwrap().remove(0)
    }

    async fn store(&mut self, entry: &Entry) -> Result<(), Fault> {
        let stop = self.stop.subscribe();
        let (target, outbox) = (&self.target, &self.outbox);
        Uploader { target, outbox, multipart_bytes: self.multipart_bytes, pace: &mut self.pace, stop }.store(entry).await
    }

    fn key(&self) -> Path {
        self.target.key(RELATIVE).unwrap()
    }

    async fn stored(&self) -> Vec<u8> {
        self.target.store.get(&self.key()).await.unwrap().bytes().await.unwrap().to_vec()
    }

    async fn put(&self, bytes: &[u8]) -> PutResult {
        self.target.store.put(&self.key(), bytes.to_vec().into()).await.unwrap()
    }

    async fn etag(&self) -> Option<String> {
        self.target.store.head(&self.key()).await.unwrap().e_tag
    }
}

fn memory() -> Bench {
    Bench::new(Arc::new(InMemory::new()))
}

#[tokio::test]
async fn the_key_is_the_prefix_and_the_path_as_they_are() {
    assert_eq!(memory().key().as_ref(), format!("a/b%2Fc/{RELATIVE}"));
}

#[tokio::test]
async fn a_small_file_and_one_of_many_parts_arrive_whole_and_once() {
    for size in [0, 1, 1_000, 1_001, 12_345] {
        for conditional in [true, false] {
            let mut bench = memory();
            bench.target.conditional = conditional;
            let bytes: Vec<u8> = (0..size).map(|at| at as u8).collect();
            let entry = bench.entry(&bytes);
            bench.store(&entry).await.unwrap();
            assert_eq!(bench.stored().await, bytes, "{size}");
            let etag = bench.etag().await;
            bench.store(&entry).await.unwrap();
            assert_eq!(bench.etag().await, etag, "{size}: it was put again");
        }
    }
}

#[tokio::test]
async fn an_object_without_our_digest_is_read_and_kept_when_it_is_the_same() {
    for size in [10, 5_000] {
        let mut bench = memory();
        let entry = bench.entry(&vec![7; size]);
        let etag = bench.put(&vec![7; size]).await.e_tag;
        bench.store(&entry).await.unwrap();
        assert_eq!(bench.etag().await, etag);
    }
}

#[tokio::test]
async fn another_object_of_any_size_is_replaced() {
    for size in [10, 5_000] {
        for other in [vec![8; size], vec![7; size - 1], vec![]] {
            let mut bench = memory();
            let entry = bench.entry(&vec![7; size]);
            bench.put(&other).await;
            bench.store(&entry).await.unwrap();
            assert_eq!(bench.stored().await, vec![7; size]);
        }
    }
}

#[tokio::test]
async fn a_file_that_cannot_be_read_is_its_own_fault() {
    for size in [10, 5_000] {
        let mut bench = memory();
        let entry = bench.entry(&vec![7; size]);
        bench.outbox.delete(&entry.relative).unwrap();
        assert!(matches!(bench.store(&entry).await, Err(Fault::Local(error)) if error.contains(RELATIVE)));
    }
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_does_not_answer_is_given_more_time_each_time() {
    let hour = Duration::from_secs(3_600);
    let slow = ThrottleConfig { wait_put_per_call: hour, ..ThrottleConfig::default() };
    let mut bench = Bench::new(Arc::new(ThrottledStore::new(InMemory::new(), slow)));
    bench.multipart_bytes = 2 << 20;
    let entry = bench.entry(&vec![7; 1 << 20]);
    let mut tries = 0;
    while let Err(fault) = bench.store(&entry).await {
        assert!(matches!(&fault, Fault::Remote(error) if error.contains("no answer within")), "{fault:?}");
        tries += 1;
        assert!(tries < 20);
    }
    // 1 MiB at 256 bytes a second is more than an hour: five tries from 64 KiB a second down.
    assert_eq!((tries, bench.stored().await.len()), (4, 1 << 20));
}

#[tokio::test(start_paused = true)]
async fn a_stop_does_not_wait_for_the_store() {
    let slow = ThrottleConfig { wait_put_per_call: Duration::from_secs(3_600), ..ThrottleConfig::default() };
    let mut bench = Bench::new(Arc::new(ThrottledStore::new(InMemory::new(), slow)));
    let entry = bench.entry(b"12345");
    bench.stop.send_replace(true);
    assert!(matches!(bench.store(&entry).await, Err(Fault::Stopped)));
}

#[test]
fn pace_follows_what_the_line_does() {
    let mut pace = Pace::new();
    assert_eq!(pace.limit(0), PATIENCE);
    pace.timed_out();
    assert_eq!(pace.limit(64 << 10), PATIENCE + Duration::from_secs(4));
    (0..10).for_each(|_| pace.timed_out());
    assert_eq!(pace.least, Pace::SLOWEST);
    pace.took(1_000, Duration::from_millis(1));
    assert_eq!(pace.least, Pace::SLOWEST);
    pace.took(1 << 20, Duration::from_secs(1));
    assert_eq!(pace.least, Pace::FAST);
    pace.took(1 << 20, Duration::from_secs(1_024));
    assert_eq!(pace.least, 256);
}
