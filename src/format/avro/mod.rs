//! `format = "avro"`: Avro's binary form behind Confluent's header (a zero byte, the schema's id as four bytes), with a schema for each model.
//!
//! Schemas only ever gain nullable fields whose default is null, so that old readers read new records and new readers old ones. The registry is where the
//! columns are kept: a process starts from what its subject has, so all hosts agree on types. It is asked on a thread of its own. A line whose model has no
//! accepted schema must wait ([`EncodeError::NotYet`]); one with a field that is not yet accepted, or never will be, keeps its whole JSON in `inputs_json` or
//! `outputs_json` and waits for nothing.

mod client;
mod encode;
mod registry;
mod schema;

#[cfg(test)]
mod fake;
#[cfg(test)]
mod registry_tests;
#[cfg(test)]
mod tests;

use std::collections::HashMap;

use super::schema::{MAX_LEAVES, ModelSchema};
use super::wire::{EncodeError, Encoded, Learner, record_name};
use crate::record::raw_model_name;
use crate::sink::kafka::registry::{RegistrySettings, Subject};
#[cfg(feature = "archive")]
pub(crate) use client::Client;
use registry::{Ask, Outcome, Registry};
use schema::Plan;
#[cfg(feature = "archive")]
pub(crate) use schema::{BARE, NAME};

/// Makes messages of lines.
#[derive(Debug)]
pub(crate) struct Avro {
    registry: Registry,
    naming: Subject,
    auto_register: bool,
    /// By the raw text of its name.
    models: HashMap<Vec<u8>, Model>,
    /// Models by their subject.
    by_subject: HashMap<String, Vec<u8>>,
    scratch: String,
}

#[derive(Debug)]
struct Model {
    name: String,
    subject: String,
    /// The accepted schema.
    accepted: Option<(u32, Plan)>,
    /// Why there is none.
    waits_for: String,
    /// The accepted columns and those that were asked for: these are not asked for again.
    wanted: ModelSchema,
    learner: Learner,
}

impl Avro {
    /// Starts the thread that asks the registry. Nothing is asked before the first line.
    ///
    /// # Errors
    /// The settings make no client: a password's file that cannot be read, for one.
    pub(crate) fn new(settings: &RegistrySettings) -> Result<Self, String> {
        Ok(Avro {
            registry: Registry::start(settings)?,
            naming: settings.subject,
            auto_register: settings.auto_register,
            models: HashMap::new(),
            by_subject: HashMap::new(),
            scratch: String::new(),
        })
    }

    /// Makes a message for `topic` of a line; `out` is cleared first. `ahead` are lines behind it, which are looked at if this one has a new field.
    ///
    /// # Errors
    /// `NotYet` while the registry has not answered, `Unencodable` if the line is none of ours.
    pub(crate) fn encode<'a>(
        &mut self,
        topic: &str,
        line: &'a [u8],
        ahead: impl Iterator<Item = &'a [u8]>,
        out: &mut Vec<u8>,
    ) -> Result<Encoded, EncodeError> {
        self.take_answers();
        let key =
            raw_model_name(line).ok_or_else(|| EncodeError::Unencodable("line has no model_name where it stands".to_owned()))?;
        let Some(model) = self.models.get_mut(key) else {
            return Err(EncodeError::NotYet(self.meet(topic, key, line, ahead)?));
        };
        let Some((id, plan)) = &mut model.accepted else { return Err(EncodeError::NotYet(model.waits_for.clone())) };
        out.clear();
        out.push(0);
        out.extend_from_slice(&id.to_be_bytes());
        let encoded = Encoded { schema_id: Some(*id) };
        let refused = |error: super::decode::LineError| EncodeError::Unencodable(error.to_string());
        let new_field = encode::write_record(plan, line, out, &mut self.scratch).map_err(refused)?;
        if new_field
            && self.auto_register
            && model.wanted.leaves() < MAX_LEAVES
            && let Some(grown) = model.learner.learn(&model.wanted, line, ahead)
        {
            model.wanted = grown;
            self.registry.ask(model.ask());
        }
        Ok(encoded)
    }

    /// What records wait for: a model without an accepted schema, and why. A sink that was told `NotYet` asks this before it tries again.
    pub(crate) fn waits_for(&mut self) -> Option<String> {
        self.take_answers();
        self.models.values().find(|model| model.accepted.is_none()).map(|model| model.waits_for.clone())
    }

    /// Asks for a new model's schema. Returns what its records wait for.
    fn meet<'a>(
        &mut self,
        topic: &str,
        key: &[u8],
        line: &'a [u8],
        ahead: impl Iterator<Item = &'a [u8]>,
    ) -> Result<String, EncodeError> {
        let quoted = [b"\"", key, b"\""].concat();
        let name: String = serde_json::from_slice(&quoted)
            .map_err(|error| EncodeError::Unencodable(format!("model_name is no text: {error}")))?;
        let subject = match self.naming {
            Subject::TopicName => format!("{topic}-value"),
            Subject::RecordName => record_name(&name),
            Subject::TopicRecordName => format!("{topic}-{}", record_name(&name)),
        };
        let mut learner = Learner::default();
        let wanted = learner.learn(&ModelSchema::default(), line, ahead).unwrap_or_default();
        let waits_for = format!("the schema of model_name={name:?} is asked for: subject={subject}");
        let model = Model { name, subject, accepted: None, waits_for: waits_for.clone(), wanted, learner };
        self.registry.ask(model.ask());
        self.by_subject.insert(model.subject.clone(), key.to_vec());
        self.models.insert(key.to_vec(), model);
        Ok(waits_for)
    }

    fn take_answers(&mut self) {
        while let Some((subject, outcome)) = self.registry.answer() {
            let Some(model) = self.by_subject.get(&subject).and_then(|key| self.models.get_mut(key)) else { continue };
            match outcome {
                Outcome::Accepted { id, plan } => {
                    let mut columns = plan.lines.columns();
                    columns.merge(&model.wanted);
                    model.wanted = columns;
                    model.accepted = Some((id, *plan));
                }
                Outcome::Waits(why) => model.waits_for = why,
            }
        }
    }
}

impl Model {
    fn ask(&self) -> Ask {
        Ask { subject: self.subject.clone(), model_name: self.name.clone(), wanted: self.wanted.clone() }
    }
}
