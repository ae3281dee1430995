//! Predictions whose shape is another in every line, for `benches/columns.rs`.

use arrow_schema::{DataType, Schema, SchemaRef};
use fastrand::Rng;
use std::fmt::Write;
use std::sync::Arc;

/// A shape: what it is called, and how the inputs of a line are made.
pub struct Shape {
    pub name: &'static str,
    inputs: fn(&mut Rng, &mut String),
    /// Whether the keys around the inputs are in random order, too.
    shuffled: bool,
}

pub const SHAPES: [Shape; 8] = [
    Shape { name: "keys in random order", inputs: shuffled, shuffled: false },
    Shape { name: "keys in random order, the line's own too", inputs: shuffled, shuffled: true },
    Shape { name: "3 of 10 keys, at random", inputs: |random, out| some_of(random, out, 40, 30), shuffled: false },
    Shape { name: "1 of 100 keys, at random", inputs: |random, out| some_of(random, out, 1_000, 1), shuffled: false },
    Shape { name: "keys that have no column, at random", inputs: extra, shuffled: false },
    Shape { name: "int, float, string or null, at random", inputs: types, shuffled: false },
    Shape { name: "int, float or null, at random", inputs: numbers, shuffled: false },
    Shape { name: "nested lists and objects, at random", inputs: nested, shuffled: false },
];

/// A key that no schema of `extra` has, since most lines lack it.
pub const EXTRA: &str = "extra_";

impl Shape {
    pub fn lines(&self, count: usize) -> Vec<String> {
        let mut random = Rng::with_seed(11);
        let start: jiff::Timestamp = "2026-11-23T03:34:18Z".parse().expect("a timestamp");
        let mut inputs = String::new();
        (0..count)
            .map(|row| {
                inputs.clear();
                (self.inputs)(&mut random, &mut inputs);
                let time = start + std::time::Duration::from_micros(row as u64 * 20);
                let mut fields = [
                    format!("\"timestamp\":\"{time:.6}\""),
                    "\"model_name\":\"wine\"".to_owned(),
                    format!("\"id\":\"{:032x}\"", random.u128(..)),
                    format!("\"inputs\":{inputs}"),
                    format!("\"outputs\":{{\"score\":{}}}", random.f64()),
                    format!("\"latency_ms\":{:.3}", random.f64() * 10.0),
                    "\"writer\":\"0198c0de-0000-7000-8000-00000000000a-00\"".to_owned(),
                    format!("\"seq\":{row}"),
                ];
                if self.shuffled {
                    random.shuffle(&mut fields);
                }
                format!("{{{}}}", fields.join(","))
            })
            .collect()
    }
}

