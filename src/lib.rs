
pub mod format;
