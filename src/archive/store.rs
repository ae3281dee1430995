//! Ranges to objects: the plan, the objects, the state, the table's commit, the offset, in this order.

use super::dead_letter::DeadTopic;
use super::encoder::{Content, Object, TableFile};
use super::job::SameKey;
use super::lease::Lease;
use super::offsets::Offsets;
use super::position::Position;
use super::range::Fault;
use super::status::Counters;
use super::table::{NotCommitted, Table};
use crate::clock::Timestamp;
use crate::retry::Backoff;
use crate::ship::Target;
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use object_store::{
    Attribute, AttributeValue, Attributes, GetOptions, ObjectStoreExt as _, PutMode, PutMultipartOptions, PutOptions,
    WriteMultipart,
};
use rdkafka::consumer::Consumer as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::sync::{Semaphore, oneshot};

/// The attribute of an object that says of which range it is, where its key does not. Letters alone, as not every store takes others.
const RANGE: &str = "predlogrange";
/// The attribute that says by its name of which topic it is: one that was made anew has the name of the one before.
const TOPIC: &str = "predlogtopic";
/// Requests to the store at one time.
const REQUESTS: usize = 8;
/// Larger objects go up in parts of this size (S3's smallest), two at a time …
const PART_BYTES: usize = 5 << 20;
/// … and so many of them at one time: each holds three parts in memory.
const LARGE_UPLOADS: usize = 2;
/// How long an answer may take, and how slow a line may be beyond that, in bytes a second.
const PATIENCE: Duration = Duration::from_secs(30);
const SLOWEST: u64 = 64 << 10;
const RETRY_MIN: Duration = Duration::from_millis(200);
const RETRY_MAX: Duration = Duration::from_secs(20);

/// A range that is encoded, and not stored yet.
#[derive(Debug)]
pub(super) struct Finished {
    pub lease: Lease,
    /// Where it was begun from.
    pub from: Position,
    /// The offset behind its last message.
    pub end: i64,
    pub objects: Vec<Object>,
    /// What the format must know to go on.
    pub state: Option<Vec<u8>>,
    /// Messages for the dead letter topic.
    pub dead: Vec<super::dead_letter::Letter>,
    pub messages: u64,
    pub rows: u64,
    pub duplicates: u64,
    /// The newest time of a message so far, milliseconds since 1970.
    pub newest_time: i64,
}

/// The lease was lost, or the archiver stops: somebody else, or a later run, stores the range.
#[derive(Debug)]
pub(super) struct Abandoned;

/// What was decided to be stored: the position that it begins from, and the offset that it ends before.
#[derive(Clone, Debug)]
struct Plan {
    topic: Arc<str>,
    from: Position,
    end: i64,
}

impl Plan {
    /// Tells the objects of this range from others with the same keys.
    fn mark(&self) -> String {
        self.from.topic.map_or_else(|| self.end.to_string(), |topic| format!("{topic}-{}", self.end))
    }
}

/// What is known of an object that has the key already.
#[derive(Clone, Copy, Debug)]
enum Taken<'a> {
    /// It is of the same messages, as its key says.
    Same,
    /// It is of others, or says nothing else.
    Stale,
    /// It says itself of which range it is.
    Ask(&'a Plan),
    /// It was asked, and is of another.
    Replace(&'a Plan),
}

impl<'a> Taken<'a> {
    fn plan(self) -> Option<&'a Plan> {
        match self {
            Taken::Ask(plan) | Taken::Replace(plan) => Some(plan),
            Taken::Same | Taken::Stale => None,
        }
    }

    fn is_replaced(self) -> bool {
        matches!(self, Taken::Stale | Taken::Replace(_))
    }
}

/// What became of a put.
enum Put {
    /// The object is there, with so many bytes.
    Stored(u64),
    /// One of other messages is, of this topic or of who knows which.
    Taken,
    /// One of another topic is.
    OfTopic(String),
}

