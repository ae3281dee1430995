//! What the sinks of message brokers share: names of topics, packing, what is on its way, and dead letters.

pub mod settings;
#[cfg_attr(
    not(all(feature = "kafka", feature = "nats")),
    allow(dead_code, reason = "every build checks the names, only a broker's sink makes them")
)]
pub(crate) mod topic;

#[cfg(any(feature = "kafka", feature = "nats"))]
pub(crate) mod answer;
#[cfg(any(feature = "kafka", feature = "nats"))]
pub(crate) mod dead_letter;
#[cfg(any(feature = "kafka", feature = "nats"))]
pub(crate) mod flight;
#[cfg(feature = "kafka")]
pub(crate) mod packing;
#[cfg(any(feature = "kafka", feature = "nats"))]
pub(crate) mod replayed;

/// A problem of the settings: a key, its value, and what was expected.
pub(crate) struct Problem {
    pub(crate) key: String,
    pub(crate) value: String,
    pub(crate) expected: String,
}
