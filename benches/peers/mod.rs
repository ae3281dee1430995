//! What stores the same topic beside predlog: each a process of its own that writes a table into the same MinIO, in its best settings.
//!
//! A peer is watched from outside, by the versions of its table. There are two rates: one since it was told to begin, and one since the
//! first version, when its JVM is up and its code compiled. predlog's own clock lies between: it starts with its partitions.

pub mod iceberg;
pub mod mq_bridge;
pub mod spark;

use crate::services::kafka::Kafka;
use crate::services::process::Service;
use crate::services::s3::Minio;
use crate::support::{cpu_seconds_of, peak_rss_mib_of};
use bytes::Bytes;
use futures_util::TryStreamExt as _;
use object_store::aws::AmazonS3;
use object_store::{ObjectStore as _, ObjectStoreExt as _, path::Path};
use serde_json::Value;
use std::thread;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

/// How many records a peer stores within the clock: enough, as it needs a minute for them.
const ENOUGH: u64 = 1_000_000;
const LIMIT: Duration = Duration::from_secs(600);
/// Small against the seconds between two versions, and little work for MinIO.
const POLL: Duration = Duration::from_millis(100);

/// Where a peer finds its records, how many they are, and where it puts them.
pub struct Given<'a> {
    pub kafka: &'a Kafka,
    pub minio: &'a Minio,
    pub topic: &'a str,
    pub rows: u64,
    pub bucket: &'a str,
}

pub struct Figures {
    /// Records a second since it was told to begin.
    pub begun: f64,
    /// Records a second once it is warm.
    pub warm: f64,
    /// CPU seconds a record, once it is warm.
    pub cpu: f64,
    pub peak_mib: f64,
}

/// A version of a table as it was seen.
#[derive(Clone, Copy)]
struct Seen {
    at: Instant,
    cpu: f64,
    rows: u64,
}

/// Watches a table grow, from `begun`, until [`ENOUGH`] records came after its first version, or all are there. `stored` says how many it has.
fn watch(service: &mut Service, begun: Instant, rows: u64, mut stored: impl FnMut() -> u64) -> Figures {
    let process = service.id().to_string();
    let (mut first, mut last) = (None::<Seen>, None::<Seen>);
    service.wait_within(LIMIT, "its table has the records", || {
        thread::sleep(POLL);
        let found = stored();
        if found > last.map_or(0, |last| last.rows) {
            let seen = Seen { at: Instant::now(), cpu: cpu_seconds_of(&process), rows: found };
            eprintln!("{found} records are stored");
            first.get_or_insert(seen);
            last = Some(seen);
        }
        found == rows || first.is_some_and(|first| found >= first.rows + ENOUGH)
    });
    let (first, last) = first.zip(last).expect("a version was seen");
    let counted = (last.rows - first.rows) as f64;
    assert!(counted > 0.0, "all {rows} records came in one version: give the bench more of them");
    Figures {
        begun: last.rows as f64 / (last.at - begun).as_secs_f64(),
        warm: counted / (last.at - first.at).as_secs_f64(),
        cpu: (last.cpu - first.cpu) / counted,
        peak_mib: peak_rss_mib_of(&process),
    }
}

/// The objects of a peer's table.
struct Objects {
    store: AmazonS3,
    runtime: Runtime,
}

impl Objects {
    fn of(given: &Given<'_>) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime starts");
        Self { store: given.minio.store(given.bucket), runtime }
    }

    /// The names in a folder, without those of folders in it.
    fn names(&self, folder: &str) -> Vec<String> {
        let folder = Path::from(folder);
        let listed = self.runtime.block_on(self.store.list_with_delimiter(Some(&folder))).expect("the bucket can be listed");
        listed.objects.into_iter().map(|object| object.location.to_string()).collect()
    }

    /// What lies in a folder, and in folders of it.
    fn below(&self, folder: &str) -> impl Iterator<Item = Bytes> {
        let listed = self.store.list(Some(&Path::from(folder))).try_collect::<Vec<_>>();
        let listed = self.runtime.block_on(listed).expect("the bucket can be listed");
        listed.into_iter().map(|object| {
            let got = self.runtime.block_on(async { self.store.get(&object.location).await?.bytes().await });
            got.expect("an object that is listed can be read")
        })
    }

    /// An object of JSON, or of lines of JSON; `None` when it is not there.
    fn json(&self, name: &str) -> Option<Vec<Value>> {
        let got = self.runtime.block_on(async { self.store.get(&Path::from(name)).await?.bytes().await });
        let bytes = match got {
            Ok(bytes) => bytes,
            Err(object_store::Error::NotFound { .. }) => return None,
            Err(error) => panic!("{name} cannot be read: {error}"),
        };
        let values = serde_json::Deserializer::from_slice(&bytes).into_iter();
        Some(values.map(|value| value.expect("JSON")).collect())
    }
}
