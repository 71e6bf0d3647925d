//! A peer's bytes and streams at the lowest level at which the peer is known: above Noise, below Yamux.
//!
//! What comes faster than the peer's rate is not read, so that TCP makes the peer wait; that costs an honest
//! peer time and nothing else. All connections of a peer share its rate. What is read is counted, so that the
//! network can weigh it against the messages that it became. No protocol is known here.

use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use futures::future::{FutureExt, MapOk, TryFutureExt};
use futures::{AsyncRead, AsyncWrite};
use libp2p::core::muxing::{StreamMuxer, StreamMuxerEvent};
use libp2p::core::upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade, UpgradeInfo};
use libp2p::{PeerId, yamux};
use tokio::time::Sleep;

use crate::rate::{Bucket, Rate};

/// Streams of one connection at one time, of both sides. Each may hold 256 KiB that nobody has read yet.
const STREAMS_MAX: usize = 64;

/// What all connections of one peer share.
#[derive(Debug)]
pub(crate) struct Wire {
    bytes: Mutex<Bucket>,
    streams: Mutex<Bucket>,
    bytes_read: AtomicU64,
    streams_opened: AtomicU64,
    waited_us: AtomicU64,
}

impl Wire {
    pub(crate) fn new(bytes: Rate, streams: Rate) -> Arc<Wire> {
        let bucket = |rate| Mutex::new(Bucket::new(rate, Instant::now()));
        Arc::new(Wire {
            bytes: bucket(bytes),
            streams: bucket(streams),
            bytes_read: AtomicU64::new(0),
            streams_opened: AtomicU64::new(0),
            waited_us: AtomicU64::new(0),
        })
    }

    /// Bytes read and streams that the peer opened, ever.
    pub(crate) fn counts(&self) -> (u64, u64) {
        (self.bytes_read.load(Ordering::Relaxed), self.streams_opened.load(Ordering::Relaxed))
    }

    /// How long the peer was made to wait since this was asked last.
    pub(crate) fn take_waited(&self) -> Duration {
        Duration::from_micros(self.waited_us.swap(0, Ordering::Relaxed))
    }

    fn read(&self, bytes: usize) -> Pause {
        self.bytes_read.fetch_add(bytes as u64, Ordering::Relaxed);
        self.pause(&self.bytes, bytes as u64)
    }

    fn opened(&self) -> Pause {
        self.streams_opened.fetch_add(1, Ordering::Relaxed);
        self.pause(&self.streams, 1)
    }

    fn pause(&self, bucket: &Mutex<Bucket>, n: u64) -> Pause {
        let wait = bucket.lock().unwrap_or_else(PoisonError::into_inner).owe(n, Instant::now());
        if wait.is_zero() {
            return None;
        }
        self.waited_us.fetch_add(u64::try_from(wait.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
        Some(Box::pin(tokio::time::sleep(wait)))
    }
}

type Pause = Option<Pin<Box<Sleep>>>;

/// Lets a pause pass.
fn passed(pause: &mut Pause, cx: &mut Context<'_>) -> Poll<()> {
    if let Some(sleep) = pause {
        ready!(sleep.poll_unpin(cx));
        *pause = None;
    }
    Poll::Ready(())
}

/// The wires of admitted peers. A peer that is not admitted gets one of its own for the moment until it is
/// refused, so that nothing is kept of it.
#[derive(Clone, Debug)]
pub(crate) struct Wires {
    admitted: Arc<Mutex<BTreeMap<PeerId, Arc<Wire>>>>,
    bytes: Rate,
    streams: Rate,
}

impl Wires {
    pub(crate) fn new(bytes: Rate, streams: Rate) -> Wires {
        Wires { admitted: Arc::default(), bytes, streams }
    }

    pub(crate) fn admit(&self, peer: PeerId) -> Arc<Wire> {
        let mut admitted = self.admitted.lock().unwrap_or_else(PoisonError::into_inner);
        admitted.entry(peer).or_insert_with(|| Wire::new(self.bytes, self.streams)).clone()
    }

    pub(crate) fn remove(&self, peer: &PeerId) {
        self.admitted.lock().unwrap_or_else(PoisonError::into_inner).remove(peer);
    }

    /// What makes a connection of this peer into streams.
    pub(crate) fn upgrade(&self, peer: &PeerId) -> Metered {
        let admitted = self.admitted.lock().unwrap_or_else(PoisonError::into_inner);
        let wire = admitted.get(peer).cloned().unwrap_or_else(|| Wire::new(self.bytes, self.streams));
        let mut yamux = yamux::Config::default();
        yamux.set_max_num_streams(STREAMS_MAX);
        Metered { yamux, wire }
    }
}

/// Yamux over a metered connection.
#[derive(Clone)]
pub(crate) struct Metered {
    yamux: yamux::Config,
    wire: Arc<Wire>,
}

impl UpgradeInfo for Metered {
    type Info = <yamux::Config as UpgradeInfo>::Info;
    type InfoIter = <yamux::Config as UpgradeInfo>::InfoIter;
    fn protocol_info(&self) -> Self::InfoIter {
        self.yamux.protocol_info()
    }
}

type Gated<C> = Gate<yamux::Muxer<Throttled<C>>>;
type Upgraded<C> =
    MapOk<futures::future::Ready<io::Result<yamux::Muxer<Throttled<C>>>>, GateOf<yamux::Muxer<Throttled<C>>>>;
type GateOf<M> = Box<dyn FnOnce(M) -> Gate<M> + Send>;

fn gate<M: 'static>(wire: Arc<Wire>) -> GateOf<M> {
    Box::new(|muxer| Gate { muxer, wire, pause: None })
}

impl<C: AsyncRead + AsyncWrite + Send + Unpin + 'static> InboundConnectionUpgrade<C> for Metered {
    type Output = Gated<C>;
    type Error = io::Error;
    type Future = Upgraded<C>;
    fn upgrade_inbound(self, io: C, info: Self::Info) -> Self::Future {
        let io = Throttled { io, wire: self.wire.clone(), pause: None };
        self.yamux.upgrade_inbound(io, info).map_ok(gate(self.wire))
    }
}

