//! How a keeper on another machine is reached: TCP, and on it TLS 1.3 with a key that the keeper has made for itself.
//!
//! There is nobody who could vouch for a keeper, and nobody has to: its card, in a directory of its user's, has the
//! public key, and the daemon speaks with who has that one. So there is no certificate, with a name and a date that
//! would say nothing, but the bare key (RFC 7250). The daemon shows who it is by what stands in the card as well, once
//! the connection is safe.
//!
//! Everyone in the network can connect. Nothing is said to who has not shown that it is the daemon.

use std::fmt::Write as _;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use rustix::net::sockopt;
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, ring, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::AlwaysResolvesServerRawPublicKeys;
use rustls::sign::CertifiedKey;
use rustls::version::TLS13;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, ServerConfig, SignatureScheme};
use tokio::net::{TcpListener, TcpStream, lookup_host};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

use super::folder::{Network, Origin};

/// How long the two sides may take to have a safe connection.
pub(super) const HANDSHAKE_PATIENCE: Duration = Duration::from_secs(5);

/// How long an address may take to answer: an address of a network that is not ours never does.
const CONNECT_PATIENCE: Duration = Duration::from_secs(2);

/// How long a name may take to be looked up.
const LOOKUP_PATIENCE: Duration = Duration::from_secs(5);

/// More addresses of a node are not tried.
const ADDRESSES_MAX: usize = 8;

/// When nothing comes, the other side is asked whether it is there: first after so many seconds, then again and again,
/// so many times. A machine that goes down says nothing.
const ASKED_AFTER: Duration = Duration::from_secs(20);
const ASKED_EVERY: Duration = Duration::from_secs(10);
const ASKED_TIMES: u32 = 4;

/// How long what is sent may stay without an answer, in milliseconds.
const UNANSWERED_MS: u32 = 60_000;

/// What stands before the 32 bytes of a private key for Ed25519 in PKCS #8 (RFC 8410, section 7).
const PKCS8_OF_ED25519: [u8; 16] = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];

/// Where a keeper listens, with its key.
pub(super) struct Listening {
    pub(super) listener: TcpListener,
    pub(super) tls: TlsAcceptor,
}

/// Listens on a port of its own, with a key that was made for it.
pub(super) async fn listen(host: &str) -> anyhow::Result<(Listening, Network)> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(|error| anyhow!("the system has no randomness: {error}"))?;
    let (config, key) = with_key(&[PKCS8_OF_ED25519.as_slice(), &seed].concat())?;
    // A node may have no addresses of the newer kind at all; where it has, this is heard on both.
    let listener = match TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0)).await {
        Ok(listener) => listener,
        Err(_) => TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).await.context("the keeper cannot listen")?,
    };
    let port = listener.local_addr()?.port();
    let addresses = own_addresses(host, port).await;
    let tls = TlsAcceptor::from(Arc::new(config));
    Ok((Listening { listener, tls }, Network { port, addresses, key: BASE64_STANDARD.encode(key) }))
}

/// What a keeper with this private key says of it, and the public one.
fn with_key(pkcs8: &[u8]) -> anyhow::Result<(ServerConfig, Vec<u8>)> {
    let key = ring::sign::any_eddsa_type(&PrivatePkcs8KeyDer::from(pkcs8)).context("the keeper cannot have a key")?;
    let public = key.public_key().context("the key of the keeper has no public part")?.to_vec();
    let certified = CertifiedKey::new(vec![CertificateDer::from(public.clone())], key);
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .context("TLS cannot be set up")?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(Arc::new(certified))));
    // Each connection stands for itself.
    config.send_tls13_tickets = 0;
    Ok((config, public))
}

/// What tells of this node to others, as far as it knows itself.
async fn own_addresses(host: &str, port: u16) -> Vec<IpAddr> {
    let mut found = looked_up(host, port).await.unwrap_or_default();
    found.retain(|address| !address.is_loopback() && !address.is_unspecified());
    found.truncate(ADDRESSES_MAX);
    found
}

