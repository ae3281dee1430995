//! The schemas of a registry by their ids, asked for once each.

use super::encoder::EncodeError;
use crate::format::avro::Client;
use crate::retry::Backoff;
use crate::sink::kafka::registry::RegistrySettings;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::time::Duration;

/// Tries before the ranges are given up and begun again.
const TRIES: u32 = 20;

/// What was made of each schema's text. Schemas never change, so it is kept for good.
pub(crate) struct SchemasById<T> {
    client: Mutex<Client>,
    known: Mutex<HashMap<u32, T>>,
    /// The key of the configuration that names the registry.
    key: &'static str,
}

impl<T: Clone> SchemasById<T> {
    pub fn new(settings: &RegistrySettings, key: &'static str) -> Result<Self, String> {
        Ok(SchemasById { client: Mutex::new(Client::new(settings)?), known: Mutex::default(), key })
    }

    /// What `make` makes of the schema's text; of `None` when the registry has no such schema.
    ///
    /// # Errors
    /// The registry does not answer, for a while.
    pub fn get(&self, id: u32, make: impl FnOnce(Option<String>) -> T) -> Result<T, EncodeError> {
        if let Some(known) = self.known.lock().get(&id) {
            return Ok(known.clone());
        }
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5), fastrand::u64(..));
        let text = loop {
            match self.client.lock().by_id(id) {
                Ok(text) => break text,
                Err(error) if backoff.failures() < TRIES => {
                    let wait = backoff.failed();
                    tracing::warn!(id, error, retry_in = ?wait, "cannot ask the registry for a schema");
                    std::thread::sleep(wait);
                }
                Err(error) => return Err(EncodeError(format!("{}: schema id={id}: {error}", self.key))),
            }
        };
        let made = make(text);
        self.known.lock().insert(id, made.clone());
        Ok(made)
    }
}
