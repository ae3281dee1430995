//! A server as a child process: started on a free port of the loopback, waited for, killed by its id.

use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
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
    let [address] = free_addresses();
    address
}

/// As [`free_address`], several that differ.
pub fn free_addresses<const N: usize>() -> [SocketAddr; N] {
    // All are held until the last one is known, or the system could give one out twice.
    let listeners = [(); N].map(|()| TcpListener::bind(("127.0.0.1", 0)).expect("the loopback has a free port"));
    listeners.map(|listener| listener.local_addr().expect("a bound socket has an address"))
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

/// A running child process, killed when dropped, or when this process ends without that.
pub struct Service {
    name: &'static str,
    child: Child,
    guard: Child,
    log: PathBuf,
}

impl Service {
    /// Starts what `command` makes for a free address, and waits until GET `ready` answers 200 there.
    pub fn start(name: &'static str, log: &Path, ready: &str, command: impl Fn(SocketAddr) -> Command) -> (Self, SocketAddr) {
        let (service, [address]) = Self::start_on(name, log, |[address]| command(*address), |[address]| answers(*address, ready));
        (service, address)
    }

    /// As [`Service::start`], at a given address.
    pub fn start_at(name: &'static str, log: &Path, ready: &str, address: SocketAddr, command: Command) -> Self {
        Self::start_again(name, log, command, || answers(address, ready))
    }

    /// Starts what `command` makes for free addresses, and waits until it is `ready`.
    ///
    /// Between the choice of a port and its use another process can take it: then the service exits, and other ports are tried.
    pub fn start_on<const N: usize>(
        name: &'static str,
        log: &Path,
        mut command: impl FnMut(&[SocketAddr; N]) -> Command,
        ready: impl Fn(&[SocketAddr; N]) -> bool,
    ) -> (Self, [SocketAddr; N]) {
        for _ in 0..4 {
            let addresses = free_addresses();
            if let Some(service) = Self::try_start(name, log, command(&addresses), || ready(&addresses)) {
                return (service, addresses);
            }
        }
        panic!("{name} exits when it is started; its log ends:\n{}", tail(log));
    }

    /// Starts `command`, whose addresses are given, and waits until it is `ready`.
    pub fn start_again(name: &'static str, log: &Path, command: Command, ready: impl FnMut() -> bool) -> Self {
        let shown = format!("{command:?}");
        Self::try_start(name, log, command, ready)
            .unwrap_or_else(|| panic!("{name} exits when it is started by {shown}; its log ends:\n{}", tail(log)))
    }

    /// `None` when it exits before it is ready.
    fn try_start(name: &'static str, log: &Path, mut command: Command, mut ready: impl FnMut() -> bool) -> Option<Self> {
        let output = File::options().create(true).append(true).open(log).expect("the log file can be opened");
        let errors = output.try_clone().expect("a file handle can be cloned");
        let child = command.stdin(Stdio::null()).stdout(output).stderr(errors).spawn();
        let child = child.unwrap_or_else(|error| panic!("{name} does not start: {error}: {command:?}"));
        let guard = end_with_this_process(&child);
        let mut service = Self { name, child, guard, log: log.to_path_buf() };
        let deadline = Instant::now() + STARTUP;
        loop {
            let ready = ready();
            // Another process may have taken the port and answer in our child's place, so the child is asked for last.
            if service.child.try_wait().expect("a child can be waited for").is_some() {
                return None;
            }
            if ready {
                return Some(service);
            }
            assert!(Instant::now() < deadline, "{name} is not ready within {STARTUP:?}; its log ends:\n{}", tail(log));
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

    /// As [`Service::wait_until`], for as long as `limit`; panics at once when it ends meanwhile.
    pub fn wait_within(&mut self, limit: Duration, what: &str, mut condition: impl FnMut() -> bool) {
        let deadline = Instant::now() + limit;
        while !condition() {
            let ended = self.child.try_wait().expect("a child can be waited for");
            let (name, tail) = (self.name, || tail(&self.log));
            assert!(ended.is_none(), "{name} ended before {what}: {ended:?}; its log ends:\n{}", tail());
            assert!(Instant::now() < deadline, "{name}: waited {limit:?} in vain until {what}; its log ends:\n{}", tail());
            thread::sleep(POLL);
        }
    }

    /// The id of its process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Kills it as `kill -9` does, and waits until it is gone.
    pub fn kill(&mut self) {
        self.dismiss_guard();
        // An error means that it has already exited.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Asks it to end, as `kill` does, and waits until it is gone.
    pub fn stop(&mut self) {
        self.dismiss_guard();
        self.signal(Signal::TERM);
        let child = &mut self.child;
        wait_until(&format!("{} ends", self.name), STARTUP, || child.try_wait().expect("a child can be waited for").is_some());
    }

    /// Stops it where it is: its connections stay open, and nothing answers on them. Returns once it stands still.
    pub fn pause(&self) {
        self.signal(Signal::STOP);
        let stopped = waitpid(Some(Pid::from_child(&self.child)), WaitOptions::UNTRACED).expect("a child can be waited for");
        assert!(stopped.is_some_and(|(_, status)| status.stopped()), "{} ended instead of being paused: {stopped:?}", self.name);
    }

    /// Lets it go on after [`Service::pause`].
    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    /// Before the child is waited for: from then on its id can be another process's.
    fn dismiss_guard(&mut self) {
        let _ = self.guard.kill();
        let _ = self.guard.wait();
    }

    fn signal(&self, signal: Signal) {
        let sent = kill_process(Pid::from_child(&self.child), signal);
        sent.unwrap_or_else(|error| panic!("{} takes no signal: {error}; its log ends:\n{}", self.name, tail(&self.log)));
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A process that kills `child` when this one is gone, which is when the pipe to it closes. What a static holds is never dropped, and
/// a test that is killed drops nothing.
pub fn end_with_this_process(child: &Child) -> Child {
    let mut shell = Command::new("sh");
    shell.args(["-c", "read -r _; kill -9 \"$0\"", &child.id().to_string()]);
    shell.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("a shell starts")
}

fn tail(log: &Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}

/// Whether GET `path` is answered by 200.
pub fn answers(address: SocketAddr, path: &str) -> bool {
    matches!(http("GET", address, path, ""), Ok((200, _)))
}

/// One HTTP request to a server on this machine: its status and its body.
///
/// A body is JSON. In HTTP/1.0 an answer ends where the connection does, so that there is nothing to parse.
pub fn http(method: &str, address: SocketAddr, path: &str, body: &str) -> io::Result<(u16, String)> {
    // Toxiproxy answers only when what it holds back has gone on its way.
    let limit = Some(Duration::from_secs(60));
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(limit)?;
    stream.set_write_timeout(limit)?;
    let (length, kind) = (body.len(), if body.is_empty() { "" } else { "Content-Type: application/json\r\n" });
    write!(stream, "{method} {path} HTTP/1.0\r\nHost: {address}\r\n{kind}Content-Length: {length}\r\n\r\n{body}")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").ok_or(io::ErrorKind::UnexpectedEof)?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    Ok((status.ok_or(io::ErrorKind::InvalidData)?, body.to_owned()))
}
