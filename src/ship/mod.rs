//! From sealed files to the object store.
pub mod outbox;
