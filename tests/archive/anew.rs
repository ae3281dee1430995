//! A topic that was deleted and made anew has the name and the offsets of the one before, and other messages.

use super::*;
use crate::support::process::wait_until;
use predlog::config::TableKind;

/// Messages of another program: nothing but their offsets tells them apart.
fn produce(archive: &Archive, ids: std::ops::Range<u64>) {
    ids.for_each(|n| archive.produce(&format!(r#"{{"id":"{n}","model_name":"m","inputs":{{"n":{n}}}}}"#)));
}

fn anew(archive: &Archive) {
    broker().delete_topic(archive.topic());
    broker().create_topic(archive.topic(), 1);
}

fn numbers(rows: &[Value]) -> Vec<u64> {
    let mut numbers: Vec<u64> = rows.iter().filter_map(|row| row["inputs"]["n"].as_u64()).collect();
    numbers.sort_unstable();
    numbers
}

#[test]
fn a_topic_that_was_made_anew_is_stored_beside_the_one_before() {
    for table in [TableKind::Parquet, TableKind::Delta] {
        let mut archive = Archive::new(1);
        archive.config.archive.table = table;
        archive.config.ledger.enabled = false;
        archive.config.rotation.max_rows = 2;
        produce(&archive, 0..4);
        assert_eq!(archive.run().0, 4);
        anew(&archive);
        // As many: every range has the offsets of one that is stored.
        produce(&archive, 10..14);
        assert_eq!(archive.run().0, 4, "{table:?}");
        produce(&archive, 14..16);
        assert_eq!(archive.run().0, 2, "{table:?}");
        assert_eq!(archive.run().0, 0, "{table:?}");
        let rows = match table {
            TableKind::Parquet => archive.rows(),
            TableKind::Delta => archive.table("delta-rs"),
        };
        assert_eq!(numbers(&rows), [0, 1, 2, 3, 10, 11, 12, 13, 14, 15], "{table:?}");
        let tagged = format!("{}!", archive.topic());
        let files = relative(&archive.bucket().join("predictions"));
        assert_eq!(files.iter().filter(|file| file.contains(&tagged)).count(), 3, "{files:?}");
    }
}

#[test]
fn a_topic_that_is_made_anew_while_it_is_archived_is_read_from_its_beginning() {
    let mut archive = Archive::new(1);
    archive.config.ledger.enabled = false;
    archive.config.rotation.max_rows = 2;
    produce(&archive, 0..6);
    let archiver = Archiver::new(Job::predictions(&archive.config, false).expect("a job"));
    let (stop, counters) = (archiver.stop_flag(), archiver.counters());
    let running = std::thread::spawn(move || archiver.run());
    wait_until("all are stored", LONG, || counters.rows.load(Ordering::Relaxed) == 6);
    anew(&archive);
    produce(&archive, 10..14);
    wait_until("those of the new one too", 3 * LONG, || counters.rows.load(Ordering::Relaxed) == 10);
    stop.store(true, Ordering::Release);
    running.join().expect("no panic").expect("it ends well");
    assert_eq!(numbers(&archive.rows()), [0, 1, 2, 3, 4, 5, 10, 11, 12, 13]);
}
