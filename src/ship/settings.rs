//! `[upload]`.

use crate::sink::broker::settings::{HIDDEN, Secret};
use bytesize::ByteSize;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// Keys of an S3 store that do not expire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessKeys {
    /// Whose they are.
    pub id: String,
    /// What proves it.
    pub secret: Secret,
}

/// Where and how predictions are uploaded. No secret is in the configuration: credentials come from each cloud's own places, see [`super::probe`].
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct UploadSettings {
    /// `s3://bucket/prefix`, `gs://bucket/prefix`, `az://container/prefix` or `file:///directory`. Not set: nothing is uploaded.
    pub url: Option<String>,
    /// Another server than the cloud's own: `http://127.0.0.1:9000` for MinIO.
    pub endpoint: Option<String>,
    /// S3's region. Not set: `AWS_REGION`, the profile's, or `us-east-1`.
    pub region: Option<String>,
    /// The profile in AWS's shared files. Not set: `AWS_PROFILE`, or `default`. Set, it goes before keys in the environment.
    pub profile: Option<String>,
    /// Another credentials file than `AWS_SHARED_CREDENTIALS_FILE` or `~/.aws/credentials`. Set, it goes before keys in the environment.
    pub credentials_file: Option<PathBuf>,
    /// Keys for S3 that go before all others: those of a Kafka Connect connector.
    #[serde(skip)]
    pub access_keys: Option<AccessKeys>,
    /// Allows an `endpoint` without TLS that is not on this machine.
    pub allow_http: bool,
    /// The bucket is part of the endpoint's host name.
    pub virtual_hosted: bool,
    /// Puts with `If-None-Match: *`. Off for an S3-like store that does not know it: then it is asked for the object first.
    pub conditional_put: bool,
    /// SQLite rows are uploaded when the oldest has waited this long. (A sealed file is uploaded at once.)
    #[serde(with = "humantime_serde")]
    pub every: Duration,
    /// SQLite rows are uploaded when there are this many, and at most this many at a time.
    pub max_rows: u64,
    /// Files larger than this go up in parts of this size (5 MiB to 5 GiB). The uploader holds one such part in memory.
    pub multipart_bytes: ByteSize,
    /// Segments that are not finished files yet, and files and SQLite's rows that wait for their upload, may take this much disk; past it no more records are taken.
    pub max_disk_bytes: ByteSize,
}

impl Default for UploadSettings {
    fn default() -> Self {
        UploadSettings {
            url: None,
            endpoint: None,
            region: None,
            profile: None,
            credentials_file: None,
            access_keys: None,
            allow_http: false,
            virtual_hosted: false,
            conditional_put: true,
            every: Duration::from_secs(300),
            max_rows: 100_000,
            multipart_bytes: ByteSize::mib(8),
            max_disk_bytes: ByteSize::gib(10),
        }
    }
}

impl fmt::Debug for UploadSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UploadSettings")
            .field("url", &self.url.as_deref().map(without_secrets))
            .field("endpoint", &self.endpoint.as_deref().map(without_secrets))
            .field("region", &self.region)
            .field("profile", &self.profile)
            .field("credentials_file", &self.credentials_file)
            .field("access_keys", &self.access_keys.as_ref().map(|_| HIDDEN))
            .field("allow_http", &self.allow_http)
            .field("virtual_hosted", &self.virtual_hosted)
            .field("conditional_put", &self.conditional_put)
            .field("every", &self.every)
            .field("max_rows", &self.max_rows)
            .field("multipart_bytes", &self.multipart_bytes)
            .field("max_disk_bytes", &self.max_disk_bytes)
            .finish()
    }
}

/// A URL as it may be shown: without user, password, query and fragment.
pub(super) fn without_secrets(text: &str) -> String {
    let text = text.split(['?', '#']).next().unwrap_or_default();
    let Some((scheme, rest)) = text.split_once("://") else { return text.to_owned() };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    format!("{scheme}://{host}{path}")
}
