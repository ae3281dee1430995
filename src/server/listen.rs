//! The router on a socket: slow and idle clients are cut, a stop waits for those who are being answered, up to a deadline.

use super::{State, router};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

/// Connections at one time; more wait in the listener's own queue.
const MAX_CONNECTIONS: usize = 1_024;
/// After a failed accept (no file descriptors are left): long enough for a connection to end.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Answers requests until `stop` resolves, and then those that have begun, up to `server.shutdown_deadline`.
///
/// # Errors
/// None now: what goes wrong with one connection ends that connection. An accept that fails is tried again.
pub async fn serve(listener: TcpListener, state: State, stop: impl Future<Output = ()>) -> io::Result<()> {
    let (read_timeout, deadline) = (state.settings.read_timeout, state.settings.shutdown_deadline);
    answer(listener, router(state), read_timeout, deadline, stop).await;
    Ok(())
}

/// The same for any router. `deadline` is how long a stop waits for those who are being answered.
pub(crate) async fn answer(
    listener: TcpListener,
    router: axum::Router,
    read_timeout: Duration,
    deadline: Duration,
    stop: impl Future<Output = ()>,
) {
    let service = TowerToHyperService::new(router);
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(read_timeout);
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let (stopping, stopped) = watch::channel(());
    let mut connections = JoinSet::new();
    let mut stop = pin!(stop);
    loop {
        let accepted = async {
            let permit = Arc::clone(&room).acquire_owned().await.map_err(io::Error::other)?;
            Ok::<_, io::Error>((listener.accept().await?.0, permit))
        };
        let (stream, permit) = tokio::select! {
            () = &mut stop => break,
            // Ended connections are let go while new ones come.
            Some(_) = connections.join_next() => continue,
            accepted = accepted => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
        };
        let connection = http.serve_connection(io_of(stream), service.clone());
        let mut stopped = stopped.clone();
        connections.spawn(async move {
            let _permit = permit;
            let mut connection = pin!(connection);
            let ended = tokio::select! {
                ended = &mut connection => ended,
                _ = stopped.changed() => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            };
            if let Err(error) = ended {
                tracing::debug!(%error, "a connection ended early");
            }
        });
    }
    drop(listener);
    drop(stopping);
    let all = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(deadline, all).await.is_err() {
        tracing::warn!(?deadline, "requests were cut at the deadline of the shutdown");
    }
}

fn io_of(stream: TcpStream) -> TokioIo<TcpStream> {
    // Answers are small and written at once: nothing is gained by waiting for more.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY could not be set");
    }
    TokioIo::new(stream)
}
