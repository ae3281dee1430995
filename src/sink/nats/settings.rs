//! `[nats]`.

pub use crate::sink::broker::settings::{FallbackSettings, Packing, Secret};

use crate::sink::broker::Problem;
use bytesize::ByteSize;
use serde::{Deserialize, Serialize, Serializer};
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// Where and how predictions are streamed: `mode = "nats"`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NatsSettings {
    /// `nats://host:port` or `tls://host:port`, several with commas between them.
    pub servers: Servers,
    /// The subject, or a template: `predictions.{model_name}` is a subject for each model.
    pub subject: String,
    /// The JetStream stream that keeps the subjects.
    pub stream: String,
    /// Creates the stream if it is missing: for the subjects of the template, in files.
    pub create_stream: bool,
    /// Replicas of a stream that is created.
    pub replicas: u16,
    /// How long a stream that is created knows what it has, so that it does not keep it twice.
    #[serde(with = "humantime_serde")]
    pub duplicate_window: Duration,
    /// How many records a message has.
    pub packing: Packing,
    /// Headers on each message beside `Nats-Msg-Id`: `content-type`, `predlog-writer`, `predlog-seq`.
    pub headers: bool,
    /// The longest that a record waits for others to go with it.
    #[serde(with = "humantime_serde")]
    pub linger: Duration,
    /// A record that the stream has not acknowledged for this long goes to the fallback, and later to NATS again.
    #[serde(with = "humantime_serde")]
    pub deadline: Duration,
    /// The largest message: at most the servers' `max_payload`.
    pub max_message_bytes: ByteSize,
    /// Where records go while NATS does not take them.
    pub fallback: FallbackSettings,
    /// Encryption.
    pub tls: TlsSettings,
    /// Authentication.
    pub auth: AuthSettings,
}

impl Default for NatsSettings {
    fn default() -> Self {
        NatsSettings {
            servers: Servers("nats://localhost:4222".to_owned()),
            subject: "predictions.{model_name}".to_owned(),
            stream: "predictions".to_owned(),
            create_stream: false,
            replicas: 1,
            duplicate_window: Duration::from_secs(120),
            packing: Packing::None,
            headers: true,
            linger: Duration::from_millis(10),
            deadline: Duration::from_secs(5),
            max_message_bytes: ByteSize::b(1_000_000),
            fallback: FallbackSettings::default(),
            tls: TlsSettings::default(),
            auth: AuthSettings::default(),
        }
    }
}

/// The servers' URLs. Credentials belong into `[nats.auth]`; whoever puts them here all the same does not see them again.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Servers(pub String);

impl Servers {
    /// Each of them.
    pub fn urls(&self) -> impl Iterator<Item = &str> {
        self.0.split(',').map(str::trim)
    }

    pub(super) fn problems(&self) -> Vec<Problem> {
        let wrong = |expected: &str| {
            vec![Problem { key: "nats.servers".to_owned(), value: format!("{self:?}"), expected: expected.to_owned() }]
        };
        if self.0.contains('@') {
            return wrong("no credentials in it: give them in [nats.auth]");
        }
        let is_server = |url: &str| {
            let address = url.strip_prefix("nats://").or_else(|| url.strip_prefix("tls://")).unwrap_or(url);
            let (host, port) = match address.rsplit_once(':') {
                Some((host, port)) if !port.ends_with(']') => (host, port.parse::<u16>().is_ok()),
                _ => (address, true),
            };
            !host.is_empty() && port && !host.contains('/')
        };
        if self.urls().all(is_server) { Vec::new() } else { wrong("nats://host:port, several with commas between them") }
    }
}

impl fmt::Display for Servers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A password may have a comma in it, so that all before the last `@` counts as one.
        match self.0.rsplit_once('@') {
            None => f.write_str(&self.0),
            Some((_, host)) => write!(f, "***@{host}"),
        }
    }
}

impl fmt::Debug for Servers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.to_string())
    }
}

