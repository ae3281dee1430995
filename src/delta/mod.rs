//! Delta tables: files become part of a table, once, together with how far their writer has come.
//!
//! ```text
//! Parquet files, put below the table's directory -> Commit { adds, txns, schema } -> one JSON file of _delta_log/, put on condition that it is not there
//!                       -> every 100th version a checkpoint (delta_kernel), and log files that are past their retention are deleted
//! optimize: small files of a partition -> one file -> a commit that removes those and adds this, dataChange = false
//! ```
//!
//! *Once.* A commit is one object, so all of it is there or nothing. An [`AppTransaction`] in it is compared with what the table has and set, as one: of two
//! writers that go on from the same place one is [`Fenced`](CommitOutcome::Fenced), and a writer that repeats itself is told
//! [`AlreadyStored`](CommitOutcome::AlreadyStored). A put whose answer is lost is recognised by the commit's own id.
//!
//! *The log is written here.* delta_kernel reads snapshots, columns and `txn` actions, and writes checkpoints. Its transactions list and read the log anew for
//! each commit, and do not say whether a put without an answer was their own; a commit here is one request, known by its id: seven kinds of lines
//! (`action.rs`). Tables with features that such lines do not keep are refused.
//!
//! *The store* must know conditional puts: S3, Google Cloud, Azure, MinIO and local disks do.

mod action;
mod checkpoint;
mod commit;
mod log;
mod optimize;
mod schema;
mod stats;
mod table;

pub use action::{AddFile, AppTransaction, Commit, CommitOutcome};
pub use stats::Stats;
pub use table::{DeltaSettings, DeltaTable};

use crate::ship::{UploadError, UploadErrorKind};

/// Why a table could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum DeltaError {
    /// The URL or what goes with it cannot work.
    #[error("{0}")]
    Settings(String),
    /// The store did not do it. Trying again later may help.
    #[error("{0}")]
    Store(String),
    /// The table is none that predlog can write to, or its log is damaged.
    #[error("{0}")]
    Table(String),
    /// A column of the files has another type than in the table. Its values belong in the JSON column beside the struct.
    #[error(
        "column={column:?} is {table} in the table and {files} in the files: keep such values in the JSON column, or rename the column"
    )]
    ColumnType {
        /// Its path: `inputs.age`.
        column: String,
        /// The type in the table.
        table: String,
        /// The type in the files.
        files: String,
    },
    /// Other writers were always first, for as long as the settings allow.
    #[error("{0}")]
    Contended(String),
}

impl From<UploadError> for DeltaError {
    fn from(error: UploadError) -> Self {
        match error.kind {
            UploadErrorKind::Settings => DeltaError::Settings(error.message),
            _ => DeltaError::Store(error.message),
        }
    }
}

/// Milliseconds since 1970.
fn now_millis() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}
