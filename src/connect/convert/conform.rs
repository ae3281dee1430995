//! A value made to fit its schema: the schema's fields, in its order.

use crate::connect::schema::{Kind, Schema};
use crate::connect::value::Value;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Number;
use std::sync::Arc;

/// Doubles that JSON has no number for.
const NOT_FINITE: [&str; 3] = ["NaN", "Infinity", "-Infinity"];

/// The value, with defaults for fields that are not there, and without those that the schema has not.
///
/// # Errors
/// Where it does not fit, as `.field.field: …`.
pub(in crate::connect) fn conform(value: Value, schema: &Schema) -> Result<Value, String> {
    let found = |value: &Value| Err(format!(": expected {}, found {}", expected(&schema.kind), short(value)));
    match (&schema.kind, value) {
        (_, Value::Null) => match &schema.default {
            Some(default) => Ok(default.clone()),
            None if schema.optional => Ok(Value::Null),
            None => Err(format!(": expected {}, found null; the field is not optional", expected(&schema.kind))),
        },
        (Kind::Unknown | Kind::Json, value) => Ok(value),
        (Kind::Bool, value @ Value::Bool(_)) | (Kind::String, value @ Value::Text(_)) => Ok(value),
        (Kind::Int(bits), Value::Number(number)) if fits(&number, *bits) => Ok(Value::Number(number)),
        (Kind::Int64 | Kind::Timestamp, Value::Number(number)) if number.is_i64() => Ok(Value::Number(number)),
        (Kind::Date | Kind::Time, Value::Number(number)) if fits(&number, 32) => Ok(Value::Number(number)),
        (Kind::Float | Kind::Double | Kind::Decimal { .. }, value @ Value::Number(_)) => match schema.kind {
            Kind::Decimal { precision, scale } if unscaled(&value, precision, scale).is_none() => found(&value),
            _ => Ok(value),
        },
        (Kind::Float | Kind::Double, Value::Text(text)) if NOT_FINITE.contains(&&*text) => Ok(Value::Text(text)),
        (Kind::Bytes, Value::Text(text)) if STANDARD.decode(&text).is_ok() => Ok(Value::Text(text)),
        (Kind::Decimal { precision, scale }, value @ Value::Text(_)) if unscaled(&value, *precision, *scale).is_some() => {
            Ok(value)
        }
        (Kind::List(element), Value::List(items)) => {
            let items = items.into_iter().enumerate();
            let items = items.map(|(at, item)| conform(item, element).map_err(|why| format!("[{at}]{why}")));
            Ok(Value::List(items.collect::<Result<_, _>>()?))
        }
        (Kind::Map(keys, values), Value::Record(fields)) if keys.kind == Kind::String => named(fields, values),
        (Kind::Map(keys, values), Value::List(given)) => pairs(given, keys, values),
        (Kind::Struct(fields), Value::Record(given)) => record(given, fields),
        (_, value) => found(&value),
    }
}

/// A map whose keys are text.
fn named(fields: Vec<(String, Value)>, values: &Schema) -> Result<Value, String> {
    let fields = fields.into_iter().map(|(name, value)| {
        let value = conform(value, values).map_err(|why| format!(".{name}{why}"))?;
        Ok((name, value))
    });
    Ok(Value::Record(fields.collect::<Result<_, String>>()?))
}

/// A map with other keys: an array of pairs.
fn pairs(given: Vec<Value>, keys: &Schema, values: &Schema) -> Result<Value, String> {
    let pairs = given.into_iter().map(|pair| match pair {
        Value::List(pair) => match <[Value; 2]>::try_from(pair) {
            Ok([key, value]) => Ok(Value::List(vec![conform(key, keys)?, conform(value, values)?])),
            Err(_) => Err(": expected a map's key and value, found another number of items".to_owned()),
        },
        other => Err(format!(": expected a map's key and value, found {}", short(&other))),
    });
    Ok(Value::List(pairs.collect::<Result<_, String>>()?))
}

fn record(mut given: Vec<(String, Value)>, fields: &[(String, Arc<Schema>)]) -> Result<Value, String> {
    let mut out = Vec::with_capacity(fields.len());
    for (at, (name, schema)) in fields.iter().enumerate() {
        // Nearly always in the schema's order; what is taken out leaves its place behind.
        let place = match given.get(at) {
            Some((known, _)) if known == name => Some(at),
            _ => given.iter().position(|(known, _)| known == name),
        };
        let value = place.map_or(Value::Null, |place| std::mem::replace(&mut given[place].1, Value::Null));
        out.push((name.clone(), conform(value, schema).map_err(|why| format!(".{name}{why}"))?));
    }
    Ok(Value::Record(out))
}

fn fits(number: &Number, bits: u8) -> bool {
    let most = (1_i64 << (bits - 1)) - 1;
    number.as_i64().is_some_and(|number| (-most - 1..=most).contains(&number))
}

/// A decimal's digits as a whole number; `None` when it is no decimal, or has too many.
pub(in crate::connect) fn unscaled(value: &Value, precision: u8, scale: i8) -> Option<i128> {
    let number = match value {
        Value::Text(text) => {
            let bytes = STANDARD.decode(text).ok()?;
            let mut wide = [if bytes.first()? & 0x80 == 0 { 0 } else { 0xff }; 16];
            wide.get_mut(16_usize.checked_sub(bytes.len())?..)?.copy_from_slice(&bytes);
            i128::from_be_bytes(wide)
        }
        Value::Number(number) => decimal_digits(&number.to_string(), scale)?,
        _ => return None,
    };
    (number.unsigned_abs() < 10_u128.checked_pow(precision.into())?).then_some(number)
}

/// `-12.5` of scale 2 is -1250.
fn decimal_digits(text: &str, scale: i8) -> Option<i128> {
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits: i128 = format!("{whole}{fraction}").parse().ok()?;
    let shift = exponent.parse::<i64>().ok()? + i64::from(scale) - i64::try_from(fraction.len()).ok()?;
    let power = 10_i128.checked_pow(u32::try_from(shift.unsigned_abs()).ok()?)?;
    if shift >= 0 { digits.checked_mul(power) } else { (digits % power == 0).then_some(digits / power) }
}

fn expected(kind: &Kind) -> String {
    match kind {
        Kind::Int(bits) => format!("int{bits}"),
        Kind::Decimal { precision, scale } => format!("a decimal of {precision} digits, {scale} of them behind the point"),
        Kind::List(_) => "an array".to_owned(),
        Kind::Map(..) => "a map".to_owned(),
        Kind::Struct(_) => "an object".to_owned(),
        other => format!("{other:?}").to_ascii_lowercase(),
    }
}

/// What stands there, without its content: that may be a secret.
fn short(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "another number",
        Value::Text(_) => "text",
        Value::List(_) => "an array",
        Value::Record(_) => "an object",
    }
}
