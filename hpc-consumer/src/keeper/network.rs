//! How a keeper on another machine is reached: TCP, and on it TLS 1.3 with keys that both sides have made for it.
//!
//! There is nobody who could vouch for them, and nobody has to: each leaves its public key in the folder of the
//! allocation, and speaks with who has the other one. So there are no certificates, with names and dates that would say
//! nothing, but bare keys (RFC 7250).
//!
//! Everyone in the network can connect, a job of the same user as well, which can read whatever stands in the folder.
//! But it cannot write there, and the private keys are in no file: what it reads does not let it pass for either side.

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
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{AlwaysResolvesClientRawPublicKeys, Resumption};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, ring, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::AlwaysResolvesServerRawPublicKeys;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::sign::CertifiedKey;
use rustls::version::TLS13;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, ServerConfig, SignatureScheme,
};
use tokio::net::{TcpListener, TcpStream, lookup_host};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

use super::folder::{Network, Origin};

/// How long the two sides may take to have a safe connection.
const HANDSHAKE_PATIENCE: Duration = Duration::from_secs(5);

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

/// Where a keeper listens.
pub(super) struct Listening {
    pub(super) listener: TcpListener,
    pub(super) tls: TlsAcceptor,
}

/// Listens on a port of its own, with a key of its own.
pub(super) async fn listen(host: &str) -> anyhow::Result<(Listening, Network)> {
    let key = Key::make()?;
    let config = answering_with(&key)?;
    // A node may have no addresses of the newer kind at all; where it has, this is heard on both.
    let listener = match TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0)).await {
        Ok(listener) => listener,
        Err(_) => TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).await.context("the keeper cannot listen")?,
    };
    let port = listener.local_addr()?.port();
    let addresses = own_addresses(host, port).await;
    let tls = TlsAcceptor::from(Arc::new(config));
    Ok((Listening { listener, tls }, Network { port, addresses, key: BASE64_STANDARD.encode(key.public) }))
}

/// A key that one side has made for itself.
pub(super) struct Key {
    whole: Arc<CertifiedKey>,
    /// The public part, as DER.
    pub(super) public: Vec<u8>,
}

impl Key {
    pub(super) fn make() -> anyhow::Result<Self> {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(|error| anyhow!("the system has no randomness: {error}"))?;
        let private = [PKCS8_OF_ED25519.as_slice(), &seed].concat();
        let key = ring::sign::any_eddsa_type(&PrivatePkcs8KeyDer::from(private)).context("no key can be made")?;
        let public = key.public_key().context("a key has no public part")?.to_vec();
        let whole = Arc::new(CertifiedKey::new(vec![CertificateDer::from(public.clone())], key));
        Ok(Self { whole, public })
    }
}

/// How a keeper answers.
fn answering_with(key: &Key) -> anyhow::Result<ServerConfig> {
    let provider = provider();
    let some_key = Keys { only: None, algorithms: provider.signature_verification_algorithms };
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .context("TLS cannot be set up")?
        .with_client_cert_verifier(Arc::new(some_key))
        .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(key.whole.clone())));
    // Each connection stands for itself.
    config.send_tls13_tickets = 0;
    Ok(config)
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

/// The keeper's side of a connection, and the public key of who is there: it has the private one, and it is not known
/// yet whose that is.
pub(super) async fn accept(tls: TlsAcceptor, stream: TcpStream) -> io::Result<(server::TlsStream<TcpStream>, Vec<u8>)> {
    tend(&stream)?;
    let stream = tokio::time::timeout(HANDSHAKE_PATIENCE, tls.accept(stream)).await.map_err(io::Error::from)??;
    let keys = stream.get_ref().1.peer_certificates();
    let key = keys.and_then(|keys| keys.first()).map(|key| key.to_vec());
    key.map(|key| (stream, key)).ok_or_else(|| io::Error::other("it has no key"))
}

/// The daemon's side of it: to who has the key that stands in the card, and to nobody else.
pub(super) async fn connect(
    network: &Network,
    there: &Origin,
    own: &Key,
) -> anyhow::Result<client::TlsStream<TcpStream>> {
    let key = BASE64_STANDARD.decode(&network.key).context("its card has no key")?;
    let tls = TlsConnector::from(Arc::new(only_with(key, own)?));
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
fn only_with(key: Vec<u8>, own: &Key) -> anyhow::Result<ClientConfig> {
    let provider = provider();
    let pinned = Keys { only: Some(key), algorithms: provider.signature_verification_algorithms };
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .context("TLS cannot be set up")?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(pinned))
        .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(own.whole.clone())));
    config.enable_sni = false;
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// Which keys are good, bare ones: the only one; or any, if who shows it has its private part as well.
#[derive(Debug)]
struct Keys {
    only: Option<Vec<u8>>,
    algorithms: WebPkiSupportedAlgorithms,
}

