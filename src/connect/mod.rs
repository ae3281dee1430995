//! Kafka Connect without Kafka Connect: its S3 sink's configuration and its REST API, over the [archiver](crate::archive).

pub mod rest;
mod store;

pub use store::{Config, Connector, Store, TargetState};
