//! Where the column types of each model are kept: `<dir>/schemas/<model>.json`, shared by all processes of the directory.

use super::path::model_stem;
use super::schema::ModelSchema;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

/// The schemas of a directory.
#[derive(Clone, Debug)]
pub struct SchemaStore {
    dir: PathBuf,
}

impl SchemaStore {
    /// The schemas under `<dir>/schemas/`, which is made when the first is saved.
    pub fn new(dir: &Path) -> Self {
        SchemaStore { dir: dir.join("schemas") }
    }

    /// The model's schema; an empty one for a model that has none yet.
    ///
    /// # Errors
    /// The file cannot be read, or is not a schema (`InvalidData`, with its path).
    pub fn load(&self, model_name: &str) -> io::Result<ModelSchema> {
        let path = self.path(model_name);
        match std::fs::read(&path) {
            Ok(json) => serde_json::from_slice(&json).map_err(|error| {
                let message = format!("path={} is not a schema: {error}; move it away to start with a new one", path.display());
                io::Error::new(io::ErrorKind::InvalidData, message)
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(ModelSchema::default()),
            Err(error) => Err(error),
        }
    }

    /// [`load`](Self::load), but a file that is not a schema is set aside as `<file>.damaged` and the types are learnt again: to seal nothing any more
    /// would be worse.
    ///
    /// # Errors
    /// The file cannot be read, or not be set aside.
    pub fn load_or_learn_again(&self, model_name: &str) -> io::Result<ModelSchema> {
        match self.load(model_name) {
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                tracing::error!(%error, "the schema is set aside as .damaged and learnt again");
                let path = self.path(model_name);
                std::fs::rename(&path, path.with_extension("json.damaged"))?;
                Ok(ModelSchema::default())
            }
            loaded => loaded,
        }
    }

    /// Replaces `base` by `grown`, if what is stored is still `base`. `false` when another process has changed it: load it again and start anew,
    /// or files of one model would have columns of different types.
    ///
    /// # Errors
    /// The file cannot be read or written; it is as it was.
    pub fn save(&self, model_name: &str, base: &ModelSchema, grown: &ModelSchema) -> io::Result<bool> {
        std::fs::create_dir_all(&self.dir)?;
        let lock = File::create(self.dir.join(".lock"))?;
        lock.lock()?;
        if self.load(model_name)? != *base {
            return Ok(false);
        }
        if base != grown {
            let path = self.path(model_name);
            let unnamed = path.with_extension("json.new");
            std::fs::write(&unnamed, serde_json::to_vec_pretty(grown)?)?;
            File::open(&unnamed)?.sync_all()?;
            std::fs::rename(&unnamed, path)?;
        }
        Ok(true)
    }

    fn path(&self, model_name: &str) -> PathBuf {
        self.dir.join(format!("{}.json", model_stem(model_name)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::schema::{ColumnType, Field};

    #[test]
    fn only_the_one_who_knows_what_is_stored_can_replace_it() {
        let dir = tempfile::tempdir().unwrap();
        let store = SchemaStore::new(dir.path());
        let empty = store.load("../x").unwrap();
        assert_eq!(empty, ModelSchema::default());
        let mut grown = empty.clone();
        grown.inputs.fields.push(Field { name: "a".to_owned(), kind: ColumnType::Double });
        assert!(store.save("../x", &empty, &grown).unwrap());
        assert_eq!(store.load("../x").unwrap(), grown);
        assert!(!store.save("../x", &empty, &ModelSchema::default()).unwrap());
        assert_eq!(store.load("../x").unwrap(), grown);
        assert_eq!(store.load("other").unwrap(), ModelSchema::default());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing outside of schemas/");
    }

    #[test]
    fn a_file_that_is_no_schema_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let store = SchemaStore::new(dir.path());
        store.save("m", &ModelSchema::default(), &ModelSchema::default()).unwrap();
        std::fs::write(dir.path().join("schemas/m.json"), "{\"inputs\": 7}").unwrap();
        assert!(store.load("m").unwrap_err().to_string().contains("m.json"));
        assert_eq!(store.load_or_learn_again("m").unwrap(), ModelSchema::default());
        assert!(dir.path().join("schemas/m.json.damaged").exists());
    }
}
