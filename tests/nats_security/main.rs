//! NATS with TLS and with each kind of authentication: who is refused keeps its records, says why and shows no secret, and all arrive once when it is healed.

mod jwt;
#[path = "../support/mod.rs"]
mod support;

use async_nats::ConnectOptions;
use jwt::Operator;
use nkeys::KeyPair;
use predlog::{Config, Guard, Logger, Outcome};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;
use support::certificates::Certificates;
use support::nats::{Nats, Stored};
use support::process::wait_until;
use tempfile::TempDir;

const LIMIT: Duration = Duration::from_secs(60);
const SECRET: &str = "hunter2hunter2";
const PASSWORD: &str = "authorization { users: [ { user: me, password: hunter2hunter2 } ] }";

/// A logger's side: a directory, and a configuration that says how it is let in.
struct Client {
    dir: TempDir,
    text: String,
    /// What nothing may show.
    secrets: Vec<String>,
}

impl Client {
    /// `security` has `[nats.tls]` and `[nats.auth]`; `FILE` in it is the path of a file, with `content`.
    fn new(servers: &str, security: &str, content: &str) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let fallback = dir.path().join("data");
        let text = format!(
            "mode = \"nats\"\n[nats]\nservers = \"{servers}\"\nsubject = \"s.{{model_name}}\"\nstream = \"s\"\ncreate_stream = true\ndeadline = \"1s\"\n\
             [nats.fallback]\ndir = {fallback:?}\n{}",
            security.replace("FILE", dir.path().join("file").to_str().expect("UTF-8"))
        );
        let client = Client { dir, text, secrets: vec![SECRET.to_owned()] };
        client.replace_file(content);
        client
    }

    fn replace_file(&self, content: &str) {
        std::fs::write(self.dir.path().join("file"), content).expect("a file");
    }

    fn config(&self) -> Config {
        Config::from_toml(&self.text).expect("a configuration")
    }

    fn shows_no_secret(&self, shown: &str) {
        assert!(!self.secrets.iter().any(|secret| shown.contains(secret)), "{shown}");
    }

    /// Whether `predlog check` finds all well, and what it says, with all that it and the NATS client can log.
    fn check(&self) -> (bool, String) {
        let file = self.dir.path().join("predlog.toml");
        std::fs::write(&file, &self.text).expect("a file");
        let mut check = Command::new(env!("CARGO_BIN_EXE_predlog"));
        check.args(["check", "--config"]).arg(file).env_remove("PREDLOG_CONFIG").env("RUST_LOG", "trace");
        let output = check.output().expect("it runs");
        let said = String::from_utf8([output.stdout, output.stderr].concat()).expect("UTF-8");
        self.shows_no_secret(&said);
        let told = said.lines().filter(|line| line.starts_with("ok: ") || line.starts_with("error: ")).collect::<Vec<_>>();
        (output.status.success(), told.join("\n"))
    }
}

/// A logger and what it accepted.
struct Run<'a> {
    client: &'a Client,
    logger: Logger,
    guard: Guard,
    accepted: u64,
}

impl<'a> Run<'a> {
    fn start(client: &'a Client) -> Self {
        let (logger, guard) = Logger::open(&client.config()).expect("the logger opens, whatever the servers do");
        Run { client, logger, guard, accepted: 0 }
    }

    fn log(&mut self) {
        for _ in 0..500 {
            let outcome = self.logger.log_parts("wine", "1", &json!({"n": self.accepted}), &0.5);
            assert!(matches!(outcome, Outcome::Accepted { .. }), "{outcome:?}");
            self.accepted += 1;
        }
    }

    /// Logs while the servers refuse it: all is accepted, and health says why it is not delivered.
    fn log_refused(&mut self, why: &str) {
        self.log();
        wait_until("it is said why", LIMIT, || self.logger.health().is_err_and(|said| said.contains(why)));
        self.log();
        let (config, health) = (self.client.config(), self.logger.health());
        self.client.shows_no_secret(&format!("{health:?}{:?}{config:?}{:?}", self.logger, self.logger.snapshot()));
    }

    fn every_record_is_stored_once(self, nats: &Nats) {
        assert!(self.logger.flush(LIMIT), "{:?}", self.logger.health());
        let report = self.guard.shutdown(LIMIT);
        assert_eq!((report.accepted, report.delivered, report.on_disk), (self.accepted, self.accepted, 0), "{report:?}");
        let mut times = BTreeMap::new();
        for line in nats.stored("s").iter().flat_map(Stored::lines) {
            let record: Value = serde_json::from_slice(line).expect("JSON");
            *times.entry(record["inputs"]["n"].as_u64().expect("a number")).or_insert(0) += 1;
        }
        assert_eq!(times, (0..self.accepted).map(|n| (n, 1)).collect());
    }
}

