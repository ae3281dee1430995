//! predlog keeps every prediction of a model server: in SQLite or Parquet, uploaded in batches, without slowing the server.
#![warn(missing_docs)]

#[cfg(feature = "archive")]
pub mod archive;
#[cfg(feature = "cli")]
pub mod audit;
pub mod batch;
mod checksum;
#[cfg(feature = "cli")]
pub mod cli;
pub mod clock;
#[cfg(feature = "delta")]
pub mod compact;
pub mod config;
#[cfg(feature = "connect")]
pub mod connect;
#[cfg(feature = "delta")]
pub mod delta;
pub mod error;
pub mod format;
mod json;
pub(crate) mod lane;
#[cfg(feature = "layer")]
pub mod layer;
pub mod ledger;
pub mod logger;
mod modes;
#[cfg(feature = "parquet")]
pub mod outbox;
pub mod record;
#[cfg(all(feature = "kafka", feature = "sqlite", feature = "upload"))]
pub(crate) mod resend;
pub mod retry;
pub mod rotation;
pub mod seqs;
#[cfg(any(feature = "cli", feature = "archive"))]
mod seqset;
#[cfg(feature = "server")]
pub mod server;
pub mod ship;
pub mod sink;
pub(crate) mod spool;
pub mod stats;
#[doc(hidden)]
pub mod thread;
mod unique;

pub use config::Config;
pub use error::{Error, ErrorKind};
pub use logger::{Durability, Guard, Logger, LoggerSettings, Outcome, Overflow, Report};
pub use record::encode::Invalid;
pub use record::{Actuals, Prediction};
pub use stats::DropReason;

/// The Rust code of README.md is compiled and run by `cargo test --doc`.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
