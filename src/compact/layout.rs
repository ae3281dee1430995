//! Plain Parquet files: `predictions/model_name=…/date=…/*.parquet`, in a bucket or a directory.
//!
//! Nothing says which files a table has but that they are there, so the steps of a group are in an order that a crash may cut anywhere:
//!
//! 1. the new file is put as `compact-<hash>.parquet`; the hash is of the names that it replaces, which its footer lists (`predlog.replaces`);
//! 2. the manifest `_compact-<hash>.json` is put: the same list, and the new file's size;
//! 3. the old files are deleted, in order;
//! 4. the manifest is deleted.
//!
//! The next run first ends what it finds begun: by the manifest, or by the footer of a new file that has none. *A reader* never misses a row. From 1 until the end of 3 it may see rows
//! twice, in the old file and in the new one, with the same writer and seq; so may one that listed the directory before and finds an old file gone. Compact partitions that are closed, when
//! nobody reads them. *A writer* that puts an old file again after it was replaced would store its rows again: `min_age` must be longer than any writer may be late.

use super::rewrite::merge_files;
use super::{CompactOptions, CompactReport, Small, groups};
use crate::format::path::{LAYOUT, MAX_COMPONENT_BYTES};
use crate::ship::objects::Objects;
use crate::ship::{UploadError, UploadSettings};
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStoreExt};
use parquet::errors::ParquetError;
use parquet::file::metadata::ParquetMetaDataReader;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

const NEW: &str = "compact-";
const MANIFEST: &str = "_compact-";
/// The footer's key of the names that a file replaces: a JSON array.
const REPLACES_KEY: &str = "predlog.replaces";

/// What is fetched of a file to see its footer, at first.
const FOOTER: u64 = 64 << 10;

/// Why files could not be put together. What was begun is ended by the next run.
#[derive(Debug, thiserror::Error)]
pub enum CompactError {
    /// The settings cannot work, or the store does not answer.
    #[error(transparent)]
    Store(#[from] UploadError),
    /// A file is not what it should be.
    #[error("{0}")]
    File(String),
}

/// What a new file replaces.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Manifest {
    object: String,
    bytes: u64,
    replaces: Vec<String>,
}

/// The files of one partition.
#[derive(Debug, Default)]
struct Partition {
    files: Vec<ObjectMeta>,
    manifests: Vec<Path>,
}

/// Puts the small files of each partition below `store.url` together. `progress` is told after each group.
///
/// # Errors
/// The store does not answer, there are no such files below `store.url` at all, or a file is damaged. Groups before it are done.
pub fn compact_layout(
    store: &UploadSettings,
    options: &CompactOptions,
    progress: &mut dyn FnMut(&CompactReport),
) -> Result<CompactReport, CompactError> {
    let (objects, _runtime) = Objects::open(store)?;
    if let Some(file) =
        ["writers", "outbox"].iter().map(|part| objects.list(part)).collect::<Result<Vec<_>, _>>()?.concat().first()
    {
        return Err(CompactError::File(format!(
            "{}: key={} is predlog's own: this is the directory of a store, whose files are yet to be uploaded; give the bucket",
            objects.target.shown, file.location
        )));
    }
    let mut report = CompactReport::default();
    let found = objects.list(LAYOUT)?;
    let (all, partitions) = (found.len(), partitions(found, options));
    // What is all done has files. That there are none is a slip of whoever asked: another bucket, a prefix too much or too little.
    if partitions.is_empty() && (all == 0 || options.partitions.is_empty()) {
        return Err(CompactError::File(format!(
            "{}: there are no files to compact: expected {LAYOUT}/model_name=…/date=…/*.parquet below it; give the URL above {LAYOUT}/, or the right bucket",
            objects.target.shown
        )));
    }
    for (directory, mut partition) in partitions {
        let compaction = Compaction { objects: &objects, directory: &directory };
        if !options.dry_run {
            compaction.end_what_was_begun(&mut partition)?;
        }
        let newest = partition.files.iter().map(|file| file.last_modified.timestamp_millis()).max();
        let cutoff = jiff::Timestamp::now()
            .as_millisecond()
            .saturating_sub(i64::try_from(options.min_age.as_millis()).unwrap_or(i64::MAX));
        if newest.is_none_or(|newest| newest > cutoff) {
            continue;
        }
        partition.files.sort_by(|a, b| a.location.cmp(&b.location));
        let small = partition.files.into_iter().filter_map(|file| {
            let name = file.location.filename()?.to_owned();
            Some(Small { path: file.location, bytes: file.size, name })
        });
        for group in groups(small, options.target_bytes) {
            report.planned(&group);
            if !options.dry_run {
                let (bytes, rows) = compaction.replace(&group)?;
                report.bytes_after += bytes;
                report.rows += rows;
            }
            progress(&report);
        }
    }
    Ok(report)
}

/// The partitions that the options mean, by their directories.
fn partitions(found: Vec<ObjectMeta>, options: &CompactOptions) -> BTreeMap<String, Partition> {
    let mut partitions = BTreeMap::<String, Partition>::new();
    let wanted: Vec<String> = options.partitions.iter().map(|(column, value)| format!("{column}={value}")).collect();
    for file in found {
        let Some((directory, name)) = file.location.as_ref().rsplit_once('/') else { continue };
        let (is_file, is_manifest) = (name.ends_with(".parquet"), name.starts_with(MANIFEST) && name.ends_with(".json"));
        if !(is_file || is_manifest) || !wanted.iter().all(|part| directory.split('/').any(|component| component == part)) {
            continue;
        }
        let partition = partitions.entry(directory.to_owned()).or_default();
        if is_file { partition.files.push(file) } else { partition.manifests.push(file.location) }
    }
    partitions
}

