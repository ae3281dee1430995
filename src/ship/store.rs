//! The object store that the settings mean, and whether it can be used.

use super::aws_profile::{self, Profile};
use super::location::{Location, Scheme, clean};
use super::settings::UploadSettings;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{BackoffConfig, ClientConfigKey, ObjectStore, ObjectStoreExt, RetryConfig};
use std::fs;
use std::sync::Arc;
use std::time::Duration;

/// How long a probe waits for each of its three answers.
const PROBE_TIMEOUT: Duration = Duration::from_secs(20);

/// The store, and what the uploader must know of it.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub store: Arc<dyn ObjectStore>,
    /// Before every key.
    pub prefix: Path,
    /// Knows `If-None-Match: *`.
    pub conditional: bool,
    /// Keeps attributes with an object. (Files do not.)
    pub attributes: bool,
    /// `url=… endpoint=…`, for messages.
    pub shown: String,
}

/// Why nothing can be uploaded, with what to do.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct UploadError {
    /// What kind of thing is wrong.
    pub kind: UploadErrorKind,
    /// What happened, with the values, and what to do.
    pub message: String,
}

/// What kind of thing is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum UploadErrorKind {
    /// The settings cannot work.
    Settings,
    /// The store does not accept who asks, or does not allow it.
    Denied,
    /// There is no such bucket or directory.
    NotFound,
    /// The store does not answer, or with an error of its own.
    Unavailable,
}

impl Target {
    /// Makes the client; asks nobody. `None` when no URL is set.
    pub fn open(settings: &UploadSettings) -> Result<Option<Target>, UploadError> {
        let wrong = |message| UploadError { kind: UploadErrorKind::Settings, message };
        settings.validate().map_err(wrong)?;
        let Some(location) = settings.location().map_err(wrong)? else { return Ok(None) };
        let endpoint = settings.endpoint.as_ref().map_or(String::new(), |endpoint| format!(" endpoint={endpoint}"));
        let shown = format!("url={}{endpoint}", settings.url.as_deref().unwrap_or_default());
        let store = build(settings, &location).map_err(|message| wrong(format!("{shown}: {message}")))?;
        let (prefix, attributes) = match location.scheme {
            Scheme::File => (Path::default(), false),
            _ => (Path::parse(&location.prefix).map_err(|error| wrong(format!("{shown}: {error}")))?, true),
        };
        Ok(Some(Target { store, prefix, conditional: settings.conditional_put, attributes, shown }))
    }

    /// The whole key of what lies at `key` below the prefix. The text stands for itself: it is not escaped once more.
    pub fn key(&self, key: &str) -> Result<Path, object_store::path::Error> {
        match self.prefix.as_ref() {
            "" => Path::parse(key),
            prefix => Path::parse(format!("{prefix}/{key}")),
        }
    }

    pub(crate) fn error(&self, doing: &str, error: &object_store::Error) -> UploadError {
        let kind = kind_of(error);
        UploadError {
            kind,
            message: format!("{}: cannot {doing}: {}; {}", self.shown, clean(&error.to_string()), advice(kind, error)),
        }
    }
}

/// Retries by `object_store` are few and short: what they are for is a flaky part of a long multipart upload. All others are ours.
fn retry() -> RetryConfig {
    let backoff = BackoffConfig { init_backoff: Duration::from_millis(100), max_backoff: Duration::from_secs(1), base: 2.0 };
    RetryConfig { backoff, max_retries: 2, retry_timeout: Duration::from_secs(10) }
}

/// `object_store`'s limit for a whole request would fail every large file on a slow line; ours grows with the file and with experience.
const NO_TIMEOUT: (ClientConfigKey, &str) = (ClientConfigKey::Timeout, "30days");

fn build(settings: &UploadSettings, location: &Location) -> Result<Arc<dyn ObjectStore>, String> {
    let built: Result<Arc<dyn ObjectStore>, object_store::Error> = match location.scheme {
        Scheme::S3 => return s3(settings, location),
        Scheme::Gcs => {
            let mut builder = GoogleCloudStorageBuilder::from_env()
                .with_bucket_name(&location.bucket)
                .with_retry(retry())
                .with_config(GoogleConfigKey::Client(NO_TIMEOUT.0), NO_TIMEOUT.1);
            if let Some(endpoint) = &settings.endpoint {
                builder = builder.with_config(GoogleConfigKey::BaseUrl, endpoint);
            }
            if settings.http_allowed()? {
                builder = builder.with_config(GoogleConfigKey::Client(ClientConfigKey::AllowHttp), "true");
            }
            builder.build().map(|store| Arc::new(store) as _)
        }
        Scheme::Azure => {
            let mut builder = MicrosoftAzureBuilder::from_env()
                .with_container_name(&location.bucket)
                .with_retry(retry())
                .with_config(object_store::azure::AzureConfigKey::Client(NO_TIMEOUT.0), NO_TIMEOUT.1);
            if let Some(endpoint) = &settings.endpoint {
                builder = builder.with_endpoint(endpoint.clone());
            }
            if settings.http_allowed()? {
                builder = builder.with_allow_http(true);
            }
            builder.build().map(|store| Arc::new(store) as _)
        }
        Scheme::File => {
            fs::create_dir_all(&location.prefix)
                .map_err(|error| format!("cannot create the directory path={:?}: {error}", location.prefix))?;
            // What is told stored may be deleted here: it must be on the disk there.
            LocalFileSystem::new_with_prefix(&location.prefix).map(|store| Arc::new(store.with_fsync(true)) as _)
        }
    };
    built.map_err(|error| clean(&error.to_string()))
}

