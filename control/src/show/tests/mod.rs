//! Questions and answers over real sockets, good clients beside bad ones.

pub(crate) mod answers;

use std::os::unix::fs::PermissionsExt;
use std::os::unix::net as blocking;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::json;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

use self::answers::{answer, port, red, uplink, web};
use super::protocol::Reply;
use super::view::PortKind;
use super::*;

/// A directory with a socket in it, which a daemon that answers every question may serve.
struct Bed {
    directory: TempDir,
}

impl Bed {
    fn new() -> Bed {
        Bed { directory: TempDir::new().expect("a directory for the test") }
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("control.sock")
    }

    /// Serves until the test ends.
    fn serve(&self) {
        let mut server = Server::bind(&self.socket()).expect("the directory can be written");
        tokio::spawn(async move {
            loop {
                let request = server.next().await;
                let answer = answer(request.query());
                request.answer(answer);
            }
        });
    }

    async fn connect(&self) -> UnixStream {
        UnixStream::connect(self.socket()).await.expect("the daemon listens")
    }

    /// A good client is answered at once.
    async fn is_well(&self) {
        let start = Instant::now();
        assert_eq!(
            ask(&self.socket(), &Query::Errors {}).await.ok(),
            Some(answer(&Query::Errors {}))
        );
        assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
    }
}

fn every_query() -> Vec<Query> {
    vec![
        Query::Summary {},
        Query::Ports {},
        Query::Bonds {},
        Query::Domains {},
        Query::Fdb { network: None },
        Query::Fdb { network: Some(red().uuid) },
        Query::Vhost { port: "00000000-0000-4000-8000-000000000002".parse().ok() },
        Query::Workers {},
        Query::Rebalance { dry_run: true },
        Query::Rebalance { dry_run: false },
        Query::Config {},
        Query::Reload { dry_run: true, partly: false },
        Query::Reload { dry_run: false, partly: true },
        Query::Handover { dry_run: true },
        Query::Handover { dry_run: false },
        Query::Acl { port: None, rules: false },
        Query::Acl { port: "00000000-0000-4000-8000-000000000002".parse().ok(), rules: true },
        Query::Explain { port: "00000000-0000-4000-8000-000000000002".parse().expect("a UUID") },
        Query::Trial { from: Some(web()), to: None, frame: "raw ff".to_owned() },
        Query::Trial { from: None, to: Some(uplink()), frame: "raw ff".to_owned() },
        Query::Memory {},
        Query::Store {},
        Query::Accept {},
        Query::Drops {},
        Query::Errors {},
    ]
}

#[tokio::test]
async fn every_question_has_its_answer() {
    let bed = Bed::new();
    bed.serve();
    for query in every_query() {
        let line = query.line();
        assert_eq!(line.iter().filter(|octet| **octet == b'\n').count(), 1, "{query:?}");
        assert_eq!(Query::parse(&line), Ok(query.clone()));
        assert_eq!(ask(&bed.socket(), &query).await.ok(), Some(answer(&query)), "{query:?}");
    }
}

#[test]
fn views_have_the_names_that_programs_rely_on() {
    let Answer::Ports(ports) = answer(&Query::Ports {}) else { unreachable!("ports were asked") };
    assert_eq!(
        serde_json::to_value(&ports[0]).expect("JSON"),
        json!({
            "uuid": "00000000-0000-4000-8000-000000000002", "name": null, "kind": "vhost-user",
            "number": 1, "network": {
                "uuid": "00000000-0000-4000-8000-000000000001", "name": "red"
            },
            "mac": "52:54:00:12:34:56", "status": "waiting", "reason": "no socket yet",
            "admin_up": true, "port_security": "filtered", "socket": null, "device": "net_tap0",
            "interface": null, "mirror": null, "vf": null, "filters": null,
            "restarts": 8, "queues": 1, "workers": [0],
            "received_frames": 1, "received_bytes": 64, "sent_frames": 2, "sent_bytes": 128,
            "dropped_frames": 3, "flooded_frames": 4,
            "software_checksums": 6, "software_segments": 7, "learned": 5, "mirror": null,
        })
    );
    let uplink = serde_json::to_value(&ports[1]).expect("JSON");
    assert_eq!((&uplink["physnet"], &uplink["uuid"]), (&json!("wire"), &json!(null)));
}

/// Sends this and returns all that comes back.
async fn say(bed: &Bed, words: &[u8]) -> String {
    let mut stream = bed.connect().await;
    stream.write_all(words).await.expect("the daemon reads");
    let mut reply = String::new();
    stream.read_to_string(&mut reply).await.expect("the daemon answers");
    reply
}

