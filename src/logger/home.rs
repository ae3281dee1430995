//! A process's own directory under `<dir>/writers/`, and those that dead processes left.

use crate::batch::{Batch, Origin};
use crate::clock::Now;
use crate::lane::recover::{DeadLanes, recover};
use crate::ledger::count::Counts;
use crate::ledger::{ADOPTED_LANE, Entries, Kind};
use crate::record::Writer;
use crate::spool::{self, Spool, SpoolIndex};
use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use uuid::Uuid;

/// `<dir>/writers/<process>/`, whose lock this process holds: its own, or one that it has taken over from a dead process.
#[derive(Debug)]
pub(crate) struct Home {
    path: PathBuf,
    /// Held until this is dropped.
    _lock: File,
}

/// A start names its directory within milliseconds; one without a name for this long belongs to nobody.
const UNNAMED_FOR: Duration = Duration::from_secs(60);
/// So many names are tried for a new process.
const NAMES: u32 = 8;
const LOCK: &str = "lock";
const LANES: &str = "lanes";
const SPOOL: &str = "spool";

impl Home {
    /// Makes the directory of a new process, which gets one of the names that `name` makes: the first that no other process has.
    pub(crate) fn create(dir: &Path, mut name: impl FnMut() -> Uuid) -> io::Result<Self> {
        let writers = dir.join("writers");
        std::fs::create_dir_all(&writers)?;
        for _ in 1..NAMES {
            match Self::create_as(&writers, name()) {
                Err(error) if matches!(error.kind(), io::ErrorKind::AlreadyExists | io::ErrorKind::DirectoryNotEmpty) => {}
                made => return made,
            }
        }
        Self::create_as(&writers, name())
    }

    fn create_as(writers: &Path, process: Uuid) -> io::Result<Self> {
        // Locked before it has its name, so that nobody takes it for a dead process's. One that is there already is another process's.
        let unnamed = writers.join(format!(".{process}"));
        std::fs::create_dir(&unnamed)?;
        let path = writers.join(process.to_string());
        let named = File::create(unnamed.join(LOCK)).and_then(|lock| {
            lock.lock()?;
            std::fs::rename(&unnamed, &path)?;
            Ok(Home { path, _lock: lock })
        });
        named.inspect_err(|_| _ = std::fs::remove_dir_all(&unnamed))
    }

    /// Removes the directory of a logger that could not be opened: whoever tries again makes another one.
    pub(crate) fn discard(&self) {
        if let Err(error) = std::fs::remove_dir_all(&self.path) {
            tracing::debug!(path = %self.path.display(), %error, "the directory of a start that failed is still there; the next start removes it");
        }
    }

    /// The directories of processes that are dead, each now ours.
    pub(crate) fn dead(dir: &Path) -> io::Result<Vec<Home>> {
        let entries = match std::fs::read_dir(dir.join("writers")) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut homes = Vec::new();
        for entry in entries {
            let path = entry?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if Uuid::try_parse(name).is_ok() {
                homes.extend(Self::take_over(path)?);
            } else if name.strip_prefix('.').is_some_and(|name| Uuid::try_parse(name).is_ok()) {
                remove_unnamed(&path);
            }
        }
        homes.sort_by(|left, right| left.path.cmp(&right.path));
        Ok(homes)
    }

