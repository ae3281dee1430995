//! `[kafka.registry]`.

use crate::config::problem::without_credentials;
use crate::sink::broker::Problem;
use crate::sink::broker::settings::Secret;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// The Schema Registry of `kafka.format = "avro"`.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RegistrySettings {
    /// `http://registry:8081`; of Apicurio `http://registry:8080/apis/ccompat/v7`.
    pub url: Option<String>,
    /// What a model's subject is called.
    pub subject: Subject,
    /// Registers schemas, and wider ones as new fields come. Off: the newest registered schema is used as it is, and what has no field in it is kept in
    /// `inputs_json` and `outputs_json`.
    pub auto_register: bool,
    /// The user of HTTP's basic authentication.
    pub username: Option<String>,
    /// The password. Better in the environment (`PREDLOG_KAFKA__REGISTRY__PASSWORD`) or in a file.
    pub password: Option<Secret>,
    /// A file with the password.
    pub password_file: Option<PathBuf>,
    /// The longest that an answer may take. No prediction waits for it.
    #[serde(with = "humantime_serde")]
    pub timeout: Duration,
}

/// What a model's subject is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Subject {
    /// `<topic>-value`: one schema for a topic, so each model needs a topic of its own.
    TopicName,
    /// `predlog.<model>`.
    RecordName,
    /// `<topic>-predlog.<model>`.
    TopicRecordName,
}

impl Default for RegistrySettings {
    fn default() -> Self {
        RegistrySettings {
            url: None,
            subject: Subject::TopicRecordName,
            auto_register: true,
            username: None,
            password: None,
            password_file: None,
            timeout: Duration::from_secs(5),
        }
    }
}

impl fmt::Debug for RegistrySettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegistrySettings")
            .field("url", &self.url.as_deref().map(without_credentials))
            .field("subject", &self.subject)
            .field("auto_register", &self.auto_register)
            .field("username", &self.username)
            .field("password", &self.password)
            .field("password_file", &self.password_file)
            .field("timeout", &self.timeout)
            .finish()
    }
}

impl RegistrySettings {
    /// What is wrong, when the format needs a registry. `one_topic`: all models go to one.
    pub(super) fn problems(&self, one_topic: bool) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut wrong = |key: &str, value: String, expected: &str| {
            problems.push(Problem { key: format!("kafka.registry.{key}"), value, expected: expected.to_owned() });
        };
        let rest = self.url.as_deref().map(|url| url.strip_prefix("http://").or_else(|| url.strip_prefix("https://")));
        match rest {
            None => wrong("url", "not set".to_owned(), "the Schema Registry of kafka.format=\"avro\", as http://registry:8081"),
            Some(Some(rest)) if rest.contains('@') => {
                wrong("url", "<hidden>".to_owned(), "no user in it: kafka.registry.username and kafka.registry.password_file");
            }
            Some(Some(rest)) if !rest.is_empty() => {}
            Some(_) => {
                let shown = self.url.as_deref().map(without_credentials).unwrap_or_default();
                wrong("url", format!("{shown:?}"), "http://… or https://…");
            }
        }
        if self.subject == Subject::TopicName && one_topic {
            let expected = "\"topic_record_name\" or \"record_name\", or a kafka.topic with {model_name}: a subject holds the schema of one model";
            wrong("subject", "\"topic_name\"".to_owned(), expected);
        }
        if self.username.is_none() && (self.password.is_some() || self.password_file.is_some()) {
            wrong("username", "not set".to_owned(), "the user of kafka.registry.password");
        }
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_never_shown() {
        let settings = RegistrySettings {
            url: Some("http://user:hunter2@registry:8081".to_owned()),
            username: Some("user".to_owned()),
            password: Some(Secret::new("hunter2")),
            ..RegistrySettings::default()
        };
        let problems: String =
            settings.problems(false).iter().map(|problem| format!("{}={}", problem.key, problem.value)).collect();
        let shown = format!("{settings:?}{problems}");
        assert!(!shown.contains("hunter2"), "{shown}");
        assert_eq!(problems, "kafka.registry.url=<hidden>");
    }

    #[test]
    fn a_subject_of_one_schema_needs_a_topic_for_each_model() {
        let settings =
            RegistrySettings { url: Some("https://r".to_owned()), subject: Subject::TopicName, ..RegistrySettings::default() };
        assert_eq!(settings.problems(false).len(), 0);
        assert_eq!(settings.problems(true)[0].key, "kafka.registry.subject");
        assert_eq!(RegistrySettings::default().problems(true)[0].key, "kafka.registry.url");
    }
}