type Checked = Result<HandshakeSignatureValid, Error>;

impl Keys {
    fn check(&self, message: &[u8], key: &[u8], signature: &DigitallySignedStruct) -> Checked {
        let key = SubjectPublicKeyInfoDer::from(key);
        verify_tls13_signature_with_raw_key(message, &key, signature, &self.algorithms)
    }
}

fn too_old() -> Checked {
    Err(Error::General("it speaks an older TLS".to_owned()))
}

impl ServerCertVerifier for Keys {
    fn verify_server_cert(
        &self,
        key: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if self.only.as_deref() == Some(key.as_ref()) {
            return Ok(ServerCertVerified::assertion());
        }
        Err(CertificateError::ApplicationVerificationFailure.into())
    }

    fn verify_tls12_signature(&self, _: &[u8], _: &CertificateDer<'_>, _: &DigitallySignedStruct) -> Checked {
        too_old()
    }

    fn verify_tls13_signature(&self, said: &[u8], key: &CertificateDer<'_>, by: &DigitallySignedStruct) -> Checked {
        self.check(said, key.as_ref(), by)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

impl ClientCertVerifier for Keys {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(&self, _: &[u8], _: &CertificateDer<'_>, _: &DigitallySignedStruct) -> Checked {
        too_old()
    }

    fn verify_tls13_signature(&self, said: &[u8], key: &CertificateDer<'_>, by: &DigitallySignedStruct) -> Checked {
        self.check(said, key.as_ref(), by)
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

    #[derive(Debug)]
    struct NoKey;

    impl rustls::client::ResolvesClientCert for NoKey {
        fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
            None
        }

        fn only_raw_public_keys(&self) -> bool {
            true
        }

        fn has_certs(&self) -> bool {
            true
        }
    }

    async fn answer(listening: Listening) {
        while let Ok((stream, _)) = listening.listener.accept().await {
            if let Ok((mut stream, key)) = accept(listening.tls.clone(), stream).await {
                let _ = stream.write_all(&key).await;
                let _ = stream.shutdown().await;
            }
        }
    }

    #[tokio::test]
    async fn who_has_the_key_is_spoken_to_and_nobody_else() {
        let (here, own) = (Origin::here(), Key::make().unwrap());
        let (listening, network) = listen(&here.host).await.unwrap();
        tokio::spawn(answer(listening));
        let mut said = Vec::new();
        connect(&network, &here, &own).await.unwrap().read_to_end(&mut said).await.unwrap();
        assert_eq!(said, own.public, "each knows which key the other one has");

        let (other, another) = listen(&here.host).await.unwrap();
        tokio::spawn(answer(other));
        let wrong = Network { key: another.key, ..network };
        let error = connect(&wrong, &here, &own).await.unwrap_err().to_string();
        assert!(error.contains("127.0.0.1 port") && error.contains("invalid peer certificate"), "{error}");
    }

    #[tokio::test]
    async fn each_key_is_another_one_and_what_is_no_key_is_refused() {
        let (here, own) = (Origin::here(), Key::make().unwrap());
        let [first, second] = [listen(&here.host).await.unwrap().1, listen(&here.host).await.unwrap().1];
        assert!(first.key != second.key && first.port != second.port);
        for key in ["", "%"] {
            assert!(connect(&Network { key: key.to_owned(), ..first.clone() }, &here, &own).await.is_err());
        }
        // Nobody listens there any more.
        let there = Origin { host: "no-such-host.invalid".to_owned(), ..here };
        let error = connect(&first, &there, &own).await.unwrap_err();
        assert!(error.to_string().contains("is no name of a host here"), "{error}");
    }

    #[tokio::test]
    async fn who_has_no_key_or_does_not_speak_tls_hears_nothing_and_is_not_waited_for() {
        let (listening, network) = listen(&crate::host()).await.unwrap();
        let call = || TcpStream::connect((Ipv4Addr::LOCALHOST, network.port));
        let mut stranger = call().await.unwrap();
        let (stream, _) = listening.listener.accept().await.unwrap();
        stranger.write_all(b"{\"hello\":{}}\n").await.unwrap();
        assert!(accept(listening.tls.clone(), stream).await.is_err());

        let key = BASE64_STANDARD.decode(&network.key).unwrap();
        let mut config = only_with(key, &Key::make().unwrap()).unwrap();
        config.client_auth_cert_resolver = Arc::new(NoKey);
        let name = ServerName::IpAddress(IpAddr::from(Ipv4Addr::LOCALHOST).into());
        let stranger = call().await.unwrap();
        let (stream, _) = listening.listener.accept().await.unwrap();
        let tls = TlsConnector::from(Arc::new(config));
        let (_, accepted) = tokio::join!(tls.connect(name, stranger), accept(listening.tls, stream));
        assert!(accepted.is_err());
    }
}