/// A server that refuses the client from the start, lets it in, refuses it again and lets it in for good.
fn is_refused_and_healed(nats: &mut Nats, client: &Client, [refuses, accepts]: [&str; 2], [why, advice]: [&str; 2]) {
    let (well, said) = client.check();
    assert!(!well && said.contains(why) && said.contains(advice), "{said}");
    let mut run = Run::start(client);
    run.log_refused(why);
    nats.restart_with(accepts);
    assert!(run.logger.flush(LIMIT), "{:?}", run.logger.health());
    let (well, said) = client.check();
    assert!(well && said.contains("stream=s takes subject=s.{model_name}"), "{said}");
    run.log();
    nats.restart_with(refuses);
    run.log_refused(why);
    nats.restart_with(accepts);
    run.log();
    run.every_record_is_stored_once(nats);
}

/// Each with a secret in the configuration, and with one in a file.
fn authentication(login: ConnectOptions, server: [&str; 2], key: &str, secret: &str) {
    for (security, content) in
        [(format!("[nats.auth]\n{key} = \"{secret}\""), ""), (format!("[nats.auth]\n{key}_file = \"FILE\""), secret)]
    {
        let mut nats = Nats::start_secured(server[0], login.clone());
        let mut client = Client::new(&nats.url(), &security, &format!("{content}\n"));
        client.secrets.push(secret.to_owned());
        is_refused_and_healed(&mut nats, &client, server, ["authorization violation", "set [nats.auth]"]);
    }
}

#[test]
fn a_token_lets_in() {
    let server = ["authorization { token: other }", "authorization { token: hunter2hunter2 }"];
    authentication(ConnectOptions::with_token(SECRET.to_owned()), server, "token", SECRET);
}

#[test]
fn a_password_lets_in() {
    let login = ConnectOptions::with_user_and_password("me".to_owned(), SECRET.to_owned());
    let server = ["authorization { users: [ { user: me, password: other } ] }", PASSWORD];
    authentication(login, server, "username = \"me\"\npassword", SECRET);
}

#[test]
fn an_nkey_lets_in() {
    let (user, other) = (KeyPair::new_user(), KeyPair::new_user());
    let seed = user.seed().expect("it was made with its seed");
    let server = [other, user].map(|key| format!("authorization {{ users: [ {{ nkey: {} }} ] }}", key.public_key()));
    authentication(ConnectOptions::with_nkey(seed.clone()), [&server[0], &server[1]], "nkey_seed", &seed);
}

fn credentials(operator: &Operator) -> ConnectOptions {
    ConnectOptions::with_credentials(&operator.credentials(None)).expect("credentials")
}

#[test]
fn a_credentials_file_lets_in() {
    let operator = Operator::new();
    let server = [operator.server(false), operator.server(true)];
    let mut nats = Nats::start_secured(&server[0], credentials(&operator));
    let security = "[nats.auth]\ncredentials_file = \"FILE\"";
    let mut client = Client::new(&nats.url(), security, &operator.credentials(None));
    client.secrets.push(operator.seed());
    is_refused_and_healed(&mut nats, &client, [&server[0], &server[1]], ["authorization violation", "set [nats.auth]"]);
}

/// What people do with short-lived credentials: no restart.
#[test]
fn credentials_that_have_expired_are_replaced_in_their_file() {
    let operator = Operator::new();
    let nats = Nats::start_secured(&operator.server(true), credentials(&operator));
    let security = "[nats.auth]\ncredentials_file = \"FILE\"";
    let client = Client::new(&nats.url(), security, &operator.credentials(Some(1_700_000_100)));
    let mut run = Run::start(&client);
    run.log_refused("authorization violation");
    client.replace_file("half a fi");
    run.log_refused("expected a .creds file");
    client.replace_file(&operator.credentials(Some(4_000_000_000)));
    run.every_record_is_stored_once(&nats);
}

/// `name`'s certificate for the server, and with `clients` those of that CA alone.
fn tls(certificates: &Certificates, name: &str, clients: Option<PathBuf>) -> String {
    let (cert, key) = certificates.pair(name);
    let verify = clients.map(|ca| format!("verify: true, ca_file: {ca:?}")).unwrap_or_default();
    format!("tls {{ cert_file: {cert:?}, key_file: {key:?}, {verify} }}")
}

/// How the tests connect themselves, where any client's certificate of ours is good.
fn tls_login(certificates: &Certificates) -> ConnectOptions {
    // Two providers are compiled in, and the client does not choose.
    drop(async_nats::rustls::crypto::aws_lc_rs::default_provider().install_default());
    let (cert, key) = certificates.pair("client");
    ConnectOptions::new().add_root_certificates(certificates.ca()).add_client_certificate(cert, key).require_tls(true)
}

struct Pki {
    certificates: Certificates,
    _dir: TempDir,
}

impl Pki {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        Pki { certificates: Certificates::make(&dir.path().join("certificates")), _dir: dir }
    }

    /// `[nats.tls]` with our CA, and with the certificate of `client`.
    fn section(&self, client: Option<&str>) -> String {
        let mut section = format!("[nats.tls]\nca_file = {:?}\n", self.certificates.ca());
        if let Some((cert, key)) = client.map(|name| self.certificates.pair(name)) {
            section += &format!("cert_file = {cert:?}\nkey_file = {key:?}\n");
        }
        section
    }

    fn is_refused_and_healed(&self, security: &str, server: [&str; 2], said: [&str; 2]) {
        let mut nats = Nats::start_secured(server[0], tls_login(&self.certificates));
        let client = Client::new(&nats.url(), security, "");
        is_refused_and_healed(&mut nats, &client, server, said);
    }
}