/// Stores ranges, for all workers.
pub(super) struct Storer {
    pub target: Target,
    pub state_prefix: String,
    pub watermark_prefix: String,
    pub offsets: Offsets,
    pub dead_topic: Option<DeadTopic>,
    pub table: Option<Arc<Table>>,
    pub counters: Arc<Counters>,
    pub runtime: tokio::runtime::Handle,
    pub same_key: SameKey,
    pub requests: Requests,
    pub stopping: tokio::sync::watch::Receiver<bool>,
}

/// How many requests may be under way: what bounds the memory that they take.
pub(super) struct Requests {
    small: Semaphore,
    large: Semaphore,
}

impl Default for Requests {
    fn default() -> Self {
        Requests { small: Semaphore::new(REQUESTS), large: Semaphore::new(LARGE_UPLOADS) }
    }
}

impl Storer {
    /// Stores the range in the background; the answer comes when it is stored, or will not be.
    pub fn submit(self: &Arc<Self>, finished: Finished) -> oneshot::Receiver<Result<Position, Abandoned>> {
        let (answer, receiver) = oneshot::channel();
        let storer = self.clone();
        self.runtime.spawn(async move {
            // Nobody waits any more when the worker has given the partition up.
            let _ = answer.send(storer.store(finished).await);
        });
        receiver
    }

    async fn store(self: Arc<Self>, finished: Finished) -> Result<Position, Abandoned> {
        let Finished { lease, from, end, mut objects, state, dead, messages, rows, duplicates, newest_time } = finished;
        let files: Vec<TableFile> = objects.iter_mut().filter_map(|object| object.table.take()).collect();
        let plan = Plan { topic: lease.at.topic.clone(), from, end };
        if from.end.is_none() {
            self.commit_plan(&lease, &plan).await?;
        }
        let taken = match self.same_key {
            SameKey::KeepBoth => Taken::Same,
            SameKey::Replace => Taken::Ask(&plan),
        };
        let puts: Vec<_> = objects.into_iter().map(|object| self.put(&lease, object, taken)).collect();
        let bytes = stream::iter(puts).buffer_unordered(REQUESTS).try_fold(0, async |sum, bytes| Ok(sum + bytes)).await?;
        if let Some(topic) = self.dead_topic.as_ref().filter(|_| !dead.is_empty()) {
            let mut tries = self.tries(&lease)?;
            while let Err(error) = topic.send(&dead).await {
                tries.failed("send dead letters", &error).await?;
            }
        }
        let stored = Position { offset: Some(end), state: state.is_some(), topic: from.topic, ..Position::default() };
        if let Some(state) = state {
            let object = Object { key: self.state_key(&lease, end), content: Content::Bytes(state), rows: 0, table: None };
            self.put(&lease, object, Taken::Stale).await?;
        }
        if !files.is_empty() {
            self.commit_files(&lease, end, files.into()).await?;
        }
        self.commit(&lease, end, stored).await?;
        if from.state
            && let Some(offset) = from.offset
        {
            self.forget_state(&lease, offset).await;
        }
        self.counters.duplicates.fetch_add(duplicates, Ordering::Relaxed);
        self.counters.stored(&lease.at, end, messages, rows, bytes);
        self.mark(&lease, Some(end), newest_time).await;
        Ok(stored)
    }

    /// Says in the background that everything up to this time is stored, of a partition that has nothing more.
    pub fn submit_mark(self: &Arc<Self>, lease: Lease, offset: Option<i64>, millis: i64) {
        let storer = self.clone();
        self.runtime.spawn(async move { storer.mark(&lease, offset, millis).await });
    }

    /// Puts the partition's watermark, for jobs that wait for an hour to be complete. The next one makes a failure good.
    async fn mark(&self, lease: &Lease, offset: Option<i64>, millis: i64) {
        self.counters.up_to(&lease.at, millis);
        let up_to = Timestamp::from_micros(millis.saturating_mul(1_000)).to_string();
        let (topic, partition) = (&*lease.at.topic, lease.at.partition);
        let mark = serde_json::json!({"topic": topic, "partition": partition, "offset": offset, "stored_up_to": up_to});
        let key = format!("{}/{}.json", self.watermark_prefix, lease.at);
        let Ok(path) = self.target.key(&key) else { return };
        if !self.offsets.leases.is_held(lease) {
            return;
        }
        let put = timely(0, self.target.store.put(&path, mark.to_string().into())).await;
        if let Err(error) = put.and_then(|put| put.map_err(|error| error.to_string())) {
            tracing::warn!(%path, error, "the watermark is not stored");
        }
    }

