//! The Schema Registry: it gives ids, refuses what readers could not read, and keeps both through a kill.

use crate::support::{process::http, registry::Registry};
use serde_json::{Value, json};

fn register(registry: &Registry, schema: &Value) -> (u16, Value) {
    let body = json!({"schema": schema.to_string()}).to_string();
    let (status, answer) = registry.request("POST", "/subjects/t-value/versions", &body);
    (status, serde_json::from_str(&answer).unwrap())
}

fn schema_of(registry: &Registry, id: &Value) -> Value {
    let (status, answer) = registry.request("GET", &format!("/schemas/ids/{id}"), "");
    assert_eq!(status, 200, "{answer}");
    let answer: Value = serde_json::from_str(&answer).unwrap();
    serde_json::from_str(answer["schema"].as_str().unwrap()).unwrap()
}

#[test]
fn the_registry_gives_ids_and_keeps_them_when_it_is_killed() {
    let record = |fields: Value| json!({"type": "record", "name": "Row", "fields": fields});
    let mut registry = Registry::start();
    let first = record(json!([{"name": "a", "type": "long"}]));
    let (status, answer) = register(&registry, &first);
    assert_eq!(status, 200, "{answer}");
    let id = answer["id"].clone();
    assert_eq!(schema_of(&registry, &id), first);

    registry.kill();
    http("GET", registry.address(), "/", "").unwrap_err();
    registry.restart();
    assert_eq!(schema_of(&registry, &id), first);
    assert_eq!(register(&registry, &first), (200, json!({"id": id})));

    // The compatibility is kept too: a reader of this schema has no value for `b` in older rows.
    let without_default = record(json!([{"name": "a", "type": "long"}, {"name": "b", "type": "long"}]));
    assert_eq!(register(&registry, &without_default).0, 409);
    let with_default = record(json!([{"name": "a", "type": "long"}, {"name": "b", "type": "long", "default": 0}]));
    let (status, answer) = register(&registry, &with_default);
    assert_eq!(status, 200, "{answer}");
    assert_ne!(answer["id"], id);
}