async fn looked_up(host: &str, port: u16) -> io::Result<Vec<IpAddr>> {
    let found = tokio::time::timeout(LOOKUP_PATIENCE, lookup_host((host, port))).await.map_err(io::Error::from)??;
    let mut addresses: Vec<IpAddr> = Vec::new();
    for address in found.map(|address| address.ip()) {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    Ok(addresses)
}

/// The keeper's side of a connection.
pub(super) async fn accept(tls: TlsAcceptor, stream: TcpStream) -> io::Result<server::TlsStream<TcpStream>> {
    tend(&stream)?;
    tokio::time::timeout(HANDSHAKE_PATIENCE, tls.accept(stream)).await.map_err(io::Error::from)?
}

/// The daemon's side of it: to who has the key that stands in the card, and to nobody else.
pub(super) async fn connect(network: &Network, there: &Origin) -> anyhow::Result<client::TlsStream<TcpStream>> {
    let key = BASE64_STANDARD.decode(&network.key).context("its card has no key")?;
    let tls = TlsConnector::from(Arc::new(only_with(key)?));
    let mut addresses = Vec::new();
    if there.is_same_boot(&Origin::here()) {
        addresses.push(IpAddr::from(Ipv4Addr::LOCALHOST));
    }
    let mut tried = String::new();
    match looked_up(&there.host, network.port).await {
        Ok(found) => addresses.extend(found),
        Err(error) => _ = write!(tried, "; {} is no name of a host here: {error}", there.host),
    }
    addresses.extend(&network.addresses);
    addresses.truncate(ADDRESSES_MAX);
    let mut seen: Vec<IpAddr> = Vec::new();
    for address in addresses {
        if seen.contains(&address) {
            continue;
        }
        seen.push(address);
        match connect_to(&tls, SocketAddr::from((address, network.port))).await {
            Ok(stream) => return Ok(stream),
            // A name may have become another machine's.
            Err(error) => _ = write!(tried, "; {address} port {}: {error}", network.port),
        }
    }
    Err(anyhow!("the host {} cannot be connected to{tried}", there.host))
}

async fn connect_to(tls: &TlsConnector, address: SocketAddr) -> io::Result<client::TlsStream<TcpStream>> {
    let stream =
        tokio::time::timeout(CONNECT_PATIENCE, TcpStream::connect(address)).await.map_err(io::Error::from)??;
    tend(&stream)?;
    // It is not sent: who is spoken to is told by its key.
    let name = ServerName::IpAddress(address.ip().into());
    tokio::time::timeout(HANDSHAKE_PATIENCE, tls.connect(name, stream)).await.map_err(io::Error::from)?
}

/// Has small messages leave at once, and sees to it that a side that has gone without a word is missed.
fn tend(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = stream.as_fd();
    sockopt::set_socket_keepalive(socket, true)?;
    sockopt::set_tcp_keepidle(socket, ASKED_AFTER)?;
    sockopt::set_tcp_keepintvl(socket, ASKED_EVERY)?;
    sockopt::set_tcp_keepcnt(socket, ASKED_TIMES)?;
    sockopt::set_tcp_user_timeout(socket, UNANSWERED_MS)?;
    Ok(())
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// Speaks to who has this key.
fn only_with(key: Vec<u8>) -> anyhow::Result<ClientConfig> {
    let provider = provider();
    let pinned = Pinned { key, algorithms: provider.signature_verification_algorithms };
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .context("TLS cannot be set up")?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(pinned))
        .with_no_client_auth();
    config.enable_sni = false;
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// The one key that is good.
#[derive(Debug)]
struct Pinned {
    key: Vec<u8>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        key: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if key.as_ref() == self.key {
            return Ok(ServerCertVerified::assertion());
        }
        Err(CertificateError::ApplicationVerificationFailure.into())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("it speaks an older TLS".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let key = SubjectPublicKeyInfoDer::from(key.as_ref());
        verify_tls13_signature_with_raw_key(message, &key, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    async fn answer(listening: Listening) {
        while let Ok((stream, _)) = listening.listener.accept().await {
            if let Ok(mut stream) = accept(listening.tls.clone(), stream).await {
                let _ = stream.write_all(b"here").await;
                let _ = stream.shutdown().await;
            }
        }
    }

    #[tokio::test]
    async fn who_has_the_key_is_spoken_to_and_nobody_else() {
        let here = Origin::here();
        let (listening, network) = listen(&here.host).await.unwrap();
        tokio::spawn(answer(listening));
        let mut said = String::new();
        connect(&network, &here).await.unwrap().read_to_string(&mut said).await.unwrap();
        assert_eq!(said, "here");

        let (other, another) = listen(&here.host).await.unwrap();
        tokio::spawn(answer(other));
        let wrong = Network { key: another.key, ..network };
        let error = connect(&wrong, &here).await.unwrap_err().to_string();
        assert!(error.contains("127.0.0.1 port") && error.contains("invalid peer certificate"), "{error}");
    }

    #[tokio::test]
    async fn each_key_is_another_one_and_what_is_no_key_is_refused() {
        let here = Origin::here();
        let [first, second] = [listen(&here.host).await.unwrap().1, listen(&here.host).await.unwrap().1];
        assert!(first.key != second.key && first.port != second.port);
        for key in ["", "%"] {
            assert!(connect(&Network { key: key.to_owned(), ..first.clone() }, &here).await.is_err());
        }
        // Nobody listens there any more.
        let error = connect(&first, &Origin { host: "no-such-host.invalid".to_owned(), ..here }).await.unwrap_err();
        assert!(error.to_string().contains("is no name of a host here"), "{error}");
    }

    #[tokio::test]
    async fn who_does_not_speak_tls_hears_nothing_and_is_not_waited_for() {
        let (listening, network) = listen(&crate::host()).await.unwrap();
        let mut stranger = TcpStream::connect((Ipv4Addr::LOCALHOST, network.port)).await.unwrap();
        let (stream, _) = listening.listener.accept().await.unwrap();
        stranger.write_all(b"{\"hello\":{}}\n").await.unwrap();
        assert!(accept(listening.tls, stream).await.is_err());
    }
}
