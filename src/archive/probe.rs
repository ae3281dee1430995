//! Whether the target can be used at all, asked once, before anything is read for it.

use crate::ship::{Target, UploadError};
use object_store::ObjectStoreExt as _;
use std::time::Duration;

/// An object that nobody makes: how a store says that it is not there tells whether the bucket is.
const NOBODYS: &str = "_predlog/probe";
/// A store that takes longer is waited for later, at each put.
const PATIENCE: Duration = Duration::from_secs(20);
/// What S3, Azure and Google's store say where there is no bucket.
const NO_BUCKET: [&str; 3] = ["NoSuchBucket", "ContainerNotFound", "bucket does not exist"];
/// What S3 says to credentials that will never do. One that may put and not get is told `AccessDenied`, and may be right for us.
const WRONG_CREDENTIALS: [&str; 3] = ["InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken"];

/// # Errors
/// There is no such bucket, or its store does not know who asks. A store that does not answer is no error: it may later.
pub(super) async fn probe(target: &Target) -> Result<(), UploadError> {
    let Ok(path) = target.key(NOBODYS) else { return Ok(()) };
    let Ok(Err(error)) = tokio::time::timeout(PATIENCE, target.store.get(&path)).await else { return Ok(()) };
    let text = error.to_string();
    let says = |codes: &[&str]| codes.iter().any(|code| text.contains(code));
    let is_final = match &error {
        object_store::Error::NotFound { .. } if says(&NO_BUCKET) => true,
        object_store::Error::NotFound { .. } => return Ok(()),
        object_store::Error::PermissionDenied { .. } | object_store::Error::Unauthenticated { .. } => says(&WRONG_CREDENTIALS),
        _ => false,
    };
    let error = target.error("use the bucket", &error);
    if is_final {
        return Err(error);
    }
    tracing::warn!(error = error.message, "the target was asked for and refused it; objects are put all the same");
    Ok(())
}
