//! One file to one object, proven.

use super::location::clean;
use super::store::Target;
use crate::outbox::{Entry, Outbox};
use bytes::Bytes;
use futures_util::TryStreamExt;
use object_store::path::Path;
use object_store::{
    Attribute, Attributes, GetOptions, MultipartUpload, ObjectStore, PutMode, PutMultipartOptions, PutOptions, PutPayload,
};
use sha2::{Digest, Sha256};
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// Letters and digits only: a name that S3, Azure (identifiers) and proxies (which drop underscores) all keep.
const SHA256_ATTRIBUTE: &str = "predlogsha256";
/// S3 takes at most 10,000 parts.
const MOST_PARTS: u64 = 10_000;
/// How long an answer may take beyond the time for its bytes.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long the shutdown waits for the store to forget the parts of an unfinished upload.
const ABORT_TIMEOUT: Duration = Duration::from_secs(2);

/// Why a file is not stored yet.
#[derive(Debug)]
pub(super) enum Fault {
    /// This file cannot be read; others may.
    Local(String),
    /// The store did not take it; others would fare no better now.
    Remote(String),
    /// The shipper stops.
    Stopped,
}

/// How slow a line is waited for: a dead endpoint is noticed soon, and a line of 256 bytes a second still gets everything through in the end.
#[derive(Debug)]
pub(super) struct Pace {
    /// Bytes a second.
    least: u64,
}

impl Pace {
    const FAST: u64 = 64 << 10;
    const SLOWEST: u64 = 256;

    pub fn new() -> Self {
        Pace { least: Self::FAST }
    }

    fn limit(&self, bytes: u64) -> Duration {
        PATIENCE + Duration::from_secs(bytes / self.least)
    }

    fn timed_out(&mut self) {
        self.least = (self.least / 4).max(Self::SLOWEST);
    }

    fn took(&mut self, bytes: u64, elapsed: Duration) {
        // Small ones say more of the delay than of the line.
        if bytes >= Self::FAST {
            let rate = (bytes as f64 / elapsed.as_secs_f64().max(0.001)) as u64;
            self.least = (rate / 4).clamp(Self::SLOWEST, Self::FAST);
        }
    }
}

/// What lies at a key.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    Nothing,
    Same,
    Other { bytes: u64 },
}

/// Uploads files to one target, one at a time.
pub(super) struct Uploader<'a> {
    pub target: &'a Target,
    pub outbox: &'a Outbox,
    pub multipart_bytes: u64,
    pub pace: &'a mut Pace,
    pub stop: watch::Receiver<bool>,
}

