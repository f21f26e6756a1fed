//! Who may come in: by TLS, and by a password.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, anyhow};
use hyper::{StatusCode, header::HeaderValue};
use tokio::time::Instant;
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        RootCertStore, ServerConfig,
        crypto::ring::default_provider,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
        server::WebPkiClientVerifier,
        version::{TLS12, TLS13},
    },
};

use super::config::{Certificates, Secured};

/// So many wrong passwords are tried in a second: each takes the CPU for a while.
const MOST_WRONG: u32 = 5;
/// Compared with where there is no such user: it must take as long.
const NOBODY: &str = "$2b$10$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW";

#[derive(Default)]
pub(super) struct Doorkeeper {
    acceptor: Option<TlsAcceptor>,
    users: BTreeMap<String, String>,
    /// Passwords that were right: those who come again are known.
    known: RefCell<BTreeMap<String, Vec<u8>>>,
    wrong: Cell<Option<(Instant, u32)>>,
}

impl Doorkeeper {
    /// As the file of `--web.config.file` was handed over; nothing of it: all come in.
    pub(super) fn of(secured: &[u8]) -> Result<Self> {
        if secured.is_empty() {
            return Ok(Self::default());
        }
        let Secured { tls, users } = serde_json::from_slice(secured)?;
        let acceptor = tls.as_ref().map(acceptor).transpose()?;
        Ok(Self { acceptor, users, ..Self::default() })
    }

    pub(super) fn acceptor(&self) -> Option<&TlsAcceptor> {
        self.acceptor.as_ref()
    }

    /// Or with which status it is refused.
    pub(super) fn admits(&self, authorization: Option<&HeaderValue>) -> Result<(), StatusCode> {
        if self.users.is_empty() {
            return Ok(());
        }
        let given = authorization.and_then(|value| credentials(value.to_str().ok()?));
        let (user, password) = given.ok_or(StatusCode::UNAUTHORIZED)?;
        let is_known = self.known.borrow().get(&user).is_some_and(|known| same(known, &password));
        if is_known {
            return Ok(());
        }
        self.may_try()?;
        let hash = self.users.get(&user);
        let is_right =
            bcrypt::verify(&password, hash.map_or(NOBODY, String::as_str)).unwrap_or(false);
        if hash.is_none() || !is_right {
            let (since, times) = self.wrong.get().unwrap_or((Instant::now(), 0));
            self.wrong.set(Some((since, times + 1)));
            return Err(StatusCode::UNAUTHORIZED);
        }
        self.known.borrow_mut().insert(user, password);
        Ok(())
    }

    fn may_try(&self) -> Result<(), StatusCode> {
        match self.wrong.get() {
            Some((since, _)) if since.elapsed() >= Duration::from_secs(1) => {
                self.wrong.set(None);
                Ok(())
            }
            Some((_, times)) if times >= MOST_WRONG => Err(StatusCode::TOO_MANY_REQUESTS),
            _ => Ok(()),
        }
    }
}

fn acceptor(certificates: &Certificates) -> Result<TlsAcceptor> {
    let Certificates { chain, key, client_ca, only_13 } = certificates;
    let read = |pem: &str, name| -> Result<Vec<CertificateDer<'static>>> {
        let all = CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<Vec<_>, _>>();
        let all = all.map_err(|error| anyhow!("{name}: {error}"))?;
        (!all.is_empty()).then_some(all).with_context(|| format!("{name} holds no certificate"))
    };
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes());
    let key = key.map_err(|error| anyhow!("key_file: {error}"))?;
    let provider = Arc::new(default_provider());
    let versions: &[_] = if *only_13 { &[&TLS13] } else { &[&TLS12, &TLS13] };
    let config = ServerConfig::builder_with_provider(Arc::clone(&provider));
    let config = config.with_protocol_versions(versions)?;
    let config = match client_ca {
        None => config.with_no_client_auth(),
        Some((ca, must)) => {
            let mut roots = RootCertStore::empty();
            for certificate in read(ca, "client_ca_file")? {
                roots.add(certificate).context("client_ca_file")?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider);
            let verifier = if *must { verifier } else { verifier.allow_unauthenticated() };
            config.with_client_cert_verifier(verifier.build().context("client_ca_file")?)
        }
    };
    let config =
        config.with_single_cert(read(chain, "cert_file")?, key).context("cert_file, key_file")?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// `Basic bmFtZTpwYXNzd29yZA==`
fn credentials(header: &str) -> Option<(String, Vec<u8>)> {
    let (kind, encoded) = header.split_once(' ')?;
    let bytes = kind.eq_ignore_ascii_case("basic").then(|| decoded(encoded.trim()))??;
    let colon = bytes.iter().position(|byte| *byte == b':')?;
    let user = String::from_utf8(bytes[..colon].to_vec()).ok()?;
    Some((user, bytes[colon + 1..].to_vec()))
}

/// Of base64; `None` of anything else.
fn decoded(text: &str) -> Option<Vec<u8>> {
    let (mut out, mut bits, mut count) = (Vec::new(), 0_u32, 0);
    for byte in text.trim_end_matches('=').bytes() {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push((bits >> count & 0xff) as u8);
        }
    }
    Some(out)
}

