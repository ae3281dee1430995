//! Which topic partitions this process holds, and the guarantee that it commits nothing for one that it has lost.

use parking_lot::Mutex;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

/// A partition of a topic.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicPartition {
    /// The topic.
    pub topic: Arc<str>,
    /// The partition's number.
    pub partition: i32,
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}+{}", self.topic, self.partition)
    }
}

/// A topic partition for the time that it is assigned: assigned again, it is another lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Lease {
    pub at: TopicPartition,
    /// What tells this topic's objects from those of another one of its name, which the target had first.
    pub tag: Option<Arc<str>>,
    number: u64,
}

impl Lease {
    /// What this topic partition is called where another topic of the name is called by the name.
    pub fn called(&self) -> TopicPartition {
        called(&self.at, self.tag.as_deref())
    }
}

pub(super) fn called(at: &TopicPartition, tag: Option<&str>) -> TopicPartition {
    let topic = tag.map_or_else(|| at.topic.clone(), |tag| format!("{}!{tag}", at.topic).into());
    TopicPartition { topic, partition: at.partition }
}

#[derive(Debug, Default)]
struct Held {
    granted: u64,
    leases: HashMap<TopicPartition, u64>,
}

/// The leases of this process.
///
/// The broker refuses commits of a member that it has thrown out of the group. It does not refuse those of a member that is in the group but has
/// given the partition away: for that, commits and the loss of partitions exclude each other here.
#[derive(Debug, Default)]
pub(super) struct Leases(Mutex<Held>);

impl Leases {
    pub fn grant(&self, at: TopicPartition, tag: Option<Arc<str>>) -> Lease {
        let mut held = self.0.lock();
        held.granted += 1;
        let number = held.granted;
        held.leases.insert(at.clone(), number);
        Lease { at, tag, number }
    }

    /// From when this returns nothing is committed for it.
    pub fn revoke(&self, at: &TopicPartition) {
        self.0.lock().leases.remove(at);
    }

    pub fn revoke_all(&self) {
        self.0.lock().leases.clear();
    }

    pub fn is_held(&self, lease: &Lease) -> bool {
        self.0.lock().leases.get(&lease.at) == Some(&lease.number)
    }

    /// Runs `act` while the lease is held; `None` when it is lost.
    pub fn while_held<R>(&self, lease: &Lease, act: impl FnOnce() -> R) -> Option<R> {
        let held = self.0.lock();
        (held.leases.get(&lease.at) == Some(&lease.number)).then(act)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_that_came_back_is_another_lease() {
        let leases = Leases::default();
        let at = TopicPartition { topic: "t".into(), partition: 3 };
        let first = leases.grant(at.clone(), None);
        assert_eq!(leases.while_held(&first, || 7), Some(7));
        leases.revoke(&at);
        assert!(!leases.is_held(&first));
        let second = leases.grant(at, None);
        assert!(leases.is_held(&second) && !leases.is_held(&first));
        assert_eq!(leases.while_held(&first, || 7), None);
    }
}