    /// The state that was stored with this offset. One that must be there is waited for.
    pub async fn load_state(&self, lease: &Lease, offset: i64, must: bool) -> Result<Option<Vec<u8>>, Abandoned> {
        let key = self.state_key(lease, offset);
        let mut tries = self.tries(lease)?;
        loop {
            match self.get(&key).await {
                Ok(None) if must => tries.failed("read the state", &format!("key={key}: it is gone; put it back")).await?,
                Ok(state) => return Ok(state),
                Err(error) => tries.failed("read the state", &format!("key={key}: {error}")).await?,
            }
        }
    }

    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, String> {
        let path = self.target.key(key).map_err(|error| error.to_string())?;
        match timely(0, async { self.target.store.get(&path).await?.bytes().await }).await? {
            Ok(bytes) => Ok(Some(bytes.into())),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error.to_string()),
        }
    }

    fn state_key(&self, lease: &Lease, offset: i64) -> String {
        format!("{}/{}/{}/{offset}.state", self.state_prefix, lease.at.topic, lease.at.partition)
    }

    /// A state that stays costs space, nothing else.
    async fn forget_state(&self, lease: &Lease, offset: i64) {
        let key = self.state_key(lease, offset);
        let Ok(path) = self.target.key(&key) else { return };
        if let Ok(Err(error)) = timely(0, self.target.store.delete(&path)).await {
            tracing::debug!(%path, %error, "an old state stays");
        }
    }

    /// Makes the files part of the table.
    async fn commit_files(self: &Arc<Self>, lease: &Lease, end: i64, files: Arc<[TableFile]>) -> Result<(), Abandoned> {
        let Some(table) = &self.table else { return Ok(()) };
        let mut tries = self.tries(lease)?;
        loop {
            let (table, at, files) = (table.clone(), lease.called(), files.clone());
            let committed = tokio::task::spawn_blocking(move || table.commit(&at, end, &files)).await;
            let fault = match committed {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(NotCommitted::Later(why))) => {
                    tries.failed("commit to the table", &why).await?;
                    continue;
                }
                Ok(Err(NotCommitted::Fenced(why) | NotCommitted::Columns(why))) => Fault::Again(why),
                Ok(Err(NotCommitted::Never(why))) => Fault::Fatal(why),
                Err(error) => Fault::Again(error.to_string()),
            };
            return Err(self.give_up(lease, fault));
        }
    }

    /// Ends the run by this fault, but for one who has lost the partition: he is fenced, and nothing is wrong.
    fn give_up(&self, lease: &Lease, fault: Fault) -> Abandoned {
        if self.offsets.leases.is_held(lease) {
            *self.offsets.consumer.context().broken.lock() = Some(fault);
        }
        Abandoned
    }

    async fn commit(self: &Arc<Self>, lease: &Lease, offset: i64, position: Position) -> Result<(), Abandoned> {
        let mut tries = self.tries(lease)?;
        loop {
            let (storer, held) = (self.clone(), lease.clone());
            let committed = tokio::task::spawn_blocking(move || storer.offsets.commit(&held, offset, &position)).await;
            let error = match committed {
                Ok(Some(Ok(()))) => return Ok(()),
                Ok(None) => return Err(Abandoned),
                Ok(Some(Err(error))) => error,
                Err(error) => error.to_string(),
            };
            tries.failed("commit the offset", &error).await?;
        }
    }

    async fn commit_plan(self: &Arc<Self>, lease: &Lease, plan: &Plan) -> Result<(), Abandoned> {
        let planned = Position { end: Some(plan.end), ..plan.from };
        self.commit(lease, plan.from.offset.unwrap_or(0), planned).await
    }

    /// Puts the object unless it is there. Returns its size.
    async fn put(self: &Arc<Self>, lease: &Lease, object: Object, taken: Taken<'_>) -> Result<u64, Abandoned> {
        let scratch = match &object.content {
            Content::File(path) => Some(Scratch(path.clone())),
            Content::Bytes(_) => None,
        };
        let (mut tries, mut taken) = (self.tries(lease)?, taken);
        loop {
            match (self.try_put(&object, taken).await, taken) {
                (Ok(Put::Stored(bytes)), _) => {
                    drop(scratch);
                    return Ok(bytes);
                }
                (Ok(Put::Taken), Taken::Ask(plan)) => {
                    tracing::warn!(key = object.key, "an object of other messages has this key: it is replaced");
                    // Whoever is not in the group any more must not replace anything, and cannot commit.
                    self.commit_plan(lease, plan).await?;
                    taken = Taken::Replace(plan);
                }
                (Ok(Put::OfTopic(other)), _) => {
                    let (key, topic) = (&object.key, &lease.at.topic);
                    let why = format!(
                        "key={key}: an object of topic={topic} would take the place of one of topic={other}, which is not replaced: expected names of \
                         objects that keep them apart, such as another topics.dir, or other routers, for one of them"
                    );
                    return Err(self.give_up(lease, Fault::Fatal(why)));
                }
                // Only who asks is told so.
                (Ok(Put::Taken), _) => {}
                (Err(error), _) => tries.failed("put an object", &format!("key={}: {error}", object.key)).await?,
            }
        }
    }

    async fn try_put(&self, object: &Object, taken: Taken<'_>) -> Result<Put, String> {
        let (path, content) = (&self.target.key(&object.key).map_err(|error| error.to_string())?, &object.content);
        let size = match content {
            Content::Bytes(bytes) => bytes.len() as u64,
            Content::File(file) => {
                tokio::fs::metadata(file).await.map_err(|error| format!("path={}: {error}", file.display()))?.len()
            }
        };
        if size > PART_BYTES as u64
            && let Content::File(file) = content
        {
            let _permit = self.requests.large.acquire().await.map_err(|error| error.to_string())?;
            return self.put_parts(path, file, size, taken).await;
        }
        let _permit = self.requests.small.acquire().await.map_err(|error| error.to_string())?;
        let bytes = match content {
            Content::Bytes(bytes) => Bytes::copy_from_slice(bytes),
            Content::File(file) => {
                tokio::fs::read(file).await.map_err(|error| format!("path={}: {error}", file.display()))?.into()
            }
        };
        let mode = if self.target.conditional && !taken.is_replaced() { PutMode::Create } else { PutMode::Overwrite };
        let options = PutOptions { mode, attributes: self.attributes(taken), ..PutOptions::default() };
        match timely(size, self.target.store.put_opts(path, bytes.into(), options)).await? {
            Ok(_) => Ok(Put::Stored(size)),
            Err(object_store::Error::AlreadyExists { .. }) => {
                let found = self.there(path, size, taken).await?;
                found.ok_or_else(|| "an object of this key was there, and is not any more".to_owned())
            }
            Err(error) => Err(error.to_string()),
        }
    }

    fn attributes(&self, taken: Taken<'_>) -> Attributes {
        let Some(plan) = taken.plan().filter(|_| self.target.attributes) else { return Attributes::default() };
        let said = [(RANGE, AttributeValue::from(plan.mark())), (TOPIC, AttributeValue::from(plan.topic.to_string()))];
        said.into_iter().map(|(name, value)| (Attribute::Metadata(name.into()), value)).collect()
    }

    /// What a put of so many bytes comes to where an object has the key already; `None` when there is none.
    async fn there(&self, path: &Path, size: u64, taken: Taken<'_>) -> Result<Option<Put>, String> {
        let found = timely(0, self.target.store.get_opts(path, GetOptions { head: true, ..GetOptions::default() })).await?;
        match (found, taken.plan()) {
            (Ok(_), None) => Ok(Some(Put::Stored(size))),
            (Ok(found), Some(plan)) => {
                let said = |name: &'static str| found.attributes.get(&Attribute::Metadata(name.into())).map(AsRef::as_ref);
                Ok(Some(match (said(RANGE), said(TOPIC)) {
                    (_, Some(topic)) if topic != &*plan.topic => Put::OfTopic(topic.to_owned()),
                    (Some(mark), _) if mark == plan.mark() => Put::Stored(size),
                    _ => Put::Taken,
                }))
            }
            (Err(object_store::Error::NotFound { .. }), _) => Ok(None),
            (Err(error), _) => Err(error.to_string()),
        }
    }

    async fn put_parts(&self, path: &Path, file: &std::path::Path, size: u64, taken: Taken<'_>) -> Result<Put, String> {
        if !taken.is_replaced()
            && let Some(found) = self.there(path, size, taken).await?
        {
            return Ok(found);
        }
        let options = PutMultipartOptions { attributes: self.attributes(taken), ..PutMultipartOptions::default() };
        let upload = timely(0, self.target.store.put_multipart_opts(path, options)).await?;
        let upload = upload.map_err(|error| error.to_string())?;
        let mut parts = WriteMultipart::new_with_chunk_size(upload, PART_BYTES);
        let sent = timely(size, async {
            let mut file = tokio::fs::File::open(file).await.map_err(|error| error.to_string())?;
            loop {
                let mut part = Vec::with_capacity(PART_BYTES);
                (&mut file).take(PART_BYTES as u64).read_to_end(&mut part).await.map_err(|error| error.to_string())?;
                if part.is_empty() {
                    return Ok(());
                }
                parts.wait_for_capacity(1).await.map_err(|error| error.to_string())?;
                parts.put(part.into());
            }
        })
        .await;
        match sent.and_then(|sent| sent) {
            Ok(()) => timely(size, parts.finish()).await?.map(|_| Put::Stored(size)).map_err(|error| error.to_string()),
            Err(why) => {
                // What this cannot take back costs space until the bucket's lifecycle rule for unfinished uploads does.
                let _ = tokio::time::timeout(PATIENCE, parts.abort()).await;
                Err(why)
            }
        }
    }

    fn tries<'a>(&'a self, lease: &'a Lease) -> Result<Tries<'a>, Abandoned> {
        let backoff = Backoff::new(RETRY_MIN, RETRY_MAX, fastrand::u64(..));
        let tries = Tries { storer: self, lease, backoff, stopping: self.stopping.clone() };
        tries.may_go_on().map(|()| tries)
    }
}

