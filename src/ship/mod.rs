//! From sealed files to the object store.
//!
//! ```text
//! a sealed file and its marker (outbox) -> Uploader: one file, one object, proven -> marker gone -> retention deletes the file
//! SQLite rows -> export: sealed files and markers, by a plan that a crash repeats ------^          (an export at once)
//! ```
//!
//! *Once.* A key names its rows: `<prefix>/predictions/model_name=…/date=…/<writer>-<first seq>-<last seq>.parquet`. It is put on condition that it
//! is not there; one that is there is compared by size and SHA-256. So a crash at any instruction repeats an upload at most, to the same key.
//!
//! *Retention.* `retain` counts from a file's sealing, and takes only what is proven stored. Without an upload it takes what is old, stored nowhere else.

#[cfg(feature = "upload")]
mod aws_profile;
#[cfg(feature = "upload")]
pub(crate) mod expired;
#[cfg(all(feature = "upload", feature = "sqlite"))]
mod export;
#[cfg(feature = "upload")]
mod location;
#[cfg(feature = "upload")]
pub(crate) mod noted;
#[cfg(feature = "delta")]
pub(crate) mod objects;
#[cfg(feature = "cli")]
pub(crate) mod reader;
mod settings;
#[cfg(feature = "upload")]
mod shipper;
#[cfg(feature = "upload")]
mod store;
#[cfg(feature = "upload")]
mod uploader;

#[cfg(all(feature = "upload", feature = "sqlite"))]
pub use self::export::SqliteFeed;
#[cfg(feature = "delta")]
pub(crate) use self::location::clean;
pub use self::settings::{AccessKeys, UploadSettings};
#[cfg(any(feature = "archive", feature = "delta"))]
pub(crate) use self::store::Target;
#[cfg(feature = "upload")]
pub use self::{
    shipper::{Nudge, Shipper},
    store::{UploadError, UploadErrorKind, probe},
};

#[cfg(feature = "upload")]
mod hooks {
    use crate::outbox::Outbox;
    use std::sync::Arc;
    use std::time::{Duration, SystemTime};

    /// How long sealed files of the Parquet store stay. Nothing set: for ever.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Retain {
        /// This long after they were sealed.
        pub age: Option<Duration>,
        /// While they take no more bytes than this together; the oldest go first.
        pub bytes: Option<u64>,
    }

    /// What the shipper did or saw.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum Event<'a> {
        /// A file is proven stored.
        Uploaded {
            /// Its size.
            bytes: u64,
            /// From its turn to the proof.
            took: Duration,
        },
        /// Something failed and will be tried again.
        Failed {
            /// What. No secrets are in it.
            error: &'a str,
        },
        /// What waits now.
        Pending {
            /// Sealed files.
            files: u64,
            /// Their bytes.
            bytes: u64,
            /// The age of the oldest of them, or of the oldest row that no file has yet.
            lag: Duration,
        },
        /// Files past their retention were deleted.
        Deleted {
            /// How many.
            files: u64,
            /// Their bytes.
            bytes: u64,
        },
    }

    /// Is told of each [`Event`], on the shipper's thread: it must not block.
    pub type Observer = Arc<dyn Fn(Event<'_>) + Send + Sync>;

    /// How a shipper stands.
    #[derive(Clone, Debug, Default, PartialEq, Eq)]
    pub struct ShipStatus {
        /// Files proven stored since the start.
        pub uploaded_files: u64,
        /// Their bytes.
        pub uploaded_bytes: u64,
        /// Failed tries since the start.
        pub failures: u64,
        /// The last failure; `None` once a file was stored after it.
        pub last_error: Option<String>,
        /// Files that wait, at the last look.
        pub pending_files: u64,
        /// Their bytes.
        pub pending_bytes: u64,
        /// When the oldest of what waits was sealed or, for a row that no file has yet, logged.
        pub oldest: Option<SystemTime>,
    }

    impl ShipStatus {
        /// The age of the oldest of what waits, zero when nothing does.
        pub fn lag(&self) -> Duration {
            self.oldest.and_then(|at| at.elapsed().ok()).unwrap_or_default()
        }
    }

    /// Makes sealed files of records that are kept otherwise (SQLite rows). Called by one process of a directory at a time.
    pub trait Feed: Send {
        /// Makes and announces files, when enough waits or has waited long enough, or `force` asks for all. Says whether files that it made, now or
        /// before, await [`settle`](Feed::settle).
        ///
        /// # Errors
        /// What could not be done; it is called again later.
        fn fill(&mut self, outbox: &Outbox, force: bool) -> Result<bool, String>;

        /// All files were tried. Where every one of its own is proven stored it notes that their records are uploaded, and says so.
        ///
        /// # Errors
        /// What could not be done; it is called again later.
        fn settle(&mut self, outbox: &Outbox) -> Result<bool, String>;

        /// When the oldest record was made that no file has yet.
        fn oldest(&self) -> Option<SystemTime>;
    }
}

#[cfg(feature = "upload")]
pub use hooks::{Event, Feed, Observer, Retain, ShipStatus};
