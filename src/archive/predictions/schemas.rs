//! The column types of each model, shared by all instances: `schemas/<model>.json` below the target's URL. Of a Delta table there is one for all models.

use super::conform::{TableColumns, conform};
use crate::archive::encoder::EncodeError;
use crate::format::path::model_stem;
use crate::format::schema::ModelSchema;
use crate::ledger::LEDGER_MODEL;
use crate::retry::Backoff;
use crate::ship::Target;
use object_store::{ObjectStoreExt, PutMode, PutOptions, UpdateVersion};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// The longest that an answer may take.
const ANSWER: Duration = Duration::from_secs(30);
/// Tries before the ranges are given up and begun again.
const TRIES: u32 = 20;

/// No model has an empty name.
const TABLE: &str = "";

/// The schemas of one target.
pub(super) struct Schemas {
    target: Target,
    runtime: tokio::runtime::Runtime,
    known: Mutex<HashMap<String, Arc<ModelSchema>>>,
    table: Option<TableColumns>,
}

impl Schemas {
    /// # Errors
    /// The thread that asks the store cannot be started.
    pub fn new(target: Target, table: Option<TableColumns>) -> Result<Schemas, String> {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).thread_name("predlog-schemas").enable_all().build();
        let runtime = runtime.map_err(|error| format!("cannot start a thread: {error}"))?;
        Ok(Schemas { target, runtime, known: Mutex::default(), table })
    }

    /// The model's columns; none for one that is new.
    pub fn get(&self, model: &str) -> Result<Arc<ModelSchema>, EncodeError> {
        let model = self.name(model);
        if let Some(schema) = self.known.lock().get(model) {
            return Ok(schema.clone());
        }
        let schema = self.patiently(model, || {
            let (mut schema, version) = self.runtime.block_on(self.read(model))?;
            if self.conform(model, &mut schema)? {
                self.runtime.block_on(self.replace(model, &schema, version))?;
            }
            Ok(schema)
        })?;
        Ok(self.keep(model, schema))
    }

    /// What is known of the table's columns is asked for anew: another writer may have added some.
    pub fn forget_table(&self) {
        self.known.lock().remove(TABLE);
    }

    /// Adds columns, for all instances: what one has settled, the others take.
    pub fn learn(&self, model: &str, inferred: &ModelSchema) -> Result<Arc<ModelSchema>, EncodeError> {
        let model = self.name(model);
        let grown = self.patiently(model, || {
            let (mut schema, version) = self.runtime.block_on(self.read(model))?;
            let grown = schema.merge(inferred);
            if self.conform(model, &mut schema)? || grown || version.is_none() {
                self.runtime.block_on(self.replace(model, &schema, version))?;
            }
            Ok(schema)
        })?;
        Ok(self.keep(model, grown))
    }

    /// What the columns are known by: those of one table are the same for all its models.
    fn name<'a>(&self, model: &'a str) -> &'a str {
        if self.table.is_some() && model != LEDGER_MODEL { TABLE } else { model }
    }

    /// The columns as the table has them. Returns whether any changed.
    fn conform(&self, model: &str, schema: &mut ModelSchema) -> Result<bool, String> {
        match &self.table {
            Some(table) if model == TABLE => Ok(table.newest()?.is_some_and(|columns| conform(schema, &columns))),
            _ => Ok(false),
        }
    }

    fn keep(&self, model: &str, schema: ModelSchema) -> Arc<ModelSchema> {
        let schema = Arc::new(schema);
        self.known.lock().insert(model.to_owned(), schema.clone());
        schema
    }

    fn patiently<T>(&self, model: &str, mut ask: impl FnMut() -> Result<T, String>) -> Result<T, EncodeError> {
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(5), fastrand::u64(..));
        loop {
            match ask() {
                Err(error) if backoff.failures() < TRIES => {
                    let wait = backoff.failed();
                    tracing::warn!(model, error, retry_in = ?wait, "cannot read or write the model's schema");
                    std::thread::sleep(wait);
                }
                answer => return answer.map_err(|error| EncodeError(format!("schema of model={model:?}: {error}"))),
            }
        }
    }

    async fn read(&self, model: &str) -> Result<(ModelSchema, Option<UpdateVersion>), String> {
        let path = self.path(model)?;
        let read = async {
            let found = self.target.store.get(&path).await?;
            let version = UpdateVersion { e_tag: found.meta.e_tag.clone(), version: found.meta.version.clone() };
            Ok::<_, object_store::Error>((found.bytes().await?, version))
        };
        match tokio::time::timeout(ANSWER, read).await {
            Ok(Ok((json, version))) => {
                let schema = serde_json::from_slice(&json)
                    .map_err(|error| format!("key={path} is not a schema: {error}; move it away to learn the types again"))?;
                Ok((schema, Some(version)))
            }
            Ok(Err(object_store::Error::NotFound { .. })) => Ok((ModelSchema::default(), None)),
            Ok(Err(error)) => Err(format!("key={path}: {error}")),
            Err(_) => Err(format!("key={path}: no answer within {ANSWER:?}")),
        }
    }

    /// Puts the schema if what is stored is still what was read.
    async fn replace(&self, model: &str, schema: &ModelSchema, version: Option<UpdateVersion>) -> Result<(), String> {
        let path = self.path(model)?;
        let json = serde_json::to_vec_pretty(schema).map_err(|error| error.to_string())?;
        let mode = match version {
            _ if !self.target.conditional => PutMode::Overwrite,
            None => PutMode::Create,
            // A directory has no versions: there, one instance is the rule.
            Some(_) if !self.target.attributes => PutMode::Overwrite,
            Some(version) => PutMode::Update(version),
        };
        let options = PutOptions { mode, ..PutOptions::default() };
        match tokio::time::timeout(ANSWER, self.target.store.put_opts(&path, json.into(), options)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(format!("key={path}: {error}")),
            Err(_) => Err(format!("key={path}: no answer within {ANSWER:?}")),
        }
    }

    fn path(&self, model: &str) -> Result<object_store::path::Path, String> {
        let key =
            if model == TABLE { "_predlog/delta-schema.json".to_owned() } else { format!("schemas/{}.json", model_stem(model)) };
        self.target.key(&key).map_err(|error| error.to_string())
    }
}
