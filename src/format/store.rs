//! `<dir>/schemas/`: the sticky column types of each model, shared by the processes that share `<dir>`.

use super::path::model_stem;
use super::schema::ModelSchema;
use rustix::fs::{FlockOperation, flock};
use std::cell::RefCell;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

/// The schemas of one directory.
#[derive(Clone, Debug)]
pub struct SchemaStore {
    dir: PathBuf,
}

impl SchemaStore {
    /// The schemas of the store in `dir`, at `<dir>/schemas/`.
    ///
    /// # Errors
    /// The directory cannot be made.
    pub fn open(dir: impl AsRef<Path>) -> io::Result<Self> {
        let dir = dir.as_ref().join("schemas");
        fs::create_dir_all(&dir)?;
        Ok(SchemaStore { dir })
    }

    /// The model's schema as it is now, empty when nothing is known. For looking; to seal with it, see [`with_schema`](Self::with_schema).
    ///
    /// # Errors
    /// The file cannot be read, or is damaged.
    pub fn load(&self, model_name: &str) -> io::Result<ModelSchema> {
        let path = self.path(model_name);
        match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| {
                io::Error::new(io::ErrorKind::InvalidData, format!("damaged schema: path={}: {error}", path.display()))
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(ModelSchema::default()),
            Err(error) => Err(error),
        }
    }

    /// Runs `seal` with the model's schema. No other process or thread has this model's schema meanwhile: this waits for it.
    ///
    /// What `seal` teaches the schema is saved when it returns. Files that are written by a grown schema must not be seen before that schema is
    /// saved (a crash between the two would let a column take another type): call [`SchemaSaver::save`] in
    /// [`SealJob::before_publish`](super::seal::SealJob::before_publish).
    ///
    /// A damaged file is set aside as `<file>.damaged` and the types are learnt again: to seal nothing any more would be worse.
    ///
    /// # Errors
    /// The schema cannot be locked, read or saved. When it cannot be saved at the end, `seal` has run.
    pub fn with_schema<R>(&self, model_name: &str, seal: impl FnOnce(&mut ModelSchema, &SchemaSaver) -> R) -> io::Result<R> {
        let path = self.path(model_name);
        // A file of its own: the schema's file is replaced by a new one, and with it would go the lock.
        let lock = File::options().create(true).truncate(false).write(true).open(beside(&path, "lock"))?;
        flock(&lock, FlockOperation::LockExclusive)?;
        let mut schema = match self.load(model_name) {
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                tracing::error!(%error, "the schema is set aside as .damaged and learnt again");
                fs::rename(&path, beside(&path, "damaged"))?;
                ModelSchema::default()
            }
            loaded => loaded?,
        };
        let saver = SchemaSaver { path, saved: RefCell::new(schema.clone()) };
        let result = seal(&mut schema, &saver);
        let saved = saver.save(&schema);
        // Said aloud: a child forked meanwhile would keep the lock open.
        flock(&lock, FlockOperation::Unlock)?;
        saved?;
        Ok(result)
    }

    fn path(&self, model_name: &str) -> PathBuf {
        // Not with_extension: a stem may have dots.
        self.dir.join(format!("{}.json", model_stem(model_name)))
    }
}

/// `<path>.<suffix>`.
fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    PathBuf::from(name)
}

/// Saves the schema that is locked.
#[derive(Debug)]
pub struct SchemaSaver {
    path: PathBuf,
    saved: RefCell<ModelSchema>,
}

impl SchemaSaver {
    /// Makes `schema` the model's schema, through a loss of power too. Does nothing when it is what was saved last.
    ///
    /// # Errors
    /// It cannot be written; the one before is still there.
    pub fn save(&self, schema: &ModelSchema) -> io::Result<()> {
        if *self.saved.borrow() == *schema {
            return Ok(());
        }
        let text = serde_json::to_vec_pretty(schema)?;
        let temporary = beside(&self.path, "tmp");
        let mut file = File::create(&temporary)?;
        file.write_all(&text)?;
        file.sync_all()?;
        fs::rename(&temporary, &self.path)?;
        if let Some(parent) = self.path.parent() {
            File::open(parent)?.sync_all()?;
        }
        self.saved.replace(schema.clone());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::schema::{ColumnType, Field, Side};
    use super::*;

    fn schema(names: &[&str]) -> ModelSchema {
        let fields = names.iter().map(|name| Field { name: (*name).to_owned(), kind: ColumnType::Double }).collect();
        ModelSchema { inputs: Side { bare: false, fields }, outputs: Side::default() }
    }

    #[test]
    fn what_is_learnt_is_there_next_time_for_any_name() {
        let dir = tempfile::tempdir().unwrap();
        for model in ["wine", "../../etc/passwd", "a.b", "", "\0", &"é".repeat(128)] {
            let store = SchemaStore::open(dir.path()).unwrap();
            assert_eq!(store.load(model).unwrap(), ModelSchema::default());
            store.with_schema(model, |learnt, _| *learnt = schema(&["a"])).unwrap();
            assert_eq!(store.load(model).unwrap(), schema(&["a"]), "{model}");
        }
        let outside = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect::<Vec<_>>();
        assert_eq!(outside, ["schemas"]);
    }

    #[test]
    fn a_save_on_the_way_is_seen_before_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let store = SchemaStore::open(dir.path()).unwrap();
        let seen = store
            .with_schema("wine", |learnt, saver| {
                *learnt = schema(&["a", "b"]);
                saver.save(learnt).unwrap();
                store.load("wine").unwrap()
            })
            .unwrap();
        assert_eq!(seen, schema(&["a", "b"]));
    }

    #[test]
    fn a_damaged_schema_is_set_aside() {
        let dir = tempfile::tempdir().unwrap();
        let store = SchemaStore::open(dir.path()).unwrap();
        let path = dir.path().join("schemas/wine.json");
        fs::write(&path, "{\"inputs\":").unwrap();
        assert!(store.load("wine").unwrap_err().to_string().contains("wine.json"));
        store.with_schema("wine", |learnt, _| *learnt = schema(&["a"])).unwrap();
        assert_eq!(store.load("wine").unwrap(), schema(&["a"]));
        assert_eq!(fs::read_to_string(beside(&path, "damaged")).unwrap(), "{\"inputs\":");
    }

    #[test]
    fn one_at_a_time_has_a_models_schema() {
        let dir = tempfile::tempdir().unwrap();
        let store = SchemaStore::open(dir.path()).unwrap();
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let store = &store;
                scope.spawn(move || {
                    for round in 0..10 {
                        store
                            .with_schema("wine", |learnt, _| {
                                let kind = ColumnType::Int64;
                                learnt.inputs.fields.push(Field { name: format!("{thread}-{round}"), kind });
                            })
                            .unwrap();
                    }
                });
            }
        });
        assert_eq!(store.load("wine").unwrap().inputs.fields.len(), 40);
    }
}
