use super::*;

const NAME: &str = "0198c0de-0000-7000-8000-00000000000a-0f-0-41.parquet";

fn relative(model: &str, name: &str) -> Relative {
    format!("predictions/model_name={model}/date=2026-11-23/{name}").parse().unwrap()
}

fn write(outbox: &Outbox, relative: &Relative, bytes: &[u8]) {
    let path = outbox.path(relative);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

fn age(path: &Path, by: Duration) {
    File::open(path).unwrap().set_modified(SystemTime::now() - by).unwrap();
}

#[test]
fn only_our_own_paths_parse() {
    for good in ["wine", "..%2Fa", "é😀 x", "a%00"] {
        let path = format!("predictions/model_name={good}/date=2026-11-23/{NAME}");
        assert_eq!(path.parse::<Relative>().unwrap().key(), path);
        let export: Relative = format!("export/{path}").parse().unwrap();
        assert!(export.is_export() && export.key() == path && export.file_name() == NAME);
    }
    let compacted = "predictions/model_name=a/date=2026-11-23/compact-f1f0a9c3d4e5b607.parquet";
    assert_eq!(compacted.parse::<Relative>().unwrap().key(), compacted);
    for bad in [
        compacted.replace("f1f0", "../"),
        compacted.replace("f1f0", ""),
        format!("/predictions/model_name=a/date=2026-11-23/{NAME}"),
        format!("predictions/model_name=../date=2026-11-23/../{NAME}"),
        format!("predictions/../date=2026-11-23/{NAME}"),
        format!("predictions/model_name=/date=2026-11-23/{NAME}"),
        format!("predictions/model_name=a\0/date=2026-11-23/{NAME}"),
        format!("predictions/model_name=a/date=2026-1-23/{NAME}"),
        format!("predictions/model_name=a/date=2026-11-23/../{NAME}"),
        format!("predictions/model_name=a/date=2026-11-23/{NAME}.tmp"),
        format!("predictions/model_name=a/date=2026-11-23/{}", NAME.replace("-0-41", "-00-41")),
        format!("predictions/model_name=a/date=2026-11-23/{}", NAME.replace("-0-41", "-42-41")),
        format!("predictions/model_name=a/date=2026-11-23/{}", NAME.replace("-0-41", "-+0-41")),
        format!("predictions/model_name=a/date=2026-11-23/{}", NAME.to_uppercase()),
        "predictions/model_name=a/date=2026-11-23/part-0.parquet".to_owned(),
        format!("export/export/predictions/model_name=a/date=2026-11-23/{NAME}"),
        format!("other/model_name=a/date=2026-11-23/{NAME}"),
        String::new(),
    ] {
        let error = bad.parse::<Relative>().unwrap_err();
        assert!(error.contains("path="), "{error}");
    }
}

#[test]
fn a_file_is_pending_from_its_announcement_and_its_presence_until_done() {
    let dir = tempfile::tempdir().unwrap();
    let outbox = Outbox::open(dir.path(), true).unwrap();
    let (wine, iris) = (relative("wine", NAME), relative("iris", NAME));
    outbox.announce(&wine).unwrap();
    assert_eq!(outbox.pending().unwrap(), []);
    assert!(outbox.is_pending(&wine));
    write(&outbox, &wine, b"12345");
    let staged = dir.path().join("staged");
    fs::write(&staged, b"123").unwrap();
    outbox.publish(&staged, &iris).unwrap();
    age(&outbox.path(&wine), Duration::from_secs(60));
    let pending = outbox.pending().unwrap();
    assert_eq!(pending.iter().map(|entry| (&entry.relative, entry.bytes)).collect::<Vec<_>>(), [(&wine, 5), (&iris, 3)]);
    assert_eq!(outbox.pending_bytes().unwrap(), 8);
    outbox.done(&wine).unwrap();
    outbox.done(&wine).unwrap();
    assert_eq!(outbox.pending().unwrap().len(), 1);
    assert_eq!(outbox.sealed(false).unwrap().len(), 2);
}

#[test]
fn announcing_again_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let outbox = Outbox::open(dir.path(), false).unwrap();
    let wine = relative("wine", NAME);
    write(&outbox, &wine, b"1");
    outbox.announce(&wine).unwrap();
    outbox.announce(&wine).unwrap();
    assert_eq!(outbox.pending().unwrap().len(), 1);
    assert_eq!(fs::read_dir(dir.path().join("outbox")).unwrap().count(), 1);
}

#[test]
fn what_is_not_ours_is_left_alone_however_old() {
    let dir = tempfile::tempdir().unwrap();
    let outbox = Outbox::open(dir.path(), false).unwrap();
    let wine = relative("wine", NAME);
    write(&outbox, &wine, b"1");
    let markers = dir.path().join("outbox");
    let text = "predictions/../../etc/passwd";
    fs::write(markers.join("passwd.00000000"), text).unwrap();
    fs::write(markers.join("binary"), [0xff, 0xfe]).unwrap();
    // The right content under another name: not what `announce` makes.
    fs::write(markers.join("copy"), wine.as_str()).unwrap();
    for name in ["passwd.00000000", "binary", "copy"] {
        age(&markers.join(name), 2 * STALE_AFTER);
    }
    assert_eq!(outbox.pending().unwrap(), []);
    assert_eq!(fs::read_dir(&markers).unwrap().count(), 3);
}

#[test]
fn a_marker_goes_when_its_file_did_not_come_for_a_day() {
    let dir = tempfile::tempdir().unwrap();
    let outbox = Outbox::open(dir.path(), false).unwrap();
    let (young, old) = (relative("young", NAME), relative("old", NAME));
    outbox.announce(&young).unwrap();
    outbox.announce(&old).unwrap();
    let markers = dir.path().join("outbox");
    age(&markers.join(old.marker()), 2 * STALE_AFTER);
    fs::write(markers.join(".left"), "").unwrap();
    age(&markers.join(".left"), 2 * STALE_AFTER);
    assert_eq!(outbox.pending().unwrap(), []);
    assert!(outbox.is_pending(&young) && !outbox.is_pending(&old) && !markers.join(".left").exists());
}

#[test]
fn deleting_a_file_takes_its_empty_directories_and_no_more() {
    let dir = tempfile::tempdir().unwrap();
    let outbox = Outbox::open(dir.path(), false).unwrap();
    let (wine, iris) = (relative("wine", NAME), relative("iris", NAME));
    write(&outbox, &wine, b"1");
    write(&outbox, &iris, b"1");
    fs::write(outbox.path(&iris).with_file_name("foreign.parquet"), b"1").unwrap();
    assert_eq!(outbox.sealed(false).unwrap().len(), 2);
    outbox.delete(&wine).unwrap();
    outbox.delete(&iris).unwrap();
    outbox.delete(&iris).unwrap();
    assert!(!dir.path().join("predictions/model_name=wine").exists());
    assert!(outbox.path(&iris).with_file_name("foreign.parquet").exists());
    assert!(dir.path().join("predictions").exists());
}