/// In a time that does not tell where they differ.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |all, (a, b)| all | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, pin::Pin};

    use tokio::{
        io::{AsyncRead, AsyncWrite, ReadBuf},
        net::{TcpListener, TcpStream},
    };
    use tokio_rustls::{
        TlsConnector,
        rustls::{ClientConfig, SupportedProtocolVersion},
    };

    use super::*;

    fn basic(credentials: &str) -> HeaderValue {
        const DIGITS: &[u8; 64] =
            b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let mut text = String::from("Basic ");
        for three in credentials.as_bytes().chunks(3) {
            let bits = three.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte));
            let bits = bits << (8 * (3 - three.len()));
            for digit in 0..=three.len() {
                text.push(char::from(DIGITS[(bits >> (18 - 6 * digit)) as usize & 63]));
            }
        }
        HeaderValue::from_str(&text).unwrap()
    }

    fn guard() -> Doorkeeper {
        let hash = bcrypt::hash("se:cret", 4).unwrap();
        Doorkeeper { users: [("prometheus".to_owned(), hash)].into(), ..Doorkeeper::default() }
    }

    #[test]
    fn who_has_the_password_comes_in() {
        let (guard, wrong) = (guard(), Err(StatusCode::UNAUTHORIZED));
        assert_eq!(guard.admits(None), wrong);
        assert_eq!(guard.admits(Some(&basic("prometheus:secret"))), wrong);
        assert_eq!(guard.admits(Some(&basic("nobody:se:cret"))), wrong);
        for _ in 0..3 {
            assert_eq!(guard.admits(Some(&basic("prometheus:se:cret"))), Ok(()));
        }
        for odd in ["Basic", "Basic !!", "Bearer cHJvbWV0aGV1cw", "Basic cHJvbWV0aGV1cw"] {
            assert_eq!(guard.admits(Some(&HeaderValue::from_static(odd))), wrong, "{odd}");
        }
        assert_eq!(Doorkeeper::default().admits(None), Ok(()));
    }

    #[test]
    fn guessing_is_slow_and_keeps_out_no_one_who_is_known() {
        let guard = guard();
        assert_eq!(guard.admits(Some(&basic("prometheus:se:cret"))), Ok(()));
        let tries = (0..20).map(|n| guard.admits(Some(&basic(&format!("prometheus:{n}")))));
        let refused = tries.filter(|one| *one == Err(StatusCode::TOO_MANY_REQUESTS)).count();
        assert!(refused >= 10, "{refused}");
        assert_eq!(guard.admits(Some(&basic("prometheus:se:cret"))), Ok(()));
    }

    const CA: &str = include_str!("../../../tests/fixtures/tls/ca.pem");
    const CHAIN: &str = include_str!("../../../tests/fixtures/tls/server.pem");
    const KEY: &str = include_str!("../../../tests/fixtures/tls/server.key");
    const CLIENT: (&str, &str) = (
        include_str!("../../../tests/fixtures/tls/client.pem"),
        include_str!("../../../tests/fixtures/tls/client.key"),
    );

    /// Whether a client that shows this, with these versions, is let in, and can say something.
    fn comes_in(
        of: &Certificates,
        shows: Option<(&str, &str)>,
        versions: &[&'static SupportedProtocolVersion],
    ) -> bool {
        let acceptor = acceptor(of).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(CA.as_bytes()).unwrap()).unwrap();
        let config = ClientConfig::builder_with_provider(default_provider().into());
        let config = config.with_protocol_versions(versions).unwrap().with_root_certificates(roots);
        let config = match shows {
            None => config.with_no_client_auth(),
            Some((chain, key)) => {
                let chain = CertificateDer::from_pem_slice(chain.as_bytes()).unwrap();
                let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
                config.with_client_auth_cert(vec![chain], key).unwrap()
            }
        };
        let connector = TlsConnector::from(Arc::new(config));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let to = listener.local_addr().unwrap();
            let client = async {
                let stream = TcpStream::connect(to).await.unwrap();
                let mut stream =
                    connector.connect("localhost".try_into().unwrap(), stream).await.ok()?;
                let written = poll_fn(|cx| Pin::new(&mut stream).poll_write(cx, b"x")).await;
                written
                    .and(poll_fn(|cx| Pin::new(&mut stream).poll_flush(cx)).await.map(|()| 1))
                    .ok()
            };
            let server = async {
                let (stream, _) = listener.accept().await.unwrap();
                let mut stream = acceptor.accept(stream).await.ok()?;
                let mut byte = [0];
                let mut read = ReadBuf::new(&mut byte);
                poll_fn(|cx| Pin::new(&mut stream).poll_read(cx, &mut read)).await.ok()?;
                (read.filled() == b"x").then_some(())
            };
            let (_, served) = tokio::join!(client, server);
            served.is_some()
        })
    }

    #[test]
    fn clients_come_in_by_what_they_show() {
        let server = |client_ca: Option<(&str, bool)>, only_13| Certificates {
            chain: CHAIN.to_owned(),
            key: KEY.to_owned(),
            client_ca: client_ca.map(|(ca, must)| (ca.to_owned(), must)),
            only_13,
        };
        let both: &[_] = &[&TLS12, &TLS13];
        assert!(comes_in(&server(None, false), None, both));
        assert!(comes_in(&server(None, false), None, &[&TLS12]));
        assert!(!comes_in(&server(None, true), None, &[&TLS12]));
        assert!(comes_in(&server(Some((CA, true)), false), Some(CLIENT), both));
        assert!(!comes_in(&server(Some((CA, true)), false), None, both));
        assert!(comes_in(&server(Some((CA, false)), false), None, both));
        // Signed by the same, and not for clients.
        assert!(!comes_in(&server(Some((CA, false)), false), Some((CHAIN, KEY)), both));
        for (chain, key, why) in
            [("", KEY, "cert_file"), (CHAIN, "", "key_file"), (CHAIN, CLIENT.1, "cert_file")]
        {
            let odd = Certificates {
                chain: chain.to_owned(),
                key: key.to_owned(),
                ..Certificates::default()
            };
            let refused = acceptor(&odd).err().map(|error| format!("{error:#}"));
            assert!(refused.as_ref().is_some_and(|said| said.contains(why)), "{refused:?}");
        }
    }
}
