//! The server on a real socket: slow clients and the stop.
#![cfg(feature = "server")]

mod support;

use bytesize::ByteSize;
use predlog::Logger;
use predlog::config::ServerSettings;
use predlog::server::{State, serve};
use predlog::sink::memory::MemorySink;
use std::net::SocketAddr;
use std::time::Duration;
use support::web::memory_settings;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

struct Server {
    addr: SocketAddr,
    logger: Logger,
    store: MemorySink,
    stop: oneshot::Sender<()>,
    running: JoinHandle<std::io::Result<()>>,
    _guard: predlog::Guard,
}

async fn start(settings: ServerSettings) -> Server {
    let store = MemorySink::new();
    let (logger, guard) = Logger::builder(memory_settings()).sink(Box::new(store.clone())).open().unwrap();
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let addr = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel();
    let state = State::new(logger.clone(), settings);
    let running = tokio::spawn(serve(listener, state, async {
        stopped.await.unwrap();
    }));
    Server { addr, logger, store, stop, running, _guard: guard }
}

const ROW: &str = r#"{"id":"a","model_name":"m","inputs":1}"#;

fn head(length: usize) -> String {
    format!("POST /v1/predictions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n")
}

/// All that the server sends until it closes the connection.
async fn read_all(stream: &mut TcpStream) -> String {
    let mut text = Vec::new();
    // A server that cuts a connection may reset it: what came before counts.
    let _ = stream.read_to_end(&mut text).await;
    String::from_utf8(text).unwrap()
}

/// The start of an answer.
async fn read_some(stream: &mut TcpStream) -> String {
    let mut text = vec![0; 64];
    let len = stream.read(&mut text).await.unwrap();
    String::from_utf8(text[..len].to_vec()).unwrap()
}

#[tokio::test]
async fn a_client_that_does_not_finish_is_cut() {
    let server = start(ServerSettings { read_timeout: Duration::from_millis(100), ..ServerSettings::default() }).await;
    let mut silent = TcpStream::connect(server.addr).await.unwrap();
    assert_eq!(read_all(&mut silent).await, "");
    let mut half_a_head = TcpStream::connect(server.addr).await.unwrap();
    half_a_head.write_all(b"POST /v1/predictions HTTP/1.1\r\nhost").await.unwrap();
    assert!(!read_all(&mut half_a_head).await.starts_with("HTTP/1.1 2"));
    let mut half_a_body = TcpStream::connect(server.addr).await.unwrap();
    half_a_body.write_all(format!("{}{}", head(100), ROW).as_bytes()).await.unwrap();
    assert!(read_all(&mut half_a_body).await.starts_with("HTTP/1.1 408"));
    // Others were served all the while, and still are.
    let mut good = TcpStream::connect(server.addr).await.unwrap();
    good.write_all(format!("{}{}", head(ROW.len()), ROW).as_bytes()).await.unwrap();
    assert!(read_all(&mut good).await.starts_with("HTTP/1.1 202"));
    assert_eq!(server.logger.snapshot().accepted, 1);
}

