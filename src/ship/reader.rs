//! Reading what was uploaded, for an audit.

use super::location::clean;
use super::settings::UploadSettings;
use super::store::{Target, UploadError, UploadErrorKind};
use bytes::Bytes;
use futures_util::TryStreamExt;
use object_store::path::Path;
use std::ops::Range;
use std::sync::Arc;
use tokio::runtime::Runtime;

/// A bucket that is read, blocking.
#[derive(Clone, Debug)]
pub(crate) struct Bucket {
    runtime: Arc<Runtime>,
    target: Target,
}

/// An object in it.
#[derive(Clone, Debug)]
pub(crate) struct Object {
    /// The key below the prefix.
    pub(crate) key: String,
    path: Path,
    pub(crate) bytes: u64,
}

impl Bucket {
    /// The bucket of `settings`. Nobody is asked yet.
    ///
    /// # Errors
    /// The settings are wrong.
    pub(crate) fn open(settings: &UploadSettings) -> Result<Self, UploadError> {
        let failed = |message: String| UploadError { kind: UploadErrorKind::Settings, message };
        let target = Target::open(settings)?;
        let target = target.ok_or_else(|| failed("upload.url is not set; expected s3://bucket/prefix or the like".to_owned()))?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| failed(format!("cannot start the runtime: {error}")))?;
        Ok(Bucket { runtime: Arc::new(runtime), target })
    }

    /// The Parquet files below `directory`, in any depth.
    ///
    /// # Errors
    /// The bucket cannot be listed.
    pub(crate) fn list(&self, directory: &str) -> Result<Vec<Object>, UploadError> {
        let prefix = self.target.key(directory).map_err(|error| self.target.error("name a directory", &error.into()))?;
        let listed = self.runtime.block_on(self.target.store.list(Some(&prefix)).try_collect::<Vec<_>>());
        let listed = listed.map_err(|error| self.target.error("list objects", &error))?;
        let objects = listed.into_iter().filter(|object| object.location.as_ref().ends_with(".parquet")).map(|object| {
            let below = object.location.as_ref().strip_prefix(prefix.as_ref()).unwrap_or_default();
            Object { key: format!("{directory}{below}"), bytes: object.size, path: object.location }
        });
        Ok(objects.collect())
    }

    /// Some parts of an object.
    ///
    /// # Errors
    /// It cannot be read.
    pub(crate) fn get(&self, object: &Object, ranges: &[Range<u64>]) -> Result<Vec<Bytes>, String> {
        let got = self.runtime.block_on(self.target.store.get_ranges(&object.path, ranges));
        got.map_err(|error| clean(&error.to_string()))
    }
}
