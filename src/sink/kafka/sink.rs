//! The sink: batches in, delivery reports out.

use super::client;
use super::messages::{Messages, Topics as Known};
#[cfg(feature = "cli")]
use super::prober::{Creator, ask};
use super::prober::{Missing, NO_ANSWER, Prober};
use super::produce::Producer;
#[cfg(feature = "cli")]
use super::registry::RegistrySettings;
use super::reports::{Poison, Reports};
use super::settings::KafkaSettings;
#[cfg(feature = "cli")]
use super::settings::Mechanism;
use crate::batch::{Batch, Origin};
use crate::clock::{Clock, Now, SystemClock};
#[cfg(feature = "cli")]
use crate::format::avro::Client;
use crate::sink::broker::dead_letter::{DeadLetters, Letter};
use crate::sink::broker::flight::Progress;
use crate::sink::broker::replayed::Replayed;
use crate::sink::broker::topic::{KAFKA, TopicTemplate};
use crate::sink::{Kept, Maintained, Sink, SinkError, SinkErrorKind};
use crate::stats::Stats;
use rdkafka::producer::{Producer as _, PurgeConfig};
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

const NAME: &str = "kafka";
/// The longest that [`Sink::probe`] waits: the answer of slower brokers is given to the next probe.
const PATIENCE: Duration = Duration::from_millis(50);
/// The longest that a statement of the ledger, once a minute, waits for the brokers to say whether its topic is there.
const LEDGER_PATIENCE: Duration = Duration::from_millis(500);
/// Events that one look at the reports takes at most: each has the messages of one request.
const EVENTS: usize = 64;
/// By how much batches get smaller when a broker takes no larger ones.
const SMALLER: usize = 4;

/// Streams to Kafka.
pub struct KafkaSink {
    settings: KafkaSettings,
    template: TopicTemplate,
    producer: Arc<Producer>,
    /// The client's batches have at most so many bytes.
    batch_bytes: usize,
    messages: Messages,
    dead_letters: DeadLetters,
    prober: Prober,
    stats: Arc<Stats>,
    clock: SystemClock,
    /// The last batch that is owned.
    owned: Option<u64>,
    /// Why nothing is sent until the brokers answer again.
    down: Option<String>,
    kept: Kept,
    replayed: Replayed,
}

impl std::fmt::Debug for KafkaSink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KafkaSink").field("settings", &self.settings).field("down", &self.down).finish_non_exhaustive()
    }
}

impl KafkaSink {
    /// Connects in the background: this does not wait for brokers. `process` names this process's dead letters.
    ///
    /// # Errors
    /// A property that librdkafka does not know, a file that cannot be read, a template that makes no topic.
    pub fn open(settings: KafkaSettings, process: Uuid, stats: Arc<Stats>) -> Result<Self, String> {
        let template =
            TopicTemplate::parse(&settings.topic, &KAFKA).map_err(|expected| format!("kafka.topic: expected {expected}"))?;
        let config = client::config(&settings)?;
        let batch_bytes = client::batch_bytes(&settings);
        let producer = Arc::new(producer(&settings, batch_bytes)?);
        let prober = Prober::start(config, &settings).map_err(|error| format!("cannot start a thread: {error}"))?;
        if let Some(topic) = template.fixed().filter(|_| settings.create_topics) {
            prober.create(topic);
        }
        let max_bytes = settings.fallback.max_bytes.as_u64();
        Ok(KafkaSink {
            messages: Messages::new(&settings, template.clone())?,
            dead_letters: DeadLetters::new(&settings.fallback.dir, NAME, process, max_bytes),
            settings,
            template,
            producer,
            batch_bytes,
            prober,
            stats,
            clock: SystemClock::default(),
            owned: None,
            down: None,
            kept: Kept::new(),
            replayed: Replayed::default(),
        })
    }

    fn reports(&self) -> &Arc<Reports> {
        self.producer.context()
    }

    fn failing(&self) -> Option<String> {
        self.reports().flight().failing().map(str::to_owned)
    }

    fn poll(&mut self) {
        for _ in 0..EVENTS {
            let before = self.reports().reported();
            self.producer.poll(Duration::ZERO);
            if self.reports().reported() == before {
                break;
            }
        }
        self.bury();
    }

    /// Poison is owned when it is with the dead letters.
    fn bury(&mut self) {
        let poison = self.reports().take_poison();
        if poison.is_empty() {
            return;
        }
        let letters: Vec<Letter<'_>> = poison.iter().map(Poison::letter).collect();
        let kept = self.dead_letters.bury(&letters, self.clock.wall(), &self.stats);
        self.reports().settle(&poison, &kept);
    }

