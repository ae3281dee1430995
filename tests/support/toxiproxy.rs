//! Toxiproxy: a TCP proxy that slows, cuts and starves connections when told.

use super::process::{Service, http, installed};
use serde_json::{Value, json};
use std::{
    net::SocketAddr,
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
};
use tempfile::TempDir;

const PROGRAM: &str = "bin/toxiproxy-server";

/// A running toxiproxy. It is killed when dropped, and its proxies with it.
pub struct Toxiproxy {
    service: Service,
    api: SocketAddr,
    next: AtomicU32,
    _directory: TempDir,
}

impl Toxiproxy {
    /// Whether it is installed: it is built by Go, and there is no substitute where Go is missing.
    pub fn installed() -> bool {
        installed(PROGRAM).is_some()
    }

    /// Starts it on a free port.
    pub fn start() -> Self {
        let program = installed(PROGRAM).expect("toxiproxy is not installed: run tests/services/install.sh (it needs Go)");
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        let (service, api) = Service::start("toxiproxy", &directory.path().join("log"), "/version", |address| {
            let mut command = Command::new(&program);
            command.args(["-host", "127.0.0.1", "-port", &address.port().to_string()]);
            command
        });
        Self { service, api, next: AtomicU32::new(0), _directory: directory }
    }

    /// Where its REST API listens.
    pub fn address(&self) -> SocketAddr {
        self.api
    }

    /// A proxy in front of `upstream`, at a free port.
    pub fn proxy(&self, upstream: SocketAddr) -> Proxy {
        let name = format!("proxy-{}", self.next.fetch_add(1, Ordering::Relaxed));
        let wanted = json!({"name": name, "listen": "127.0.0.1:0", "upstream": upstream.to_string(), "enabled": true});
        let made = call(self.api, "POST", "/proxies", &wanted);
        let listen = made["listen"].as_str().and_then(|listen| listen.parse().ok());
        let listen = listen.unwrap_or_else(|| panic!("toxiproxy names no address: {made}"));
        Proxy { api: self.api, path: format!("/proxies/{name}"), listen }
    }
}

/// One proxy of a [`Toxiproxy`].
pub struct Proxy {
    api: SocketAddr,
    path: String,
    listen: SocketAddr,
}

impl Proxy {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.listen
    }

    /// `http://` and the address.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.listen)
    }

    /// Adds a toxic, such as `{"type": "bandwidth", "stream": "upstream", "attributes": {"rate": 1}}` (KB/s).
    ///
    /// The types are latency, down, bandwidth, slow_close, timeout, reset_peer, slicer and limit_data.
    pub fn add_toxic(&self, toxic: &Value) {
        call(self.api, "POST", &format!("{}/toxics", self.path), toxic);
    }

    /// Takes all toxics away.
    pub fn remove_toxics(&self) {
        let toxics = call(self.api, "GET", &format!("{}/toxics", self.path), &Value::Null);
        for toxic in toxics.as_array().expect("toxics are a list") {
            let name = toxic["name"].as_str().expect("a toxic has a name");
            call(self.api, "DELETE", &format!("{}/toxics/{name}", self.path), &Value::Null);
        }
    }

    /// Cuts all connections and refuses new ones.
    pub fn disable(&self) {
        call(self.api, "POST", &self.path, &json!({"enabled": false}));
    }

    /// Listens again, at the same address.
    pub fn enable(&self) {
        call(self.api, "POST", &self.path, &json!({"enabled": true}));
    }
}

fn call(api: SocketAddr, method: &str, path: &str, body: &Value) -> Value {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let (status, answer) = http(method, api, path, &body).unwrap_or_else(|error| panic!("{method} {path} of toxiproxy: {error}"));
    assert!((200..300).contains(&status), "{method} {path} of toxiproxy with {body}: {status} {answer}");
    if answer.is_empty() { Value::Null } else { serde_json::from_str(&answer).expect("toxiproxy answers in JSON") }
}
