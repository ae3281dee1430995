use super::*;
use crate::archive::encoder::NoHeaders;

fn json(text: &str, envelope: Envelope) -> Result<Part, String> {
    Schemas::default().read(text.as_bytes(), envelope)
}

fn shown(part: &Part) -> String {
    part.value.as_ref().map_or("nothing".to_owned(), ToString::to_string)
}

const TYPED: &str = r#"{"schema":{"type":"struct","optional":false,"version":2,"name":"r","fields":[
  {"field":"i","type":"int32","optional":false},
  {"field":"s","type":"string","optional":true},
  {"field":"d","type":"double","optional":false,"default":1.5},
  {"field":"l","type":"array","optional":true,"items":{"type":"int8"}},
  {"field":"m","type":"map","optional":true,"keys":{"type":"string"},"values":{"type":"boolean"}},
  {"field":"b","type":"bytes","optional":true},
  {"field":"t","type":"int64","optional":true,"name":"org.apache.kafka.connect.data.Timestamp"},
  {"field":"n","type":"bytes","optional":true,"name":"org.apache.kafka.connect.data.Decimal","parameters":{"scale":"2"}}
]},"payload":PAYLOAD}"#;

fn typed(payload: &str) -> Result<Part, String> {
    json(&TYPED.replace("PAYLOAD", payload), Envelope::Always)
}

