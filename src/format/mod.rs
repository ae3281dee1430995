//! From lines to columns, and from columns to files.
//!
//! ```text
//! lines of one model -> infer (column types) -> decode (Arrow columns) -> parquet (writer properties) -> seal (sorted, bounded, published)
//!               ... -> infer -> wire (typed values) -> connect_json | avro (a message for each line)
//! ```
//!
//! It knows no sink and no logger: lines come in as bytes, times are UTC microseconds.

pub mod path;

#[cfg(feature = "avro")]
pub(crate) mod avro;
#[cfg(all(feature = "kafka", feature = "parquet"))]
pub(crate) mod connect_json;
#[cfg(all(feature = "kafka", feature = "parquet"))]
pub(crate) mod wire;

#[cfg(feature = "parquet")]
pub mod decode;
#[cfg(feature = "parquet")]
pub mod infer;
#[cfg(all(feature = "kafka", feature = "sqlite", feature = "upload"))]
pub(crate) mod lines;
#[cfg(feature = "parquet")]
pub mod parquet;
#[cfg(feature = "parquet")]
pub(crate) mod rows;
#[cfg(feature = "parquet")]
pub mod schema;
#[cfg(feature = "parquet")]
pub mod seal;
#[cfg(feature = "parquet")]
pub mod store;
