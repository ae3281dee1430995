//! The connectors, kept in a directory over a restart: one file each, which is replaced as a whole.

use crate::error::{Error, ErrorKind};
use parking_lot::RwLock;
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// A connector's configuration, by key. A value may be `null`, as Connect keeps it.
pub type Config = BTreeMap<String, Option<String>>;

/// Ends the name of each file.
const EXTENSION: &str = "json";
/// A configuration may hold credentials: only its owner reads it.
const MODE: u32 = 0o600;

/// What a connector is to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum TargetState {
    /// Its tasks run.
    #[default]
    Running,
    /// Its tasks are kept, and do nothing.
    Paused,
    /// It has no tasks; only now its offsets may be changed.
    Stopped,
}

impl TargetState {
    /// As the REST API writes it.
    pub fn name(self) -> &'static str {
        match self {
            TargetState::Running => "RUNNING",
            TargetState::Paused => "PAUSED",
            TargetState::Stopped => "STOPPED",
        }
    }
}

/// A connector, as it is kept.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connector {
    /// Its name, which its configuration has too.
    pub name: String,
    /// What it was configured with.
    pub config: Config,
    /// What it is to do.
    pub state: TargetState,
    /// How many tasks it has: none before it first ran, and none when it is stopped.
    pub tasks: usize,
}

impl Connector {
    /// The value of a key; `None` also when it is `null`.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.config.get(key)?.as_deref()
    }
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Values may be credentials.
        let keys: Vec<_> = self.config.keys().collect();
        f.debug_struct("Connector")
            .field("name", &self.name)
            .field("config", &keys)
            .field("state", &self.state)
            .field("tasks", &self.tasks)
            .finish()
    }
}

/// All connectors: in memory, and on disk before a change is answered.
#[derive(Debug)]
pub struct Store {
    dir: PathBuf,
    connectors: RwLock<BTreeMap<String, Connector>>,
    /// Held so that no second process writes here.
    _lock: File,
}

impl Store {
    /// The connectors that `dir` has; it is created when it is not there.
    ///
    /// # Errors
    /// The directory cannot be used, another process uses it, or a file in it is not a connector.
    pub fn open(dir: &Path) -> Result<Store, Error> {
        let refused = |what: &str, path: &Path, error: &dyn fmt::Display| {
            Error::new(ErrorKind::Storage, format!("cannot {what} path={}: {error}", path.display()))
        };
        fs::create_dir_all(dir).map_err(|error| refused("create", dir, &error))?;
        let lock = File::open(dir).map_err(|error| refused("open", dir, &error))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|error| {
            refused("lock", dir, &format_args!("{error}; another predlog connect uses it: give this one another --data-dir"))
        })?;
        let mut connectors = BTreeMap::new();
        for entry in fs::read_dir(dir).map_err(|error| refused("read", dir, &error))? {
            let path = entry.map_err(|error| refused("read", dir, &error))?.path();
            // What a kill has left half written has another extension.
            if path.extension().is_none_or(|extension| extension != EXTENSION) {
                continue;
            }
            let text = fs::read(&path).map_err(|error| refused("read", &path, &error))?;
            let connector: Connector = serde_json::from_slice(&text).map_err(|error| {
                refused("read", &path, &format_args!("{error}; expected a connector: mend the file, or move it away"))
            })?;
            connectors.insert(connector.name.clone(), connector);
        }
        Ok(Store { dir: dir.to_owned(), connectors: RwLock::new(connectors), _lock: lock })
    }

    /// The connector of that name.
    pub fn get(&self, name: &str) -> Option<Connector> {
        self.connectors.read().get(name).cloned()
    }

    /// All connectors, by name.
    pub fn all(&self) -> Vec<Connector> {
        self.connectors.read().values().cloned().collect()
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.connectors.read().len()
    }

    /// Keeps a connector in place of the one of its name; it is on disk when this returns.
    ///
    /// # Errors
    /// It cannot be written; then the one before stays.
    pub fn put(&self, connector: Connector) -> io::Result<()> {
        let path = self.path(&connector.name);
        let temporary = path.with_extension("new");
        let mut connectors = self.connectors.write();
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(MODE).open(&temporary)?;
        file.write_all(&serde_json::to_vec_pretty(&connector)?)?;
        file.sync_all()?;
        fs::rename(&temporary, &path)?;
        File::open(&self.dir)?.sync_all()?;
        connectors.insert(connector.name.clone(), connector);
        Ok(())
    }

    /// Forgets a connector; it is gone from the disk when this returns.
    ///
    /// # Errors
    /// Its file cannot be removed; then it stays.
    pub fn remove(&self, name: &str) -> io::Result<()> {
        let mut connectors = self.connectors.write();
        fs::remove_file(self.path(name))?;
        File::open(&self.dir)?.sync_all()?;
        connectors.remove(name);
        Ok(())
    }

    /// A name may have any characters, a file's name may not.
    fn path(&self, name: &str) -> PathBuf {
        use fmt::Write as _;
        let digest = Sha256::digest(name.as_bytes());
        let mut file = String::with_capacity(2 * digest.len());
        for byte in digest {
            // Writing to a String cannot fail.
            let _ = write!(file, "{byte:02x}");
        }
        self.dir.join(file).with_extension(EXTENSION)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connector(name: &str, state: TargetState) -> Connector {
        let config = Config::from([("name".to_owned(), Some(name.to_owned())), ("topics.dir".to_owned(), None)]);
        Connector { name: name.to_owned(), config, state, tasks: 2 }
    }

    #[test]
    fn connectors_are_there_after_a_restart_as_they_were() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        for name in ["a", "../b/ü?", "gone"] {
            store.put(connector(name, TargetState::Running)).unwrap();
        }
        store.put(connector("a", TargetState::Paused)).unwrap();
        store.remove("gone").unwrap();
        let error = Store::open(dir.path()).unwrap_err().to_string();
        assert!(error.contains("another --data-dir"), "{error}");
        let before = store.all();
        drop(store);
        fs::write(dir.path().join("torn.new"), "{").unwrap();
        let again = Store::open(dir.path()).unwrap();
        assert_eq!((again.all(), again.count()), (before, 2));
        assert_eq!(again.get("a"), Some(connector("a", TargetState::Paused)));
    }

    #[test]
    fn a_damaged_file_is_named_and_a_secret_is_not_shown() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("x.json"), "{").unwrap();
        let error = Store::open(dir.path()).unwrap_err().to_string();
        assert!(error.contains("x.json") && error.contains("mend the file"), "{error}");
        let mut secret = connector("a", TargetState::Stopped);
        secret.config.insert("aws.secret.access.key".to_owned(), Some("hunter2".to_owned()));
        assert!(!format!("{secret:?}").contains("hunter2"));
    }
}