impl<C: AsyncRead + AsyncWrite + Send + Unpin + 'static> OutboundConnectionUpgrade<C> for Metered {
    type Output = Gated<C>;
    type Error = io::Error;
    type Future = Upgraded<C>;
    fn upgrade_outbound(self, io: C, info: Self::Info) -> Self::Future {
        let io = Throttled { io, wire: self.wire.clone(), pause: None };
        self.yamux.upgrade_outbound(io, info).map_ok(gate(self.wire))
    }
}

/// A connection that is read no faster than its peer's rate.
pub(crate) struct Throttled<C> {
    io: C,
    wire: Arc<Wire>,
    pause: Pause,
}

impl<C: AsyncRead + Unpin> AsyncRead for Throttled<C> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(passed(&mut this.pause, cx));
        let n = ready!(Pin::new(&mut this.io).poll_read(cx, buf))?;
        this.pause = this.wire.read(n);
        Poll::Ready(Ok(n))
    }
}

impl<C: AsyncWrite + Unpin> AsyncWrite for Throttled<C> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, parts)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }
    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_close(cx)
    }
}

/// A muxer that takes a peer's new streams no faster than its rate. Beyond a backlog of 256 Yamux drops them.
pub(crate) struct Gate<M> {
    muxer: M,
    wire: Arc<Wire>,
    pause: Pause,
}

impl<M: StreamMuxer + Unpin> StreamMuxer for Gate<M> {
    type Substream = M::Substream;
    type Error = M::Error;

    fn poll_inbound(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Self::Substream, Self::Error>> {
        let this = self.get_mut();
        ready!(passed(&mut this.pause, cx));
        let stream = ready!(Pin::new(&mut this.muxer).poll_inbound(cx))?;
        this.pause = this.wire.opened();
        Poll::Ready(Ok(stream))
    }
    fn poll_outbound(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Self::Substream, Self::Error>> {
        Pin::new(&mut self.muxer).poll_outbound(cx)
    }
    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Pin::new(&mut self.muxer).poll_close(cx)
    }
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<StreamMuxerEvent, Self::Error>> {
        Pin::new(&mut self.muxer).poll(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::AsyncReadExt;

    /// Bytes beyond the burst wait, over all connections of a peer together.
    #[tokio::test]
    async fn a_peers_connections_share_its_rate() {
        let wire = Wire::new(Rate { per_second: 10_000, burst: 1_000 }, Rate::new(1, 1));
        let throttled = |bytes: Vec<u8>| Throttled {
            io: futures::io::Cursor::new(bytes),
            wire: wire.clone(),
            pause: None,
        };
        let (mut one, mut two) = (throttled(vec![1; 900]), throttled(vec![2; 3_000]));
        let mut read = Vec::new();
        one.read_to_end(&mut read).await.unwrap();
        assert_eq!(wire.take_waited(), Duration::ZERO, "within the burst");
        two.read_to_end(&mut read).await.unwrap();
        assert_eq!((read.len(), wire.counts()), (3_900, (3_900, 0)), "nothing is lost");
        assert!(wire.take_waited() > Duration::ZERO, "beyond it");
    }

    #[test]
    fn nothing_is_kept_of_strangers() {
        let wires = Wires::new(Rate::new(1, 1), Rate::new(1, 1));
        let (peer, stranger) = (PeerId::random(), PeerId::random());
        let wire = wires.admit(peer);
        assert!(Arc::ptr_eq(&wire, &wires.upgrade(&peer).wire), "connections share it");
        let _ = wires.upgrade(&stranger);
        assert_eq!(wires.admitted.lock().unwrap().len(), 1);
        wires.remove(&peer);
        assert!(wires.admitted.lock().unwrap().is_empty());
    }
}
