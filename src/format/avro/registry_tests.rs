use super::fake::{Fake, Mood};
use super::{Avro, schema};
use crate::format::schema::ModelSchema;
use crate::format::wire::EncodeError;
use crate::format::wire::testing::{columns, line};
use crate::sink::broker::settings::Secret;
use crate::sink::kafka::registry::{RegistrySettings, Subject};
use apache_avro::Schema;
use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::types::Value;
use std::iter::empty;
use std::time::{Duration, Instant};

const SUBJECT: &str = "t-predlog.m";
const PATIENCE: Duration = Duration::from_secs(20);

fn settings(fake: &Fake) -> RegistrySettings {
    RegistrySettings { url: Some(fake.url()), timeout: Duration::from_millis(500), ..RegistrySettings::default() }
}

/// Encodes when the registry has answered. The id, and the record as the registry's schema of that id reads it.
fn encode(avro: &mut Avro, fake: &Fake, line: &[u8]) -> (u32, Vec<(String, Value)>) {
    let (until, mut out) = (Instant::now() + PATIENCE, Vec::new());
    loop {
        match avro.encode("t", line, empty(), &mut out) {
            Ok(encoded) => return (encoded.schema_id.unwrap(), read(fake, &out)),
            Err(EncodeError::NotYet(_)) if Instant::now() < until => std::thread::yield_now(),
            Err(error) => panic!("{error:?}"),
        }
    }
}

fn read(fake: &Fake, message: &[u8]) -> Vec<(String, Value)> {
    let (head, mut body) = message.split_at(5);
    assert_eq!(head[0], 0);
    let id = u32::from_be_bytes(head[1..].try_into().unwrap());
    let text = fake.state.lock().subjects.values().flatten().find(|(known, _)| *known == id).unwrap().1.clone();
    let schema = Schema::parse_str(&text).unwrap();
    let value = GenericDatumReader::builder(&schema).build().unwrap().read_value(&mut body).unwrap();
    let Value::Record(fields) = value else { panic!("no record") };
    fields
}

fn is_null(record: &[(String, Value)], name: &str) -> bool {
    let (_, value) = record.iter().find(|(field, _)| field == name).unwrap();
    matches!(value, Value::Union(_, inner) if **inner == Value::Null)
}

fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < until, "{what}");
        std::thread::yield_now();
    }
}

