//! predlog keeps every prediction of a model server: in SQLite or Parquet, uploaded in batches, without slowing the server.
#![warn(missing_docs)]

pub mod batch;
pub mod clock;
pub mod format;
mod json;
pub mod record;
pub mod retry;
pub mod rotation;
pub mod seqs;
#[cfg(feature = "parquet")]
pub mod ship;
pub mod sink;

pub use record::Prediction;
