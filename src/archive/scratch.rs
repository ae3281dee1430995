//! The directory of files in the making: one for each process, gone with it.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

const PREFIX: &str = "archive-";
const LOCK: &str = ".lock";

/// A directory of this process's own. What a dead process left beside it is removed.
#[derive(Debug)]
pub struct ScratchDir {
    path: PathBuf,
    /// Locked while the process lives.
    _lock: File,
}

impl ScratchDir {
    /// Makes one below `parent`.
    ///
    /// # Errors
    /// It cannot be made, with its path.
    pub fn open(parent: &Path) -> Result<ScratchDir, String> {
        let failed = |error: io::Error| format!("archive.dir={}: {error}", parent.display());
        fs::create_dir_all(parent).map_err(failed)?;
        for entry in fs::read_dir(parent).map_err(failed)?.flatten() {
            if entry.file_name().to_string_lossy().starts_with(PREFIX) {
                remove_if_dead(&entry.path());
            }
        }
        let path = parent.join(format!("{PREFIX}{}", uuid::Uuid::now_v7()));
        fs::create_dir(&path).map_err(failed)?;
        let lock = File::create(path.join(LOCK)).map_err(failed)?;
        lock.lock().map_err(failed)?;
        Ok(ScratchDir { path, _lock: lock })
    }

    /// Where files in the making lie.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for ScratchDir {
    fn drop(&mut self) {
        // What stays is removed by the next start.
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// One that has no lock yet is being made.
fn remove_if_dead(path: &Path) {
    if let Ok(lock) = File::open(path.join(LOCK))
        && lock.try_lock().is_ok()
        && let Err(error) = fs::remove_dir_all(path)
    {
        tracing::warn!(path = %path.display(), %error, "what a dead archiver left stays");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_dead_left_is_removed() {
        let parent = tempfile::tempdir().unwrap();
        let alive = ScratchDir::open(parent.path()).unwrap();
        let dead = parent.path().join("archive-dead");
        fs::create_dir(&dead).unwrap();
        fs::write(dead.join(LOCK), "").unwrap();
        fs::write(dead.join("part.parquet"), "x").unwrap();
        let path = ScratchDir::open(parent.path()).unwrap().path().to_owned();
        assert!(alive.path().exists() && !dead.exists() && !path.exists());
    }
}
