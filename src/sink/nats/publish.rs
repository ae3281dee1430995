//! The thread that has the connection: it sends messages, and learns what became of them.

use super::connect::Target;
use super::messages::{Outgoing, headers};
use super::settings::{NatsSettings, Packing};
use super::stream::Wanted;
use crate::sink::broker::answer::Answer;
use crate::sink::broker::dead_letter::Letter;
use crate::sink::broker::flight::Flight;
use async_nats::client::PublishErrorKind;
use async_nats::connection::State;
use async_nats::jetstream::ErrorCode;
use async_nats::{Client, Event, Message, StatusCode, Subscriber};
use futures_util::{FutureExt, StreamExt};
use parking_lot::{Mutex, MutexGuard};
use serde::Deserialize;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// Messages without an acknowledgement at one time: fewer than a stream takes in before it refuses more (10,000, for all who publish).
const UNACKED: usize = 4096;
/// And their bytes.
const UNACKED_BYTES: usize = 32 << 20;
/// When the client has no room for a message, it is offered again after this.
const RETRY: Duration = Duration::from_millis(2);

const NO_STREAM: &str = "no stream takes it: create the stream, or set nats.create_stream = true";

/// How servers begin to say that a user may not publish.
const PERMISSIONS: &str = "Permissions Violation";

/// Why nothing goes on.
pub(super) const ENDED: &str = "the thread with the NATS connection has ended";

/// What the sink and the thread both see.
#[derive(Debug, Default)]
pub(super) struct Shared {
    flight: Mutex<Flight>,
    poison: Mutex<Vec<Poison>>,
    /// What the client said last.
    last_error: Mutex<Option<String>>,
    /// The answer to "is the stream there?".
    pub(super) stream: Answer,
}

/// A message that the stream will never take, and why.
#[derive(Debug)]
pub(super) struct Poison {
    message: Outgoing,
    reason: String,
}

impl Poison {
    /// As the dead letters take it.
    pub(super) fn letter(&self) -> Letter<'_> {
        Letter { topic: &self.message.subject, reason: &self.reason, lines: &self.message.payload }
    }
}

impl Shared {
    /// What is on its way.
    pub(super) fn flight(&self) -> MutexGuard<'_, Flight> {
        self.flight.lock()
    }

    /// Messages for the dead letters since the last call.
    pub(super) fn take_poison(&self) -> Vec<Poison> {
        std::mem::take(&mut self.poison.lock())
    }

    /// What became of poison: it is kept, or (`Err`) its batch fails.
    pub(super) fn settle(&self, poison: &[Poison], kept: &Result<(), String>) {
        let mut flight = self.flight();
        for Poison { message, .. } in poison {
            match kept {
                Ok(()) => flight.own(message.slot, message.index),
                Err(cause) => flight.fail(message.slot, || cause.clone()),
            }
        }
    }

    /// `what`, and why, as far as the client has said.
    fn explain(&self, what: impl Into<String>) -> String {
        let what = what.into();
        self.last_error.lock().as_ref().map_or_else(|| what.clone(), |why| format!("{what}: {why}"))
    }
}

/// What the sink asks of the thread.
#[derive(Debug)]
pub(super) enum Command {
    Send(Vec<Outgoing>),
    /// Give the answer to [`Shared::stream`].
    Ask,
}

/// Has the connection.
struct Publisher {
    client: Client,
    /// Where acknowledgements go: a number follows for each message. The client's own way has an entry for each until it is answered.
    inbox: String,
    shared: Arc<Shared>,
    commands: UnboundedReceiver<Command>,
    wanted: Wanted,
    /// A stream that is to be made has been asked for: what is sent before it is there would be refused.
    asked: bool,
    /// The same of the ledger's stream, for the first statement.
    ledger: Wanted,
    ledger_asked: bool,
    /// Why the servers take no statements from this user.
    ledger_denied: Option<String>,
    /// Not sent yet, oldest first.
    waiting: VecDeque<Outgoing>,
    /// Sent, oldest first: a place is empty when its message has its answer.
    sent: VecDeque<Option<Outgoing>>,
    /// The number of the first of `sent`.
    first: u64,
    sent_bytes: usize,
    deadline: Duration,
    packing: Packing,
    headers: bool,
}

/// Connects, and works until the sender of `commands` is dropped.
pub(super) async fn run(
    target: Target,
    settings: NatsSettings,
    (wanted, ledger): (Wanted, Wanted),
    shared: Arc<Shared>,
    commands: UnboundedReceiver<Command>,
) {
    let (events, received) = unbounded_channel();
    let on_event = move |event: Event| drop(events.send(event));
    let seen = Arc::clone(&shared);
    let on_failure = move |why| *seen.last_error.lock() = Some(why);
    // All that is sent has room in the client, and questions and their inboxes as well.
    let client = target.connect(2 * UNACKED, on_event, on_failure).await;
    let subscribed = match client {
        Ok(client) => {
            let inbox = client.new_inbox();
            let acks = client.subscribe(format!("{inbox}.*")).await;
            acks.map(|acks| (client, inbox, acks)).map_err(|error| error.to_string())
        }
        Err(error) => Err(error),
    };
    let (client, inbox, acks) = match subscribed {
        Ok(subscribed) => subscribed,
        Err(error) => return tracing::error!(error, "the NATS client does not start"),
    };
    let publisher = Publisher {
        client,
        inbox,
        shared,
        commands,
        asked: !settings.create_stream,
        wanted,
        ledger_asked: !settings.create_stream,
        ledger,
        ledger_denied: None,
        waiting: VecDeque::new(),
        sent: VecDeque::new(),
        first: 0,
        sent_bytes: 0,
        deadline: settings.deadline,
        packing: settings.packing,
        headers: settings.headers,
    };
    publisher.work(acks, received).await;
}