/// The steps within one partition.
struct Compaction<'a> {
    objects: &'a Objects,
    directory: &'a str,
}

impl Compaction<'_> {
    /// Repairs what a run before this one was killed in, and forgets the files that are gone by it.
    fn end_what_was_begun(&self, partition: &mut Partition) -> Result<(), CompactError> {
        let mut begun = Vec::new();
        for manifest in &partition.manifests {
            let text =
                self.objects.wait("read a manifest", async { self.objects.target.store.get(manifest).await?.bytes().await })?;
            let manifest: Manifest = serde_json::from_slice(&text)
                .map_err(|error| CompactError::File(format!("key={manifest} is no manifest: {error}")))?;
            begun.push(manifest);
        }
        for file in &partition.files {
            let name = file.location.filename().unwrap_or_default();
            if name.starts_with(NEW) && !begun.iter().any(|manifest| manifest.object == name) {
                begun.push(Manifest { object: name.to_owned(), bytes: file.size, replaces: self.replaced_by(file)? });
            }
        }
        for manifest in begun {
            let at = |name: &str| partition.files.iter().position(|file| file.location.filename() == Some(name));
            if at(&manifest.object).is_none_or(|at| partition.files[at].size != manifest.bytes) {
                return Err(CompactError::File(format!(
                    "{}/{}: expected {} bytes by its manifest; look at what was deleted or replaced there, then delete {MANIFEST}*.json",
                    self.directory, manifest.object, manifest.bytes
                )));
            }
            let manifested = partition.manifests.contains(&self.manifest_path(&manifest.object)?);
            let left: Vec<String> = manifest.replaces.iter().filter(|name| at(name).is_some()).cloned().collect();
            if !left.is_empty() || manifested {
                tracing::info!(
                    directory = self.directory,
                    file = manifest.object,
                    left = left.len(),
                    "a compaction that was cut short is ended"
                );
                self.delete_old(&manifest)?;
            }
            partition
                .files
                .retain(|file| !file.location.filename().is_some_and(|name| manifest.replaces.iter().any(|gone| gone == name)));
        }
        Ok(())
    }

    /// What the footer of a new file says that it replaces.
    fn replaced_by(&self, file: &ObjectMeta) -> Result<Vec<String>, CompactError> {
        let wrong = |error: &dyn std::fmt::Display| CompactError::File(format!("key={}: {error}", file.location));
        let mut tail = FOOTER.min(file.size);
        let metadata = loop {
            let get = self.objects.target.store.get_range(&file.location, file.size - tail..file.size);
            let bytes = self.objects.wait("read a footer", get)?;
            let mut reader = ParquetMetaDataReader::new();
            match reader.try_parse_sized(&bytes, file.size) {
                Ok(()) => break reader.finish(),
                Err(ParquetError::NeedMoreData(more)) if (more as u64) > tail && (more as u64) <= file.size => tail = more as u64,
                Err(error) => return Err(wrong(&error)),
            }
        };
        let metadata = metadata.map_err(|error| wrong(&error))?;
        let marks = metadata.file_metadata().key_value_metadata();
        let replaces = marks.and_then(|marks| marks.iter().find(|mark| mark.key == REPLACES_KEY)?.value.clone());
        let text = replaces
            .ok_or_else(|| wrong(&format!("its footer has no {REPLACES_KEY}, so it is none of ours: give it another name")))?;
        serde_json::from_str(&text).map_err(|error| wrong(&error))
    }

    /// Puts a group together, and takes the old files away. Returns the new file's bytes and rows.
    fn replace(&self, group: &[Small]) -> Result<(u64, u64), CompactError> {
        let scratch = tempfile::tempdir().map_err(|error| CompactError::File(format!("no temporary directory: {error}")))?;
        let replaces: Vec<String> = group.iter().map(|small| small.name.clone()).collect();
        let list = serde_json::to_string(&replaces).map_err(|error| CompactError::File(error.to_string()))?;
        let merged = merge_files(self.objects, group, scratch.path(), &[(REPLACES_KEY, list)]).map_err(CompactError::File)?;
        let object = format!("{NEW}{}.parquet", hash(&replaces));
        debug_assert!(object.len() <= MAX_COMPONENT_BYTES);
        self.objects.store(&merged.file, merged.bytes, &self.path(&object)?)?;
        let manifest = Manifest { object, bytes: merged.bytes, replaces };
        let text = serde_json::to_vec(&manifest).map_err(|error| CompactError::File(error.to_string()))?;
        let path = self.manifest_path(&manifest.object)?;
        self.objects.wait("put a manifest", self.objects.target.store.put(&path, text.into()))?;
        self.delete_old(&manifest)?;
        Ok((merged.bytes, merged.stats.rows))
    }

    fn delete_old(&self, manifest: &Manifest) -> Result<(), CompactError> {
        for name in &manifest.replaces {
            self.objects.delete(&self.path(name)?)?;
        }
        Ok(self.objects.delete(&self.manifest_path(&manifest.object)?)?)
    }

    fn path(&self, name: &str) -> Result<Path, CompactError> {
        Path::parse(format!("{}/{name}", self.directory))
            .map_err(|error| CompactError::File(format!("key={}/{name}: {error}", self.directory)))
    }

    fn manifest_path(&self, object: &str) -> Result<Path, CompactError> {
        let hash = object.strip_prefix(NEW).and_then(|rest| rest.strip_suffix(".parquet")).unwrap_or(object);
        self.path(&format!("{MANIFEST}{hash}.json"))
    }
}

/// 16 hex digits of the names.
fn hash(names: &[String]) -> String {
    let mut hash = Sha256::new();
    for name in names {
        hash.update((name.len() as u64).to_be_bytes());
        hash.update(name);
    }
    hash.finalize()[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}
