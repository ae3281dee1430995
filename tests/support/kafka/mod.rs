//! Kafka: one real broker that is its own controller, with the listeners that a test asks for.

mod config;
mod read;

pub use read::{Message, read_topic, read_topic_as};

use super::certificates::Certificates;
use super::process::{Service, installed};
use super::toxiproxy::{Proxy, Toxiproxy};
use config::Addresses;
use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, AlterConfig, NewTopic, ResourceSpecifier, TopicReplication, TopicResult},
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer},
    error::KafkaResult,
    metadata::Metadata,
    producer::{BaseProducer, BaseRecord, Producer},
    topic_partition_list::{Offset, TopicPartitionList},
};
use std::{
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};
use tempfile::TempDir;

/// The name of the one user of the SASL listener, in each of its mechanisms.
pub const USER: &str = "predlog";
/// The password of [`USER`].
pub const PASSWORD: &str = "predlog-secret";
/// The mechanisms of the SASL listener.
pub const MECHANISMS: [&str; 3] = ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"];

/// Any id in the form that Kafka wants: 16 bytes in base64.
const CLUSTER_ID: &str = "cHJlZGxvZy10ZXN0cy0wMQ";
/// How long the broker may take to answer one question.
const ANSWER: Duration = Duration::from_secs(5);

/// What a broker is started with. The plaintext listener is always there.
#[derive(Clone, Copy, Default)]
pub struct Options<'a> {
    /// A listener with TLS.
    pub tls: bool,
    /// A listener with TLS that asks the client for a certificate.
    pub mtls: bool,
    /// A listener with TLS and SASL, for [`USER`].
    pub sasl: bool,
    /// A plaintext listener behind a proxy of this toxiproxy. Brokers tell clients where to go on: this one names the proxy.
    pub proxied: Option<&'a Toxiproxy>,
    /// Topics are made when somebody writes to them.
    pub auto_create_topics: bool,
    /// Clients need ACLs, of which there are none until [`Kafka::allow`]. Those without a name (on the listeners without SASL or a
    /// client's certificate) may do everything, and so may these, such as `User:predlog` (SASL) or `User:CN=predlog` (mTLS).
    /// `None`: everybody may do everything.
    pub super_users: Option<&'a [&'a str]>,
    /// The broker's properties beyond those, such as `("message.max.bytes", "2000")`.
    pub properties: &'a [(&'a str, &'a str)],
    /// Where the records are kept, such as a small tmpfs; `None` is a temporary directory. It must be empty.
    pub data: Option<&'a Path>,
}

/// A running broker. It is killed when dropped.
pub struct Kafka {
    service: Service,
    addresses: Addresses,
    proxy: Option<Proxy>,
    certificates: Option<Certificates>,
    directory: TempDir,
}

impl Kafka {
    /// Starts it and waits until it answers.
    pub fn start(options: &Options<'_>) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        let encrypted = options.tls || options.mtls || options.sasl;
        let certificates = encrypted.then(|| Certificates::make(&directory.path().join("certificates")));
        let mut proxy = None;
        let mut formatted = false;
        let command = |addresses: &Addresses| {
            proxy = options.proxied.map(|toxiproxy| toxiproxy.proxy(addresses[config::PROXIED]));
            let advertised = proxy.as_ref().map(Proxy::address);
            config::write(directory.path(), addresses, options, certificates.as_ref(), advertised);
            if !formatted {
                format(directory.path(), options.sasl);
                formatted = true;
            }
            broker(directory.path())
        };
        let log = directory.path().join("log");
        let (service, addresses) = Service::start_on("Kafka", &log, command, |addresses| is_ready(addresses[config::PLAINTEXT]));
        Self { service, addresses, proxy, certificates, directory }
    }

    /// `host:port` of the plaintext listener.
    pub fn bootstrap(&self) -> String {
        self.addresses[config::PLAINTEXT].to_string()
    }

    /// `host:port` of the listener with TLS.
    pub fn tls(&self) -> String {
        self.addresses[config::TLS].to_string()
    }

    /// `host:port` of the listener with TLS that asks for the client's certificate.
    pub fn mtls(&self) -> String {
        self.addresses[config::MTLS].to_string()
    }

    /// `host:port` of the listener with TLS and SASL.
    pub fn sasl(&self) -> String {
        self.addresses[config::SASL].to_string()
    }

