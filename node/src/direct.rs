//! Direct messages on the wire: one stream each, a length, the bytes, and an empty answer. What is in them is
//! decoded elsewhere.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use assent_proto::GenesisHash;
use assent_replica::MESSAGE_BYTES_MAX;
use bytes::Bytes;
use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use libp2p::StreamProtocol;
use libp2p::request_response::{self, ProtocolSupport};
use tokio::sync::Semaphore;

/// Direct messages to one peer that are on their way at once; the rest waits.
pub(crate) const IN_FLIGHT_MAX: usize = 4;
/// Direct messages of one connection that are being read or written at once.
const STREAMS_MAX: usize = 4 * IN_FLIGHT_MAX;
/// Bytes of one connection's direct messages that are being read at once; the largest message fits.
const READING_BYTES_MAX: usize = MESSAGE_BYTES_MAX + (8 << 20);
/// How long a direct message may take.
const TIME_MAX: Duration = Duration::from_secs(20);

/// The protocol of direct messages on a chain.
pub(crate) fn behaviour(genesis: &GenesisHash) -> request_response::Behaviour<DirectCodec> {
    let protocol =
        StreamProtocol::try_from_owned(direct_protocol(genesis)).expect("the name begins with a slash");
    let config = request_response::Config::default()
        .with_request_timeout(TIME_MAX)
        .with_max_concurrent_streams(STREAMS_MAX);
    let codec = DirectCodec { room: None };
    request_response::Behaviour::with_codec(codec, [(protocol, ProtocolSupport::Full)], config)
}

/// The name of the protocol of direct messages on a chain.
pub fn direct_protocol(genesis: &GenesisHash) -> String {
    format!("/assent/{}/direct/1", hex::encode(genesis.tag().0))
}

/// A direct message: its length in four bytes, big-endian, then the message. The answer has no bytes.
///
/// The behaviour's own codec has no room. It is cloned for each connection, which makes the connection's room,
/// and that clone for each stream, which shares it: so one connection cannot fill memory with messages that it
/// begins and never ends, and cannot keep others waiting.
pub(crate) struct DirectCodec {
    room: Option<Arc<Semaphore>>,
}

impl Clone for DirectCodec {
    fn clone(&self) -> DirectCodec {
        let room = self.room.clone().unwrap_or_else(|| Arc::new(Semaphore::new(READING_BYTES_MAX)));
        DirectCodec { room: Some(room) }
    }
}

impl request_response::Codec for DirectCodec {
    type Protocol = StreamProtocol;
    type Request = Bytes;
    type Response = ();

    async fn read_request<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Bytes>
    where
        T: AsyncRead + Unpin + Send,
    {
        let mut length = [0; 4];
        io.read_exact(&mut length).await?;
        let announced = u32::from_be_bytes(length);
        let length = announced as usize;
        if length > MESSAGE_BYTES_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a direct message is too large"));
        }
        let room = self.clone().room.expect("a clone has room");
        let _room = room.acquire_many(announced).await.map_err(io::Error::other)?;
        // Grows with what arrives, not with what is announced.
        let mut bytes = Vec::new();
        io.take(length as u64).read_to_end(&mut bytes).await?;
        if bytes.len() == length { Ok(bytes.into()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }

    async fn read_response<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<()>
    where
        T: AsyncRead + Unpin + Send,
    {
        match io.read(&mut [0; 1]).await? {
            0 => Ok(()),
            _ => Err(io::Error::new(io::ErrorKind::InvalidData, "an answer has no bytes")),
        }
    }

    async fn write_request<T>(&mut self, _: &StreamProtocol, io: &mut T, request: Bytes) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        let length = u32::try_from(request.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        io.write_all(&length.to_be_bytes()).await?;
        io.write_all(&request).await
    }

    async fn write_response<T>(&mut self, _: &StreamProtocol, _: &mut T, (): ()) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        Ok(())
    }
}

/// Whether a direct message failed because its sender broke the framing.
pub(crate) fn is_garbage(error: &request_response::InboundFailure) -> bool {
    matches!(error, request_response::InboundFailure::Io(e) if e.kind() == io::ErrorKind::InvalidData)
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;
    use request_response::Codec;

    const ROOT: DirectCodec = DirectCodec { room: None };

    fn framed(length: u32, body: &[u8]) -> Vec<u8> {
        [&length.to_be_bytes()[..], body].concat()
    }

    /// A length beyond the bound is refused before anything is read, and a lie about it is noticed.
    #[test]
    fn direct_messages_are_bounded() {
        let read = |bytes: Vec<u8>| {
            let protocol = StreamProtocol::new("/test");
            let mut io = futures::io::Cursor::new(bytes);
            futures::executor::block_on(ROOT.clone().read_request(&protocol, &mut io))
        };
        assert_eq!(read(framed(3, b"abc")).unwrap(), Bytes::from_static(b"abc"));
        assert_eq!(read(framed(4, b"abc")).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        let large = u32::try_from(MESSAGE_BYTES_MAX).unwrap() + 1;
        assert_eq!(read(framed(large, b"abc")).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    /// Begun messages hold their connection's room until they end, and no other connection's.
    #[test]
    fn a_connections_streams_share_its_room() {
        let protocol = StreamProtocol::new("/test");
        let (connection, other) = (ROOT.clone(), ROOT.clone());
        let half = u32::try_from(READING_BYTES_MAX / 2 + 1).unwrap();
        let (mut stream, mut next) = (connection.clone(), connection.clone());
        let (mut never_ends, mut waits, mut goes_on) = (
            Stalled(framed(half, b"").into()),
            futures::io::Cursor::new(framed(half, b"")),
            futures::io::Cursor::new(framed(half, b"")),
        );
        let mut begun = Box::pin(stream.read_request(&protocol, &mut never_ends));
        assert!((&mut begun).now_or_never().is_none());
        assert!(next.read_request(&protocol, &mut waits).now_or_never().is_none(), "no room");
        let ended = other.clone().read_request(&protocol, &mut goes_on).now_or_never();
        assert_eq!(ended.unwrap().unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        drop(begun);
        waits.set_position(0);
        let ended = next.read_request(&protocol, &mut waits).now_or_never();
        assert!(ended.is_some(), "the room is free again");
    }

    /// Gives its bytes and then nothing, without ending.
    struct Stalled(std::collections::VecDeque<u8>);

    impl AsyncRead for Stalled {
        fn poll_read(
            mut self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
            buf: &mut [u8],
        ) -> std::task::Poll<io::Result<usize>> {
            let n = buf.len().min(self.0.len());
            if n == 0 {
                return std::task::Poll::Pending;
            }
            for (to, from) in buf.iter_mut().zip(self.0.drain(..n)) {
                *to = from;
            }
            std::task::Poll::Ready(Ok(n))
        }
    }
}
