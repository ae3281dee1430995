//! A proxy for HTTP servers that answers an error in the server's place when told: what a TCP proxy cannot do.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use parking_lot::Mutex;

/// A silent peer is given up after this long, so that no thread outlives its test for ever.
const SILENCE: Duration = Duration::from_secs(120);
const MAX_HEAD: u64 = 64 << 10;

/// A running proxy on a free port. Dropped, it stops listening.
///
/// Requests reach the server as they were made, the `Host` header included, so that S3's signatures stay valid. Only
/// `Connection: close` is added: every request has a connection of its own. A request's body has a `Content-Length`, as
/// those of object_store have.
pub struct FaultProxy {
    shared: Arc<Shared>,
    address: SocketAddr,
    listener: Option<JoinHandle<()>>,
}

struct Shared {
    upstream: SocketAddr,
    mode: Mutex<Mode>,
    forwarded: AtomicU64,
    faults: AtomicU64,
    stopped: AtomicBool,
}

#[derive(Clone, Copy)]
enum Mode {
    Pass,
    Answer(u16),
    ForwardThenAnswer(u16),
}

impl FaultProxy {
    /// A proxy in front of `upstream`, which passes everything on.
    pub fn start(upstream: SocketAddr) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("the loopback has a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let shared = Arc::new(Shared {
            upstream,
            mode: Mutex::new(Mode::Pass),
            forwarded: AtomicU64::new(0),
            faults: AtomicU64::new(0),
            stopped: AtomicBool::new(false),
        });
        let listener = thread::spawn({
            let shared = Arc::clone(&shared);
            move || shared.accept(&listener)
        });
        Self { shared, address, listener: Some(listener) }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http://` and the address.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From now on requests are passed on.
    pub fn pass(&self) {
        *self.shared.mode.lock() = Mode::Pass;
    }

    /// From now on requests are answered with `status`, and do not reach the server.
    pub fn answer_with(&self, status: u16) {
        *self.shared.mode.lock() = Mode::Answer(status);
    }

    /// From now on requests reach the server, which carries them out, but are answered with `status`.
    pub fn forward_then_answer_with(&self, status: u16) {
        *self.shared.mode.lock() = Mode::ForwardThenAnswer(status);
    }

    /// How many requests were answered with the error.
    pub fn faults(&self) -> u64 {
        self.shared.faults.load(Ordering::SeqCst)
    }

    /// How many requests reached the server.
    pub fn forwarded(&self) -> u64 {
        self.shared.forwarded.load(Ordering::SeqCst)
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
        // Wakes the listener, which waits in accept().
        let _ = TcpStream::connect(self.address);
        if let Some(listener) = self.listener.take() {
            let _ = listener.join();
        }
    }
}

impl Shared {
    fn accept(self: &Arc<Self>, listener: &TcpListener) {
        for client in listener.incoming() {
            if self.stopped.load(Ordering::SeqCst) {
                return;
            }
            let shared = Arc::clone(self);
            // A broken connection is the client's or the server's to report.
            thread::spawn(move || client.and_then(|client| shared.serve(client)));
        }
    }

    /// One connection, which is one request.
    fn serve(&self, client: TcpStream) -> io::Result<()> {
        client.set_read_timeout(Some(SILENCE))?;
        let mut request = BufReader::new(client.try_clone()?);
        let head = read_head(&mut request)?;
        if head.is_empty() {
            return Ok(());
        }
        // The mode is that of the moment at which the request came.
        let mode = *self.mode.lock();
        match mode {
            Mode::Pass => self.forward(&head, request, client),
            Mode::Answer(status) => {
                io::copy(&mut request.by_ref().take(content_length(&head)), &mut io::sink())?;
                self.answer(status, request, client)
            }
            Mode::ForwardThenAnswer(status) => {
                let mut upstream = self.send_head(&head)?;
                io::copy(&mut request.by_ref().take(content_length(&head)), &mut upstream)?;
                // The answer ends when the server has done what was asked.
                io::copy(&mut upstream, &mut io::sink())?;
                self.answer(status, request, client)
            }
        }
    }

    fn send_head(&self, head: &str) -> io::Result<TcpStream> {
        let mut upstream = TcpStream::connect(self.upstream)?;
        upstream.set_read_timeout(Some(SILENCE))?;
        upstream.write_all(with_connection_close(head).as_bytes())?;
        self.forwarded.fetch_add(1, Ordering::SeqCst);
        Ok(upstream)
    }

    /// Copies both ways until the server closes, which it does after its answer.
    fn forward(&self, head: &str, mut request: BufReader<TcpStream>, mut client: TcpStream) -> io::Result<()> {
        let mut upstream = self.send_head(head)?;
        let mut up = upstream.try_clone()?;
        let body = thread::spawn(move || io::copy(&mut request, &mut up));
        let copied = io::copy(&mut upstream, &mut client);
        // Ends the other direction too, which waits for more from the client.
        let _ = client.shutdown(Shutdown::Both);
        let _ = upstream.shutdown(Shutdown::Both);
        let _ = body.join();
        copied.map(drop)
    }

    fn answer(&self, status: u16, mut request: BufReader<TcpStream>, mut client: TcpStream) -> io::Result<()> {
        let code = if status == 503 { "SlowDown" } else { "InternalError" };
        let body = format!("<Error><Code>{code}</Code><Message>injected fault</Message></Error>");
        let length = body.len();
        self.faults.fetch_add(1, Ordering::SeqCst);
        write!(
            client,
            "HTTP/1.1 {status} Injected\r\nContent-Type: application/xml\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
        )?;
        // A socket closed with unread bytes is reset, and the answer could be lost with it.
        client.shutdown(Shutdown::Write)?;
        io::copy(&mut request, &mut io::sink()).map(drop)
    }
}

/// Everything up to the empty line, with it; empty when the client closed without a request.
fn read_head(request: &mut BufReader<TcpStream>) -> io::Result<String> {
    let mut head = String::new();
    let mut limited = request.by_ref().take(MAX_HEAD);
    while !head.ends_with("\r\n\r\n") {
        if limited.read_line(&mut head)? == 0 {
            return if head.is_empty() { Ok(head) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
        }
    }
    Ok(head)
}

fn headers(head: &str) -> impl Iterator<Item = (&str, &str)> {
    head.lines().skip(1).filter_map(|line| line.split_once(':'))
}

fn content_length(head: &str) -> u64 {
    let value = headers(head).find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    value.and_then(|(_, value)| value.trim().parse().ok()).unwrap_or(0)
}

fn with_connection_close(head: &str) -> String {
    let kept = head.trim_end().lines().filter(|line| {
        let name = line.split(':').next().unwrap_or_default();
        !name.eq_ignore_ascii_case("connection")
    });
    let mut changed: String = kept.flat_map(|line| [line, "\r\n"]).collect();
    changed.push_str("Connection: close\r\n\r\n");
    changed
}
