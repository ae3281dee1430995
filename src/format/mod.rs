//! From lines to columns, and from columns to files.
//!
//! ```text
//! lines of one model -> infer (column types) -> decode (Arrow columns) -> parquet (writer properties) -> seal (sorted, bounded, published)
//! ```
//!
//! It knows no sink and no logger: lines come in as bytes, times are UTC microseconds.

pub mod path;

#[cfg(feature = "parquet")]
pub mod decode;
#[cfg(feature = "parquet")]
pub mod infer;
#[cfg(feature = "parquet")]
pub mod parquet;
#[cfg(feature = "parquet")]
pub mod schema;
#[cfg(feature = "parquet")]
pub mod seal;
#[cfg(feature = "parquet")]
pub mod store;
