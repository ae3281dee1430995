//! From the settings to a connection.

use super::settings::NatsSettings;
#[cfg(feature = "cli")]
use super::stream;
use crate::sink::broker::settings::secret;
use async_nats::rustls::crypto::{CryptoProvider, ring};
use async_nats::{Client, ConnectOptions, ServerAddr};
use std::path::Path;
use std::time::Duration;

/// A new connection in a second, not in four: the records wait on disk meanwhile.
const RECONNECT_MAX: Duration = Duration::from_secs(1);
/// A server that does not answer three of these is given up for another connection.
const PING_EVERY: Duration = Duration::from_secs(10);

/// The servers, and how to talk to them.
pub(super) struct Target {
    servers: Vec<ServerAddr>,
    options: ConnectOptions,
}

impl Target {
    /// # Errors
    /// A file that cannot be read, or is no such file, by key and path.
    pub(super) fn new(settings: &NatsSettings) -> Result<Self, String> {
        let servers: Result<_, _> = settings.servers.urls().map(str::parse).collect();
        let servers = servers.map_err(|error| format!("nats.servers={}: {error}", settings.servers))?;
        Ok(Target { servers, options: options(settings)? })
    }

    /// Connects in the background, again and again. `capacity` commands may wait for the connection.
    ///
    /// # Errors
    /// None by now: the servers are parsed.
    pub(super) async fn connect(
        self,
        capacity: usize,
        on_event: impl Fn(async_nats::Event) + Send + Sync + 'static,
    ) -> Result<Client, String> {
        let report = move |event| {
            on_event(event);
            std::future::ready(())
        };
        let options = self.options.retry_on_initial_connect().client_capacity(capacity).event_callback(report);
        options.connect(self.servers).await.map_err(|error| format!("nats: {error}"))
    }

    /// Connects once.
    #[cfg(feature = "cli")]
    pub(super) async fn connect_once(self) -> Result<Client, String> {
        self.options.connect(self.servers).await.map_err(|error| {
            let source = std::error::Error::source(&error).map_or_else(String::new, |source| format!(": {source}"));
            format!("cannot connect: {error}{source}")
        })
    }
}

fn options(settings: &NatsSettings) -> Result<ConnectOptions, String> {
    let (auth, tls) = (&settings.auth, &settings.tls);
    let mut options = ConnectOptions::new()
        .name("predlog")
        .ping_interval(PING_EVERY)
        .reconnect_delay_callback(|attempt| reconnect_delay(attempt).min(RECONNECT_MAX));
    if let Some(path) = &auth.credentials_file {
        let explain = |error| format!("cannot read nats.auth.credentials_file={}: {error}", path.display());
        let text = std::fs::read_to_string(path).map_err(explain)?;
        options = options.credentials(&text).map_err(explain)?;
    }
    if let Some(username) = &auth.username {
        let password = secret("nats.auth.password_file", auth.password.as_ref(), auth.password_file.as_deref())?;
        let password = password.as_ref().map_or("", |password| password.reveal());
        options = options.user_and_password(username.clone(), password.to_owned());
    }
    if let Some(token) = secret("nats.auth.token_file", auth.token.as_ref(), auth.token_file.as_deref())? {
        options = options.token(token.reveal().to_owned());
    }
    if let Some(path) = &tls.ca_file {
        readable("nats.tls.ca_file", path)?;
        options = options.add_root_certificates(path.clone()).require_tls(true);
    }
    if let (Some(cert), Some(key)) = (&tls.cert_file, &tls.key_file) {
        readable("nats.tls.cert_file", cert)?;
        readable("nats.tls.key_file", key)?;
        options = options.add_client_certificate(cert.clone(), key.clone()).require_tls(true);
    }
    // The client asks for the process's default, and panics where a build has two and nobody has chosen.
    if CryptoProvider::get_default().is_none() && ring::default_provider().install_default().is_err() {
        tracing::debug!("another thread chose the process's TLS provider in the same moment");
    }
    Ok(options)
}

/// Each connection reads the file again: that it cannot be read is to be known at the start.
fn readable(key: &str, path: &Path) -> Result<(), String> {
    std::fs::File::open(path).map(drop).map_err(|error| format!("cannot read {key}={}: {error}", path.display()))
}

fn reconnect_delay(attempt: usize) -> Duration {
    let doublings = u32::try_from(attempt.saturating_sub(1)).unwrap_or(u32::MAX).min(10);
    if doublings == 0 { Duration::ZERO } else { Duration::from_millis(1 << doublings) }
}

/// What `predlog check` asks: whether a server answers, takes messages as large as ours, and has the stream, or makes it.
///
/// # Errors
/// What is wrong, and what to do.
#[cfg(feature = "cli")]
pub(crate) fn check(settings: &NatsSettings, ledger: bool, within: Duration) -> Result<String, String> {
    let target = Target::new(settings)?;
    let wanted = stream::Wanted::new(settings)?;
    let statements = ledger.then(|| stream::Wanted::ledger(settings)).transpose()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("cannot start the runtime: {error}"))?;
    let tried = runtime.block_on(async {
        tokio::time::timeout(within, async {
            let client = target.connect_once().await?;
            let (most, ours) = (client.max_payload() as u64, settings.max_message_bytes.as_u64());
            if ours > most {
                return Err(format!(
                    "nats.max_message_bytes={ours} is more than the server's max_payload={most}: set one to the other"
                ));
            }
            wanted.ask(&client).await?;
            match statements {
                Some(statements) => {
                    statements.ask_or_other(&client).await.map_err(|why| format!("{why}, or ledger.enabled = false"))
                }
                None => Ok(()),
            }
        })
        .await
    });
    // A resolver that hangs must not hold the answer up.
    runtime.shutdown_background();
    tried.unwrap_or_else(|_| Err(format!("no answer within {within:?}")))?;
    Ok(format!("{} answer, stream={} takes subject={}", settings.servers, settings.stream, settings.subject))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_missing_is_named() {
        let mut settings = NatsSettings::default();
        settings.auth.credentials_file = Some("/nowhere/a.creds".into());
        assert!(Target::new(&settings).err().unwrap().contains("nats.auth.credentials_file=/nowhere/a.creds"));
        settings.auth.credentials_file = None;
        settings.tls.ca_file = Some("/nowhere/ca.pem".into());
        assert!(Target::new(&settings).err().unwrap().contains("nats.tls.ca_file=/nowhere/ca.pem"));
    }
}
