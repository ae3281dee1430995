//! Kafka Connect without Kafka Connect: its S3 sink's configuration and its REST API, over the [archiver](crate::archive).

pub mod config;
mod convert;
mod file;
mod group;
mod job;
pub mod partitioner;
mod record;
pub mod rest;
mod routes;
mod runner;
mod schema;
mod sink;
mod store;
mod transform;
mod value;

pub use config::{Problems, SinkConfig, load};
pub use job::job;
pub use record::{Part, Record};
pub use runner::{MakeJob, Runner};
pub use schema::{Kind, Schema};
pub use sink::S3Sink;
pub use store::{Config, Connector, Store, TargetState};
pub use value::Value;
