//! A nats-server with JetStream, and what its streams have.

use super::process::{Service, answers, installed};
use async_nats::ConnectOptions;
use async_nats::jetstream::consumer::pull::OrderedConfig;
use async_nats::jetstream::{self, stream};
use futures_util::{StreamExt, TryStreamExt};
use predlog::config::NatsSettings;
use predlog::config::nats::Servers;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;

const PROGRAM: &str = "bin/nats-server";
const CONFIG: &str = "nats.conf";
/// Answers 200 once JetStream has recovered its streams.
const READY: &str = "/healthz?js-enabled-only=true";
const LIMIT: Duration = Duration::from_secs(60);

/// A running nats-server. It is killed when dropped.
pub struct Nats {
    service: Service,
    address: SocketAddr,
    monitor: SocketAddr,
    /// How the tests themselves connect.
    login: ConnectOptions,
    /// Taken when this is dropped.
    runtime: Option<tokio::runtime::Runtime>,
    directory: TempDir,
}

/// A message of a stream.
#[derive(Clone, Debug)]
pub struct Stored {
    pub subject: String,
    pub headers: async_nats::HeaderMap,
    pub payload: Vec<u8>,
}

impl Stored {
    /// A header's text.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.as_str())
    }

    /// The JSON lines in it.
    pub fn lines(&self) -> impl Iterator<Item = &[u8]> {
        self.payload.split(|&byte| byte == b'\n').filter(|line| !line.is_empty())
    }
}

impl Drop for Nats {
    fn drop(&mut self) {
        // A test may itself run in a runtime, where another may not be waited for.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Nats {
    fn runtime(&self) -> &tokio::runtime::Runtime {
        self.runtime.as_ref().expect("it is taken by the drop alone")
    }

    /// Starts it on free ports.
    pub fn start() -> Self {
        Self::start_with("")
    }

    /// As [`start`](Self::start), with more lines of its configuration.
    pub fn start_with(more: &str) -> Self {
        Self::start_secured(more, ConnectOptions::new())
    }

    /// As [`start_with`](Self::start_with); the tests' own connections are made by `login`.
    pub fn start_secured(more: &str, login: ConnectOptions) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        let command = |[address, monitor]: &[SocketAddr; 2]| {
            configure(directory.path(), address, monitor, more);
            command(directory.path())
        };
        let log = directory.path().join("log");
        let (service, [address, monitor]) =
            Service::start_on("nats-server", &log, command, |[_, monitor]| answers(*monitor, READY));
        Nats { service, address, monitor, login, runtime: Some(runtime), directory }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `nats://` and the address.
    pub fn url(&self) -> String {
        format!("nats://{}", self.address)
    }

    /// Settings for a stream of this server, with a fallback in `dir`.
    pub fn settings(&self, stream: &str, dir: &Path) -> NatsSettings {
        let mut settings = NatsSettings {
            servers: Servers(self.url()),
            subject: format!("{stream}.{{model_name}}"),
            stream: stream.to_owned(),
            create_stream: true,
            deadline: Duration::from_secs(1),
            ..NatsSettings::default()
        };
        settings.fallback.dir = dir.to_owned();
        settings
    }

    /// SIGSTOP: connections stay, and nothing is answered.
    pub fn pause(&self) {
        self.service.pause();
    }

    /// SIGCONT.
    pub fn resume(&self) {
        self.service.resume();
    }

    /// kill -9.
    pub fn kill(&mut self) {
        self.service.kill();
    }

    /// Starts it again, with the same ports and data.
    pub fn restart(&mut self) {
        let (log, command, monitor) = (self.directory.path().join("log"), command(self.directory.path()), self.monitor);
        self.service = Service::start_again("nats-server", &log, command, || answers(monitor, READY));
    }

    /// Ends it, and starts it with other lines of its configuration.
    pub fn restart_with(&mut self, more: &str) {
        self.kill();
        configure(self.directory.path(), &self.address, &self.monitor, more);
        self.restart();
    }

    /// Creates a stream of these subjects.
    pub fn create_stream(&self, name: &str, config: stream::Config) {
        let config = stream::Config { name: name.to_owned(), ..config };
        self.block_on(|jetstream| async move { jetstream.create_stream(config).await.expect("the stream is made") });
    }

    /// Changes a stream.
    pub fn update_stream(&self, config: stream::Config) {
        self.block_on(|jetstream| async move { jetstream.update_stream(config).await.expect("the stream is changed") });
    }

    /// Deletes a stream with all that it has.
    pub fn delete_stream(&self, name: &str) {
        let name = name.to_owned();
        self.block_on(|jetstream| async move { jetstream.delete_stream(name).await.expect("the stream was there") });
    }

    /// How the stream is.
    pub fn info(&self, name: &str) -> stream::Info {
        let name = name.to_owned();
        self.block_on(
            |jetstream| async move { jetstream.get_stream(name).await.expect("the stream is there").cached_info().clone() },
        )
    }

    /// All messages of a stream; none when it is not there.
    pub fn stored(&self, name: &str) -> Vec<Stored> {
        let name = name.to_owned();
        self.block_on(|jetstream| async move {
            let Ok(stream) = jetstream.get_stream(name).await else { return Vec::new() };
            let count = stream.cached_info().state.messages as usize;
            let consumer = stream.create_consumer(OrderedConfig::default()).await.expect("a consumer");
            let messages = consumer.messages().await.expect("messages").take(count);
            let stored = messages.map_ok(|message| Stored {
                subject: message.subject.to_string(),
                headers: message.headers.clone().unwrap_or_default(),
                payload: message.payload.to_vec(),
            });
            stored.try_collect().await.expect("all messages")
        })
    }

    /// Deletes one message of a stream.
    pub fn delete(&self, name: &str, sequence: u64) {
        let name = name.to_owned();
        self.block_on(|jetstream| async move {
            let stream = jetstream.get_stream(name).await.expect("the stream is there");
            assert!(stream.delete_message(sequence).await.expect("the server answers"));
        });
    }

    fn block_on<T, F: Future<Output = T>>(&self, work: impl FnOnce(jetstream::Context) -> F) -> T {
        self.runtime().block_on(async {
            let client = self.login.clone().connect(self.url()).await.expect("the server answers");
            let done = tokio::time::timeout(LIMIT, work(jetstream::new(client))).await;
            done.unwrap_or_else(|_| {
                panic!("the server does not answer within {LIMIT:?}; its log is in {:?}", self.directory.path())
            })
        })
    }
}

fn configure(directory: &Path, address: &SocketAddr, monitor: &SocketAddr, more: &str) {
    let store = directory.join("store");
    let text = format!("listen: \"{address}\"\nhttp: \"{monitor}\"\njetstream {{ store_dir: {store:?} }}\n{more}\n");
    std::fs::write(directory.join(CONFIG), text).expect("the configuration can be written");
}

fn command(directory: &Path) -> Command {
    let program = installed(PROGRAM).expect("nats-server is not installed: run tests/services/install.sh nats (it needs Go)");
    let mut command = Command::new(program);
    command.arg("-c").arg(directory.join(CONFIG));
    command
}
