//! Small files of a partition become one: `predlog compact`.
//!
//! A Delta table says by its log which files it has, so there it is one commit ([`DeltaTable::optimize`](crate::delta::DeltaTable::optimize)). A directory or
//! prefix of plain Parquet files has nothing but its names, so there it is a few steps in an order that loses nothing ([`compact_layout`]).

mod layout;
mod rewrite;

pub use layout::{CompactError, compact_layout};
pub(crate) use rewrite::merge_files;

use object_store::path::Path;
use std::collections::BTreeMap;
use std::time::Duration;

/// Which files become one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompactOptions {
    /// Only partitions with these values: `date` -> `2026-11-23`.
    pub partitions: BTreeMap<String, String>,
    /// Files smaller than this are put together until they are about as large.
    pub target_bytes: u64,
    /// Files that were written later are left alone: somebody may still be at them.
    pub min_age: Duration,
    /// Say what would be done, and do nothing.
    pub dry_run: bool,
}

impl Default for CompactOptions {
    fn default() -> Self {
        CompactOptions {
            partitions: BTreeMap::new(),
            target_bytes: 128 << 20,
            min_age: Duration::from_secs(60 * 60),
            dry_run: false,
        }
    }
}

/// What was done, or would be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CompactReport {
    /// Files that were put together, and their bytes.
    pub files_before: u64,
    /// Their bytes.
    pub bytes_before: u64,
    /// Files that took their place.
    pub files_after: u64,
    /// Their bytes. 0 in a dry run: nobody knows.
    pub bytes_after: u64,
    /// Rows in them. 0 in a dry run.
    pub rows: u64,
    /// Groups that were left as they are, since another writer had removed a file of them.
    pub lost_races: u64,
}

impl CompactReport {
    pub(crate) fn planned(&mut self, group: &[Small]) {
        self.files_before += group.len() as u64;
        self.bytes_before += group.iter().map(|small| small.bytes).sum::<u64>();
        self.files_after += 1;
    }
}

/// A file that may become part of a larger one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Small {
    pub path: Path,
    pub bytes: u64,
    /// What it is known by: its path in the log, or its name in the directory.
    pub name: String,
}

/// Which of a partition's small files become one each time: in their order, at least two, of about `target` bytes together.
pub(crate) fn groups(files: impl IntoIterator<Item = Small>, target: u64) -> Vec<Vec<Small>> {
    let (mut groups, mut group, mut bytes) = (Vec::new(), Vec::new(), 0);
    for file in files.into_iter().filter(|file| file.bytes < target) {
        if bytes + file.bytes > target && !group.is_empty() {
            groups.push(std::mem::take(&mut group));
            bytes = 0;
        }
        bytes += file.bytes;
        group.push(file);
    }
    groups.push(group);
    groups.retain(|group| group.len() > 1);
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_of_two_files_at_least_and_about_as_large_as_asked() {
        let sizes = |sizes: &[u64]| -> Vec<Vec<u64>> {
            let files = sizes.iter().enumerate().map(|(at, bytes)| Small {
                path: Path::from(format!("{at}")),
                bytes: *bytes,
                name: at.to_string(),
            });
            groups(files, 100).into_iter().map(|group| group.into_iter().map(|small| small.bytes).collect()).collect()
        };
        assert_eq!(sizes(&[10, 20, 30]), [[10, 20, 30]]);
        assert_eq!(sizes(&[60, 30, 30, 60, 200, 40]), [vec![60, 30], vec![30, 60]]);
        assert_eq!(sizes(&[10, 150]), Vec::<Vec<u64>>::new(), "one small file stays");
        assert_eq!(sizes(&[]), Vec::<Vec<u64>>::new());
    }
}