/// What the caller is told, once the registry has failed with these words.
fn waits_with(avro: &mut Avro, words: &str) {
    wait_until(words, || match avro.encode("t", &line(r#"{"a":1}"#, "1"), empty(), &mut Vec::new()) {
        Err(EncodeError::NotYet(why)) => why.contains(words),
        other => panic!("{other:?}"),
    });
    assert!(avro.waits_for().unwrap().contains(words));
}

#[test]
fn the_first_record_waits_for_the_schema_and_the_next_ones_have_its_id() {
    let fake = Fake::start();
    let mut avro = Avro::new(&settings(&fake)).unwrap();
    assert_eq!(avro.waits_for(), None);
    let first = avro.encode("t", &line(r#"{"a":1}"#, "1"), empty(), &mut Vec::new());
    assert!(matches!(first, Err(EncodeError::NotYet(why)) if why.contains(SUBJECT)));
    let (id, _) = encode(&mut avro, &fake, &line(r#"{"a":1}"#, "1"));
    assert_eq!((id, avro.waits_for()), (100, None));
    let asked = fake.state.lock().requests.len();
    for _ in 0..10 {
        assert_eq!(encode(&mut avro, &fake, &line(r#"{"a":2}"#, "1")).0, 100);
    }
    let requests = std::mem::take(&mut fake.state.lock().requests);
    assert_eq!(requests.len(), asked, "ids are kept for ever");
    assert_eq!(requests[0].0, format!("GET /subjects/{SUBJECT}/versions/latest"));
    assert_eq!(requests[1].0, format!("POST /subjects/{SUBJECT}/versions"));
    assert_eq!(requests[0].1, None);
}

#[test]
fn a_number_that_is_whole_in_the_first_line_is_a_double_when_the_lines_behind_it_say_so() {
    let fake = Fake::start();
    let mut avro = Avro::new(&settings(&fake)).unwrap();
    let lines = [line(r#"{"a":1}"#, "1"), line(r#"{"a":1.5}"#, "1")];
    let first = avro.encode("t", &lines[0], lines[1..].iter().map(Vec::as_slice), &mut Vec::new());
    assert!(matches!(first, Err(EncodeError::NotYet(_))));
    assert!(is_null(&encode(&mut avro, &fake, &lines[1]).1, "inputs_json"));
}

#[test]
fn a_new_field_waits_for_nothing_and_gets_its_column_when_the_registry_has_it() {
    let fake = Fake::start();
    let mut avro = Avro::new(&settings(&fake)).unwrap();
    encode(&mut avro, &fake, &line(r#"{"a":1}"#, "1"));
    let wider = line(r#"{"a":1,"b":2}"#, "1");
    let (id, record) = encode(&mut avro, &fake, &wider);
    assert_eq!(id, 100);
    assert!(!is_null(&record, "inputs_json"));
    wait_until("the wider schema is used", || encode(&mut avro, &fake, &wider).0 == 101);
    assert!(is_null(&encode(&mut avro, &fake, &wider).1, "inputs_json"));
    assert!(is_null(&encode(&mut avro, &fake, &line(r#"{"a":1}"#, "1")).1, "inputs_json"), "older shapes go on");
}

#[test]
fn a_process_starts_from_the_columns_that_the_subject_has() {
    let fake = Fake::start();
    let theirs = columns(&[line(r#"{"a":0.5,"z":"x"}"#, "1")]);
    fake.state.lock().add(SUBJECT, schema::text("m", &theirs));
    let mut avro = Avro::new(&settings(&fake)).unwrap();
    let (id, record) = encode(&mut avro, &fake, &line(r#"{"a":1}"#, "1"));
    assert_eq!(id, 100, "nothing is new, so nothing is registered");
    assert!(is_null(&record, "inputs_json"), "a is a double there, and holds 1");
    assert_eq!(fake.state.lock().requests.len(), 1);
}

#[test]
fn another_process_that_registers_first_decides_the_types() {
    let fake = Fake::start();
    let theirs = columns(&[line(r#"{"a":"text"}"#, "1")]);
    fake.state.lock().mood = Mood::Races(schema::text("m", &theirs));
    let mut avro = Avro::new(&settings(&fake)).unwrap();
    let (id, record) = encode(&mut avro, &fake, &line(r#"{"a":1,"b":2}"#, "1"));
    assert_eq!(id, 101, "their columns and ours");
    assert!(!is_null(&record, "inputs_json"), "a is text there");
    assert!(is_null(&encode(&mut avro, &fake, &line(r#"{"a":"y","b":2}"#, "1")).1, "inputs_json"));
}

#[test]
fn new_columns_that_are_refused_stay_in_the_raw_json() {
    for (status, code) in [(409, 409), (422, 42201)] {
        let fake = Fake::start();
        let mut avro = Avro::new(&settings(&fake)).unwrap();
        encode(&mut avro, &fake, &line(r#"{"a":1}"#, "1"));
        fake.state.lock().mood = Mood::Refuses(status, code);
        let posts = |fake: &Fake| fake.state.lock().requests.iter().filter(|(request, _)| request.starts_with("POST")).count();
        let wider = line(r#"{"a":1,"b":2}"#, "1");
        encode(&mut avro, &fake, &wider);
        wait_until("it is refused", || posts(&fake) == 2);
        for _ in 0..2_000 {
            let (id, record) = encode(&mut avro, &fake, &wider);
            assert_eq!(id, 100);
            assert!(!is_null(&record, "inputs_json"));
        }
        assert_eq!(posts(&fake), 2, "it is asked once");
    }
}

#[test]
fn a_registry_that_is_away_slow_or_wrong_holds_up_nobody_and_is_tried_again() {
    let fake = Fake::start();
    for (mood, words) in [
        (Mood::Hangs, "timed out"),
        (Mood::Fails(500, "oops"), "500"),
        (Mood::Fails(404, "no such page"), "404"),
        (Mood::Fails(401, r#"{"error_code":401,"message":"who are you"}"#), "who are you"),
        (Mood::Fails(200, "<html>"), "kafka.registry"),
        (Mood::Refuses(409, 409), "refuses the schema"),
    ] {
        fake.state.lock().mood = mood;
        let mut avro = Avro::new(&settings(&fake)).unwrap();
        let asked = Instant::now();
        assert!(avro.encode("t", &line(r#"{"a":1}"#, "1"), empty(), &mut Vec::new()).is_err());
        assert!(asked.elapsed() < Duration::from_millis(400), "the caller does not wait for the timeout");
        waits_with(&mut avro, words);
        fake.state.lock().mood = Mood::Well;
        encode(&mut avro, &fake, &line(r#"{"a":1}"#, "1"));
        fake.state.lock().subjects.clear();
    }
}

#[test]
fn a_restart_of_the_registry_is_noticed_by_none_who_have_their_ids() {
    let fake = Fake::start();
    let mut avro = Avro::new(&settings(&fake)).unwrap();
    encode(&mut avro, &fake, &line(r#"{"a":1}"#, "1"));
    let (address, state) = fake.stop();
    let mut out = Vec::new();
    let wider = line(r#"{"a":1,"b":2}"#, "1");
    assert_eq!(avro.encode("t", &wider, empty(), &mut out).unwrap().schema_id, Some(100));
    // One that starts meanwhile waits, and says for what.
    let away = RegistrySettings { url: Some(format!("http://{address}")), ..RegistrySettings::default() };
    let mut other = Avro::new(&away).unwrap();
    waits_with(&mut other, "refused");
    let fake = Fake::start_at(address, state);
    wait_until("the wider schema is used", || encode(&mut avro, &fake, &wider).0 == 101);
    assert!(encode(&mut other, &fake, &line(r#"{"a":1}"#, "1")).0 >= 100);
}

#[test]
fn without_auto_register_the_registered_schema_is_used_as_it_is() {
    let fake = Fake::start();
    let settings = RegistrySettings { auto_register: false, ..settings(&fake) };
    let mut avro = Avro::new(&settings).unwrap();
    waits_with(&mut avro, "register one, or set kafka.registry.auto_register = true");
    fake.state.lock().add(SUBJECT, r#"{"type":"record","name":"m","fields":[{"name":"timestamp","type":"string"}]}"#.to_owned());
    waits_with(&mut avro, "its field timestamp has a type that predlog cannot write");
    fake.state.lock().add(SUBJECT, schema::text("m", &ModelSchema::default()));
    let (id, record) = encode(&mut avro, &fake, &line(r#"{"a":1}"#, "1"));
    assert_eq!(id, 101);
    assert!(!is_null(&record, "inputs_json"));
    assert!(fake.state.lock().requests.iter().all(|(request, _)| request.starts_with("GET")));
}

#[test]
fn subjects_are_named_as_asked_and_the_user_is_told() {
    for (naming, expected) in
        [(Subject::TopicName, "t-value"), (Subject::RecordName, "predlog.m"), (Subject::TopicRecordName, SUBJECT)]
    {
        let fake = Fake::start();
        let settings = RegistrySettings {
            subject: naming,
            username: Some("me".to_owned()),
            password: Some(Secret::new("hunter2")),
            ..settings(&fake)
        };
        let mut avro = Avro::new(&settings).unwrap();
        assert!(!format!("{avro:?}").contains("hunter2"));
        encode(&mut avro, &fake, &line(r#"{"a":1}"#, "1"));
        let state = fake.state.lock();
        assert!(state.subjects.contains_key(expected));
        assert_eq!(state.requests[0].1.as_deref(), Some("Basic bWU6aHVudGVyMg=="));
    }
    let unreadable = RegistrySettings {
        url: Some("http://localhost:1".to_owned()),
        username: Some("me".to_owned()),
        password_file: Some("/nowhere/password".into()),
        ..RegistrySettings::default()
    };
    assert!(Avro::new(&unreadable).unwrap_err().contains("kafka.registry.password_file=/nowhere/password"));
}

#[test]
fn a_line_that_is_none_is_refused_for_good() {
    let fake = Fake::start();
    let mut avro = Avro::new(&settings(&fake)).unwrap();
    encode(&mut avro, &fake, &line(r#"{"a":1}"#, "1"));
    for bad in [&b"no line"[..], b"{\"timestamp\":\"2026-11-23T03:34:18.123456Z\",\"model_name\":\"m\",\"inputs\":}"] {
        assert!(matches!(avro.encode("t", bad, empty(), &mut Vec::new()), Err(EncodeError::Unencodable(_))));
    }
}
