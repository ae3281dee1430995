//! Names and columns.

pub mod path;