#[test]
fn a_server_whose_certificate_another_ca_signed_is_not_trusted() {
    let pki = Pki::new();
    let server = ["other-server", "server"].map(|name| tls(&pki.certificates, name, None));
    let said = ["invalid peer certificate: UnknownIssuer", "set nats.tls.ca_file"];
    pki.is_refused_and_healed(&pki.section(None), [&server[0], &server[1]], said);
}

#[test]
fn a_certificate_of_another_name_is_not_trusted() {
    let pki = Pki::new();
    let server = ["client", "server"].map(|name| tls(&pki.certificates, name, None));
    pki.is_refused_and_healed(&pki.section(None), [&server[0], &server[1]], ["invalid peer certificate", "the names in them"]);
}

#[test]
fn without_a_ca_of_its_own_the_systems_are_asked() {
    let pki = Pki::new();
    let nats = Nats::start_secured(&tls(&pki.certificates, "server", None), tls_login(&pki.certificates));
    let client = Client::new(&nats.url().replace("nats://", "tls://"), "", "");
    let (well, said) = client.check();
    assert!(!well && said.contains("UnknownIssuer") && said.contains("set nats.tls.ca_file"), "{said}");
}

#[test]
fn a_server_that_wants_a_clients_certificate_gets_it() {
    let pki = Pki::new();
    let server = [pki.certificates.other_ca(), pki.certificates.ca()].map(|ca| tls(&pki.certificates, "server", Some(ca)));
    let said = ["received fatal alert", "set nats.tls.cert_file and nats.tls.key_file"];
    pki.is_refused_and_healed(&pki.section(Some("client")), [&server[0], &server[1]], said);
}

#[test]
fn who_has_no_certificate_is_told_that_one_is_wanted() {
    let pki = Pki::new();
    let server = [Some(pki.certificates.ca()), None].map(|clients| tls(&pki.certificates, "server", clients));
    let said = ["received fatal alert: CertificateRequired", "set nats.tls.cert_file and nats.tls.key_file"];
    pki.is_refused_and_healed(&pki.section(None), [&server[0], &server[1]], said);
}

#[test]
fn a_ca_file_that_is_replaced_needs_no_restart() {
    let pki = Pki::new();
    let nats = Nats::start_secured(&tls(&pki.certificates, "server", None), tls_login(&pki.certificates));
    let read = |path: PathBuf| std::fs::read_to_string(path).expect("a certificate");
    let client = Client::new(&nats.url(), "[nats.tls]\nca_file = \"FILE\"", &read(pki.certificates.other_ca()));
    let mut run = Run::start(&client);
    run.log_refused("UnknownIssuer");
    client.replace_file(&read(pki.certificates.ca()));
    run.every_record_is_stored_once(&nats);
}

#[test]
fn a_certificate_and_a_password_go_together() {
    let pki = Pki::new();
    let tls = tls(&pki.certificates, "server", Some(pki.certificates.ca()));
    let server = [PASSWORD.replace(SECRET, "other"), PASSWORD.to_owned()].map(|auth| format!("{tls}\n{auth}"));
    let login = tls_login(&pki.certificates).user_and_password("me".to_owned(), SECRET.to_owned());
    let mut nats = Nats::start_secured(&server[0], login);
    let security = format!("{}[nats.auth]\nusername = \"me\"\npassword = \"{SECRET}\"", pki.section(Some("client")));
    let client = Client::new(&nats.url(), &security, "");
    is_refused_and_healed(&mut nats, &client, [&server[0], &server[1]], ["authorization violation", "set [nats.auth]"]);
}

/// A server in the middle may say that it has no TLS.
#[test]
fn a_password_is_never_sent_in_the_clear_where_tls_is_asked_for() {
    let pki = Pki::new();
    let server = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("nats://{}", server.local_addr().expect("its address"));
    let heard = std::thread::spawn(move || {
        let mut connection = server.accept().expect("a client").0;
        let info = "INFO {\"server_id\":\"x\",\"version\":\"2.15.2\",\"max_payload\":1048576,\"headers\":true,\"auth_required\":true}\r\n";
        connection.write_all(info.as_bytes()).expect("it is sent");
        let mut first = vec![0; 4096];
        let length = connection.read(&mut first).expect("it answers");
        first.truncate(length);
        first
    });
    let security = format!("{}[nats.auth]\nusername = \"me\"\npassword = \"{SECRET}\"", pki.section(None));
    assert!(!Client::new(&url, &security, "").check().0);
    let first = heard.join().expect("what it sent");
    // A handshake, of which nothing is secret.
    assert_eq!(first.first(), Some(&0x16), "{}", String::from_utf8_lossy(&first));
}
