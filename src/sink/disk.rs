//! Whether a disk has room for what must become files before it may go.

use super::{SinkError, SinkErrorKind};
use std::path::Path;

/// Bytes that are to be free beside those.
const FREE_BYTES: u64 = 4 << 20;

/// `needed` is for `what`.
///
/// # Errors
/// `dir` has no more free than that.
pub(crate) fn check_free(sink: &'static str, dir: &Path, needed: u64, what: &str) -> Result<(), SinkError> {
    // Some file systems do not tell how large they are.
    let Some(disk) = rustix::fs::statvfs(dir).ok().filter(|disk| disk.f_blocks > 0) else { return Ok(()) };
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    if free >= needed.saturating_add(FREE_BYTES) {
        return Ok(());
    }
    let message = format!(
        "no space left for more: free={free} bytes in dir={} are for {what}, which take up to {needed}; expected {FREE_BYTES} more than those",
        dir.display()
    );
    Err(SinkError::new(sink, SinkErrorKind::NoSpace, message))
}