#[tokio::test]
async fn slow_clients_do_not_hold_the_probes() {
    let server = start(ServerSettings { max_requests: 1, ..ServerSettings::default() }).await;
    let mut slow = TcpStream::connect(server.addr).await.unwrap();
    slow.write_all(head(100).as_bytes()).await.unwrap();
    let mut probe = TcpStream::connect(server.addr).await.unwrap();
    probe.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    assert!(read_all(&mut probe).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn slow_clients_hold_up_no_other_unless_their_bodies_are_large() {
    let server = start(ServerSettings { max_requests: 1, ..ServerSettings::default() }).await;
    let mut slow = Vec::new();
    for _ in 0..10 {
        let mut client = TcpStream::connect(server.addr).await.unwrap();
        client.write_all(format!("{}{}", head(1_000_000), &ROW[..5]).as_bytes()).await.unwrap();
        slow.push(client);
    }
    let quick = format!("{}{}", head(ROW.len()).replace("\r\n\r\n", "\r\nconnection: close\r\n\r\n"), ROW);
    let mut good = TcpStream::connect(server.addr).await.unwrap();
    good.write_all(quick.as_bytes()).await.unwrap();
    assert!(read_all(&mut good).await.starts_with("HTTP/1.1 202"));
    // One that has much in memory takes the only place, and gives it to the next.
    let rest = format!("{}{}", &ROW[5..], " ".repeat(1_000_000 - ROW.len()));
    for client in &mut slow[..2] {
        client.write_all(rest.as_bytes()).await.unwrap();
        assert!(read_some(client).await.starts_with("HTTP/1.1 202"));
    }
    assert_eq!(server.logger.snapshot().accepted, 3);
}

#[tokio::test]
async fn a_client_that_is_refused_sees_why_also_while_it_is_sending() {
    let server = start(ServerSettings { max_body: ByteSize::kib(64), ..ServerSettings::default() }).await;
    let sent = vec![b' '; 8 << 20];
    for (head, status) in [
        (head(sent.len()), "413"),
        (head(sent.len()).replace(&format!("content-length: {}", sent.len()), "transfer-encoding: chunked"), "413"),
        (head(sent.len()).replace("application/json", "text/plain"), "415"),
    ] {
        let mut client = TcpStream::connect(server.addr).await.unwrap();
        client.write_all(head.as_bytes()).await.unwrap();
        // Much more than the buffers on the way hold.
        if head.contains("chunked") {
            client.write_all(format!("{:x}\r\n", sent.len()).as_bytes()).await.unwrap();
            client.write_all(&sent).await.unwrap();
            client.write_all(b"\r\n0\r\n\r\n").await.unwrap();
        } else {
            client.write_all(&sent).await.unwrap();
        }
        assert!(read_some(&mut client).await.starts_with(&format!("HTTP/1.1 {status}")), "{head}");
    }
    // One that asks first is told at once.
    let mut asks = TcpStream::connect(server.addr).await.unwrap();
    asks.write_all(head(1 << 20).replace("\r\n\r\n", "\r\nexpect: 100-continue\r\n\r\n").as_bytes()).await.unwrap();
    assert!(read_some(&mut asks).await.starts_with("HTTP/1.1 413"));
}

#[tokio::test]
async fn a_stop_waits_for_requests_that_have_begun() {
    let server = start(ServerSettings::default()).await;
    let mut begun = TcpStream::connect(server.addr).await.unwrap();
    begun.write_all(head(ROW.len()).as_bytes()).await.unwrap();
    begun.write_all(&ROW.as_bytes()[..5]).await.unwrap();
    // An answer on another connection proves that the server has had its turn since.
    let mut idle = TcpStream::connect(server.addr).await.unwrap();
    idle.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    assert!(idle.read_u8().await.is_ok());
    server.stop.send(()).unwrap();
    // The idle one is closed at once.
    read_all(&mut idle).await;
    begun.write_all(&ROW.as_bytes()[5..]).await.unwrap();
    assert!(read_all(&mut begun).await.starts_with("HTTP/1.1 202"));
    server.running.await.unwrap().unwrap();
    assert!(TcpStream::connect(server.addr).await.is_err());
    assert!(server.logger.flush(Duration::from_secs(20)));
    assert_eq!(server.store.records().len(), 1);
}

#[tokio::test]
async fn a_stop_does_not_wait_past_its_deadline() {
    let server = start(ServerSettings { shutdown_deadline: Duration::from_millis(50), ..ServerSettings::default() }).await;
    let mut stuck = TcpStream::connect(server.addr).await.unwrap();
    stuck.write_all(head(100).as_bytes()).await.unwrap();
    server.stop.send(()).unwrap();
    server.running.await.unwrap().unwrap();
}
