//! A way to `local-edge` on which it has no pulls that wait, as Cloudflare has none: it offers them by a header, which
//! has another name when it comes out here. So a daemon looks as often as it would there.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::thread;

use anyhow::Context as _;

const OFFER: &[u8] = b"hpc-queue-hold-max";
const NO_OFFER: &[u8] = b"hpc-queue-held-not";

/// Where to ask in place of this address. It is there for as long as this process.
pub(super) fn in_front_of(url: &str) -> anyhow::Result<String> {
    let (host, path) = url
        .strip_prefix("http://")
        .map(|rest| rest.split_once('/').unwrap_or((rest, "")))
        .with_context(|| format!("{url} is no address of local-edge"))?;
    let listener = TcpListener::bind("127.0.0.1:0").context("cannot listen on 127.0.0.1")?;
    let here = format!("http://{}/{path}", listener.local_addr()?);
    let host = host.to_owned();
    thread::spawn(move || {
        for client in listener.incoming().filter_map(Result::ok) {
            // Whoever asks meets a closed connection, as of any server that is gone.
            let Ok(server) = TcpStream::connect(&host) else { continue };
            let Ok(pairs) = both_ways(&client, &server) else { continue };
            for (from, to) in pairs {
                thread::spawn(move || pass(from, to));
            }
        }
    });
    Ok(here)
}

fn both_ways(client: &TcpStream, server: &TcpStream) -> std::io::Result<[(TcpStream, TcpStream); 2]> {
    Ok([(client.try_clone()?, server.try_clone()?), (server.try_clone()?, client.try_clone()?)])
}

/// Until one of both has closed it. A head comes whole: `local-edge` writes it at once, and it is short.
fn pass(mut from: TcpStream, mut to: TcpStream) {
    let mut bytes = vec![0; 64 << 10];
    while let Ok(length @ 1..) = from.read(&mut bytes) {
        let part = &mut bytes[..length];
        if let Some(at) = part.windows(OFFER.len()).position(|window| window == OFFER) {
            part[at..at + OFFER.len()].copy_from_slice(NO_OFFER);
        }
        if to.write_all(part).is_err() {
            break;
        }
    }
    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_out_is_the_same_but_for_the_offer() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = in_front_of(&format!("http://{}/client/v4", server.local_addr().unwrap())).unwrap();
        assert!(url.ends_with("/client/v4"), "{url}");
        let host = url.strip_prefix("http://").unwrap().strip_suffix("/client/v4").unwrap();
        let mut client = TcpStream::connect(host).unwrap();
        client.write_all(b"ask").unwrap();
        let (mut asked, mut question) = (server.accept().unwrap().0, [0; 3]);
        asked.read_exact(&mut question).unwrap();
        asked.write_all(b"HTTP/1.1 200 OK\r\nhpc-queue-hold-max: 25\r\n\r\n{}").unwrap();
        drop(asked);
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert_eq!((&question, answer.as_str()), (b"ask", "HTTP/1.1 200 OK\r\nhpc-queue-held-not: 25\r\n\r\n{}"));
    }
}
