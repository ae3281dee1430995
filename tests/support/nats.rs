//! NATS: a server with JetStream.

use super::process::{Service, answers, installed};
use std::{fs, net::SocketAddr, path::Path, process::Command};
use tempfile::TempDir;

/// Answers 200 once JetStream has recovered its streams.
const READY: &str = "/healthz?js-enabled-only=true";

/// A running server that keeps its streams in a temporary directory. It is killed when dropped.
pub struct Nats {
    service: Service,
    address: SocketAddr,
    monitor: SocketAddr,
    directory: TempDir,
}

impl Nats {
    /// Starts it on free ports and waits until JetStream is ready.
    pub fn start() -> Self {
        Self::start_with("")
    }

    /// As [`Nats::start`], with more lines in its configuration file, such as `authorization { token: "secret" }`.
    pub fn start_with(configuration: &str) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        let command = |addresses: &[SocketAddr; 2]| {
            configure(directory.path(), addresses, configuration);
            command(directory.path())
        };
        let log = directory.path().join("log");
        let (service, [address, monitor]) = Service::start_on("NATS", &log, command, |[_, monitor]| answers(*monitor, READY));
        Self { service, address, monitor, directory }
    }

    /// `nats://` and the address.
    pub fn url(&self) -> String {
        format!("nats://{}", self.address)
    }

    /// Where it listens, for a proxy in front of it.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops it where it is, as `kill -STOP` does: connections stay open, and nothing answers.
    pub fn pause(&self) {
        self.service.pause();
    }

    /// Lets it go on after [`Nats::pause`].
    pub fn resume(&self) {
        self.service.resume();
    }

    /// Kills it as `kill -9` does.
    pub fn kill(&mut self) {
        self.service.kill();
    }

    /// Starts it after [`Nats::kill`], at the same address and with the same streams.
    pub fn restart(&mut self) {
        self.service.kill();
        let (directory, monitor) = (self.directory.path(), self.monitor);
        self.service = Service::start_again("NATS", &directory.join("log"), command(directory), || answers(monitor, READY));
    }
}

fn configure(directory: &Path, [address, monitor]: &[SocketAddr; 2], more: &str) {
    let store = directory.join("streams");
    let text =
        format!("listen: \"{address}\"\nhttp: \"{monitor}\"\njetstream {{ store_dir: \"{}\" }}\n{more}\n", store.display());
    fs::write(directory.join("nats.conf"), text).expect("the configuration can be written");
}

fn command(directory: &Path) -> Command {
    let program = installed("bin/nats-server").expect("NATS is not installed: run tests/services/install.sh nats");
    let mut command = Command::new(program);
    command.arg("-c").arg(directory.join("nats.conf"));
    command
}
