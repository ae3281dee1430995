//! Whether the target can be used at all, asked once, before anything is read for it.

use crate::ship::{Target, UploadError};
use futures_util::StreamExt as _;
use std::time::Duration;

/// Where nothing but our own lies: it is listed to ask whether the bucket is there.
const OURS: &str = "_predlog";
/// A store that takes longer is waited for later, at each put.
const PATIENCE: Duration = Duration::from_secs(20);
/// What S3 says to credentials that will never do. One that may put and not list is told `AccessDenied`, and may be right for us.
const WRONG_CREDENTIALS: [&str; 3] = ["InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken"];

/// # Errors
/// There is no such bucket, or its store does not know who asks. A store that does not answer is no error: it may later.
pub(super) async fn probe(target: &Target) -> Result<(), UploadError> {
    let Ok(path) = target.key(OURS) else { return Ok(()) };
    let mut listed = target.store.list(Some(&path));
    let Ok(Some(Err(error))) = tokio::time::timeout(PATIENCE, listed.next()).await else { return Ok(()) };
    let is_final = match &error {
        object_store::Error::NotFound { .. } => true,
        object_store::Error::PermissionDenied { .. } | object_store::Error::Unauthenticated { .. } => {
            let text = error.to_string();
            WRONG_CREDENTIALS.iter().any(|code| text.contains(code))
        }
        _ => false,
    };
    let error = target.error("use the bucket", &error);
    if is_final {
        return Err(error);
    }
    tracing::warn!(error = error.message, "the target was asked for and refused it; objects are put all the same");
    Ok(())
}
