//! Clients' connections, counted: a bounded number is open at one time, and the others wait in the backlog. One
//! client has at most its share of them.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::Stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::transport::server::{Connected, TcpConnectInfo};

use crate::clients::{Clients, Going};
use crate::metrics::Metrics;

/// Connections open at one time.
const CONNECTIONS_MAX: usize = 1024;
/// How long to wait when the system has no room for another connection.
const BREATH: Duration = Duration::from_millis(100);

/// A connection, and its share of the bound.
pub(crate) struct Connection {
    io: TcpStream,
    _room: OwnedSemaphorePermit,
    _client: Going,
}

/// Connections as they come.
pub(crate) fn connections(
    listener: TcpListener,
    clients: Clients,
    metrics: Metrics,
) -> impl Stream<Item = io::Result<Connection>> {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    futures::stream::unfold(
        (listener, room, clients, metrics),
        |(listener, room, clients, metrics)| async move {
            let permit = room.clone().acquire_owned().await.ok()?;
            let (io, client) = accept(&listener, &clients, &metrics).await;
            Some((Ok(Connection { io, _room: permit, _client: client }), (listener, room, clients, metrics)))
        },
    )
}

/// The next connection of a client that has room for it; the others are closed at once.
async fn accept(listener: &TcpListener, clients: &Clients, metrics: &Metrics) -> (TcpStream, Going) {
    loop {
        match listener.accept().await {
            Ok((io, address)) => match clients.connection(address.ip()) {
                Ok(client) => {
                    // Answers are small and waited for. If it cannot be set they are just slower.
                    let _ = io.set_nodelay(true);
                    return (io, client);
                }
                Err(refusal) => metrics.exceeded(refusal.what),
            },
            Err(error) => {
                tracing::warn!(%error, "cannot accept a client's connection");
                tokio::time::sleep(BREATH).await;
            }
        }
    }
}

impl Connected for Connection {
    type ConnectInfo = TcpConnectInfo;
    fn connect_info(&self) -> TcpConnectInfo {
        self.io.connect_info()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, parts)
    }
    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
