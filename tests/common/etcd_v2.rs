//! A real etcd with the v2 API, on the loopback interface, and a client to play Neutron's part.
//!
//! It has free ports and a directory of its own, and is ended with the value, also when a test panics.
//! The client speaks HTTP by hand over a connection of its own each time: what the store under test
//! believes of the API is not believed here as well.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use super::process::{Process, eventually};

/// Time for etcd to come up, on a busy machine.
const SOON: Duration = Duration::from_secs(60);

/// A running etcd of one member.
pub struct EtcdV2 {
    client: String,
    peer: String,
    options: Vec<String>,
    scheme: &'static str,
    /// `user:password` in Base64, once somebody logged in.
    login: Option<String>,
    process: Option<Process>,
    data: TempDir,
}

/// What is missing to run etcd here, as a sentence.
pub fn requirements() -> Result<(), String> {
    match Command::new("etcd").arg("--version").output() {
        Ok(_) => Ok(()),
        Err(_) => Err("there is no etcd; install etcd-server".to_owned()),
    }
}

impl EtcdV2 {
    /// Starts one and waits until it answers.
    #[track_caller]
    pub fn start() -> EtcdV2 {
        let etcd = EtcdV2::start_with("http", &[]);
        eventually("etcd answers", SOON, || etcd.try_get("/").is_some());
        etcd
    }

    /// Starts one with these options, whose members are spoken to by `http` or `https`. Does not wait.
    #[track_caller]
    pub fn start_with(scheme: &'static str, options: &[&str]) -> EtcdV2 {
        let mut etcd = EtcdV2 {
            client: free_address(),
            peer: free_address(),
            options: options.iter().map(|&option| option.to_owned()).collect(),
            scheme,
            login: None,
            process: None,
            data: TempDir::new().expect("a directory for the test"),
        };
        etcd.launch();
        etcd
    }

    /// Starts it again where it was, after [`EtcdV2::kill`].
    #[track_caller]
    pub fn launch(&mut self) {
        assert!(self.process.is_none(), "it runs");
        let (client, peer) = (self.url(), format!("http://{}", self.peer));
        let mut command = Command::new("etcd");
        command
            .args(["--enable-v2=true", "--log-level=error", "--name=one"])
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .arg(format!("--initial-cluster=one={peer}"))
            .arg("--data-dir")
            .arg(self.data.path().join("data"))
            .args(&self.options);
        self.process = Some(Process::start(&mut command));
    }

    /// Ends it at once (SIGKILL). What it holds is on the disk.
    #[track_caller]
    pub fn kill(&mut self) {
        self.process.take().expect("it runs").kill();
    }

    /// Starts it again where only the caller finds it, who has a way back to where it was.
    #[track_caller]
    pub fn hide(&mut self) -> impl FnOnce(&mut EtcdV2) + use<> {
        self.kill();
        let usual = std::mem::replace(&mut self.client, free_address());
        self.launch();
        self.wait();
        move |etcd| {
            etcd.kill();
            etcd.client = usual;
            etcd.launch();
            etcd.wait();
        }
    }

    /// Throws away what it holds, after [`EtcdV2::kill`].
    pub fn lose_data(&self) {
        std::fs::remove_dir_all(self.data.path().join("data")).expect("it is ours");
    }

