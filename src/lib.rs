//! predlog keeps every prediction of a model server: in SQLite or Parquet, uploaded in batches, without slowing the server.
#![warn(missing_docs)]

pub mod batch;
pub mod clock;
mod json;
pub(crate) mod lane;
pub mod record;
pub mod rotation;
pub mod seqs;
pub mod sink;

pub use record::Prediction;