impl Publisher {
    async fn work(mut self, mut acks: Subscriber, mut events: UnboundedReceiver<Event>) {
        loop {
            let client_is_full = !self.send();
            if self.meets_ledger() {
                self.ask_for_ledger().await;
                continue;
            }
            let next_deadline = self.oldest().map(|since| since + self.deadline);
            tokio::select! {
                ack = acks.next() => {
                    let Some(ack) = ack else { return };
                    self.answered(&ack);
                    while let Some(Some(ack)) = acks.next().now_or_never() {
                        self.answered(&ack);
                    }
                }
                command = self.commands.recv() => match command {
                    Some(Command::Send(messages)) => self.waiting.extend(messages),
                    Some(Command::Ask) => self.ask(),
                    None => return,
                },
                Some(event) = events.recv() => self.happened(event).await,
                () = until(next_deadline) => self.expire(Instant::now()),
                () = tokio::time::sleep(RETRY), if client_is_full => {}
            }
        }
    }

    fn may_send(&self) -> bool {
        self.client.connection_state() == State::Connected && self.asked
    }

    /// The next message is the first statement, and its stream has not been asked for.
    fn meets_ledger(&self) -> bool {
        !self.ledger_asked && self.may_send() && self.waiting.front().is_some_and(Outgoing::is_ledger)
    }

    /// Where the stream cannot be made, another one may take the subject, or statements become dead letters.
    async fn ask_for_ledger(&mut self) {
        match self.ledger.ask_whether(&self.client).await {
            // Nobody has said that it cannot be: the statement comes again, and with it the question.
            None => {
                if let Some(message) = self.waiting.pop_front() {
                    let why = format!("subject={}: whether its stream is there is not known", message.subject);
                    self.shared.flight().fail(message.slot, || why);
                }
                return;
            }
            Some(Err(error)) => tracing::debug!(error, "the ledger has no stream of its own"),
            Some(Ok(())) => {}
        }
        self.ledger_asked = true;
    }

    /// Sends what may be on its way at one time. `false` when the client has no room.
    fn send(&mut self) -> bool {
        if !self.may_send() {
            return true;
        }
        while self.sent.len() < UNACKED && self.sent_bytes < UNACKED_BYTES && !self.meets_ledger() {
            let Some(message) = self.waiting.pop_front() else { return true };
            if let Some(reason) = self.ledger_denied.clone().filter(|_| message.is_ledger()) {
                self.shared.poison.lock().push(Poison { message, reason });
                continue;
            }
            let number = self.first + self.sent.len() as u64;
            let publish = self.client.publish_with_reply_and_headers(
                message.subject.clone(),
                format!("{}.{number}", self.inbox),
                headers(&message.span, self.packing, self.headers),
                message.payload.clone(),
            );
            // It only waits for room in the client's channel.
            match tokio::task::unconstrained(publish).now_or_never() {
                Some(Ok(())) => {
                    self.sent_bytes += message.payload.len();
                    self.sent.push_back(Some(message));
                }
                Some(Err(error)) if error.kind() == PublishErrorKind::MaxPayloadExceeded => {
                    let reason = format!("larger than the servers' max_payload={}", self.client.max_payload());
                    self.shared.poison.lock().push(Poison { message, reason });
                }
                Some(Err(error)) => self.shared.flight().fail(message.slot, || format!("subject={}: {error}", message.subject)),
                None => {
                    self.waiting.push_front(message);
                    return false;
                }
            }
        }
        true
    }

    fn answered(&mut self, ack: &Message) {
        let number = ack.subject.rsplit('.').next().and_then(|number| number.parse::<u64>().ok());
        let place = number.and_then(|number| usize::try_from(number.checked_sub(self.first)?).ok());
        // One whose message has failed by its deadline comes too late.
        let Some(message) = place.and_then(|place| self.sent.get_mut(place)?.take()) else { return };
        self.sent_bytes -= message.payload.len();
        match verdict(ack) {
            Verdict::Stored => self.shared.flight().own(message.slot, message.index),
            // Accounting must not hold up predictions.
            Verdict::NoStream if message.is_ledger() => {
                let reason = NO_STREAM.to_owned();
                self.shared.poison.lock().push(Poison { message, reason });
            }
            Verdict::NoStream => self.shared.flight().fail(message.slot, || format!("subject={}: {NO_STREAM}", message.subject)),
            Verdict::Failed(why) => self.shared.flight().fail(message.slot, || format!("subject={}: {why}", message.subject)),
            Verdict::Poison(reason) => self.shared.poison.lock().push(Poison { message, reason }),
        }
        self.forget_answered();
    }