#[test]
fn a_payload_has_the_fields_of_its_schema() {
    let part = typed(r#"{"s":"x","i":7,"l":[1,-2],"m":{"k":true},"b":"AQI=","t":5,"n":"BNI=","other":1}"#).unwrap();
    assert_eq!(shown(&part), r#"{"i":7,"s":"x","d":1.5,"l":[1,-2],"m":{"k":true},"b":"AQI=","t":5,"n":"BNI="}"#);
    let schema = part.schema.unwrap();
    assert_eq!((schema.version, schema.optional, schema.name.as_deref()), (Some(2), false, Some("r")));
    assert_eq!(schema.field("n").unwrap().kind, Kind::Decimal { precision: 38, scale: 2 });
    assert_eq!(schema.field("t").unwrap().kind, Kind::Timestamp);
}

#[test]
fn a_payload_that_does_not_fit_is_refused_by_field() {
    for (payload, expected) in [
        ("{}", "payload.i: expected int32, found null"),
        (r#"{"i":"7"}"#, "payload.i: expected int32, found text"),
        (r#"{"i":3000000000}"#, "payload.i: expected int32, found another number"),
        (r#"{"i":1,"l":[1,300]}"#, "payload.l[1]: expected int8"),
        (r#"{"i":1,"m":{"k":1}}"#, "payload.m.k: expected bool"),
        (r#"{"i":1,"b":"?"}"#, "payload.b: expected bytes"),
        (r#"{"i":1,"n":12.345}"#, "payload.n: expected a decimal"),
        ("[1]", "payload: expected an object, found an array"),
        ("null", "payload: expected an object, found null"),
    ] {
        let error = typed(payload).unwrap_err();
        assert!(error.starts_with(expected), "{payload}: {error}");
    }
}

#[test]
fn an_envelope_is_one_where_it_may_be() {
    let message = r#"{"schema":{"type":"int64","optional":true},"payload":5}"#;
    let typed = json(message, Envelope::WhereFound).unwrap();
    assert_eq!((shown(&typed), typed.schema.is_some()), ("5".to_owned(), true));
    let plain = json(message, Envelope::Never).unwrap();
    assert_eq!((shown(&plain), plain.schema), (message.to_owned(), None));
    for own in [
        r#"{"schema":"v1","payload":5}"#,
        r#"{"schema":{"a":1},"payload":5}"#,
        r#"{"schema":null,"payload":5,"x":1}"#,
        r#"{"schema":null}"#,
        r#"{"payload":5}"#,
        r#"{"x":1}"#,
        "[1]",
        "\"t\"",
    ] {
        let plain = json(own, Envelope::WhereFound).unwrap();
        assert_eq!((shown(&plain), plain.schema), (own.to_owned(), None), "somebody's own record");
    }
    let error = json(r#"{"x":1}"#, Envelope::Always).unwrap_err();
    assert!(error.contains("schemas.enable=false"), "{error}");
    assert!(json(r#"{"payload":1}"#, Envelope::Always).unwrap_err().contains("`schema`"));
    for envelope in [Envelope::Always, Envelope::WhereFound] {
        let bare = json(r#"{"schema":null,"payload":{"x":1}}"#, envelope).unwrap();
        assert_eq!((shown(&bare), bare.schema), (r#"{"x":1}"#.to_owned(), None), "as JsonConverter writes what has no schema");
    }
    for nothing in ["null", r#"{"schema":{"type":"int8","optional":true},"payload":null}"#, r#"{"schema":null,"payload":null}"#] {
        assert_eq!(json(nothing, Envelope::WhereFound).unwrap().value, None, "{nothing}");
    }
    assert!(json("{", Envelope::WhereFound).unwrap_err().starts_with("not JSON"));
    let wrong = json(r#"{"schema":{"type":"int128"},"payload":1}"#, Envelope::WhereFound).unwrap_err();
    assert!(wrong.contains("\"int128\" is none of Connect's"), "{wrong}");
}

#[test]
fn the_same_schema_in_other_words_is_the_same() {
    let schemas = Schemas::default();
    let read = |text: &str| schemas.read(text.as_bytes(), Envelope::Always).unwrap().schema.unwrap();
    let one = read(r#"{"schema":{"type":"int64","optional":true},"payload":5}"#);
    let other = read(r#"{"schema":{"optional":true, "type":"int64"},"payload":6}"#);
    assert!(Arc::ptr_eq(&one, &other));
}

#[test]
fn decimals_are_whole_numbers_of_their_scale() {
    let number = |text: &str| serde_json::from_str::<Value>(text).unwrap();
    for (value, scale, expected) in [
        (Value::from("BNI="), 2, Some(1_234)),
        (Value::from("/w=="), 0, Some(-1)),
        (number("12.5"), 2, Some(1_250)),
        (number("-12"), 1, Some(-120)),
        (number("1e3"), 0, Some(1_000)),
        (number("0.001"), 2, None),
        (Value::from(""), 0, None),
        (Value::Bool(true), 0, None),
    ] {
        assert_eq!(conform::unscaled(&value, 38, scale), expected, "{value}");
    }
    assert_eq!(conform::unscaled(&Value::from(1_000), 3, 0), None, "more digits than it may have");
}

#[test]
fn text_and_bytes_are_what_they_are() {
    let converter = |kind| {
        let settings = ConverterSettings { kind, registry: None, credentials: None };
        Converter::new(&settings).unwrap()
    };
    let read = |kind, bytes: &[u8]| converter(kind).read(Some(bytes)).unwrap();
    assert_eq!(shown(&read(ConverterKind::String, b"a").unwrap()), "\"a\"");
    assert!(read(ConverterKind::String, &[0xff]).unwrap_err().contains("UTF-8"));
    assert_eq!(shown(&read(ConverterKind::ByteArray, &[0xff]).unwrap()), "\"/w==\"");
    assert_eq!(converter(ConverterKind::String).read(None).unwrap().unwrap(), Part::default());
}

#[test]
fn a_wrong_key_matters_only_where_it_is_asked_for() {
    let converters = Converters {
        key: Converter::new(&ConverterSettings { kind: ConverterKind::Json(Envelope::Never), registry: None, credentials: None })
            .unwrap(),
        value: Converter::new(&ConverterSettings { kind: ConverterKind::String, registry: None, credentials: None }).unwrap(),
    };
    let message =
        Message { topic: "t", partition: 0, offset: 1, timestamp: None, key: Some(b"{"), value: Some(b"v"), headers: &NoHeaders };
    assert_eq!(shown(&converters.record(&message, false).unwrap().unwrap().value), "\"v\"");
    assert!(converters.record(&message, true).unwrap().unwrap_err().starts_with("key: not JSON"));
}
