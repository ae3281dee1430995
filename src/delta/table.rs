//! A table that is open: where it is, and what is known of its newest version.

use super::action::Lines;
use super::log::Put;
use super::schema::delta_schema;
use super::{DeltaError, now_millis};
use crate::ship::UploadSettings;
use crate::ship::objects::Objects;
use arrow_schema::{Schema as ArrowSchema, SchemaRef as ArrowSchemaRef};
use delta_kernel::engine::arrow_conversion::TryIntoArrow;
use delta_kernel::schema::StructType;
use delta_kernel::snapshot::{Snapshot, SnapshotRef};
use delta_kernel_default_engine::executor::tokio::TokioMultiThreadExecutor;
use delta_kernel_default_engine::{DefaultEngine, DefaultEngineBuilder};
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::num::NonZero;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

/// What is known of the newest version may be this old before a commit. A version that was written since is a conflict, and is met then; this is for
/// one that was written and has been deleted again, whose place the store would give us.
const FRESH: Duration = Duration::from_secs(60);
/// Applications whose versions are kept in memory.
const MAX_TXNS: usize = 100_000;
/// Log files that are read at one time, and rows of theirs.
const READS: NonZero<usize> = NonZero::new(16).unwrap();
const BATCH: NonZero<usize> = NonZero::new(1_024).unwrap();
/// Features of a table that what is written here keeps to.
const FEATURES: [&str; 7] =
    ["appendOnly", "invariants", "changeDataFeed", "deletionVectors", "timestampNtz", "v2Checkpoint", "vacuumProtocolCheck"];

pub(super) type Engine = DefaultEngine<TokioMultiThreadExecutor>;

/// How a table is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeltaSettings {
    /// A checkpoint is written at each multiple of this many versions, unless the table's `delta.checkpointInterval` says otherwise. 0: never.
    pub checkpoint_every: u64,
    /// Log files that a checkpoint has made needless are deleted when they are older than this, unless the table's `delta.logRetentionDuration` says otherwise.
    pub log_retention: Duration,
    /// How long a commit is tried against other writers.
    pub commit_timeout: Duration,
}

impl Default for DeltaSettings {
    fn default() -> Self {
        let days = |days: u64| Duration::from_secs(days * 24 * 60 * 60);
        DeltaSettings { checkpoint_every: 100, log_retention: days(30), commit_timeout: Duration::from_secs(120) }
    }
}

/// A Delta table.
///
/// Calls block, and must not come from an async task: the table has a small runtime of its own. Those of several threads take turns.
#[derive(Debug)]
pub struct DeltaTable {
    pub(super) files: Objects,
    pub(super) engine: Arc<Engine>,
    pub(super) settings: DeltaSettings,
    pub(super) state: Mutex<State>,
    /// `None` only while it is dropped.
    runtime: Option<Runtime>,
}

/// The newest version that is known.
#[derive(Debug)]
pub(super) struct State {
    pub version: u64,
    /// Of that version or an earlier one with the same columns and protocol.
    pub snapshot: SnapshotRef,
    /// Where applications are at that version, as far as they were asked for.
    pub txns: HashMap<String, Option<i64>>,
    /// When the log was listed last.
    pub listed: Instant,
}

impl DeltaTable {
    /// Opens the table in the directory or bucket that `store.url` names, with the credentials of uploads, or makes one with these columns.
    ///
    /// `schema` has all columns, those of `partition_columns` too. Of a table that is there it adds nothing: that is for
    /// [`commit`](DeltaTable::commit).
    ///
    /// # Errors
    /// The settings cannot work, the store does not answer, or the table has other partition columns or features that predlog does not keep to.
    pub fn open_or_create(
        store: &UploadSettings,
        settings: DeltaSettings,
        schema: &ArrowSchema,
        partition_columns: &[&str],
    ) -> Result<Self, DeltaError> {
        let opened = Opened::new(store)?;
        if !opened.files.has_log()? {
            opened.create(schema, partition_columns)?;
        }
        let table = opened.load(settings)?;
        let metadata = table.state.lock().metadata()?;
        if metadata["partitionColumns"] != json!(partition_columns) {
            return Err(DeltaError::Table(format!(
                "{}: the table is partitioned by {}, expected {}: give another URL, or write with the table's partition columns",
                table.files.target.shown,
                metadata["partitionColumns"],
                json!(partition_columns),
            )));
        }
        Ok(table)
    }