/// Tries that go on for as long as the lease is held.
struct Tries<'a> {
    storer: &'a Storer,
    lease: &'a Lease,
    backoff: Backoff,
    stopping: tokio::sync::watch::Receiver<bool>,
}

impl Tries<'_> {
    fn may_go_on(&self) -> Result<(), Abandoned> {
        let may = self.storer.offsets.leases.is_held(self.lease) && !*self.stopping.borrow();
        if may { Ok(()) } else { Err(Abandoned) }
    }

    /// Tells of a failure, and waits before the next try.
    async fn failed(&mut self, what: &str, error: &str) -> Result<(), Abandoned> {
        self.may_go_on()?;
        self.storer.counters.failures.fetch_add(1, Ordering::Relaxed);
        let wait = self.backoff.failed();
        tracing::warn!(partition = %self.lease.at, error, retry_in = ?wait, "cannot {what}");
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            _ = self.stopping.changed() => {}
        }
        self.may_go_on()
    }
}

/// A file that is removed when its object is stored, or given up.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        // What stays is removed with the directory, at the end or at the next start.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// As long as a request of so many bytes may take.
async fn timely<T>(bytes: u64, request: impl Future<Output = T>) -> Result<T, String> {
    let limit = PATIENCE + Duration::from_secs(bytes / SLOWEST);
    tokio::time::timeout(limit, request).await.map_err(|_| format!("no answer within {limit:?}"))
}