    /// `host:port` of the proxy: who begins there stays behind it.
    pub fn proxied(&self) -> String {
        self.proxy().address().to_string()
    }

    /// The proxy in front of the broker, to cut or to slow.
    pub fn proxy(&self) -> &Proxy {
        self.proxy.as_ref().expect("the broker was started with a toxiproxy")
    }

    /// The certificates of the listeners with TLS and of their clients.
    pub fn certificates(&self) -> &Certificates {
        self.certificates.as_ref().expect("the broker was started with a listener that has TLS")
    }

    /// Makes a topic, and waits until the broker names the leader of each partition.
    pub fn create_topic(&self, name: &str, partitions: i32) {
        self.create_topic_with(name, partitions, &[]);
    }

    /// As [`Kafka::create_topic`], with settings of the topic's own, such as `("max.message.bytes", "2000")`.
    pub fn create_topic_with(&self, name: &str, partitions: i32, settings: &[(&str, &str)]) {
        let topic = NewTopic::new(name, partitions, TopicReplication::Fixed(1));
        let topic = settings.iter().fold(topic, |topic, (key, value)| topic.set(key, value));
        self.administer(name, async |admin, options| admin.create_topics([&topic], options).await);
        self.wait_for_topic(&format!("topic {name} has leaders"), name, |metadata| {
            let topic = metadata.topics().first();
            topic.is_some_and(|topic| {
                let led = topic.partitions().iter().filter(|partition| partition.leader() >= 0).count();
                topic.error().is_none() && i32::try_from(led) == Ok(partitions)
            })
        });
    }

    /// Changes a setting of a topic.
    pub fn set_topic(&self, topic: &str, key: &str, value: &str) {
        let admin: AdminClient<_> = client(&self.bootstrap()).create().expect("the settings of the client are valid");
        let change = AlterConfig::new(ResourceSpecifier::Topic(topic)).set(key, value);
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime starts");
        let options = AdminOptions::new().request_timeout(Some(ANSWER * 4));
        let done = runtime.block_on(admin.alter_configs([&change], &options)).expect("the broker answers");
        done.into_iter().for_each(|result| drop(result.expect("the setting is taken")));
    }

    /// Deletes a topic, and waits until the broker does not know it.
    pub fn delete_topic(&self, name: &str) {
        self.administer(name, async |admin, options| admin.delete_topics(&[name], options).await);
        self.wait_for_topic(&format!("topic {name} is gone"), name, |metadata| {
            metadata.topics().first().is_none_or(|topic| topic.error().is_some())
        });
    }

    /// Lets `user`, such as `User:CN=predlog`, do everything with `topic`. For a broker with [`Options::super_users`].
    pub fn allow(&self, user: &str, topic: &str) {
        let mut tool = java("org.apache.kafka.tools.AclCommand");
        tool.args(["--bootstrap-server", &self.bootstrap(), "--add", "--allow-principal", user, "--topic", topic]);
        run("Kafka's tool for ACLs", tool);
    }

    /// Writes one message, and waits until it is there.
    pub fn produce(&self, topic: &str, value: &[u8]) {
        let producer: BaseProducer = client(&self.bootstrap()).create().expect("the settings of the client are valid");
        producer.send(BaseRecord::<(), [u8]>::to(topic).payload(value)).expect("there is room for one message");
        producer.flush(ANSWER * 2).expect("the broker takes the message");
    }

    /// Deletes the messages of a partition before `offset`.
    pub fn delete_records(&self, topic: &str, partition: i32, offset: i64) {
        let mut before = TopicPartitionList::new();
        before.add_partition_offset(topic, partition, Offset::Offset(offset)).expect("an offset can be set");
        self.administer(topic, async |admin, options| admin.delete_records(&before, options).await.map(|_| Vec::new()));
    }

    /// Stops it where it is, as `kill -STOP` does: connections stay open, and nothing answers.
    pub fn pause(&self) {
        self.service.pause();
    }

    /// Lets it go on after [`Kafka::pause`].
    pub fn resume(&self) {
        self.service.resume();
    }

    /// Kills it as `kill -9` does.
    pub fn kill(&mut self) {
        self.service.kill();
    }

    /// Asks it to end, and waits until it has.
    pub fn stop(&mut self) {
        self.service.stop();
    }