    /// Opens a table that is there.
    ///
    /// # Errors
    /// As [`open_or_create`](DeltaTable::open_or_create), and there is none.
    pub fn open(store: &UploadSettings, settings: DeltaSettings) -> Result<Self, DeltaError> {
        let opened = Opened::new(store)?;
        if !opened.files.has_log()? {
            let shown = &opened.files.target.shown;
            return Err(DeltaError::Table(format!(
                "{shown}: there is no Delta table: expected _delta_log/ with a version in it"
            )));
        }
        opened.load(settings)
    }

    /// Opens a table, if there is one.
    ///
    /// # Errors
    /// As [`open_or_create`](DeltaTable::open_or_create).
    #[cfg(feature = "archive")]
    pub(crate) fn open_if_there(store: &UploadSettings, settings: DeltaSettings) -> Result<Option<Self>, DeltaError> {
        let opened = Opened::new(store)?;
        if opened.files.has_log()? { opened.load(settings).map(Some) } else { Ok(None) }
    }

    /// The newest version that this process knows.
    pub fn version(&self) -> u64 {
        self.state.lock().version
    }

    /// The table's columns as Arrow's, those of partitions too. A time is in microseconds, UTC.
    ///
    /// # Errors
    /// A column that Arrow has no type for.
    pub fn schema(&self) -> Result<ArrowSchemaRef, DeltaError> {
        let schema = self.state.lock().snapshot.schema();
        let arrow: ArrowSchema = schema.as_ref().try_into_arrow().map_err(|error| self.wrong("read the columns", &error))?;
        Ok(Arc::new(arrow))
    }

    /// The columns of the newest version in the store.
    ///
    /// # Errors
    /// The log cannot be read; a column that Arrow has no type for.
    #[cfg(feature = "archive")]
    pub(crate) fn newest_schema(&self) -> Result<ArrowSchemaRef, DeltaError> {
        self.reload(&mut self.state.lock())?;
        self.schema()
    }

    /// How far this application has come, by the newest version in the store; `None` when it was never here.
    ///
    /// # Errors
    /// The log cannot be read.
    pub fn txn_version(&self, app_id: &str) -> Result<Option<i64>, DeltaError> {
        let state = &mut self.state.lock();
        self.reload(state)?;
        self.txn(state, app_id)
    }

    /// Where the application is at the version of `state`.
    pub(super) fn txn(&self, state: &mut State, app_id: &str) -> Result<Option<i64>, DeltaError> {
        if let Some(known) = state.txns.get(app_id) {
            return Ok(*known);
        }
        if state.snapshot.version() != state.version {
            self.reload(state)?;
        }
        let found = state.snapshot.get_app_id_version(app_id, &*self.engine);
        let found = found.map_err(|error| self.wrong("read how far an application has come", &error))?;
        if state.txns.len() >= MAX_TXNS {
            state.txns.clear();
        }
        state.txns.insert(app_id.to_owned(), found);
        Ok(found)
    }

    /// Lists the log, and knows the newest version then.
    pub(super) fn reload(&self, state: &mut State) -> Result<(), DeltaError> {
        let listed = Instant::now();
        let newer = Snapshot::builder_from(state.snapshot.clone()).build(&*self.engine);
        // What it was made from may be deleted by now.
        let newer = newer.or_else(|_| Snapshot::builder_for(state.snapshot.table_root()).build(&*self.engine));
        let newer = newer.map_err(|error| self.wrong("read the table", &error))?;
        if newer.version() != state.version {
            state.txns.clear();
        }
        check_protocol(&self.files.target.shown, &newer)?;
        *state = State { version: newer.version(), snapshot: newer, txns: std::mem::take(&mut state.txns), listed };
        Ok(())
    }

    pub(super) fn reload_if_old(&self, state: &mut State) -> Result<(), DeltaError> {
        if state.listed.elapsed() > FRESH { self.reload(state) } else { Ok(()) }
    }

    pub(super) fn wrong(&self, doing: &str, error: &dyn std::fmt::Display) -> DeltaError {
        DeltaError::Table(format!("{}: cannot {doing}: {}", self.files.target.shown, crate::ship::clean(&error.to_string())))
    }
}

