//! Kafka Connect without Kafka Connect: its S3 sink's configuration and its REST API, over the [archiver](crate::archive).

mod group;
pub mod rest;
mod runner;
mod store;

pub use runner::{MakeJob, Runner};
pub use store::{Config, Connector, Store, TargetState};