impl Serialize for Servers {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Encryption: `[nats.tls]`. It is used where the URL says `tls://`, where the server asks for it, and where a file is named here.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TlsSettings {
    /// The certificates that the servers' are checked against, PEM. Not set: the system's.
    pub ca_file: Option<PathBuf>,
    /// This client's certificate, PEM, for servers that ask for one.
    pub cert_file: Option<PathBuf>,
    /// Its key, PEM.
    pub key_file: Option<PathBuf>,
}

impl TlsSettings {
    pub(super) fn problems(&self) -> Vec<Problem> {
        let missing = |key: &str, expected: &str| {
            vec![Problem { key: format!("nats.tls.{key}"), value: "not set".to_owned(), expected: expected.to_owned() }]
        };
        match (&self.cert_file, &self.key_file) {
            (Some(_), None) => missing("key_file", "the key of nats.tls.cert_file"),
            (None, Some(_)) => missing("cert_file", "the certificate of nats.tls.key_file"),
            _ => Vec::new(),
        }
    }
}

/// Authentication: `[nats.auth]`. One of credentials, a user with a password, a token, and an NKey; not set: none. Each connection reads the files again.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AuthSettings {
    /// A `.creds` file: a user's JWT and its seed.
    pub credentials_file: Option<PathBuf>,
    /// The user.
    pub username: Option<String>,
    /// The password. Better in the environment (`PREDLOG_NATS__AUTH__PASSWORD`) or in a file.
    pub password: Option<Secret>,
    /// A file with the password.
    pub password_file: Option<PathBuf>,
    /// The token. Better in the environment (`PREDLOG_NATS__AUTH__TOKEN`) or in a file.
    pub token: Option<Secret>,
    /// A file with the token.
    pub token_file: Option<PathBuf>,
    /// The seed of a user's NKey. Better in the environment (`PREDLOG_NATS__AUTH__NKEY_SEED`) or in a file.
    pub nkey_seed: Option<Secret>,
    /// A file with the seed.
    pub nkey_seed_file: Option<PathBuf>,
}

impl AuthSettings {
    pub(super) fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut wrong = |key: &str, value: &str, expected: &str| {
            problems.push(Problem { key: format!("nats.auth.{key}"), value: value.to_owned(), expected: expected.to_owned() });
        };
        let password = self.password.is_some() || self.password_file.is_some();
        let token = self.token.is_some() || self.token_file.is_some();
        let nkey = self.nkey_seed.is_some() || self.nkey_seed_file.is_some();
        if self.username.is_some() && !password {
            let how = "a password, by nats.auth.password_file or the variable PREDLOG_NATS__AUTH__PASSWORD";
            wrong("password", "not set", how);
        }
        if self.username.is_none() && password {
            wrong("username", "not set", "the user of nats.auth.password");
        }
        let ways = [
            ("credentials_file", self.credentials_file.is_some()),
            ("username", self.username.is_some()),
            ("token", token),
            ("nkey_seed", nkey),
        ];
        let given: Vec<&str> = ways.iter().filter(|(_, given)| *given).map(|(key, _)| *key).collect();
        if let [first, second, ..] = given[..] {
            wrong(second, "set", &format!("nothing beside nats.auth.{first}: remove one of them"));
        }
        problems
    }

    /// How, for people.
    pub fn method(&self) -> &'static str {
        if self.credentials_file.is_some() {
            "credentials"
        } else if self.username.is_some() {
            "password"
        } else if self.token.is_some() || self.token_file.is_some() {
            "token"
        } else if self.nkey_seed.is_some() || self.nkey_seed_file.is_some() {
            "nkey"
        } else {
            "none"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_never_shown() {
        let mut settings = NatsSettings::default();
        settings.auth.password = Some(Secret::new("hunter2"));
        settings.auth.token = Some(Secret::new("hunter2"));
        settings.auth.nkey_seed = Some(Secret::new("hunter2"));
        settings.servers = Servers("nats://me:hunter2,hunter2@a:4222, hunter2@b,tls://c".to_owned());
        let problem = &settings.servers.problems()[0];
        let shown = format!("{settings:?}{}{}", serde_json::to_string(&settings).unwrap(), problem.value);
        assert!(!shown.contains("hunter2"), "{shown}");
        assert!(problem.value.contains("***@b,tls://c") && problem.expected.contains("[nats.auth]"), "{}", problem.value);
    }

    #[test]
    fn servers_are_urls_or_hosts() {
        for good in ["nats://localhost:4222", "a", "a:1,tls://b:2", "nats://[::1]:4222", "[::1]"] {
            assert!(Servers(good.to_owned()).problems().is_empty(), "{good}");
        }
        for bad in ["", "a,", "http://a", "nats://", "a:port", "nats://a:1/x"] {
            assert_eq!(Servers(bad.to_owned()).problems().len(), 1, "{bad}");
        }
    }
}
