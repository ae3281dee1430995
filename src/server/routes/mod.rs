//! One endpoint a file.

pub(super) mod healthz;
pub(super) mod metrics;
pub(super) mod predictions;
pub(super) mod readyz;
pub(super) mod status;