impl Drop for DeltaTable {
    fn drop(&mut self) {
        // A runtime that is dropped where another runs would panic.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl State {
    /// The `metaData` action, as in the log.
    pub fn metadata(&self) -> Result<Value, DeltaError> {
        let metadata = serde_json::to_value(self.snapshot.table_configuration().metadata());
        let mut metadata = metadata.map_err(|error| DeltaError::Table(format!("metaData: {error}")))?;
        if let Some(map) = metadata.as_object_mut() {
            map.retain(|_, value| !value.is_null());
        }
        Ok(metadata)
    }
}

/// The store and what asks it, before a table is known.
struct Opened {
    files: Objects,
    runtime: Runtime,
    root: String,
}

impl Opened {
    fn new(store: &UploadSettings) -> Result<Self, DeltaError> {
        let (files, runtime) = Objects::open(store)?;
        let root = store.root_url().map_err(DeltaError::Settings)?.unwrap_or_default();
        if store.url.as_deref().is_some_and(|url| url.contains('%') && !url.starts_with("file:")) {
            return Err(DeltaError::Settings(format!(
                "{}: a Delta table's key cannot have a percent sign, as its log's paths are escaped; expected a URL without %",
                files.target.shown
            )));
        }
        if !files.target.conditional {
            return Err(DeltaError::Settings(format!(
                "{}: upload.conditional_put=false: of two writers of a Delta table one would lose a commit; use a store with conditional puts",
                files.target.shown
            )));
        }
        Ok(Opened { files, runtime, root })
    }

    /// Writes version 0. Another writer that was faster is as good.
    fn create(&self, schema: &ArrowSchema, partition_columns: &[&str]) -> Result<(), DeltaError> {
        let columns: StructType = delta_schema(schema)?;
        if let Some(missing) = partition_columns.iter().find(|name| columns.field(name).is_none()) {
            return Err(DeltaError::Settings(format!("partition column {missing:?} is none of the table's columns")));
        }
        let text = serde_json::to_string(&columns).map_err(|error| DeltaError::Settings(format!("columns: {error}")))?;
        let (now, id) = (now_millis(), crate::unique::uuid().to_string());
        let parameters = json!({"partitionBy": json!(partition_columns).to_string(), "isManaged": "false"});
        let mut lines = Lines::new("CREATE TABLE", parameters, &id, now);
        lines.protocol();
        lines.metadata(&json!({
            "id": id,
            "format": {"provider": "parquet", "options": {}},
            "schemaString": text,
            "partitionColumns": partition_columns,
            "configuration": {},
            "createdTime": now,
        }));
        match self.files.put_version(0, &lines.into_bytes())? {
            Put::Done | Put::Exists => Ok(()),
            Put::Unknown(error) => Err(error),
        }
    }

    fn load(self, settings: DeltaSettings) -> Result<DeltaTable, DeltaError> {
        let Opened { files, runtime, root } = self;
        let executor = Arc::new(TokioMultiThreadExecutor::new(runtime.handle().clone()));
        let builder = DefaultEngineBuilder::new(files.target.store.clone());
        let builder = builder.with_task_executor(executor).with_buffer_size(READS).with_batch_size(BATCH);
        let engine = Arc::new(builder.build());
        let listed = Instant::now();
        let snapshot = Snapshot::builder_for(&root).build(&*engine).map_err(|error| {
            DeltaError::Table(format!(
                "{}: cannot read the table: {}",
                files.target.shown,
                crate::ship::clean(&error.to_string())
            ))
        })?;
        check_protocol(&files.target.shown, &snapshot)?;
        let state = State { version: snapshot.version(), snapshot, txns: HashMap::new(), listed };
        Ok(DeltaTable { files, engine, settings, state: Mutex::new(state), runtime: Some(runtime) })
    }
}

/// Refuses a table whose rules the lines that are written here would break.
fn check_protocol(shown: &str, snapshot: &Snapshot) -> Result<(), DeltaError> {
    let protocol = serde_json::to_value(snapshot.table_configuration().protocol());
    let protocol = protocol.map_err(|error| DeltaError::Table(format!("{shown}: protocol: {error}")))?;
    let features = protocol["writerFeatures"].as_array().map(Vec::as_slice).unwrap_or_default();
    let unknown = features.iter().find(|feature| feature.as_str().is_none_or(|name| !FEATURES.contains(&name)));
    let writer = protocol["minWriterVersion"].as_i64().unwrap_or_default();
    let wrong = match (unknown, writer) {
        (Some(feature), _) => format!("writer feature {feature}"),
        (None, 3..=6) => format!("minWriterVersion={writer}"),
        _ if protocol_has_invariants(snapshot) => "columns with invariants".to_owned(),
        _ => return Ok(()),
    };
    Err(DeltaError::Table(format!(
        "{shown}: the table has {wrong}, which predlog does not write to: give another URL, or drop the feature"
    )))
}

fn protocol_has_invariants(snapshot: &Snapshot) -> bool {
    serde_json::to_string(snapshot.schema().as_ref()).is_ok_and(|text| text.contains("\"delta.invariants\""))
}
