//! How far a connector has come, and where it is to go on.

use super::body::Body;
use super::{PartitionOffset, Problem, State};
use axum::Json;
use axum::extract::{self, Path};
use serde::Deserialize;
use serde_json::{Value, json};

const TOPIC: &str = "kafka_topic";
const PARTITION: &str = "kafka_partition";
const OFFSET: &str = "kafka_offset";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Alter {
    offsets: Option<Vec<Change>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Change {
    partition: Option<Value>,
    offset: Option<Value>,
}

/// `GET /connectors/{name}/offsets`.
pub(super) async fn read(state: extract::State<State>, Path(name): Path<String>) -> Result<Json<Value>, Problem> {
    let found = state.blocking(move |herder| {
        let connector = herder.get(&name)?;
        let failed = |why| Problem::internal(format!("Failed to retrieve consumer group offsets for connector {name}: {why}"));
        herder.tasks().offsets(&connector).map_err(failed)
    });
    let offsets = found.await?.into_iter().filter_map(|at| {
        let offset = at.offset?;
        Some(json!({"partition": {PARTITION: at.partition, TOPIC: at.topic}, "offset": {OFFSET: offset}}))
    });
    Ok(Json(json!({"offsets": offsets.collect::<Vec<_>>()})))
}

/// `PATCH /connectors/{name}/offsets`: some partitions go on elsewhere; `null` forgets one.
pub(super) async fn alter(
    state: extract::State<State>,
    Path(name): Path<String>,
    Body(request): Body<Alter>,
) -> Result<Json<Value>, Problem> {
    let changes: Vec<_> = request.offsets.unwrap_or_default().iter().map(Change::parse).collect::<Result<_, _>>()?;
    if changes.is_empty() {
        return Err(Problem::bad_request("Partitions / offsets need to be provided for an alter offsets request"));
    }
    state.blocking(move |herder| herder.change_offsets(&name, Some(&changes))).await?;
    Ok(Json(json!({"message": "The offsets for this connector have been altered successfully"})))
}

/// `DELETE /connectors/{name}/offsets`.
pub(super) async fn reset(state: extract::State<State>, Path(name): Path<String>) -> Result<Json<Value>, Problem> {
    state.blocking(move |herder| herder.change_offsets(&name, None)).await?;
    Ok(Json(json!({"message": "The offsets for this connector have been reset successfully"})))
}

impl Change {
    fn parse(&self) -> Result<PartitionOffset, Problem> {
        let partition = self.partition.as_ref().filter(|partition| !partition.is_null());
        let partition = partition
            .ok_or_else(|| Problem::bad_request("The partition for a sink connector offset cannot be null or missing"))?;
        let (Some(topic), Some(number)) = (partition.get(TOPIC), partition.get(PARTITION)) else {
            return Err(Problem::bad_request(format!(
                "The partition for a sink connector offset must contain the keys '{TOPIC}' and '{PARTITION}'"
            )));
        };
        let topic =
            text(topic).ok_or_else(|| Problem::bad_request("Kafka topic names must be valid strings and may not be null"))?;
        let number =
            text(number).ok_or_else(|| Problem::bad_request("Kafka partitions must be valid numbers and may not be null"))?;
        let partition = number.parse().ok().filter(|partition: &i32| *partition >= 0);
        let partition = partition.ok_or_else(|| unparsed("partition", "Partition", &number))?;
        Ok(PartitionOffset { topic, partition, offset: self.offset()? })
    }

    fn offset(&self) -> Result<Option<i64>, Problem> {
        let Some(offset) = self.offset.as_ref().filter(|offset| !offset.is_null()) else {
            return Ok(None);
        };
        let Some(offset) = offset.get(OFFSET).and_then(text) else {
            return Err(Problem::bad_request(format!(
                "The offset for a sink connector should either be null or contain the key '{OFFSET}'"
            )));
        };
        let number = offset.parse().ok().filter(|offset: &i64| *offset >= 0);
        number.map(Some).ok_or_else(|| unparsed("offset", "Offset", &offset))
    }
}

/// Connect takes numbers and strings for each other here.
fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

fn unparsed(what: &str, begins: &str, value: &str) -> Problem {
    Problem::bad_request(format!(
        "Failed to parse the following Kafka {what} value in the provided offsets: '{value}'. {begins} values for sink connectors need to be integers, from 0 on."
    ))
}
