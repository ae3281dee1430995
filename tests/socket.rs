//! The server on a real socket: slow clients and the stop.
#![cfg(feature = "server")]

mod support;

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
