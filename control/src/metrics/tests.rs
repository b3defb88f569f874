//! Scrapes over real sockets.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use super::*;
use crate::show::tests::answers::answer;
use crate::show::{Answer, Query};

/// The figures that answers to questions have.
fn figures() -> Figures {
    macro_rules! view {
        ($query:expr, $answer:ident) => {
            match answer(&$query) {
                Answer::$answer(view) => view,
                other => panic!("{other:?}"),
            }
        };
    }
    let fdb = view!(Query::Fdb { network: None }, Fdb).statistics;
    Figures {
        config: view!(Query::Config {}, Config),
        summary: *view!(Query::Summary {}, Summary),
        store: *view!(Query::Store {}, Store),
        ports: view!(Query::Ports {}, Ports),
        bonds: view!(Query::Bonds {}, Bonds),
        vhost: view!(Query::Vhost { port: None }, Vhost),
        drops: view!(Query::Drops {}, Drops),
        workers: view!(Query::Workers {}, Workers),
        domains: view!(Query::Domains {}, Domains),
        fdb,
        acl: view!(Query::Acl { port: None, rules: false }, Acl),
        memory: view!(Query::Memory {}, Memory),
        cycles_per_second: 2_000_000_000,
    }
}

/// What comes back for a request, headers and all.
fn request(mut stream: impl Read + Write + Send + 'static, path: &str) -> String {
    let text = format!("GET {path} HTTP/1.1\r\nHost: viaduct\r\nConnection: close\r\n\r\n");
    stream.write_all(text.as_bytes()).expect("it takes a request");
    let mut reply = String::new();
    stream.read_to_string(&mut reply).expect("text");
    reply
}

/// Serves one scrape of a page.
async fn scrape(metrics: &mut Metrics, stream: impl Read + Write + Send + 'static) -> String {
    let asked = tokio::task::spawn_blocking(move || request(stream, "/metrics"));
    metrics.next().await.answer(figures());
    asked.await.expect("it ends")
}

#[tokio::test]
async fn figures_are_scraped_from_loopback_and_from_a_unix_socket() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = free.local_addr().expect("it is bound");
    let taken = Metrics::serve(&Listen::Address(address)).err().expect("it is taken").to_string();
    assert!(taken.starts_with(&format!("metrics.listen: {address}: listening failed")), "{taken}");
    drop(free);
    let mut metrics = Metrics::serve(&Listen::Address(address)).expect("it is free");
    let stream = TcpStream::connect(address).expect("it listens");
    let by_tcp = scrape(&mut metrics, stream).await;
    assert!(by_tcp.starts_with("HTTP/1.1 200 OK\r\n"), "{by_tcp}");
    assert!(by_tcp.contains(&format!("content-type: {FORMAT}\r\n")), "{by_tcp}");

    let folder = tempfile::TempDir::new().expect("a folder");
    let path = folder.path().join("metrics.sock");
    // One that a killed process left is replaced; a file of somebody is not.
    drop(std::os::unix::net::UnixListener::bind(&path).expect("a free path"));
    let mut metrics = Metrics::serve(&Listen::Unix(path.clone())).expect("nobody listens there");
    assert!(Metrics::serve(&Listen::Unix(path.clone())).is_err(), "we listen there");
    let stream = UnixStream::connect(&path).expect("it listens");
    let by_file = scrape(&mut metrics, stream).await;
    let body = |reply: &str| reply.split_once("\r\n\r\n").expect("a body").1.to_owned();
    assert_eq!(body(&by_tcp), body(&by_file));
    drop(metrics);
    assert!(!path.exists(), "it was ours");
    std::fs::write(&path, "").expect("a file");
    assert!(Metrics::serve(&Listen::Unix(path.clone())).is_err());
    assert!(path.exists());
}

#[tokio::test]
async fn a_daemon_that_is_busy_is_not_asked_by_everybody() {
    let folder = tempfile::TempDir::new().expect("a folder");
    let path = folder.path().join("metrics.sock");
    let mut metrics = Metrics::serve(&Listen::Unix(path.clone())).expect("a free path");
    let ask = || {
        let stream = UnixStream::connect(&path).expect("it listens");
        tokio::task::spawn_blocking(move || request(stream, "/metrics"))
    };
    let waiting: Vec<_> = (0..SCRAPES_MAX).map(|_| ask()).collect();
    while metrics.scrapes.len() < SCRAPES_MAX {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let sent_away = ask().await.expect("it ends");
    assert!(sent_away.starts_with("HTTP/1.1 429 "), "{sent_away}");
    for _ in 0..SCRAPES_MAX {
        metrics.next().await.answer(figures());
    }
    for waiting in waiting {
        assert!(waiting.await.expect("it ends").starts_with("HTTP/1.1 200 "));
    }
    // A question that is dropped is answered too.
    let asked = ask();
    drop(metrics.next().await);
    assert!(asked.await.expect("it ends").starts_with("HTTP/1.1 503 "));
}

#[test]
fn every_family_is_documented_and_no_other() {
    let page = include_str!("../../../docs/metrics.md");
    let text = figures().encode();
    let families: Vec<(&str, &str)> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' ')).collect();
    assert!(families.len() > 40, "{text}");
    let documented: Vec<(&str, &str)> = page
        .lines()
        .filter_map(|line| {
            let mut cells = line.strip_prefix("| `viaduct_")?.split('|');
            let name = cells.next()?.trim().trim_end_matches('`');
            let kind = cells.next()?.trim();
            Some((page_name(page, name), kind))
        })
        .collect();
    assert_eq!(documented, families);
    assert!(text.ends_with("# EOF\n"), "OpenMetrics ends so");
}

/// The name with what stands before it in the page.
fn page_name<'a>(page: &'a str, name: &'a str) -> &'a str {
    let whole = format!("viaduct_{name}");
    let at = page.find(&whole).expect("it was just found");
    &page[at..at + whole.len()]
}
