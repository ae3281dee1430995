//! Names that no other process makes.

use std::time::{SystemTime, UNIX_EPOCH};
use uuid::{Builder, Uuid};

/// A UUIDv7 whose random bits come from the system. Those of `Uuid::now_v7` may come from a generator of the thread, as other crates have it switched on: a
/// fork copies that one, and two children that start in the same millisecond would have one name.
pub(crate) fn uuid() -> Uuid {
    let millis = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
    let mut random = [0; 10];
    match getrandom::fill(&mut random) {
        Ok(()) => Builder::from_unix_timestamp_millis(millis, &random).into_uuid(),
        // A system without randomness: at least other threads and other times have other names.
        Err(_) => Uuid::now_v7(),
    }
}

/// Random bits from the system, for a generator.
pub(crate) fn seed() -> u64 {
    uuid().as_u64_pair().1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_tells_its_time_and_is_no_other() {
        let (one, other) = (uuid(), uuid());
        assert_ne!(one, other);
        assert_eq!((one.get_version_num(), one.get_variant()), (7, uuid::Variant::RFC4122));
        let (seconds, _) = one.get_timestamp().unwrap().to_unix();
        assert!(seconds.abs_diff(jiff::Timestamp::now().as_second() as u64) <= 1);
    }
}
