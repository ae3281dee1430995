//! A Schema Registry: Apicurio, by the same API as Confluent's.

use super::process::{Service, http, installed};
use std::{fs, net::SocketAddr, path::Path, process::Command};
use tempfile::TempDir;

/// Where the API of Confluent's registry is.
const API: &str = "/apis/ccompat/v7";

/// A running registry that keeps its schemas in a temporary directory. It is killed when dropped.
pub struct Registry {
    service: Service,
    address: SocketAddr,
    directory: TempDir,
}

impl Registry {
    /// Starts it on a free port and waits until it answers. A new version of a schema must be able to read what older ones wrote
    /// (compatibility BACKWARD), as in Confluent's registry by default.
    pub fn start() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        let (service, address) =
            Service::start("Apicurio", &log(&directory), &ready(), |address| command(directory.path(), address));
        let registry = Self { service, address, directory };
        registry.set_compatibility("BACKWARD");
        registry
    }

    /// `http://`, the address and the path of the API.
    pub fn url(&self) -> String {
        format!("http://{}{API}", self.address)
    }

    /// Where it listens, for a proxy in front of it.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What a new version of any schema must be: `NONE`, `BACKWARD`, `FORWARD` or `FULL`.
    pub fn set_compatibility(&self, level: &str) {
        let wanted = format!(r#"{{"compatibility":"{level}"}}"#);
        let answer = self.request("PUT", "/config", &wanted);
        assert!(matches!(answer, (200, _)), "the compatibility {level} is refused: {answer:?}");
    }

    /// One request, such as `GET /subjects`: its status and its body.
    pub fn request(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        let path = format!("{API}{path}");
        http(method, self.address, &path, body).unwrap_or_else(|error| panic!("{method} {path} of the registry: {error}"))
    }

    /// Stops it where it is, as `kill -STOP` does: connections stay open, and nothing answers.
    pub fn pause(&self) {
        self.service.pause();
    }

    /// Lets it go on after [`Registry::pause`].
    pub fn resume(&self) {
        self.service.resume();
    }

    /// Kills it as `kill -9` does.
    pub fn kill(&mut self) {
        self.service.kill();
    }

    /// Starts it after [`Registry::kill`], at the same address and with the same schemas.
    pub fn restart(&mut self) {
        self.service.kill();
        let command = command(self.directory.path(), self.address);
        self.service = Service::start_at("Apicurio", &log(&self.directory), &ready(), self.address, command);
    }
}

fn log(directory: &TempDir) -> std::path::PathBuf {
    directory.path().join("log")
}

fn ready() -> String {
    format!("{API}/subjects")
}

fn command(directory: &Path, address: SocketAddr) -> Command {
    let folder = installed("registry").expect("Apicurio is not installed: run tests/services/install.sh registry");
    let mut jars =
        fs::read_dir(&folder).expect("the folder can be read").map(|entry| entry.expect("the folder can be read").path());
    let jar = jars.find(|path| path.to_string_lossy().ends_with("-runner.jar")).expect("Apicurio's folder has its jar");
    let mut command = Command::new("java");
    command.args(["-Xmx256m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"]);
    command.args(["-Dquarkus.http.host=127.0.0.1", &format!("-Dquarkus.http.port={}", address.port())]);
    // By default it keeps schemas in memory. Without the delay a kill does not take what was answered already.
    command.arg(format!("-Dquarkus.datasource.jdbc.url=jdbc:h2:file:{};WRITE_DELAY=0", directory.join("schemas").display()));
    command.arg("-jar").arg(jar);
    command
}