fn s3(settings: &UploadSettings, location: &Location) -> Result<Arc<dyn ObjectStore>, String> {
    let profile = match &settings.access_keys {
        Some(keys) => Profile { keys: Some((keys.id.clone(), keys.secret.reveal().to_owned(), None)), region: None },
        None => aws_profile::read(settings, &|key| std::env::var(key).ok())?,
    };
    let mut builder = AmazonS3Builder::from_env()
        .with_bucket_name(&location.bucket)
        .with_virtual_hosted_style_request(settings.virtual_hosted)
        .with_retry(retry())
        .with_config(AmazonS3ConfigKey::Client(NO_TIMEOUT.0), NO_TIMEOUT.1);
    if let Some((id, secret, token)) = profile.keys {
        let credential = object_store::aws::AwsCredential { key_id: id, secret_key: secret, token };
        builder = builder.with_credentials(Arc::new(object_store::StaticCredentialProvider::new(credential)));
    }
    let region = settings.region.clone().or_else(|| match builder.get_config_value(&AmazonS3ConfigKey::Region) {
        Some(_) => None,
        None => profile.region,
    });
    if let Some(region) = region {
        builder = builder.with_region(region);
    }
    if let Some(endpoint) = &settings.endpoint {
        // The key that goes before all others, so that an AWS_ENDPOINT_URL_S3 does not win over the settings.
        builder = builder.with_config(AmazonS3ConfigKey::S3Endpoint, endpoint);
    }
    if settings.http_allowed()? {
        builder = builder.with_config(AmazonS3ConfigKey::Client(ClientConfigKey::AllowHttp), "true");
    }
    builder.build().map(|store| Arc::new(store) as _).map_err(|error| clean(&error.to_string()))
}

fn kind_of(error: &object_store::Error) -> UploadErrorKind {
    match error {
        object_store::Error::NotFound { .. } => UploadErrorKind::NotFound,
        object_store::Error::PermissionDenied { .. } | object_store::Error::Unauthenticated { .. } => UploadErrorKind::Denied,
        object_store::Error::InvalidPath { .. }
        | object_store::Error::NotSupported { .. }
        | object_store::Error::NotImplemented { .. }
        | object_store::Error::UnknownConfigurationKey { .. } => UploadErrorKind::Settings,
        _ => UploadErrorKind::Unavailable,
    }
}

fn advice(kind: UploadErrorKind, error: &object_store::Error) -> &'static str {
    // For the reader's sake alone: nothing is decided by this text. S3's codes for a region that is not the bucket's, and what
    // object_store says to a redirect.
    let text = error.to_string();
    if ["AuthorizationHeaderMalformed", "PermanentRedirect", "IllegalLocationConstraint", "incorrectly configured region"]
        .iter()
        .any(|code| text.contains(code))
    {
        return "set upload.region to the bucket's region";
    }
    match kind {
        UploadErrorKind::NotFound => "create the bucket, or correct upload.url",
        UploadErrorKind::Denied => {
            "check the credentials (AWS_ACCESS_KEY_ID or a profile, GOOGLE_APPLICATION_CREDENTIALS, AZURE_STORAGE_ACCOUNT_NAME and _KEY) and that they \
             may put, get and delete there"
        }
        UploadErrorKind::Settings => "correct [upload]",
        UploadErrorKind::Unavailable => "check that the endpoint is right and answers, and that credentials are set",
    }
}

/// Tries the store: puts a small object, `<prefix>/.predlog-probe-<uuid>`, reads it back and deletes it. Does nothing when no URL is set.
///
/// Credentials: S3 by `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY` and `AWS_SESSION_TOKEN`, static keys of a profile, a web identity token, or the
/// container's or instance's role; Google Cloud by `GOOGLE_APPLICATION_CREDENTIALS`, gcloud's default login or the instance's account; Azure by
/// `AZURE_STORAGE_ACCOUNT_NAME` with `AZURE_STORAGE_ACCOUNT_KEY` or the other `AZURE_*` variables that the `object_store` crate documents.
///
/// # Errors
/// What is wrong and what to do.
pub async fn probe(settings: &UploadSettings) -> Result<(), UploadError> {
    let Some(target) = Target::open(settings)? else { return Ok(()) };
    let name = format!(".predlog-probe-{}", crate::unique::uuid());
    let key = target.key(&name).map_err(|error| target.error("name an object", &error.into()))?;
    timely(&target, "put an object", target.store.put(&key, name.clone().into())).await?;
    let read = timely(&target, "read an object back", async { target.store.get(&key).await?.bytes().await }).await;
    let deleted = timely(&target, "delete an object", target.store.delete(&key)).await;
    if read? != name.as_bytes() {
        let message =
            format!("{}: key={key} was read back with other bytes than were put; check what answers there", target.shown);
        return Err(UploadError { kind: UploadErrorKind::Unavailable, message });
    }
    deleted
}

async fn timely<T>(
    target: &Target,
    doing: &str,
    answer: impl Future<Output = Result<T, object_store::Error>>,
) -> Result<T, UploadError> {
    match tokio::time::timeout(PROBE_TIMEOUT, answer).await {
        Ok(answer) => answer.map_err(|error| target.error(doing, &error)),
        Err(_) => Err(UploadError {
            kind: UploadErrorKind::Unavailable,
            message: format!(
                "{}: cannot {doing}: no answer within {PROBE_TIMEOUT:?}; check that the endpoint is right, and that credentials are set",
                target.shown
            ),
        }),
    }
}
