//! A server as a child process: started on a free port of the loopback, waited for, killed by its id.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// How long a service may take to answer; on a busy machine MinIO takes some seconds.
const STARTUP: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(20);

/// Where `tests/services/install.sh` puts what it installs.
pub fn cache() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(".cache")
}

/// The path of an installed program, if it is there.
pub fn installed(program: &str) -> Option<PathBuf> {
    Some(cache().join(program)).filter(|path| path.exists())
}

/// A port of 127.0.0.1 that nobody listened on a moment ago.
pub fn free_address() -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("the loopback has a free port");
    listener.local_addr().expect("a bound socket has an address")
}

/// Waits until `condition` holds; panics with `what` when it does not within `limit`.
#[track_caller]
pub fn wait_until(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + limit;
    while !condition() {
        assert!(Instant::now() < deadline, "waited {limit:?} in vain: {what}");
        thread::sleep(POLL);
    }
}

/// A running child process, killed when dropped.
pub struct Service {
    name: &'static str,
    child: Child,
    log: PathBuf,
}

/// How a start went.
enum Startup {
    Ready,
    Exited,
}

impl Service {
    /// Starts what `command` makes for a free address, and waits until GET `ready` answers 200 there.
    ///
    /// Between the choice of a port and its use another process can take it: then the service exits, and another port is tried.
    pub fn start(name: &'static str, log: &Path, ready: &str, command: impl Fn(SocketAddr) -> Command) -> (Self, SocketAddr) {
        for _ in 0..4 {
            let address = free_address();
            let mut service = Self::spawn(name, log, command(address));
            match service.wait_ready(address, ready) {
                Startup::Ready => return (service, address),
                Startup::Exited => continue,
            }
        }
        panic!("{name} exits when it is started; its log ends:\n{}", tail(log));
    }

    /// As [`Service::start`], at a given address.
    pub fn start_at(name: &'static str, log: &Path, ready: &str, address: SocketAddr, command: Command) -> Self {
        let mut service = Self::spawn(name, log, command);
        match service.wait_ready(address, ready) {
            Startup::Ready => service,
            Startup::Exited => panic!("{name} exits when it is started at {address}; its log ends:\n{}", tail(log)),
        }
    }

    fn spawn(name: &'static str, log: &Path, mut command: Command) -> Self {
        let output = File::options().create(true).append(true).open(log).expect("the log file can be opened");
        let errors = output.try_clone().expect("a file handle can be cloned");
        let child = command.stdin(Stdio::null()).stdout(output).stderr(errors).spawn();
        let child = child.unwrap_or_else(|error| panic!("{name} does not start: {error}: {command:?}"));
        Self { name, child, log: log.to_path_buf() }
    }

    fn wait_ready(&mut self, address: SocketAddr, path: &str) -> Startup {
        let deadline = Instant::now() + STARTUP;
        loop {
            if self.child.try_wait().expect("a child can be waited for").is_some() {
                return Startup::Exited;
            }
            // Another process may have taken the port and answer in our child's place, so the child is asked for once more.
            if matches!(http("GET", address, path, ""), Ok((200, _))) {
                return match self.child.try_wait().expect("a child can be waited for") {
                    None => Startup::Ready,
                    Some(_) => Startup::Exited,
                };
            }
            let name = self.name;
            assert!(
                Instant::now() < deadline,
                "{name} does not answer 200 at http://{address}{path} within {STARTUP:?}; its log ends:\n{}",
                tail(&self.log)
            );
            thread::sleep(POLL);
        }
    }

    /// Waits until `condition` holds; panics with the end of the log when it does not in time.
    pub fn wait_until(&self, what: &str, mut condition: impl FnMut() -> bool) {
        let deadline = Instant::now() + STARTUP;
        while !condition() {
            let name = self.name;
            assert!(
                Instant::now() < deadline,
                "{name}: waited {STARTUP:?} in vain until {what}; its log ends:\n{}",
                tail(&self.log)
            );
            thread::sleep(POLL);
        }
    }

    /// Kills it as `kill -9` does, and waits until it is gone.
    pub fn kill(&mut self) {
        // An error means that it has already exited.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.kill();
    }
}

fn tail(log: &Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}

/// One HTTP request to a server on this machine: its status and its body.
///
/// In HTTP/1.0 an answer ends where the connection does, so that there is nothing to parse.
pub fn http(method: &str, address: SocketAddr, path: &str, body: &str) -> io::Result<(u16, String)> {
    let limit = Some(Duration::from_secs(10));
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(limit)?;
    stream.set_write_timeout(limit)?;
    let length = body.len();
    write!(stream, "{method} {path} HTTP/1.0\r\nHost: {address}\r\nContent-Length: {length}\r\n\r\n{body}")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").ok_or(io::ErrorKind::UnexpectedEof)?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    Ok((status.ok_or(io::ErrorKind::InvalidData)?, body.to_owned()))
}