    /// Where clients find it.
    pub fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.client)
    }

    /// Waits until it answers requests.
    #[track_caller]
    pub fn wait(&self) {
        eventually("etcd answers", SOON, || self.try_get("/").is_some());
    }

    /// Logs in with each request from now on: `user:password` in Base64.
    pub fn log_in(&mut self, base64: &str) {
        self.login = Some(base64.to_owned());
    }

    /// Writes a value.
    #[track_caller]
    pub fn set(&self, key: &str, value: &str) {
        self.done("PUT", key, &[("value", value)]);
    }

    /// Writes a value as the text of this JSON.
    #[track_caller]
    pub fn set_json(&self, key: &str, value: &Value) {
        self.set(key, &value.to_string());
    }

    /// Deletes a key.
    #[track_caller]
    pub fn delete(&self, key: &str) {
        self.done("DELETE", key, &[]);
    }

    /// Deletes a directory and all below it.
    #[track_caller]
    pub fn delete_folder(&self, key: &str) {
        self.done("DELETE", &format!("{key}?recursive=true&dir=true"), &[]);
    }

    /// The value at a key.
    pub fn value(&self, key: &str) -> Option<String> {
        self.try_get(key)?["node"]["value"].as_str().map(str::to_owned)
    }

    /// What etcd says of a key: its value, its index, its time to live.
    pub fn node(&self, key: &str) -> Option<Value> {
        let mut answer = self.try_get(key)?;
        answer.get_mut("node").map(Value::take)
    }

    /// All keys below a directory, in order.
    pub fn keys(&self, folder: &str) -> Vec<String> {
        let mut keys = Vec::new();
        let Some(answer) = self.try_get(&format!("{folder}?recursive=true")) else { return keys };
        let mut nodes = vec![answer["node"].clone()];
        while let Some(node) = nodes.pop() {
            nodes.extend(node["nodes"].as_array().into_iter().flatten().cloned());
            if node.get("value").is_some() {
                keys.push(node["key"].as_str().expect("a key").to_owned());
            }
        }
        keys.sort();
        keys
    }

    /// Makes a request that must be granted, and returns the answer.
    #[track_caller]
    pub fn done(&self, method: &str, key: &str, form: &[(&str, &str)]) -> Value {
        let path = format!("/v2/keys{key}");
        let (status, body) = self.ask(method, &path, FORM, &encoded(form)).expect("etcd answers");
        assert!((200..300).contains(&status), "{method} {key}: {status} {body}");
        serde_json::from_str(&body).unwrap_or(Value::Null)
    }

    /// Makes any request, of any part of the API, with a body in JSON. Returns status and body.
    #[track_caller]
    pub fn api(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        self.ask(method, path, "application/json", body).expect("etcd answers")
    }

    fn try_get(&self, key: &str) -> Option<Value> {
        let (status, body) = self.ask("GET", &format!("/v2/keys{key}"), FORM, "").ok()?;
        (status == 200).then(|| serde_json::from_str(&body).expect("etcd answers in JSON"))
    }

    fn ask(
        &self,
        method: &str,
        path: &str,
        kind: &str,
        body: &str,
    ) -> std::io::Result<(u16, String)> {
        let mut stream = TcpStream::connect(&self.client)?;
        stream.set_read_timeout(Some(SOON))?;
        let login = match &self.login {
            Some(login) => format!("Authorization: Basic {login}\r\n"),
            None => String::new(),
        };
        write!(
            stream,
            "{method} {path} HTTP/1.0\r\nHost: etcd\r\n{login}Content-Type: {kind}\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let other = || std::io::Error::other(format!("not HTTP: {answer}"));
        let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(other)?;
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        Ok((status.ok_or_else(other)?, body.to_owned()))
    }
}

const FORM: &str = "application/x-www-form-urlencoded";

fn encoded(form: &[(&str, &str)]) -> String {
    let pairs = form.iter().map(|(name, value)| {
        let value: String = value
            .bytes()
            .map(|byte| match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => char::from(byte).to_string(),
                _ => format!("%{byte:02X}"),
            })
            .collect();
        format!("{name}={value}")
    });
    pairs.collect::<Vec<_>>().join("&")
}

/// An address on loopback that nobody listens on.
#[track_caller]
fn free_address() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("the loopback interface");
    listener.local_addr().expect("it is bound").to_string()
}

/// Makes a certificate authority and a certificate of `127.0.0.1` for servers and clients in a folder:
/// `ca.pem`, `one.pem`, `one.key`.
#[track_caller]
pub fn certificates(folder: &Path) {
    let run = |arguments: &[&str]| {
        let mut command = Command::new("openssl");
        super::process::run(command.args(arguments).current_dir(folder), SOON).success();
    };
    let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
    let ca =
        ["req", "-x509", "-days", "2", "-subj", "/CN=ca", "-keyout", "ca.key", "-out", "ca.pem"];
    run(&[&ca[..], &key[..]].concat());
    let request = ["req", "-subj", "/CN=one", "-keyout", "one.key", "-out", "one.csr"];
    run(&[&request[..], &key[..]].concat());
    let extensions = "subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth\n";
    std::fs::write(folder.join("one.ext"), extensions).expect("it can be written");
    run(&[
        "x509",
        "-req",
        "-in",
        "one.csr",
        "-CA",
        "ca.pem",
        "-CAkey",
        "ca.key",
        "-CAcreateserial",
        "-days",
        "2",
        "-extfile",
        "one.ext",
        "-out",
        "one.pem",
    ]);
}