/// The columns that arrow-json reads such lines into: as ours, but for what it would stop at or lose. It takes no number for a string unless it is told
/// to, and no string for a number: where types change, its columns are strings.
pub fn peer_schema(ours: &SchemaRef, shape: &Shape) -> SchemaRef {
    if !std::ptr::fn_addr_eq(shape.inputs, types as fn(&mut Rng, &mut String)) {
        return Arc::clone(ours);
    }
    let fields = ours.fields().iter().map(|field| match field.data_type() {
        DataType::Struct(inner) if field.name() == "inputs" => {
            let inner = inner.iter().map(|field| field.as_ref().clone().with_data_type(DataType::Utf8));
            Arc::new(field.as_ref().clone().with_data_type(DataType::Struct(inner.collect())))
        }
        _ => Arc::clone(field),
    });
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

fn object(out: &mut String, fields: impl IntoIterator<Item = String>) {
    out.push('{');
    for (at, field) in fields.into_iter().enumerate() {
        let comma = if at > 0 { "," } else { "" };
        write!(out, "{comma}{field}").expect("a String");
    }
    out.push('}');
}

fn features(random: &mut Rng) -> Vec<String> {
    vec![
        format!("\"age\":{}", random.u32(18..90)),
        format!("\"pay\":{:.2}", random.f64() * 90_000.0),
        format!("\"term\":{}", random.u32(..240)),
        format!("\"plan\":\"{}\"", ["basic", "plus", "pro"][random.usize(..3)]),
        format!("\"ph\":{:.2}", 2.8 + random.f64()),
        format!("\"alc\":{:.1}", 8.0 + random.f64() * 6.0),
        format!("\"x\":{:.3}", random.f64()),
        format!("\"on\":{}", random.bool()),
        format!("\"n\":{}", random.u32(..500)),
        format!("\"cc\":\"{}\"", ["DE", "FR", "US", "GB", "IT"][random.usize(..5)]),
        format!("\"so2\":{}.0", random.u32(5..200)),
        format!("\"y\":{:.2}", random.f64()),
    ]
}

fn shuffled(random: &mut Rng, out: &mut String) {
    let mut fields = features(random);
    random.shuffle(&mut fields);
    object(out, fields);
}

/// Each of so many keys with a chance of so many in a hundred; one in a thousand keys where it is rarer.
fn some_of(random: &mut Rng, out: &mut String, keys: usize, percent: usize) {
    let present: Vec<usize> = (0..keys).filter(|_| random.usize(..100) < percent).collect();
    object(out, present.into_iter().map(|key| format!("\"feature_{key}\":{:.3}", random.f64() * 100.0)));
}

/// Up to three keys of ten thousand between the known ones.
fn extra(random: &mut Rng, out: &mut String) {
    let mut fields = features(random);
    for _ in 0..random.usize(..4) {
        let key = random.u32(..10_000);
        fields.insert(random.usize(..=fields.len()), format!("\"{EXTRA}{key}\":{}", random.u32(..1_000)));
    }
    object(out, fields);
}

fn types(random: &mut Rng, out: &mut String) {
    let fields: Vec<String> = (0..12)
        .map(|key| match random.usize(..4) {
            0 => format!("\"feature_{key}\":{}", random.u32(..10_000)),
            1 => format!("\"feature_{key}\":{:.3}", random.f64() * 100.0),
            2 => format!("\"feature_{key}\":\"v{}\"", random.u32(..1_000)),
            _ => format!("\"feature_{key}\":null"),
        })
        .collect();
    object(out, fields);
}

fn numbers(random: &mut Rng, out: &mut String) {
    let fields: Vec<String> = (0..12)
        .map(|key| match random.usize(..3) {
            0 => format!("\"feature_{key}\":{}", random.i32(-10_000..10_000)),
            1 => format!("\"feature_{key}\":{}", (random.f64() - 0.5) * 100.0),
            _ => format!("\"feature_{key}\":null"),
        })
        .collect();
    object(out, fields);
}

fn list(random: &mut Rng, most: usize, mut item: impl FnMut(&mut Rng) -> String) -> String {
    let items: Vec<String> = (0..random.usize(..=most)).map(|_| item(random)).collect();
    format!("[{}]", items.join(","))
}

fn nested(random: &mut Rng, out: &mut String) {
    let mut fields = vec![format!("\"age\":{}", random.u32(18..90))];
    fields.push(format!("\"embedding\":{}", list(random, 16, |random| random.f32().to_string())));
    fields.push(format!("\"tags\":{}", list(random, 4, |random| format!("\"tag{}\"", random.u32(..50)))));
    fields.push(format!(
        "\"items\":{}",
        list(random, 3, |random| {
            let (sku, flags) = (random.u32(..9_999), list(random, 3, |random| random.bool().to_string()));
            let price = if random.bool() { format!(",\"price\":{:.2}", random.f64() * 100.0) } else { String::new() };
            format!("{{\"sku\":{sku}{price},\"flags\":{flags}}}")
        })
    ));
    fields.push(format!("\"grid\":{}", list(random, 3, |random| list(random, 4, |random| random.u32(..9).to_string()))));
    if random.bool() {
        fields.push(format!("\"user\":{{\"country\":\"DE\",\"days\":{}}}", random.u32(..1_000)));
    }
    object(out, fields);
}