    fn forget_answered(&mut self) {
        while let Some(None) = self.sent.front() {
            self.sent.pop_front();
            self.first += 1;
        }
    }

    fn oldest(&self) -> Option<Instant> {
        self.sent.front().and_then(Option::as_ref).or(self.waiting.front()).map(|message| message.since)
    }

    fn expire(&mut self, now: Instant) {
        let why = self.shared.explain(format!("no acknowledgement within nats.deadline={:?}", self.deadline));
        let deadline = self.deadline;
        self.fail(&why, |message| now >= message.since + deadline);
    }

    async fn happened(&mut self, event: Event) {
        tracing::debug!(%event, "nats");
        match event {
            Event::Connected => {
                self.ledger_denied = None;
                *self.shared.last_error.lock() = None;
                if !self.asked
                    && let Err(error) = self.wanted.ask(&self.client).await
                {
                    tracing::debug!(error, "the stream is not there yet; the next probe asks again");
                }
                self.asked = true;
            }
            // What was on its way may be stored or not: its acknowledgement would have come by this connection.
            Event::Disconnected => {
                *self.shared.last_error.lock() = Some("the connection was lost".to_owned());
                self.fail("the connection was lost", |_| true);
            }
            Event::ServerError(error) => {
                let error = error.to_string();
                if error.contains(PERMISSIONS) && error.contains(&format!("\"{}\"", self.ledger.subjects())) {
                    self.deny_ledger(error);
                } else {
                    *self.shared.last_error.lock() = Some(error);
                }
            }
            // Until the failed try is told in full.
            Event::ClientError(error) => drop(self.shared.last_error.lock().get_or_insert_with(|| error.to_string())),
            _ => {}
        }
    }

    /// A publish that is not permitted has no acknowledgement, only this error. Statements become dead letters then, and hold up no predictions.
    fn deny_ledger(&mut self, reason: String) {
        for place in &mut self.sent {
            if let Some(message) = place.take_if(|message| message.is_ledger()) {
                self.sent_bytes -= message.payload.len();
                self.shared.poison.lock().push(Poison { message, reason: reason.clone() });
            }
        }
        self.ledger_denied = Some(reason);
        self.forget_answered();
    }

    /// Fails the oldest messages, as long as `is_over`.
    fn fail(&mut self, why: &str, is_over: impl Fn(&Outgoing) -> bool) {
        let mut flight = self.shared.flight.lock();
        while self.sent.front().is_some_and(|message| message.as_ref().is_none_or(&is_over)) {
            self.first += 1;
            if let Some(Some(message)) = self.sent.pop_front() {
                self.sent_bytes -= message.payload.len();
                flight.fail(message.slot, || why.to_owned());
            }
        }
        while self.waiting.front().is_some_and(&is_over) {
            let Some(message) = self.waiting.pop_front() else { break };
            flight.fail(message.slot, || why.to_owned());
        }
    }

    fn ask(&self) {
        if self.client.connection_state() != State::Connected {
            return self.shared.stream.give(Err(self.shared.explain("not connected")));
        }
        let (client, wanted, shared) = (self.client.clone(), self.wanted.clone(), Arc::clone(&self.shared));
        tokio::spawn(async move { shared.stream.give(wanted.ask(&client).await) });
    }
}

/// Whatever ends the thread, nobody must wait for it any more.
impl Drop for Publisher {
    fn drop(&mut self) {
        self.commands.close();
        while let Ok(command) = self.commands.try_recv() {
            match command {
                Command::Send(messages) => self.waiting.extend(messages),
                Command::Ask => self.shared.stream.give(Err(ENDED.to_owned())),
            }
        }
        self.fail(ENDED, |_| true);
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}

#[derive(Debug, PartialEq)]
enum Verdict {
    Stored,
    NoStream,
    Failed(String),
    /// The message itself is at fault: sending it again changes nothing.
    Poison(String),
}

fn verdict(ack: &Message) -> Verdict {
    #[derive(Deserialize)]
    struct Answer {
        error: Option<async_nats::jetstream::Error>,
    }
    if ack.status == Some(StatusCode::NO_RESPONDERS) {
        return Verdict::NoStream;
    }
    match serde_json::from_slice::<Answer>(&ack.payload) {
        Ok(Answer { error: None }) => Verdict::Stored,
        Ok(Answer { error: Some(error) }) if error.error_code() == ErrorCode::STREAM_MESSAGE_EXCEEDS_MAXIMUM => {
            Verdict::Poison(error.to_string())
        }
        Ok(Answer { error: Some(error) }) => Verdict::Failed(error.to_string()),
        Err(error) => Verdict::Failed(format!("the acknowledgement cannot be read: {error}")),
    }
}

/// The sink's end of the thread.
pub(super) type Commands = UnboundedSender<Command>;