    /// librdkafka has given up on this client for good, or its batches are too large.
    fn replace_client(&mut self) -> Result<(), SinkError> {
        let batch_bytes = if self.reports().are_too_large() { (self.batch_bytes / SMALLER).max(1) } else { self.batch_bytes };
        let fresh = producer(&self.settings, batch_bytes).map_err(unavailable)?;
        if batch_bytes == self.batch_bytes {
            tracing::warn!(reason = self.reports().last_error(), "the Kafka client failed for good; a new one takes its place");
        } else {
            let before = self.batch_bytes;
            tracing::warn!(
                batch_bytes,
                before,
                "the brokers take smaller batches only; set kafka.max_message_bytes to what they take"
            );
        }
        self.batch_bytes = batch_bytes;
        self.messages.forget_topics();
        self.producer = Arc::new(fresh);
        Ok(())
    }
}

/// Topics, as the brokers know them.
struct Asked<'a> {
    prober: &'a Prober,
    producer: &'a Arc<Producer>,
    create: bool,
    missing: Missing,
}

impl Known for Asked<'_> {
    fn met(&self, topic: &str) {
        if self.create {
            self.prober.create(topic);
        }
    }

    fn missing(&self) -> Missing {
        Arc::clone(&self.missing)
    }

    fn has_ledger(&self, topic: &str) -> Result<Result<(), String>, String> {
        match self.prober.ledger(self.producer, topic, LEDGER_PATIENCE) {
            None => Err(format!("topic={topic}: the brokers have not answered within {LEDGER_PATIENCE:?}")),
            // That nobody has said whether it is there does not make it missing.
            Some(Err(why)) if why.starts_with(NO_ANSWER) => Err(format!("topic={topic}: {why}")),
            Some(there) => Ok(there),
        }
    }
}

fn producer(settings: &KafkaSettings, batch_bytes: usize) -> Result<Producer, String> {
    let explain = |error: rdkafka::error::KafkaError| format!("kafka: {error}");
    let mut config = client::config(settings)?;
    config.set("batch.size", batch_bytes.to_string());
    config.create_with_context(Reports::of_batches(batch_bytes)).map_err(explain)
}

fn unavailable(why: impl Into<String>) -> SinkError {
    SinkError::new(NAME, SinkErrorKind::Unavailable, why)
}

impl Sink for KafkaSink {
    fn name(&self) -> &'static str {
        NAME
    }

    fn write(&mut self, batch: &Batch<'_>) -> Result<(), SinkError> {
        // While the last messages of a failed flight wait for their reports, and until the brokers answer, the fallback is the better place.
        if let Some(why) = self.failing().or_else(|| self.down.clone()) {
            return Err(unavailable(why));
        }
        let live = batch.origin == Origin::Live;
        let skip = self.replayed.leave_out(batch);
        let slot = self.reports().flight().begin(batch.id, live);
        let missing = self.prober.missing(&self.producer);
        let topics = Asked {
            missing,
            prober: &self.prober,
            producer: &self.producer,
            create: self.settings.create_topics && self.template.fixed().is_none(),
        };
        if let Err(why) = self.messages.send(batch, &skip, &self.producer, slot, &topics) {
            self.reports().flight().fail_batch(slot, || why);
        }
        Ok(())
    }

    fn commit(&mut self) -> Result<Option<u64>, SinkError> {
        self.poll();
        let progress = self.reports().flight().progress(self.owned);
        match progress {
            Progress::Owned(owned) => {
                self.owned = owned;
                self.replayed.owned(owned);
                Ok(owned)
            }
            Progress::Failed { cause, kept, replayed } => {
                self.kept = kept;
                self.replayed.failed(replayed);
                self.down = Some(cause.clone());
                let suspects = self.reports().take_suspects();
                // Records wait for the one topic of all models; where each has its own, nobody waits for another's.
                if self.template.fixed().is_none() {
                    self.prober.look_for(&self.producer, suspects);
                }
                if self.reports().is_fatal() || self.reports().are_too_large() {
                    self.replace_client()?;
                }
                Err(unavailable(cause))
            }
        }
    }

    fn kept(&mut self) -> Kept {
        std::mem::take(&mut self.kept)
    }

    fn maintain(&mut self, _now: Now, _force: bool) -> Result<Maintained, SinkError> {
        // Errors of the client come by a poll, also when nothing is on its way.
        self.poll();
        Ok(Maintained::default())
    }

    fn probe(&mut self) -> Result<(), SinkError> {
        if let Some(why) = self.failing() {
            return Err(unavailable(why));
        }
        self.prober.probe(&self.producer, self.template.fixed(), PATIENCE).map_err(unavailable)?;
        if let Some(why) = self.messages.waits_for() {
            return Err(unavailable(why));
        }
        self.down = None;
        Ok(())
    }

    fn spools(&self) -> bool {
        false
    }

    fn adopt(&mut self, segment: &std::path::Path) -> Result<(), SinkError> {
        Err(unavailable(format!("takes no segments; path={}", segment.display())))
    }

    fn close(&mut self, _now: Now) -> Result<Maintained, SinkError> {
        // What has no report by now is the caller's: it is in the lanes or in the spool.
        self.producer.purge(PurgeConfig::default().queue().inflight());
        self.messages.forget_topics();
        Ok(Maintained::default())
    }
}

