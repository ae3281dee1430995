//! A store that is asked and waited for, for what runs on threads of its own: tables and their compaction.

use super::settings::UploadSettings;
use super::store::{Target, UploadError, UploadErrorKind};
use futures_util::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStoreExt, WriteMultipart};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::{Handle, Runtime};

/// How long an answer may take, and how slow a line may be beyond that, in bytes a second.
const PATIENCE: Duration = Duration::from_secs(60);
const SLOWEST: u64 = 64 << 10;
/// A file goes up in parts of this size, at most two at a time.
const PART_BYTES: usize = 8 << 20;

/// A directory or a bucket. Calls block, and must not come from an async task.
#[derive(Clone, Debug)]
pub(crate) struct Objects {
    pub target: Target,
    runtime: Handle,
}

impl Objects {
    /// The store of `settings`, and the threads that ask it. Nobody is asked yet.
    ///
    /// # Errors
    /// The settings are wrong, or name no URL.
    pub fn open(settings: &UploadSettings) -> Result<(Self, Runtime), UploadError> {
        let failed = |message: String| UploadError { kind: UploadErrorKind::Settings, message };
        let target = Target::open(settings)?;
        let target = target
            .ok_or_else(|| failed("upload.url is not set: expected s3://bucket/prefix, file:///directory or the like".into()))?;
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).thread_name("predlog-objects").enable_all().build();
        let runtime = runtime.map_err(|error| failed(format!("cannot start the threads that ask the store: {error}")))?;
        Ok((Objects { target, runtime: runtime.handle().clone() }, runtime))
    }

    /// The whole key of what lies at `relative`.
    pub fn key(&self, relative: &str) -> Result<Path, UploadError> {
        self.target.key(relative).map_err(|error| self.target.error("name an object", &error.into()))
    }

    /// Waits for an answer, as long as it may take.
    pub fn wait<T>(&self, doing: &str, answer: impl Future<Output = Result<T, object_store::Error>>) -> Result<T, UploadError> {
        self.wait_for_bytes(0, doing, answer)
    }

    fn wait_for_bytes<T>(
        &self,
        bytes: u64,
        doing: &str,
        answer: impl Future<Output = Result<T, object_store::Error>>,
    ) -> Result<T, UploadError> {
        let limit = PATIENCE + Duration::from_secs(bytes / SLOWEST);
        self.runtime.block_on(async {
            match tokio::time::timeout(limit, answer).await {
                Ok(answer) => answer.map_err(|error| self.target.error(doing, &error)),
                Err(_) => Err(UploadError {
                    kind: UploadErrorKind::Unavailable,
                    message: format!("{}: cannot {doing}: no answer within {limit:?}", self.target.shown),
                }),
            }
        })
    }

    /// The objects below `directory`, in any depth and in no order.
    pub fn list(&self, directory: &str) -> Result<Vec<ObjectMeta>, UploadError> {
        let prefix = self.key(directory)?;
        self.wait("list objects", self.target.store.list(Some(&prefix)).try_collect())
    }

    /// Deletes an object, if it is there.
    pub fn delete(&self, key: &Path) -> Result<(), UploadError> {
        self.wait("delete an object", async {
            match self.target.store.delete(key).await {
                Err(object_store::Error::NotFound { .. }) => Ok(()),
                deleted => deleted,
            }
        })
    }

    /// Copies an object of this size to a file, piece by piece.
    pub fn fetch(&self, key: &Path, bytes: u64, file: &std::path::Path) -> Result<(), UploadError> {
        self.wait_for_bytes(bytes, "read an object", async {
            let mut pieces = self.target.store.get(key).await?.into_stream();
            let mut file = tokio::fs::File::create(file).await.map_err(local)?;
            while let Some(piece) = pieces.try_next().await? {
                file.write_all(&piece).await.map_err(local)?;
            }
            file.flush().await.map_err(local)
        })
    }

    /// Copies a file of this size to an object, part by part: it is there as a whole, or not at all.
    pub fn store(&self, file: &std::path::Path, bytes: u64, key: &Path) -> Result<(), UploadError> {
        self.wait_for_bytes(bytes, "put an object", async {
            let upload = self.target.store.put_multipart(key).await?;
            let mut parts = WriteMultipart::new_with_chunk_size(upload, PART_BYTES);
            let sent = async {
                let mut file = tokio::fs::File::open(file).await.map_err(local)?;
                loop {
                    let mut part = Vec::with_capacity(PART_BYTES);
                    (&mut file).take(PART_BYTES as u64).read_to_end(&mut part).await.map_err(local)?;
                    if part.is_empty() {
                        return Ok(());
                    }
                    parts.wait_for_capacity(1).await?;
                    parts.put(part.into());
                }
            };
            match sent.await {
                Ok(()) => parts.finish().await.map(drop),
                Err(error) => {
                    // What this cannot take back costs space until the bucket's lifecycle rule for unfinished uploads does.
                    let _ = parts.abort().await;
                    Err(error)
                }
            }
        })
    }
}

fn local(error: std::io::Error) -> object_store::Error {
    object_store::Error::Generic { store: "a temporary file", source: error.into() }
}