impl Uploader<'_> {
    /// Returns when the object is proven stored with the file's bytes, by the store's answer to a put of this file, or by size and SHA-256.
    ///
    /// A key names its rows (the writer and the first and last `seq`), so an object that is there with other bytes holds the same rows, written
    /// by another try with another schema or compression: it is replaced, with a warning, as the local file is what would be deleted next.
    pub async fn store(&mut self, entry: &Entry) -> Result<(), Fault> {
        let key =
            self.target.key(entry.relative.key()).map_err(|error| Fault::Local(format!("key={}: {error}", entry.relative)))?;
        if entry.bytes > self.multipart_bytes { self.put_parts(entry, &key).await } else { self.put_whole(entry, &key).await }
    }

    async fn put_whole(&mut self, entry: &Entry, key: &Path) -> Result<(), Fault> {
        let bytes = Bytes::from(std::fs::read(self.outbox.path(&entry.relative)).map_err(|error| unreadable(entry, &error))?);
        let (size, sha256) = (bytes.len() as u64, hex(&Sha256::digest(&bytes)));
        if self.target.conditional {
            match self.put(key, bytes.clone(), &sha256, PutMode::Create).await? {
                Ok(()) => return Ok(()),
                Err(object_store::Error::AlreadyExists { .. } | object_store::Error::NotImplemented { .. }) => {}
                Err(error) => return Err(self.remote("put", key, &error)),
            }
        }
        if self.differs(entry, key, size, &sha256).await? {
            self.put(key, bytes, &sha256, PutMode::Overwrite).await?.map_err(|error| self.remote("put", key, &error))?;
        }
        Ok(())
    }

    async fn put(
        &mut self,
        key: &Path,
        bytes: Bytes,
        sha256: &str,
        mode: PutMode,
    ) -> Result<Result<(), object_store::Error>, Fault> {
        let options = PutOptions { mode, attributes: self.attributes(sha256), ..PutOptions::default() };
        let (store, size) = (self.target.store.clone(), bytes.len() as u64);
        let put = self.timed("put", key, size, store.put_opts(key, PutPayload::from_bytes(bytes), options)).await?;
        Ok(put.map(drop))
    }

    async fn put_parts(&mut self, entry: &Entry, key: &Path) -> Result<(), Fault> {
        let (size, sha256) = digest(self.outbox, entry)?;
        if !self.differs(entry, key, size, &sha256).await? {
            return Ok(());
        }
        let options = PutMultipartOptions { attributes: self.attributes(&sha256), ..PutMultipartOptions::default() };
        let store = self.target.store.clone();
        let begun = self.timed("begin parts of", key, 0, store.put_multipart_opts(key, options)).await?;
        let mut upload = begun.map_err(|error| self.remote("begin parts of", key, &error))?;
        if let Err(fault) = self.all_parts(entry, key, size, upload.as_mut()).await {
            // What this cannot take back costs space until the bucket's lifecycle rule for unfinished uploads does.
            let _ = tokio::time::timeout(ABORT_TIMEOUT, upload.abort()).await;
            return Err(fault);
        }
        match self.look(key, size, &sha256).await? {
            Found::Same => Ok(()),
            found => Err(Fault::Remote(format!(
                "{} key={key}: after its upload there is {found:?}, not bytes={size}",
                self.target.shown
            ))),
        }
    }

    async fn all_parts(&mut self, entry: &Entry, key: &Path, size: u64, upload: &mut dyn MultipartUpload) -> Result<(), Fault> {
        let part_bytes = self.multipart_bytes.max(size.div_ceil(MOST_PARTS));
        let mut file = File::open(self.outbox.path(&entry.relative)).map_err(|error| unreadable(entry, &error))?;
        let mut rest = size;
        while rest > 0 {
            let len = rest.min(part_bytes);
            let mut part = Vec::with_capacity(usize::try_from(len).unwrap_or(0));
            (&mut file).take(len).read_to_end(&mut part).map_err(|error| unreadable(entry, &error))?;
            if part.len() as u64 != len {
                return Err(unreadable(entry, &io::Error::from(io::ErrorKind::UnexpectedEof)));
            }
            // One at a time: the memory is bounded by one part, and the line is the limit anyway.
            let put = upload.put_part(PutPayload::from(part));
            self.timed("put a part of", key, len, put).await?.map_err(|error| self.remote("put a part of", key, &error))?;
            rest -= len;
        }
        self.timed("complete", key, 0, upload.complete()).await?.map_err(|error| self.remote("complete", key, &error))?;
        Ok(())
    }

    /// Whether the object must be put: it is not there, or it is another.
    async fn differs(&mut self, entry: &Entry, key: &Path, size: u64, sha256: &str) -> Result<bool, Fault> {
        match self.look(key, size, sha256).await? {
            Found::Same => Ok(false),
            Found::Nothing => Ok(true),
            Found::Other { bytes } => {
                tracing::warn!(%key, stored_bytes = bytes, bytes = size, file = %entry.relative, "an object with other bytes is replaced");
                Ok(true)
            }
        }
    }

    /// Compares what lies at the key by size, then by the SHA-256 that was stored with it, or else by reading it.
    async fn look(&mut self, key: &Path, size: u64, sha256: &str) -> Result<Found, Fault> {
        let store = self.target.store.clone();
        let options = GetOptions { head: true, ..GetOptions::default() };
        let head = match self.timed("look at", key, 0, store.get_opts(key, options)).await? {
            Ok(head) => head,
            Err(object_store::Error::NotFound { .. }) => return Ok(Found::Nothing),
            Err(error) => return Err(self.remote("look at", key, &error)),
        };
        let other = Found::Other { bytes: head.meta.size };
        if head.meta.size != size {
            return Ok(other);
        }
        let stored = match head.attributes.get(&Attribute::Metadata(SHA256_ATTRIBUTE.into())) {
            Some(stored) => stored.to_string(),
            None => {
                let read = async {
                    let mut hash = Sha256::new();
                    let mut chunks = store.get_opts(key, GetOptions::default()).await?.into_stream();
                    while let Some(chunk) = chunks.try_next().await? {
                        hash.update(&chunk);
                    }
                    Ok(hex(&hash.finalize()))
                };
                self.timed("read", key, size, read).await?.map_err(|error| self.remote("read", key, &error))?
            }
        };
        Ok(if stored == sha256 { Found::Same } else { other })
    }

    fn attributes(&self, sha256: &str) -> Attributes {
        let mut attributes = Attributes::new();
        if self.target.attributes {
            attributes.insert(Attribute::ContentType, "application/vnd.apache.parquet".into());
            attributes.insert(Attribute::Metadata(SHA256_ATTRIBUTE.into()), sha256.to_owned().into());
        }
        attributes
    }

    /// Waits for an answer as long as `bytes` may take, or until the shipper stops.
    async fn timed<T>(
        &mut self,
        doing: &str,
        key: &Path,
        bytes: u64,
        answer: impl Future<Output = Result<T, object_store::Error>>,
    ) -> Result<Result<T, object_store::Error>, Fault> {
        let (limit, started) = (self.pace.limit(bytes), Instant::now());
        tokio::select! {
            // An error says that the shipper itself is gone.
            _ = self.stop.wait_for(|stop| *stop) => Err(Fault::Stopped),
            answer = tokio::time::timeout(limit, answer) => match answer {
                Ok(answer) => {
                    if answer.is_ok() {
                        self.pace.took(bytes, started.elapsed());
                    }
                    Ok(answer)
                }
                Err(_) => {
                    self.pace.timed_out();
                    Err(Fault::Remote(format!("{} key={key}: cannot {doing} it: no answer within {limit:?}", self.target.shown)))
                }
            },
        }
    }

    fn remote(&self, doing: &str, key: &Path, error: &object_store::Error) -> Fault {
        Fault::Remote(format!("{} key={key}: cannot {doing} it: {}", self.target.shown, clean(&error.to_string())))
    }
}

fn unreadable(entry: &Entry, error: &io::Error) -> Fault {
    Fault::Local(format!("cannot read path={}: {error}", entry.relative))
}

/// Size and SHA-256 of a file, in bounded memory.
fn digest(outbox: &Outbox, entry: &Entry) -> Result<(u64, String), Fault> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 256 << 10];
    let mut size = 0;
    let mut file = File::open(outbox.path(&entry.relative)).map_err(|error| unreadable(entry, &error))?;
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok((size, hex(&hash.finalize()))),
            Ok(read) => {
                hash.update(&buffer[..read]);
                size += read as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(unreadable(entry, &error)),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
#[path = "uploader_tests.rs"]
mod tests;