/// What `predlog check` asks: whether the brokers answer, and whether the topic is there, or could be made and is.
///
/// # Errors
/// What is wrong, and what to do.
#[cfg(feature = "cli")]
pub(crate) fn check(settings: &KafkaSettings, ledger: bool, within: Duration) -> Result<String, String> {
    let template =
        TopicTemplate::parse(&settings.topic, &KAFKA).map_err(|expected| format!("kafka.topic: expected {expected}"))?;
    let producer = producer(settings, client::batch_bytes(settings))?;
    let (partitions, replication) = (settings.partitions, settings.replication);
    let mut creator = Creator { config: client::config(settings)?, partitions, replication, client: None };
    let mut see = |topic: Option<&str>| match topic {
        Some(topic) if settings.create_topics => creator.create_and_see(&producer, topic),
        topic => ask(&producer, topic, within),
    };
    see(template.fixed()).map_err(|why| advise(settings, why))?;
    if ledger {
        see(Some(&template.ledger())).map_err(|why| format!("{why}, or ledger.enabled = false"))?;
    }
    Ok(format!("{} answer, topic={}", settings.brokers, settings.topic))
}

/// Why brokers do not answer, with what to look at.
#[cfg(feature = "cli")]
fn advise(settings: &KafkaSettings, why: String) -> String {
    let KafkaSettings { brokers, tls, sasl, .. } = settings;
    let mechanism = sasl.mechanism.map_or("not set", Mechanism::name);
    let listener = format!("kafka.tls.enabled={} and kafka.sasl.mechanism={mechanism}", tls.enabled);
    let advice = "check that they run, that this machine reaches them, and that their listener is one for";
    if why.starts_with(NO_ANSWER) { format!("kafka.brokers={brokers}: {why}; {advice} {listener}") } else { why }
}

/// Whether the brokers answer at all.
///
/// # Errors
/// Why they do not, and what to do.
#[cfg(feature = "cli")]
pub(crate) fn reach(settings: &KafkaSettings, within: Duration) -> Result<(), String> {
    let producer = producer(settings, client::batch_bytes(settings))?;
    ask(&producer, None, within).map_err(|why| advise(settings, why))
}

/// What `predlog check` asks of `format = "avro"`: whether the Schema Registry answers.
///
/// # Errors
/// Why it does not, and what to do.
#[cfg(feature = "cli")]
pub(crate) fn check_registry(settings: &RegistrySettings) -> Result<String, String> {
    let url = settings.url.as_deref().unwrap_or_default();
    match Client::new(settings)?.answers() {
        Ok(()) => Ok(format!("url={url} answers")),
        Err(why) => Err(format!(
            "kafka.registry.url={url}: {why}; check that it is a Schema Registry's and that it runs, and kafka.registry.username with its password"
        )),
    }
}

/// Where a reader finds what the sink wrote.
#[cfg(any(feature = "cli", feature = "archive"))]
pub(crate) struct Topics {
    /// How to reach the brokers.
    pub(crate) client: rdkafka::ClientConfig,
    /// The topic of all models, or a regular expression of their topics.
    pub(crate) pattern: String,
    /// The topic of the ledger.
    pub(crate) ledger: String,
    /// Whether a topic is the template's, or the ledger's.
    #[cfg(feature = "cli")]
    pub(crate) is_ours: Box<dyn Fn(&str) -> bool>,
}

/// # Errors
/// A template that makes no topic; a file that cannot be read; a format that has no lines.
#[cfg(any(feature = "cli", feature = "archive"))]
pub(crate) fn topics(settings: &KafkaSettings) -> Result<Topics, String> {
    let template =
        TopicTemplate::parse(&settings.topic, &KAFKA).map_err(|expected| format!("kafka.topic: expected {expected}"))?;
    let ledger = template.ledger();
    let (client, pattern) = (client::connection(settings)?, template.pattern());
    #[cfg(feature = "cli")]
    let other = ledger.clone();
    Ok(Topics {
        client,
        pattern,
        ledger,
        #[cfg(feature = "cli")]
        is_ours: Box::new(move |topic| template.may_be(topic) || topic == other),
    })
}
