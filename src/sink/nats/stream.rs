//! The stream that keeps our subjects: whether it is there, and making it.

use super::settings::NatsSettings;
use crate::sink::broker::topic::{NATS, TopicTemplate};
use async_nats::client::RequestErrorKind;
use async_nats::jetstream::response::Response;
use async_nats::jetstream::stream::{Config, Info, StorageType};
use async_nats::{Client, Request};
use bytes::Bytes;
use std::time::Duration;

/// The longest that the servers may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// JetStream's way to say that there is none.
const NOT_FOUND: usize = 404;

/// The stream as the settings want it.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    name: String,
    /// All subjects of the template.
    subjects: String,
    create: Option<Config>,
}

impl Wanted {
    /// # Errors
    /// A template that makes no subject.
    pub(super) fn new(settings: &NatsSettings) -> Result<Self, String> {
        Ok(Self::of(settings, settings.stream.clone(), template(settings)?.wildcard()))
    }

    /// The stream of the ledger's statements, which needs to be there only where no other takes their subject.
    ///
    /// # Errors
    /// A template that makes no subject.
    pub(super) fn ledger(settings: &NatsSettings) -> Result<Self, String> {
        Ok(Self::of(settings, ledger_stream(settings), template(settings)?.ledger_subject()))
    }

    fn of(settings: &NatsSettings, name: String, subjects: String) -> Self {
        let create = settings.create_stream.then(|| Config {
            name: name.clone(),
            subjects: vec![subjects.clone()],
            storage: StorageType::File,
            num_replicas: usize::from(settings.replicas),
            duplicate_window: settings.duplicate_window,
            allow_direct: true,
            ..Config::default()
        });
        Wanted { name, subjects, create }
    }

    /// The subjects that it is for.
    pub(super) fn subjects(&self) -> &str {
        &self.subjects
    }

    /// Asks for the stream, and makes it if it is missing and may be made.
    ///
    /// # Errors
    /// Why it takes no records of ours, and what to do.
    pub(super) async fn ask(&self, client: &Client) -> Result<(), String> {
        let asked = self.ask_whether(client).await;
        asked.unwrap_or_else(|| Err(format!("stream={}: no answer within {ANSWER_WITHIN:?}", self.name)))
    }

    /// As [`ask`](Self::ask); `None` when there is no answer in time.
    pub(super) async fn ask_whether(&self, client: &Client) -> Option<Result<(), String>> {
        tokio::time::timeout(ANSWER_WITHIN, self.look(client)).await.ok()
    }

    /// As [`ask`](Self::ask), but it is well when another stream takes the subjects.
    ///
    /// # Errors
    /// No stream does; why ours does not, and what to do.
    #[cfg(feature = "cli")]
    pub(super) async fn ask_or_other(&self, client: &Client) -> Result<(), String> {
        let Err(why) = self.ask(client).await else { return Ok(()) };
        let other = async_nats::jetstream::new(client.clone()).stream_by_subject(self.subjects.clone()).await;
        other.map(drop).map_err(|_| why)
    }

    async fn look(&self, client: &Client) -> Result<(), String> {
        let name = &self.name;
        // An inbox for each question: the client would keep its own entry for one that is never answered.
        let request = Request::new().payload(Bytes::new()).inbox(client.new_inbox()).timeout(None);
        let answer =
            client.send_request(format!("$JS.API.STREAM.INFO.{name}"), request).await.map_err(|error| match error.kind() {
                RequestErrorKind::NoResponders => "the servers have no JetStream, or not for this account: enable it".to_owned(),
                _ => format!("stream={name}: {error}"),
            })?;
        let answer: Response<Info> = serde_json::from_slice(&answer.payload)
            .map_err(|error| format!("stream={name}: the answer cannot be read: {error}"))?;
        match (answer, &self.create) {
            (Response::Ok(info), _) => self.is_covered(&info.config.subjects),
            (Response::Err { error }, Some(config)) if error.code() == NOT_FOUND => self.make(client, config.clone()).await,
            (Response::Err { error }, None) if error.code() == NOT_FOUND => Err(format!(
                "stream={name} does not exist: create it with subject={}, or set nats.create_stream = true",
                self.subjects
            )),
            (Response::Err { error }, _) => Err(format!("stream={name}: {error}")),
        }
    }

    async fn make(&self, client: &Client, config: Config) -> Result<(), String> {
        let jetstream = async_nats::jetstream::new(client.clone());
        let (name, replicas) = (&self.name, config.num_replicas);
        let made = jetstream.create_stream(config).await;
        made.map(drop).map_err(|error| format!("cannot create stream={name} (nats.replicas={replicas}): {error}"))
    }

    fn is_covered(&self, subjects: &[String]) -> Result<(), String> {
        if subjects.iter().any(|pattern| covers(pattern, &self.subjects)) {
            return Ok(());
        }
        let (name, ours) = (&self.name, &self.subjects);
        Err(format!(
            "stream={name} has subjects={} and not {ours}: add it to the stream, or change nats.subject",
            subjects.join(",")
        ))
    }
}

fn template(settings: &NatsSettings) -> Result<TopicTemplate, String> {
    TopicTemplate::parse(&settings.subject, &NATS).map_err(|expected| format!("nats.subject: expected {expected}"))
}

/// The name of the stream of statements.
fn ledger_stream(settings: &NatsSettings) -> String {
    format!("{}-ledger", settings.stream)
}

/// Whether every subject of `ours` is one of `pattern`.
fn covers(pattern: &str, ours: &str) -> bool {
    let mut ours = ours.split('.');
    for token in pattern.split('.') {
        match (token, ours.next()) {
            (">", Some(_)) => return true,
            ("*", Some(_)) => {}
            (token, Some(our)) if token == our => {}
            _ => return false,
        }
    }
    ours.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_covers_what_it_has_all_of() {
        for (pattern, ours) in [("a.*", "a.*"), ("a.>", "a.*"), (">", "a"), ("a.*.c", "a.b.c"), ("a", "a"), ("*.*", "a.*")] {
            assert!(covers(pattern, ours), "{pattern} {ours}");
        }
        for (pattern, ours) in [("a.b", "a.*"), ("a.*", "a"), ("a", "a.b"), ("a.>", "a"), ("b.*", "a.*")] {
            assert!(!covers(pattern, ours), "{pattern} {ours}");
        }
    }
}
