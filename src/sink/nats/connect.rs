//! From the settings to a connection.

use super::auth::Login;
use super::settings::{NatsSettings, TlsSettings};
#[cfg(feature = "cli")]
use super::stream;
use async_nats::rustls::crypto::{CryptoProvider, aws_lc_rs};
use async_nats::rustls::pki_types::pem::PemObject;
use async_nats::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use async_nats::{AuthError, Client, ConnectOptions, Server, ServerAddr};
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

    /// Connects in the background, again and again. `capacity` commands may wait for the connection. `on_failure` is told why the servers were not
    /// reached: the client's own events say no more than that TLS or the network is at fault.
    ///
    /// # Errors
    /// None by now: the servers are parsed.
    pub(super) async fn connect(
        self,
        capacity: usize,
        on_event: impl Fn(async_nats::Event) + Send + Sync + 'static,
        on_failure: impl Fn(String) + Send + Sync + 'static,
    ) -> Result<Client, String> {
        let report = move |event| {
            on_event(event);
            std::future::ready(())
        };
        let before_each_try = move |servers: Vec<Server>, _| {
            failures(&servers).into_iter().for_each(&on_failure);
            std::future::ready(None)
        };
        let options = self.options.retry_on_initial_connect().client_capacity(capacity).event_callback(report);
        let options = options.reconnect_to_server_callback(before_each_try);
        options.connect(self.servers).await.map_err(|error| format!("nats: {error}"))
    }

    /// Connects once.
    #[cfg(feature = "cli")]
    pub(super) async fn connect_once(self) -> Result<Client, String> {
        self.options.connect(self.servers).await.map_err(|error| format!("cannot connect: {error}{}", advice(&error)))
    }
}

/// Why each server could not be reached the last time.
fn failures(servers: &[Server]) -> Option<String> {
    let of_each = servers.iter().filter_map(|server| {
        let why = server.last_error.as_ref()?;
        Some(format!("{}:{}: {why}", server.addr.host(), server.addr.port()))
    });
    Some(of_each.collect::<Vec<_>>().join("; ")).filter(|all| !all.is_empty())
}

/// What to do about it.
#[cfg(feature = "cli")]
fn advice(error: &async_nats::ConnectError) -> &'static str {
    use async_nats::ConnectErrorKind::{Authentication, AuthorizationViolation};
    use async_nats::rustls::Error;
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref::<std::io::Error>());
    let tls = source.and_then(|source| source.get_ref()?.downcast_ref::<Error>());
    match (error.kind(), tls) {
        (AuthorizationViolation | Authentication, _) => ": set [nats.auth] to what the servers accept",
        (_, Some(Error::InvalidCertificate(_))) => {
            ": set nats.tls.ca_file to the CA of the servers' certificates, and nats.servers to the names in them"
        }
        (_, Some(Error::AlertReceived(_))) => {
            ": set nats.tls.cert_file and nats.tls.key_file to a certificate that the servers accept"
        }
        (_, Some(_)) => ": does the server speak TLS?",
        _ => "",
    }
}

fn options(settings: &NatsSettings) -> Result<ConnectOptions, String> {
    let (auth, tls) = (settings.auth.clone(), &settings.tls);
    // What is wrong with the files is to be known at the start.
    Login::read(&auth)?;
    check_files(tls)?;
    let log_in = move |nonce: Vec<u8>| {
        let answer = Login::read(&auth).and_then(|login| login.answer(&nonce).map_err(|error| error.to_string()));
        std::future::ready(answer.map_err(AuthError::new))
    };
    let mut options = ConnectOptions::with_auth_callback(log_in)
        .name("predlog")
        .ping_interval(PING_EVERY)
        .reconnect_delay_callback(|attempt| reconnect_delay(attempt).min(RECONNECT_MAX));
    if let Some(path) = &tls.ca_file {
        options = options.add_root_certificates(path.clone()).require_tls(true);
    }
    if let (Some(cert), Some(key)) = (&tls.cert_file, &tls.key_file) {
        options = options.add_client_certificate(cert.clone(), key.clone()).require_tls(true);
    }
    // The client asks for the process's default, and panics where a build has two and nobody has chosen.
    if CryptoProvider::get_default().is_none() && aws_lc_rs::default_provider().install_default().is_err() {
        tracing::debug!("another thread chose the process's TLS provider in the same moment");
    }
    Ok(options)
}

/// Each connection reads the files again.
fn check_files(tls: &TlsSettings) -> Result<(), String> {
    let check = |key: &str, path: Option<&Path>, expected: &str, has: fn(&[u8]) -> bool| {
        let Some(path) = path else { return Ok(()) };
        match std::fs::read(path) {
            Ok(pem) if has(&pem) => Ok(()),
            Ok(_) => Err(format!("nats.tls.{key}={}: expected {expected} in PEM", path.display())),
            Err(error) => Err(format!("cannot read nats.tls.{key}={}: {error}", path.display())),
        }
    };
    let certificates = |pem: &[u8]| CertificateDer::pem_slice_iter(pem).next().is_some_and(|first| first.is_ok());
    check("ca_file", tls.ca_file.as_deref(), "certificates", certificates)?;
    check("cert_file", tls.cert_file.as_deref(), "a certificate", certificates)?;
    check("key_file", tls.key_file.as_deref(), "a key without a password", |pem| PrivateKeyDer::from_pem_slice(pem).is_ok())
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

    #[test]
    fn a_file_that_is_something_else_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n")
            .unwrap();
        let path = Some(file.path().to_owned());
        let said = |tls: TlsSettings| Target::new(&NatsSettings { tls, ..NatsSettings::default() }).err().unwrap();
        for (tls, expected) in [
            (TlsSettings { ca_file: path.clone(), ..TlsSettings::default() }, "expected certificates in PEM"),
            (TlsSettings { cert_file: path.clone(), ..TlsSettings::default() }, "expected a certificate in PEM"),
            (TlsSettings { key_file: path.clone(), ..TlsSettings::default() }, "expected a key without a password in PEM"),
        ] {
            let why = said(tls);
            assert!(why.contains(expected) && why.contains(file.path().to_str().unwrap()), "{why}");
        }
    }
}
