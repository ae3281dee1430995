//! The thread that asks the registry, so that no caller waits for it.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use super::client::{Client, Failure, Registered};
use super::schema::{self, Plan};
use crate::format::schema::ModelSchema;
use crate::retry::Backoff;
use crate::sink::kafka::registry::RegistrySettings;

const MIN_WAIT: Duration = Duration::from_millis(200);
const MAX_WAIT: Duration = Duration::from_secs(30);
/// How often a schema is made anew because another process has registered one meanwhile.
const RACES: usize = 3;

/// A schema that is wanted.
#[derive(Clone, Debug)]
pub(super) struct Ask {
    pub(super) subject: String,
    pub(super) model_name: String,
    pub(super) wanted: ModelSchema,
}

/// What became of it.
#[derive(Debug)]
pub(super) enum Outcome {
    /// Records can be written with this, which may have fewer columns than were wanted.
    Accepted { id: u32, plan: Box<Plan> },
    /// There is none yet, and why; it is tried again.
    Waits(String),
}

/// The caller's end. The thread ends when this does, after the call that it is in.
#[derive(Debug)]
pub(super) struct Registry {
    asks: Sender<Ask>,
    answers: Receiver<(String, Outcome)>,
}

impl Registry {
    pub(super) fn start(settings: &RegistrySettings) -> Result<Self, String> {
        let client = Client::new(settings)?;
        let (asks, asked) = channel();
        let (told, answers) = channel();
        let auto_register = settings.auto_register;
        let worker = Worker { client, auto_register, pending: BTreeMap::new(), told, warned: BTreeMap::new() };
        crate::thread::spawn("predlog-registry", move || worker.run(&asked))
            .map_err(|error| format!("kafka.registry: cannot start a thread: {error}"))?;
        Ok(Registry { asks, answers })
    }

    /// Asks for a schema. Of two asks for one subject the later counts.
    pub(super) fn ask(&self, ask: Ask) {
        // The thread ends after this does: it takes what is sent.
        let _ = self.asks.send(ask);
    }

    /// The next answer, if there is one: a subject, and what became of it.
    pub(super) fn answer(&self) -> Option<(String, Outcome)> {
        self.answers.try_recv().ok()
    }
}

struct Worker {
    client: Client,
    auto_register: bool,
    /// What has no answer yet, by subject.
    pending: BTreeMap<String, Ask>,
    told: Sender<(String, Outcome)>,
    /// The last warning about each subject.
    warned: BTreeMap<String, String>,
}

impl Worker {
    fn run(mut self, asks: &Receiver<Ask>) {
        let mut backoff = Backoff::new(MIN_WAIT, MAX_WAIT, fastrand::u64(..));
        loop {
            let next = if self.pending.is_empty() { asks.recv().ok() } else { asks.try_recv().ok() };
            match next {
                Some(ask) => {
                    self.pending.insert(ask.subject.clone(), ask);
                    continue;
                }
                None if self.pending.is_empty() => return,
                None => {}
            }
            if self.settle_all() {
                backoff.succeeded();
            } else if !self.collect(asks, Instant::now() + backoff.failed()) {
                return;
            }
        }
    }

    /// Takes asks until `until`. False when nobody is left to ask.
    fn collect(&mut self, asks: &Receiver<Ask>, until: Instant) -> bool {
        loop {
            match asks.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(ask) => self.pending.insert(ask.subject.clone(), ask),
                Err(RecvTimeoutError::Timeout) => return true,
                Err(RecvTimeoutError::Disconnected) => return false,
            };
        }
    }

    /// Tries what is pending. False if some of it still is.
    fn settle_all(&mut self) -> bool {
        for (subject, ask) in std::mem::take(&mut self.pending) {
            let settled = if self.auto_register { self.agree(&ask) } else { self.look_up(&ask) };
            let outcome = match settled {
                Ok((id, plan)) => Outcome::Accepted { id, plan: Box::new(plan) },
                Err(why) => {
                    self.pending.insert(subject.clone(), ask);
                    let why = format!("kafka.registry: subject={subject}: {why}");
                    self.warn(&subject, &why);
                    Outcome::Waits(why)
                }
            };
            // Nobody listens any more when the sink is gone; the next ask then ends the thread.
            let _ = self.told.send((subject, outcome));
        }
        self.pending.is_empty()
    }

    /// Once for each cause.
    fn warn(&mut self, subject: &str, why: &str) {
        if self.warned.get(subject).is_none_or(|last| last != why) {
            tracing::warn!("{why}");
            self.warned.insert(subject.to_owned(), why.to_owned());
        }
    }

    /// `auto_register = false`: the schema that somebody has registered.
    fn look_up(&self, ask: &Ask) -> Result<(u32, Plan), String> {
        match self.client.latest(&ask.subject) {
            Ok(Some(Registered { id, text })) => {
                Ok((id, Plan::read(&text).map_err(|why| format!("the registered schema (id={id}) cannot be used: {why}"))?))
            }
            Ok(None) => {
                let schema = schema::text(&ask.model_name, &ask.wanted);
                Err(format!("it has no schema: register one, or set kafka.registry.auto_register = true. It could be: {schema}"))
            }
            Err(why) => Err(why),
        }
    }

    /// `auto_register = true`: the registered schema if it has all that is wanted, else one with it added.
    fn agree(&mut self, ask: &Ask) -> Result<(u32, Plan), String> {
        let mut refused = None;
        for _ in 0..RACES {
            let latest = self.client.latest(&ask.subject)?;
            let found = latest.and_then(|Registered { id, text }| Some((id, Plan::read(&text).ok()?)));
            let id = found.as_ref().map(|(id, _)| *id);
            // Refused, and nobody has registered another since: what is new stays in the raw JSON.
            if let Some((known, why)) = &refused
                && *known == id
            {
                let Some(found) = found else { return Err(format!("the registry refuses the schema: {why}")) };
                let text = format!(
                    "kafka.registry: subject={}: the registry refuses new columns, which are kept in inputs_json and outputs_json: {why}",
                    ask.subject
                );
                self.warn(&ask.subject, &text);
                return Ok(found);
            }
            let mut columns = found.as_ref().map_or_else(ModelSchema::default, |(_, plan)| plan.lines.columns());
            if !columns.merge(&ask.wanted)
                && let Some(found) = found
            {
                return Ok(found);
            }
            let text = schema::text(&ask.model_name, &columns);
            match self.client.register(&ask.subject, &text) {
                Ok(id) => return Ok((id, Plan::read(&text)?)),
                Err(Failure::Refused(why)) => refused = Some((id, why)),
                Err(Failure::Away(why)) => return Err(why),
            }
        }
        Err("other processes register schemas of it faster than this one".to_owned())
    }
}
