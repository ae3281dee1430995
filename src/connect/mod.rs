//! Kafka Connect without Kafka Connect: its S3 sink's configuration and its REST API, over the [archiver](crate::archive).

pub mod config;
pub mod partitioner;
mod record;
mod schema;
mod value;

pub use config::{Problems, SinkConfig, load};
pub use record::{Part, Record};
pub use schema::{Kind, Schema};
pub use value::Value;