    fn take_over(path: PathBuf) -> io::Result<Option<Home>> {
        let lock = match File::open(path.join(LOCK)) {
            Ok(lock) => lock,
            // Another process has finished with it, or died while it removed it: then only an empty directory is left, and this removes no other.
            Err(error) if error.kind() == io::ErrorKind::NotFound => match std::fs::remove_dir(&path) {
                Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Self::lock_again(&path)?,
                _ => return Ok(None),
            },
            Err(error) => return Err(error),
        };
        match lock.try_lock() {
            Ok(()) if path.join(LOCK).exists() => Ok(Some(Home { path, _lock: lock })),
            Ok(()) | Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// Whoever copied the directory has left its lock behind, and the records in it are nobody's until it has one.
    fn lock_again(path: &Path) -> io::Result<File> {
        tracing::warn!(path = %path.display(), "a process's directory has records and no lock; it is given one, and taken over if nobody holds that");
        File::options().append(true).create(true).open(path.join(LOCK))
    }

    /// The process that the directory is named after.
    pub(crate) fn process(&self) -> Option<Uuid> {
        Uuid::try_parse(self.path.file_name()?.to_str()?).ok()
    }

    pub(crate) fn lanes(&self) -> PathBuf {
        self.path.join(LANES)
    }

    pub(crate) fn spool(&self) -> PathBuf {
        self.path.join(SPOOL)
    }

    /// Moves what a dead process left in its lanes into its spool, without what the spool has already, and returns how many records that were.
    /// With a ledger, what the process did not live to state of them comes behind them. It may be stopped at any instruction and run again.
    pub(crate) fn lanes_to_spool(&self, now: Now, ledger: bool) -> io::Result<u64> {
        let lanes = self.lanes();
        if !lanes.exists() {
            return Ok(0);
        }
        let dead = match recover(&lanes) {
            Ok(dead) => dead,
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                let aside = self.path.join("lanes.damaged");
                tracing::error!(%error, kept = %aside.display(), "the lanes of a dead process cannot be read; they are set aside");
                std::fs::rename(&lanes, aside)?;
                return Ok(0);
            }
            Err(error) => return Err(error),
        };
        let mut index = SpoolIndex::default();
        for path in spool::segments(&self.spool())? {
            if let Some(segment) = spool::open_closed(&path)? {
                index.add(&segment);
            }
        }
        let batch = Batch { id: 0, origin: Origin::Replay, chunks: dead.chunks() };
        let mut spool = Spool::new(self.spool())?;
        let missing = |model: &[u8], writer, seq| !index.contains(model, writer, seq);
        let rows = spool.append(&batch, now, missing)?;
        if ledger {
            let entries = state_for(&dead, now);
            spool.append(&Batch { id: 0, origin: Origin::Replay, chunks: vec![entries.chunk()] }, now, missing)?;
        }
        spool.sync()?;
        std::fs::remove_file(lanes)?;
        Ok(rows)
    }

    /// Removes the directory when nothing is left in it that a later start must deliver.
    pub(crate) fn remove_if_empty(self) -> io::Result<bool> {
        if self.lanes().exists() || self.path.join("lanes.damaged").exists() || !spool::segments(&self.spool())?.is_empty() {
            return Ok(false);
        }
        // The lock last but one: whoever opens it meanwhile sees that it is gone (see `take_over`).
        let spool = self.spool();
        if spool.exists() {
            std::fs::remove_dir_all(spool)?;
        }
        std::fs::remove_file(self.path.join(LOCK))?;
        std::fs::remove_dir(&self.path)?;
        Ok(true)
    }
}

/// What a dead process accepted: how many records in all, and what is still known of their models and hours. Each try states the same.
fn state_for(dead: &DeadLanes, now: Now) -> Entries {
    let mut entries = Entries::new(Writer::new(dead.process(), ADOPTED_LANE), 0, now.wall);
    for chunk in dead.all_chunks() {
        let mut counts = Counts::default();
        counts.add(&chunk);
        for entry in counts.entries(Kind::Accepted) {
            entries.push(entry.about(chunk.writer, chunk.first_seq, chunk.last_seq));
        }
    }
    entries.end(&dead.accepted());
    entries
}

/// Removes what a process left that was killed before its directory had its name: at most an empty lock file.
fn remove_unnamed(path: &Path) {
    let age = std::fs::metadata(path).and_then(|metadata| metadata.modified()).ok().and_then(|modified| modified.elapsed().ok());
    if age.is_some_and(|age| age > UNNAMED_FOR) {
        let _ = std::fs::remove_file(path.join(LOCK));
        let _ = std::fs::remove_dir(path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_live_process_is_not_taken_over_and_a_dead_one_is_once() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::create(dir.path(), || Uuid::from_u128(1)).unwrap();
        assert!(Home::dead(dir.path()).unwrap().is_empty());
        drop(home);
        let taken = Home::dead(dir.path()).unwrap();
        assert_eq!(taken.len(), 1);
        assert!(Home::dead(dir.path()).unwrap().is_empty());
        taken.into_iter().for_each(|home| assert!(home.remove_if_empty().unwrap()));
        assert!(std::fs::read_dir(dir.path().join("writers")).unwrap().next().is_none());
    }

    #[test]
    fn a_directory_that_lost_its_lock_is_taken_over_once_and_an_empty_one_removed() {
        let dir = tempfile::tempdir().unwrap();
        let [copied, empty] = [1, 2].map(|process| Home::create(dir.path(), || Uuid::from_u128(process)).unwrap().path);
        std::fs::create_dir(copied.join(SPOOL)).unwrap();
        for path in [&copied, &empty] {
            std::fs::remove_file(path.join(LOCK)).unwrap();
        }
        let taken = Home::dead(dir.path()).unwrap();
        assert_eq!(taken.iter().map(|home| &home.path).collect::<Vec<_>>(), [&copied]);
        assert!(Home::dead(dir.path()).unwrap().is_empty(), "its new lock is held");
        assert!(!empty.exists());
    }

    #[test]
    fn no_two_processes_have_one_directory() {
        let dir = tempfile::tempdir().unwrap();
        let first = Home::create(dir.path(), || Uuid::from_u128(1)).unwrap();
        std::fs::create_dir(dir.path().join("writers").join(format!(".{}", Uuid::from_u128(2)))).unwrap();
        let mut names = 1..;
        let second = Home::create(dir.path(), || Uuid::from_u128(names.next().unwrap())).unwrap();
        assert_eq!((first.process(), second.process()), (Some(Uuid::from_u128(1)), Some(Uuid::from_u128(3))));
        assert!(Home::create(dir.path(), || Uuid::from_u128(1)).is_err());
        assert!(!dir.path().join("writers").join(format!(".{}", Uuid::from_u128(1))).exists());
    }

    #[test]
    fn what_is_not_a_processes_directory_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("writers/notes")).unwrap();
        assert!(Home::dead(dir.path()).unwrap().is_empty());
        assert!(dir.path().join("writers/notes").exists());
    }
}
