use super::*;
use apache_avro::writer::datum::GenericDatumWriter;
use serde_json::json;

fn known(schema: &serde_json::Value) -> Result<Arc<Known>, String> {
    understand(Some(schema.to_string()), 7)
}

/// What is read of this value, written by this schema.
fn read(schema: &serde_json::Value, value: AvroValue) -> Part {
    let known = known(schema).unwrap();
    let body = GenericDatumWriter::builder(&known.avro).build().unwrap().write_value_to_vec(value).unwrap();
    known.read(&mut &body[..]).unwrap()
}

fn shown(part: &Part) -> String {
    part.value.as_ref().map_or("nothing".to_owned(), ToString::to_string)
}

fn record(fields: &[(&str, AvroValue)]) -> AvroValue {
    AvroValue::Record(fields.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect())
}

#[test]
fn a_type_that_is_named_again_is_the_same_type() {
    let address = json!({"type": "record", "name": "Address", "fields": [{"name": "city", "type": "string"}]});
    let schema = json!({"type": "record", "name": "Order", "namespace": "shop", "fields": [
        {"name": "bill", "type": address},
        {"name": "ship", "type": ["null", "Address"]},
        {"name": "more", "type": {"type": "array", "items": "shop.Address"}},
    ]});
    let city = |name: &str| record(&[("city", AvroValue::String(name.to_owned()))]);
    let part = read(
        &schema,
        record(&[
            ("bill", city("a")),
            ("ship", AvroValue::Union(1, Box::new(city("b")))),
            ("more", AvroValue::Array(vec![city("c")])),
        ]),
    );
    assert_eq!(shown(&part), r#"{"bill":{"city":"a"},"ship":{"city":"b"},"more":[{"city":"c"}]}"#);
    let schema = part.schema.unwrap();
    let (bill, ship) = (schema.field("bill").unwrap(), schema.field("ship").unwrap());
    assert_eq!((&bill.kind, bill.name.as_deref(), bill.optional), (&ship.kind, Some("shop.Address"), false));
    assert!(ship.optional);
}

#[test]
fn a_record_that_holds_itself_is_refused_in_words() {
    let tree = json!({"type": "record", "name": "Tree", "namespace": "x", "fields": [
        {"name": "left", "type": ["null", "Tree"]},
    ]});
    let why = known(&tree).err().unwrap();
    assert!(why.starts_with("schema id=7: left: record x.Tree holds a x.Tree: expected"), "{why}");
}

#[test]
fn a_union_of_several_types_is_a_record_of_them_as_confluents_converter_makes_it() {
    let schema = json!({"type": "record", "name": "r", "fields": [{"name": "v", "default": null, "type": [
        "null", "int", "string", {"type": "enum", "name": "x.Colour", "symbols": ["RED"]},
        {"type": "record", "name": "x.Point", "fields": [{"name": "y", "type": "int"}]},
    ]}, {"name": "w", "type": ["long", "boolean"], "default": 5}]});
    let w = ("w", AvroValue::Union(1, Box::new(AvroValue::Boolean(true))));
    for (at, value, expected) in [
        (0, AvroValue::Null, "null"),
        (1, AvroValue::Int(3), r#"{"int":3,"string":null,"Colour":null,"Point":null}"#),
        (2, AvroValue::String("s".into()), r#"{"int":null,"string":"s","Colour":null,"Point":null}"#),
        (3, AvroValue::Enum(0, "RED".into()), r#"{"int":null,"string":null,"Colour":"RED","Point":null}"#),
        (4, record(&[("y", AvroValue::Int(1))]), r#"{"int":null,"string":null,"Colour":null,"Point":{"y":1}}"#),
    ] {
        let part = read(&schema, record(&[("v", AvroValue::Union(at, Box::new(value))), w.clone()]));
        assert_eq!(shown(&part), format!(r#"{{"v":{expected},"w":{{"long":null,"boolean":true}}}}"#));
    }
    let described = known(&schema).unwrap().connect.clone();
    let (v, w) = (described.field("v").unwrap(), described.field("w").unwrap());
    assert_eq!((v.name.as_deref(), v.optional, w.optional), (Some("io.confluent.connect.avro.Union"), true, false));
    assert_eq!((&v.field("int").unwrap().kind, v.field("int").unwrap().optional), (&Kind::Int(32), true));
    assert_eq!(w.default.as_ref().unwrap().to_string(), r#"{"long":5,"boolean":null}"#, "a default is of the first type");
}

#[test]
fn two_types_of_a_union_need_two_names() {
    let point = |namespace: &str| json!({"type": "record", "name": "Point", "namespace": namespace, "fields": []});
    let why = known(&json!(["null", point("x"), point("y")])).err().unwrap();
    assert!(why.contains("a union of two types Point"), "{why}");
}

#[test]
fn floats_are_their_shortest_text() {
    let schema = json!({"type": "record", "name": "r", "fields": [{"name": "f", "type": "float"}]});
    for (float, expected) in [
        (0.1, "0.1"),
        (1.0 / 3.0, "0.33333334"),
        (f32::MAX, "3.4028235e+38"),
        (f32::MIN_POSITIVE, "1.1754944e-38"),
        (-2.0, "-2.0"),
        (f32::NAN, "\"NaN\""),
        (f32::NEG_INFINITY, "\"-Infinity\""),
    ] {
        let part = read(&schema, record(&[("f", AvroValue::Float(float))]));
        assert_eq!(shown(&part), format!(r#"{{"f":{expected}}}"#));
    }
}
