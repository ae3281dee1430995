//! What the REST API asks of those who do the work.

use crate::connect::Connector;
use std::collections::BTreeSet;

/// How far a connector has come in a topic partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionOffset {
    /// The topic.
    pub topic: String,
    /// The partition of it.
    pub partition: i32,
    /// Everything before it is stored. `None`: nothing was ever committed, or, in a change, what was is forgotten.
    pub offset: Option<i64>,
}

/// Runs the connectors.
///
/// A connector's tasks share its fate: they begin, end and fail together. The calls for one connector come one after another, those that
/// only ask may come at any time. [`failure`](Tasks::failure) and the active topics are told at once; the others may wait for brokers, none for a
/// message to come.
pub trait Tasks: Send + Sync {
    /// Begins a connector with its configuration and its number of tasks, in place of the one of its name when that runs. What goes wrong is
    /// told by [`failure`](Tasks::failure).
    fn start(&self, connector: &Connector);

    /// Ends a connector, if it runs; nothing more is stored for it when this returns. What it has committed stays.
    fn stop(&self, name: &str);

    /// Ends all connectors, together.
    fn shut_down(&self);

    /// Why a connector's tasks have ended, when they were not told to.
    fn failure(&self, name: &str) -> Option<String>;

    /// What the connector's group has committed, for each topic partition that has anything.
    ///
    /// # Errors
    /// The brokers cannot be asked.
    fn offsets(&self, connector: &Connector) -> Result<Vec<PartitionOffset>, String>;

    /// Changes what the group has committed; the connector is stopped.
    ///
    /// # Errors
    /// The brokers refuse it; which of the changes were made is not known then.
    fn alter_offsets(&self, connector: &Connector, changes: &[PartitionOffset]) -> Result<(), String>;

    /// Forgets all that the group has committed; the connector is stopped.
    ///
    /// # Errors
    /// The brokers refuse it.
    fn reset_offsets(&self, connector: &Connector) -> Result<(), String>;

    /// The topics that the connector had messages of, since it began or since the last reset.
    fn active_topics(&self, name: &str) -> BTreeSet<String>;

    /// Forgets the active topics.
    fn reset_active_topics(&self, name: &str);

    /// The id of the Kafka cluster; `None` when the brokers do not answer.
    fn cluster_id(&self) -> Option<String>;
}
