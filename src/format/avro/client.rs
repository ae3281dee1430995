//! Calls of a Schema Registry.

use std::error::Error;
use std::time::Duration;

#[cfg(feature = "archive")]
use schema_registry_converter::async_impl::schema_registry::get_schema_by_id;
use schema_registry_converter::async_impl::schema_registry::{SrSettings, get_schema_by_subject_and_version, post_schema};
use schema_registry_converter::error::SRCError;
use schema_registry_converter::schema_registry_common::{RawError, SchemaType, SuppliedSchema};

use crate::sink::broker::settings::secret;
use crate::sink::kafka::registry::RegistrySettings;

/// A schema as the registry has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Registered {
    pub(super) id: u32,
    pub(super) text: String,
}

/// Why a schema is not registered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// No answer, or one that may be another later.
    Away(String),
    /// It does not take this schema.
    Refused(String),
}

/// Asks the registry, and waits for its answers.
#[derive(Debug)]
pub(crate) struct Client {
    settings: SrSettings,
    runtime: tokio::runtime::Runtime,
}

impl Client {
    pub(crate) fn new(settings: &RegistrySettings) -> Result<Self, String> {
        let url = settings.url.as_deref().unwrap_or_default().trim_end_matches('/').to_owned();
        let mut builder = SrSettings::new_builder(url);
        builder.set_timeout(settings.timeout.max(Duration::from_millis(1)));
        if let Some(username) = &settings.username {
            let password = secret("kafka.registry.password_file", settings.password.as_ref(), settings.password_file.as_deref())?;
            builder.set_basic_authorization(username, password.as_ref().map(|password| password.reveal()));
        }
        let settings = builder.build().map_err(|error| format!("kafka.registry: {}", explain(&error)))?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        Ok(Client { settings, runtime: runtime.map_err(|error| format!("kafka.registry: cannot wait for answers: {error}"))? })
    }

    /// Whether it answers as a registry does, to whoever these settings say: of a subject that nobody has, that it is not there.
    ///
    /// # Errors
    /// What it says instead, or that it says nothing.
    #[cfg(feature = "cli")]
    pub(crate) fn answers(&self) -> Result<(), String> {
        self.latest("predlog-check").map(drop)
    }

    /// The subject's newest schema, if it has one.
    pub(super) fn latest(&self, subject: &str) -> Result<Option<Registered>, String> {
        match self.runtime.block_on(get_schema_by_subject_and_version(&self.settings, subject, None)) {
            Ok(found) => Ok(Some(Registered { id: found.id, text: found.schema })),
            Err(error) if status(&error) == Some(404) => Ok(None),
            Err(error) => Err(explain(&error)),
        }
    }

    /// The text of a schema, if the registry has it.
    #[cfg(feature = "archive")]
    pub(crate) fn by_id(&self, id: u32) -> Result<Option<String>, String> {
        match self.runtime.block_on(get_schema_by_id(id, &self.settings)) {
            Ok(found) => Ok(Some(found.schema)),
            Err(error) if status(&error) == Some(404) => Ok(None),
            Err(error) => Err(explain(&error)),
        }
    }

    /// Registers the schema, or finds it. Returns its id.
    pub(super) fn register(&self, subject: &str, text: &str) -> Result<u32, Failure> {
        let schema = SuppliedSchema::new(None, SchemaType::Avro, text.to_owned());
        match self.runtime.block_on(post_schema(&self.settings, subject.to_owned(), schema)) {
            Ok(registered) => Ok(registered.id),
            Err(error) if matches!(status(&error), Some(409 | 422)) => Err(Failure::Refused(explain(&error))),
            Err(error) => Err(Failure::Away(explain(&error))),
        }
    }
}

/// The HTTP status of the registry's own answer: codes such as 40401 begin with it. A 404 of something else than a registry is none.
fn status(error: &SRCError) -> Option<u32> {
    let code = error.source()?.downcast_ref::<RawError>()?.error_code;
    match code {
        0..=99 => None,
        100..=999 => Some(code),
        _ => Some(code / 100),
    }
}

/// What went wrong, down to its cause.
fn explain(error: &SRCError) -> String {
    let mut text = error.error.clone();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.ends_with(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    text
}