#[tokio::test]
async fn what_is_no_question_is_refused() {
    let bed = Bed::new();
    bed.serve();
    for (words, why) in [
        (
            "{\"query\":\"weather\"}\n",
            "unknown variant `weather`, expected one of `summary`, `ports`",
        ),
        ("{\"query\":\"ports\",\"network\":\"x\"}\n", "unknown field `network`"),
        ("{\"query\":\"fdb\",\"network\":\"x\"}\n", "`x` is not a UUID; write a UUID such as"),
        ("{\"query\":\"fdb\",\"port\":\"x\"}\n", "unknown field `port`"),
        ("\n", "EOF while parsing"),
        ("GET / HTTP/1.1\r\n\r\n", "expected value"),
        ("[[[[[[[[\n", "invalid type"),
    ] {
        let reply = say(&bed, words.as_bytes()).await;
        let reply: Reply = serde_json::from_str(&reply).expect("a reply");
        let refusal = reply.refusal.expect("a refusal");
        assert!(refusal.contains(why), "{words:?}: {refusal}");
        assert!(refusal.starts_with("viaduct 0.1.0 does not understand the question: "));
    }
    bed.is_well().await;
}

#[tokio::test]
async fn the_end_of_the_stream_ends_a_question_too() {
    let bed = Bed::new();
    bed.serve();
    let mut stream = bed.connect().await;
    stream.write_all(b"{\"query\":\"drops\"}").await.expect("the daemon reads");
    stream.shutdown().await.expect("one side can be closed");
    let mut reply = String::new();
    stream.read_to_string(&mut reply).await.expect("the daemon answers");
    assert!(reply.ends_with("}\n") && reply.contains("\"reason\":\"ring-full\""), "{reply}");
}

#[tokio::test]
async fn silent_clients_keep_nobody_out_and_are_sent_away() {
    let bed = Bed::new();
    bed.serve();
    let mut silent = Vec::new();
    for _ in 0..40 {
        silent.push(bed.connect().await);
        if silent.len() % 10 == 0 {
            bed.is_well().await;
        }
    }
    // The first ones had to make room; the last one is told why it is sent away.
    let mut reply = String::new();
    silent[0].read_to_string(&mut reply).await.expect("the end");
    assert_eq!(reply, "");
    silent[39].read_to_string(&mut reply).await.expect("a refusal");
    assert!(reply.contains("no question came within 5 s"), "{reply}");
}

#[tokio::test]
async fn a_flood_is_cut_off() {
    let bed = Bed::new();
    bed.serve();
    let mut stream = bed.connect().await;
    // More than the socket's buffer: writing ends with the connection, or never.
    let flood = stream.write_all(&[b'x'; 4 << 20]).await;
    assert!(flood.is_err(), "the daemon read 4 MiB of nonsense");
    let mut reply = Vec::new();
    // The rest of what was sent is lost with the connection, and the kernel says so.
    let _ = stream.read_to_end(&mut reply).await;
    let reply = String::from_utf8_lossy(&reply);
    assert!(reply.contains("the question is longer than 4096 octets"), "{reply}");
    bed.is_well().await;
}

#[tokio::test]
async fn a_vanished_client_harms_nobody() {
    let bed = Bed::new();
    let mut server = Server::bind(&bed.socket()).expect("the directory can be written");
    let mut gone = bed.connect().await;
    gone.write_all(&Query::Ports {}.line()).await.expect("it is sent");
    let request = server.next().await;
    drop(gone);
    let reply = answer(request.query());
    request.answer(reply);

    // A question that nobody answers is not forgotten silently.
    let socket = bed.socket();
    let asking = tokio::spawn(async move { ask(&socket, &Query::Ports {}).await });
    drop(server.next().await);
    let error = asking.await.expect("no panic").expect_err("it was dropped").to_string();
    assert_eq!(error, "the daemon did not answer: the daemon is stopping");
}

#[tokio::test]
async fn who_does_not_read_blocks_nobody() {
    let bed = Bed::new();
    let mut server = Server::bind(&bed.socket()).expect("the directory can be written");
    tokio::spawn(async move {
        loop {
            let request = server.next().await;
            let answer = match request.query() {
                // Some megabytes, far above what a socket buffers.
                Query::Ports {} => Answer::Ports(
                    (0..20_000).map(|_| port(web(), PortKind::VhostUser, None)).collect(),
                ),
                other => answer(other),
            };
            request.answer(answer);
        }
    });
    let mut lazy = bed.connect().await;
    lazy.write_all(&Query::Ports {}.line()).await.expect("it is sent");
    bed.is_well().await;
    let Ok(Answer::Ports(ports)) = ask(&bed.socket(), &Query::Ports {}).await else {
        panic!("a large answer arrives whole")
    };
    assert_eq!(ports.len(), 20_000);
    drop(lazy);
    bed.is_well().await;
}

#[tokio::test]
async fn the_socket_is_for_user_and_group_and_goes_with_the_server() {
    let bed = Bed::new();
    let server = Server::bind(&bed.socket()).expect("the directory can be written");
    let found = std::fs::metadata(bed.socket()).expect("the socket is there");
    assert_eq!(found.permissions().mode() & 0o777, 0o660);
    assert_eq!(server.path(), bed.socket());
    drop(server);
    assert!(!bed.socket().exists());
}

