//! Small files of a partition become one, in one commit: what OPTIMIZE is elsewhere.

use super::action::{Commit, CommitOutcome, RemoveFile, decoded};
use super::commit::Change;
use super::{AddFile, DeltaError, DeltaTable, now_millis};
use crate::compact::{CompactOptions, CompactReport, Small, groups, merge_files};
use delta_kernel::scan::state::ScanFile;
use delta_kernel::snapshot::SnapshotRef;
use serde_json::json;
use std::collections::BTreeMap;

type Values = BTreeMap<String, Option<String>>;

/// Files of one partition that become one.
struct Group {
    files: Vec<Small>,
    values: Values,
}

impl Group {
    fn removes(&self) -> impl Iterator<Item = RemoveFile> {
        self.files.iter().map(|file| RemoveFile {
            raw_path: file.name.clone(),
            size: file.bytes,
            partition_values: self.values.clone(),
        })
    }
}

/// The files of a version that may become part of a larger one.
struct Found<'a> {
    options: &'a CompactOptions,
    /// The latest time of a file, milliseconds since 1970.
    cutoff: i64,
    files: Vec<ScanFile>,
}

impl Found<'_> {
    fn visit(&mut self, file: ScanFile) {
        let wanted = |(column, value): (&String, &String)| file.partition_values.get(column) == Some(value);
        let small = u64::try_from(file.size).is_ok_and(|size| size < self.options.target_bytes);
        // Written again, a file with deleted rows would have them again. One with a URL of its own is another table's.
        let foreign = file.dv_info.has_vector() || file.path.contains("://");
        if small && !foreign && file.modification_time <= self.cutoff && self.options.partitions.iter().all(wanted) {
            self.files.push(file);
        }
    }
}

impl DeltaTable {
    /// Puts the small files of each partition together, and commits all of it as one version whose rows are the same as before. `progress` is told after
    /// each file that was written.
    ///
    /// Files that others append meanwhile are no conflict. When another writer has removed one of the files, nothing is committed, and the report's
    /// `lost_races` says so. The files that were replaced stay in the store until somebody vacuums the table: readers of earlier versions need them.
    ///
    /// # Errors
    /// The store does not answer, or a file is damaged. Nothing is committed then, and what was written is deleted again as far as that is possible.
    pub fn optimize(
        &self,
        options: &CompactOptions,
        progress: &mut dyn FnMut(&CompactReport),
    ) -> Result<CompactReport, DeltaError> {
        let (snapshot, seen) = {
            let state = &mut *self.state.lock();
            self.reload(state)?;
            (state.snapshot.clone(), state.version)
        };
        let mut report = CompactReport::default();
        let groups = self.plan(snapshot, options)?;
        let mut change = Change {
            commit: Commit::default(),
            removes: Vec::new(),
            seen,
            operation: "OPTIMIZE",
            parameters: json!({"predicate": "[]", "targetSize": options.target_bytes.to_string()}),
        };
        for group in groups {
            report.planned(&group.files);
            if !options.dry_run {
                let add = self.merge(&group).inspect_err(|_| self.forget(&change.commit.adds))?;
                report.bytes_after += add.size;
                report.rows += add.stats.rows;
                change.commit.adds.push(add);
                change.removes.extend(group.removes());
            }
            progress(&report);
        }
        if change.commit.adds.is_empty() {
            return Ok(report);
        }
        match self.commit_change(&change)? {
            CommitOutcome::Committed(_) => Ok(report),
            CommitOutcome::AlreadyStored | CommitOutcome::Fenced => {
                self.forget(&change.commit.adds);
                Ok(CompactReport { lost_races: change.commit.adds.len() as u64, ..CompactReport::default() })
            }
        }
    }

    /// The groups of each partition that the options mean.
    fn plan(&self, snapshot: SnapshotRef, options: &CompactOptions) -> Result<Vec<Group>, DeltaError> {
        let wrong = |error: delta_kernel::KernelError| self.wrong("list the table's files", &error);
        let columns = snapshot.table_configuration().metadata().partition_columns().to_vec();
        let cutoff = now_millis().saturating_sub(i64::try_from(options.min_age.as_millis()).unwrap_or(i64::MAX));
        let mut found = Found { options, cutoff, files: Vec::new() };
        let scan = snapshot.scan_builder().build().map_err(wrong)?;
        for metadata in scan.scan_metadata(&*self.engine).map_err(wrong)? {
            found = metadata.map_err(wrong)?.visit_scan_files(found, Found::visit).map_err(wrong)?;
        }
        let mut partitions = BTreeMap::<Values, Vec<Small>>::new();
        for file in found.files {
            let values: Values =
                columns.iter().map(|column| (column.clone(), file.partition_values.get(column).cloned())).collect();
            let path = self.files.key(&decoded(&file.path))?;
            partitions.entry(values).or_default().push(Small {
                path,
                bytes: u64::try_from(file.size).unwrap_or(0),
                name: file.path,
            });
        }
        let groups = partitions.into_iter().flat_map(|(values, mut files)| {
            files.sort_by(|a, b| a.path.cmp(&b.path));
            groups(files, options.target_bytes).into_iter().map(move |files| Group { files, values: values.clone() })
        });
        Ok(groups.collect())
    }

    /// Writes one file for a group, beside the first of them.
    fn merge(&self, group: &Group) -> Result<AddFile, DeltaError> {
        let scratch = tempfile::tempdir().map_err(|error| DeltaError::Settings(format!("no temporary directory: {error}")))?;
        let merged = merge_files(&self.files, &group.files, scratch.path(), &[]).map_err(DeltaError::Table)?;
        let first = group.files.first().map(|file| decoded(&file.name)).unwrap_or_default();
        let directory = first.rsplit_once('/').map_or(String::new(), |(directory, _)| format!("{directory}/"));
        let path = format!("{directory}compact-{}.parquet", crate::unique::uuid());
        self.files.store(&merged.file, merged.bytes, &self.files.key(&path)?)?;
        Ok(AddFile {
            path,
            size: merged.bytes,
            modification_time: now_millis(),
            partition_values: group.values.clone(),
            stats: merged.stats,
        })
    }

    /// Deletes files that did not become part of the table. What stays costs space until somebody vacuums the table.
    fn forget(&self, adds: &[AddFile]) {
        for add in adds {
            let deleted = self.files.key(&add.path).and_then(|key| self.files.delete(&key));
            if let Err(error) = deleted {
                tracing::debug!(path = add.path, %error, "a file that is not part of the table stays");
            }
        }
    }
}
