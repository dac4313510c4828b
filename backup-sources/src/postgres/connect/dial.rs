//! The stream to a server: TCP or a socket, then TLS as it is demanded.

use std::future::{Ready, ready};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use backup_core::{Error, ErrorKind, Result};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_postgres::tls::{ChannelBinding, TlsConnect, TlsStream};

use super::{At, Connect, Host, SslMode, binding, tls};

/// The request for TLS: its length, and a number that is no version of the protocol.
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xD2, 0x16, 0x2F];

/// How long a connection may be silent before the system asks whether the other end is there.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
/// How often it asks then, and how long what was sent may go unacknowledged.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_COUNT: u32 = 6;
const UNACKNOWLEDGED_MS_MAX: u32 = 90_000;

/// A connection to a server, over which nobody has logged in yet.
#[derive(Debug)]
pub(in crate::postgres) struct Wire {
    stream: Stream,
    /// The hash of the server's certificate, where there is one and it has one.
    binding: Option<Vec<u8>>,
}

#[derive(Debug)]
enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Box<tokio_rustls::client::TlsStream<TcpStream>>),
}

/// Connects to one host, at whichever of its addresses answers first in their order.
pub(super) async fn dial(connect: &Connect, host: &Host) -> Result<Wire> {
    let (name, address) = match &host.at {
        At::Socket(directory) => {
            let path = directory.join(host.socket());
            let stream = UnixStream::connect(&path).await.map_err(|error| unreachable(host, error))?;
            return Ok(Wire { stream: Stream::Unix(stream), binding: None });
        }
        At::Tcp(name, address) => (name, address),
    };
    let addresses: Vec<SocketAddr> = match address {
        Some(address) => vec![SocketAddr::new(*address, host.port)],
        None => tokio::net::lookup_host((name.as_str(), host.port))
            .await
            .map_err(|error| unreachable(host, error))?
            .collect(),
    };
    let stream = tcp(host, &addresses).await?;
    if connect.tls.mode == SslMode::Disable {
        return Ok(Wire { stream: Stream::Tcp(stream), binding: None });
    }
    let client = tls::client(&connect.tls).await?;
    let peer = stream.peer_addr().map_err(|error| unreachable(host, error))?;
    match over_tls(stream, host, name, client).await {
        Ok(Some(wire)) => Ok(wire),
        Ok(None) if connect.tls.mode == SslMode::Prefer => {
            Ok(Wire { stream: Stream::Tcp(tcp(host, &[peer]).await?), binding: None })
        }
        Ok(None) => {
            let message = format!("{host} has no TLS, which this connection demands (sslmode)");
            Err(Error::new(ErrorKind::Denied, message))
        }
        Err(error) => Err(error),
    }
}

async fn tcp(host: &Host, addresses: &[SocketAddr]) -> Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in addresses {
        match TcpStream::connect(address).await {
            Ok(stream) => {
                stream.set_nodelay(true).map_err(|error| unreachable(host, error))?;
                keep_alive(&stream);
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(unreachable(host, last))
}

/// Asks the system to find out when the other end is gone. Where it cannot, whoever waits has timeouts of his own.
fn keep_alive(stream: &TcpStream) {
    use rustix::net::sockopt;
    let set = || -> rustix::io::Result<()> {
        sockopt::set_socket_keepalive(stream, true)?;
        sockopt::set_tcp_keepidle(stream, KEEPALIVE_IDLE)?;
        sockopt::set_tcp_keepintvl(stream, KEEPALIVE_INTERVAL)?;
        sockopt::set_tcp_keepcnt(stream, KEEPALIVE_COUNT)?;
        #[cfg(target_os = "linux")]
        sockopt::set_tcp_user_timeout(stream, UNACKNOWLEDGED_MS_MAX)?;
        Ok(())
    };
    if let Err(error) = set() {
        tracing::debug!(%error, "a connection has no keepalives");
    }
}

/// Agrees on TLS. None if the server has none.
async fn over_tls(
    mut stream: TcpStream,
    host: &Host,
    name: &str,
    client: tokio_rustls::TlsConnector,
) -> Result<Option<Wire>> {
    stream.write_all(&SSL_REQUEST).await.map_err(|error| unreachable(host, error))?;
    // One byte, and no further: what anybody else sent after it is taken for TLS, and is none.
    let mut answer = [0];
    stream.read_exact(&mut answer).await.map_err(|error| unreachable(host, error))?;
    match answer {
        [b'S'] => {}
        [b'N'] => return Ok(None),
        [b'E'] => {
            let message = format!("{host} takes no connections now");
            return Err(Error::new(ErrorKind::Transient, message));
        }
        _ => {
            let message = format!("{host} does not answer as a PostgreSQL server does");
            return Err(Error::new(ErrorKind::Io, message));
        }
    }
    let name = rustls::pki_types::ServerName::try_from(name.to_owned())
        .map_err(|_| Error::invalid_input(format!("`{name}` is no name that a certificate can have")))?;
    let stream = client.connect(name, stream).await.map_err(|error| {
        // What fails the handshake is a certificate, nearly always; else the connection.
        let is_tls = error.get_ref().is_some_and(|inner| inner.is::<rustls::Error>());
        let kind = if is_tls { ErrorKind::Denied } else { ErrorKind::Transient };
        Error::new(kind, format!("{host}: TLS failed: {error}"))
    })?;
    let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
    let binding = certificate.and_then(|certificate| binding::server_end_point(certificate));
    Ok(Some(Wire { stream: Stream::Tls(Box::new(stream)), binding }))
}

fn unreachable(host: &Host, error: io::Error) -> Error {
    let kind = match error.kind() {
        io::ErrorKind::PermissionDenied => ErrorKind::Denied,
        // A server that is not there now may be there soon.
        _ => ErrorKind::Transient,
    };
    Error::new(kind, format!("{host} cannot be reached: {error}"))
}

impl Wire {
    /// The hash of the server's certificate that logging in can be bound to.
    pub(in crate::postgres) fn binding(&self) -> Option<&[u8]> {
        self.binding.as_deref()
    }

    /// Whether it is encrypted.
    pub(in crate::postgres) fn is_tls(&self) -> bool {
        matches!(self.stream, Stream::Tls(_))
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Stream::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
            Stream::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            Stream::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
            Stream::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Unix(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

impl TlsStream for Wire {
    fn channel_binding(&self) -> ChannelBinding {
        match &self.binding {
            Some(hash) => ChannelBinding::tls_server_end_point(hash.clone()),
            None => ChannelBinding::none(),
        }
    }
}

/// Stands where `tokio_postgres` wants a stream to agree on TLS over; nothing is read from it or written to it.
#[derive(Debug)]
pub(super) struct HandedOver;

/// Hands over the stream on which all has been agreed.
#[derive(Debug)]
pub(super) struct Handing(pub(super) Wire);

impl TlsConnect<HandedOver> for Handing {
    type Stream = Wire;
    type Error = io::Error;
    type Future = Ready<io::Result<Wire>>;

    fn connect(self, _: HandedOver) -> Self::Future {
        ready(Ok(self.0))
    }
}

impl AsyncRead for HandedOver {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Err(io::ErrorKind::Unsupported.into()))
    }
}

impl AsyncWrite for HandedOver {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Err(io::ErrorKind::Unsupported.into()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