#[tokio::test]
async fn only_what_is_left_over_is_replaced() {
    let bed = Bed::new();
    let path = bed.socket();
    drop(blocking::UnixListener::bind(&path).expect("the directory can be written"));
    assert!(path.exists(), "a killed daemon leaves its socket behind");
    let server = Server::bind(&path).expect("nobody listens on it");

    let shown = path.display();
    assert_eq!(
        Server::bind(&path).expect_err("a daemon lives there").to_string(),
        format!(
            "control socket {shown}: another daemon answers there; stop it, or set another \
             `control.socket` in the configuration"
        )
    );
    // A socket of somebody else's, made in our place, is not removed with ours.
    std::fs::remove_file(&path).expect("it is there");
    let theirs = blocking::UnixListener::bind(&path).expect("the place is free");
    drop(server);
    assert!(path.exists());
    drop(theirs);

    std::fs::remove_file(&path).expect("it is there");
    std::fs::write(&path, "precious").expect("the directory can be written");
    assert_eq!(
        Server::bind(&path).expect_err("a file lies there").to_string(),
        format!(
            "control socket {shown}: something that is no socket lies there; move it away, or set \
             another `control.socket` in the configuration"
        )
    );
    assert_eq!(std::fs::read_to_string(&path).expect("it is there"), "precious");

    let nowhere = bed.directory.path().join("no/control.sock");
    let error = Server::bind(&nowhere).expect_err("no directory").to_string();
    assert!(error.contains("no/control.sock: making it failed: "), "{error}");
    assert!(error.ends_with("; make its directory"), "{error}");
}

#[tokio::test]
async fn without_a_daemon_the_command_says_how_to_start_one() {
    let bed = Bed::new();
    let path = bed.socket();
    let said = |error: AskError| error.to_string().replace(&path.display().to_string(), "SOCKET");
    let not_running = "no daemon listens on SOCKET; start one: `viaduct run --config FILE`, or name \
                       the socket of the one that runs: `--socket PATH`";
    let error = ask(&path, &Query::Ports {}).await.expect_err("nothing is there");
    assert_eq!(said(error), not_running);
    drop(blocking::UnixListener::bind(&path).expect("the directory can be written"));
    let error = ask(&path, &Query::Ports {}).await.expect_err("nobody listens");
    assert_eq!(said(error), not_running);
}

/// Asks somebody who replies with this, whatever the question.
async fn ask_stranger(path: &Path, reply: &'static str) -> String {
    let listener = UnixListener::bind(path).expect("the directory can be written");
    let stranger = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a client");
        let mut question = [0; 64];
        let _ = stream.read(&mut question).await.expect("a question");
        stream.write_all(reply.as_bytes()).await.expect("it is read");
    });
    let error = ask(path, &Query::Ports {}).await.expect_err("that is no answer").to_string();
    stranger.await.expect("no panic");
    std::fs::remove_file(path).expect("it is there");
    error.replace(&path.display().to_string(), "SOCKET")
}

#[tokio::test]
async fn strange_answers_are_told_with_both_versions() {
    let bed = Bed::new();
    let path = bed.socket();
    assert_eq!(
        ask_stranger(&path, "").await,
        "the daemon at SOCKET ended the connection without an answer: it is stopping, or too many \
         ask at a time; try again"
    );
    for (reply, theirs) in [
        ("{\"version\":\"9.0.0\",\"answer\":{\"lights\":[]}}\n", "9.0.0"),
        ("{\"version\":\"9.0.0\",\"answer\":{\"ports\":[{\"uuid\":1}]}}\n", "9.0.0"),
        ("{\"version\":\"9.0.0\",\"answer\":{\"drops\":[]}}\n", "9.0.0"),
        ("{\"version\":\"9.0.0\"}\n", "9.0.0"),
        ("220 mail.example.org ESMTP\n", "of unknown version"),
        ("{\"version\":\"0.1.0\",\"answer\":{\"ports\":[", "of unknown version"),
    ] {
        let said = ask_stranger(&path, reply).await;
        let start = format!(
            "the answer of the daemon, viaduct {theirs}, is not understood by this viaduct 0.1.0: "
        );
        assert!(said.starts_with(&start), "{said}");
    }
    // More in an answer than this version knows is no harm.
    let reply: Reply = serde_json::from_str(
        "{\"version\":\"9.0.0\",\"answer\":{\"fdb\":{\"statistics\":{\"entries\":0,\"capacity\":0,\
         \"huge_pages\":false,\"learned\":0,\"moved\":0,\"evicted\":0,\"aged\":0,\"over_quota\":0,\
         \"no_room\":0,\"deferred\":0,\"damped\":0,\"temperature\":20},\"entries\":[]}}}",
    )
    .expect("an answer");
    assert!(matches!(reply.answer, Some(Answer::Fdb(_))));
}
