//! The broker's properties file.

use super::{Certificates, MECHANISMS, Options, PASSWORD, USER};
use std::{
    fmt::Display,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
};

/// An address for each listener that there can be, at these places; only what the options ask for is listened on.
pub type Addresses = [SocketAddr; 6];
pub const CONTROLLER: usize = 0;
pub const PLAINTEXT: usize = 1;
pub const TLS: usize = 2;
pub const MTLS: usize = 3;
pub const SASL: usize = 4;
pub const PROXIED: usize = 5;

/// Names and protocols, in the order of [`Addresses`].
const LISTENERS: [(&str, &str); 6] = [
    ("CONTROLLER", "PLAINTEXT"),
    ("PLAINTEXT", "PLAINTEXT"),
    ("TLS", "SSL"),
    ("MTLS", "SSL"),
    ("SASL", "SASL_SSL"),
    ("PROXIED", "PLAINTEXT"),
];

/// What one node alone needs, or soon starts and stops with.
const ALONE: [(&str, &str); 14] = [
    ("process.roles", "broker,controller"),
    ("node.id", "1"),
    ("controller.listener.names", "CONTROLLER"),
    ("inter.broker.listener.name", "PLAINTEXT"),
    ("offsets.topic.replication.factor", "1"),
    ("offsets.topic.num.partitions", "1"),
    ("transaction.state.log.replication.factor", "1"),
    ("transaction.state.log.min.isr", "1"),
    ("transaction.state.log.num.partitions", "1"),
    ("share.coordinator.state.topic.replication.factor", "1"),
    ("share.coordinator.state.topic.min.isr", "1"),
    ("group.initial.rebalance.delay.ms", "0"),
    // After a kill the controller takes the broker back only when it has given its predecessor up, by default after 9 s.
    ("broker.session.timeout.ms", "3000"),
    ("broker.heartbeat.interval.ms", "500"),
];

/// Where the file is, in the directory of a broker.
pub fn path(directory: &Path) -> PathBuf {
    directory.join("server.properties")
}

/// Writes it. `advertised` is where clients of the proxied listener are sent.
pub fn write(
    directory: &Path,
    addresses: &Addresses,
    options: &Options<'_>,
    certificates: Option<&Certificates>,
    advertised: Option<SocketAddr>,
) {
    let mut lines = Lines::default();
    for (key, value) in ALONE {
        lines.put(key, value);
    }
    lines.put("controller.quorum.bootstrap.servers", addresses[CONTROLLER]);
    lines.put("auto.create.topics.enable", options.auto_create_topics);
    // Apart from the records, so that a small disk is theirs alone.
    lines.put("metadata.log.dir", directory.join("metadata").display());
    lines.put("log.dirs", options.data.map_or_else(|| directory.join("data"), Path::to_path_buf).display());
    listeners(&mut lines, addresses, options, advertised);
    if let Some(certificates) = certificates {
        encryption(&mut lines, certificates, options);
    }
    if let Some(users) = options.super_users {
        lines.put("authorizer.class.name", "org.apache.kafka.metadata.authorizer.StandardAuthorizer");
        // The broker is a client of its own plaintext listeners.
        lines.put("super.users", ["User:ANONYMOUS"].iter().chain(users).copied().collect::<Vec<_>>().join(";"));
    }
    for (key, value) in options.properties {
        lines.put(key, value);
    }
    fs::write(path(directory), lines.0).expect("the broker's properties can be written");
}

fn listeners(lines: &mut Lines, addresses: &Addresses, options: &Options<'_>, proxy: Option<SocketAddr>) {
    let wanted = [true, true, options.tls, options.mtls, options.sasl, proxy.is_some()];
    let wanted = || (0..LISTENERS.len()).filter(|at| wanted[*at]);
    let join = |items: Vec<String>| items.join(",");
    lines.put("listeners", join(wanted().map(|at| format!("{}://{}", LISTENERS[at].0, addresses[at])).collect()));
    let advertised = wanted().filter(|at| *at != CONTROLLER).map(|at| {
        let address = proxy.filter(|_| at == PROXIED).unwrap_or(addresses[at]);
        format!("{}://{address}", LISTENERS[at].0)
    });
    lines.put("advertised.listeners", join(advertised.collect()));
    let protocols = wanted().map(|at| format!("{}:{}", LISTENERS[at].0, LISTENERS[at].1));
    lines.put("listener.security.protocol.map", join(protocols.collect()));
}

fn encryption(lines: &mut Lines, certificates: &Certificates, options: &Options<'_>) {
    lines.put("ssl.keystore.type", "PEM");
    lines.put("ssl.keystore.location", certificates.keystore().display());
    lines.put("ssl.truststore.type", "PEM");
    lines.put("ssl.truststore.location", certificates.ca().display());
    if options.mtls {
        lines.put("listener.name.mtls.ssl.client.auth", "required");
    }
    if options.sasl {
        lines.put("sasl.enabled.mechanisms", MECHANISMS.join(","));
        let plain = "org.apache.kafka.common.security.plain.PlainLoginModule";
        let scram = "org.apache.kafka.common.security.scram.ScramLoginModule";
        for mechanism in MECHANISMS {
            let login = match mechanism {
                "PLAIN" => format!("{plain} required user_{USER}=\"{PASSWORD}\";"),
                // The passwords of SCRAM are in the metadata, since the format.
                _ => format!("{scram} required;"),
            };
            lines.put(&format!("listener.name.sasl.{}.sasl.jaas.config", mechanism.to_lowercase()), login);
        }
    }
}

#[derive(Default)]
struct Lines(String);

impl Lines {
    fn put(&mut self, key: &str, value: impl Display) {
        self.0 += &format!("{key}={value}\n");
    }
}
