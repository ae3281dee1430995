//! What several test files share: the real services, a fault injector and the Python readers.
//!
//! `tests/services/install.sh` installs what is started here (`make test` runs it).

// Each test file compiles this module for itself and uses a part of it.
#![allow(dead_code, unused_imports, reason = "a test file uses only the part of this shared module that it needs")]

pub mod certificates;
pub mod fault_proxy;
#[cfg(feature = "upload")]
pub mod faulty_bucket;
#[cfg(feature = "kafka")]
pub mod kafka;
#[cfg(feature = "nats")]
pub mod nats;
pub mod process;
pub mod readers;
#[cfg(feature = "kafka")]
pub mod registry;
#[cfg(feature = "upload")]
pub mod s3;
pub mod spark;
pub mod toxiproxy;
#[cfg(feature = "server")]
pub mod web;
