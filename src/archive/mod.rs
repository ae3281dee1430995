//! Topics to Parquet objects or a Delta table, exactly once.
//!
//! ```text
//! consumer group -> a range of offsets of each topic partition -> Encoder -> objects -> store -> offsets
//! ```

pub mod encoder;