    /// Starts it after [`Kafka::kill`] or [`Kafka::stop`], at the same addresses and with the same data, and waits until it answers.
    pub fn restart(&mut self) {
        // Two brokers cannot have the same ports.
        self.service.kill();
        let (log, bootstrap) = (self.directory.path().join("log"), self.addresses[config::PLAINTEXT]);
        self.service = Service::start_again("Kafka", &log, broker(self.directory.path()), || is_ready(bootstrap));
    }

    /// Carries one change of a topic out; panics with Kafka's own words when it is refused.
    fn administer(
        &self,
        topic: &str,
        change: impl AsyncFn(&AdminClient<DefaultClientContext>, &AdminOptions) -> KafkaResult<Vec<TopicResult>> + Sync,
    ) {
        let admin: AdminClient<_> = client(&self.bootstrap()).create().expect("the settings of the client are valid");
        let options = AdminOptions::new().request_timeout(Some(ANSWER * 4)).operation_timeout(Some(ANSWER * 2));
        // The caller may be in a runtime of its own, and one cannot be started within another.
        let done = thread::scope(|scope| {
            let worker = scope.spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime starts");
                runtime.block_on(change(&admin, &options))
            });
            worker.join().expect("the client does not panic")
        });
        let results = done.unwrap_or_else(|error| panic!("topic {topic} could not be changed: {error}"));
        for result in results {
            result.unwrap_or_else(|(name, error)| panic!("topic {name} could not be changed: {error}"));
        }
    }

    fn wait_for_topic(&self, what: &str, topic: &str, condition: impl Fn(&Metadata) -> bool) {
        let consumer: BaseConsumer = client(&self.bootstrap()).create().expect("the settings of the client are valid");
        self.service.wait_until(what, || consumer.fetch_metadata(Some(topic), ANSWER).is_ok_and(|metadata| condition(&metadata)));
    }
}

/// A client of the plaintext listener that finds the broker soon after a restart.
fn client(bootstrap: &str) -> ClientConfig {
    let mut client = ClientConfig::new();
    client.set("bootstrap.servers", bootstrap).set("reconnect.backoff.ms", "20").set("reconnect.backoff.max.ms", "200");
    client
}

/// Whether it answers, and names itself as a broker in service.
fn is_ready(bootstrap: SocketAddr) -> bool {
    // A client is not cheap, so that it is made only once there is somebody to ask.
    TcpStream::connect(bootstrap).is_ok() && {
        let consumer: BaseConsumer = client(&bootstrap.to_string()).create().expect("the settings of the client are valid");
        consumer.fetch_metadata(None, ANSWER).is_ok_and(|metadata| !metadata.brokers().is_empty())
    }
}

/// Writes the first metadata into the directories of the data, with the user of SCRAM.
fn format(directory: &Path, scram: bool) {
    let mut tool = java("kafka.tools.StorageTool");
    tool.args(["format", "--standalone", "-t", CLUSTER_ID, "-c"]).arg(config::path(directory));
    if scram {
        for mechanism in MECHANISMS.iter().filter(|mechanism| mechanism.starts_with("SCRAM")) {
            tool.args(["--add-scram", &format!("{mechanism}=[name={USER},password={PASSWORD}]")]);
        }
    }
    run("Kafka's tool for storage", tool);
}

fn run(name: &str, mut tool: Command) {
    let done = tool.output().unwrap_or_else(|error| panic!("{name}: java does not start: {error}; install Java 17"));
    let (said, errors) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success(), "{name} failed with {}:\n{said}{errors}", done.status);
}

fn broker(directory: &Path) -> Command {
    let mut command = java("kafka.Kafka");
    command.arg(config::path(directory));
    command
}

fn java(class: &str) -> Command {
    let jars: PathBuf = installed("kafka").expect("Kafka is not installed: run tests/services/install.sh kafka");
    let mut command = Command::new("java");
    // The simple compiler and collector: a broker that lives for a minute starts sooner with them, and takes less memory.
    command.args(["-Xmx512m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"]);
    command.arg(logging());
    command.arg("-cp").arg(jars.join("*")).arg(class);
    command
}

/// Java's option for a log that goes to standard output.
pub fn logging() -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/services/kafka/log4j2.properties");
    format!("-Dlog4j2.configurationFile={}", file.display())
}
