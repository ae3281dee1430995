//! The files of `_delta_log/`, as bytes.

use super::DeltaError;
use super::action::Seen;
use crate::ship::objects::Objects;
use futures_util::TryStreamExt;
use object_store::{ObjectMeta, ObjectStoreExt, PutMode, PutOptions};

pub(super) const LOG: &str = "_delta_log";

/// What became of the put of a version.
#[derive(Debug)]
pub(super) enum Put {
    Done,
    /// There is one already: somebody else's, or our own whose answer was lost.
    Exists,
    /// It may be there or not, now or later.
    Unknown(DeltaError),
}

impl Objects {
    /// Puts a version's lines unless that version is there.
    pub(super) fn put_version(&self, version: u64, lines: &[u8]) -> Result<Put, DeltaError> {
        let key = self.key(&version_key(version))?;
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        let mut exists = false;
        let put = self.wait("put a commit", async {
            match self.target.store.put_opts(&key, lines.to_vec().into(), options).await {
                Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => {
                    exists = true;
                    Ok(())
                }
                put => put.map(drop),
            }
        });
        Ok(match put {
            Ok(()) if exists => Put::Exists,
            Ok(()) => Put::Done,
            Err(error) => Put::Unknown(error.into()),
        })
    }

    /// What a version says; `None` when there is no such version.
    pub(super) fn read_version(&self, version: u64) -> Result<Option<Seen>, DeltaError> {
        let key = self.key(&version_key(version))?;
        let text = self.wait("read a commit", async {
            match self.target.store.get(&key).await {
                Err(object_store::Error::NotFound { .. }) => Ok(None),
                found => Ok(Some(found?.bytes().await?)),
            }
        })?;
        let parse = |text: bytes::Bytes| {
            Seen::parse(&text)
                .map_err(|error| DeltaError::Table(format!("{}: key={key} is no commit: {error}", self.target.shown)))
        };
        text.map(parse).transpose()
    }

    /// Whether there is a log.
    pub(super) fn has_log(&self) -> Result<bool, DeltaError> {
        let prefix = self.key(LOG)?;
        Ok(self.wait("list the log", async { Ok(self.target.store.list(Some(&prefix)).try_next().await?.is_some()) })?)
    }

    /// The files of the log, in no order.
    pub(super) fn list_log(&self) -> Result<Vec<ObjectMeta>, DeltaError> {
        Ok(self.list(LOG)?)
    }
}

pub(super) fn version_key(version: u64) -> String {
    format!("{LOG}/{version:020}.json")
}
