//! A real etcd on the loopback interface, of one member or three.
//!
//! Ports are chosen free, data lies in a directory that goes with the cluster, and members are ended
//! with the value, also when a test panics. What tests do to keys goes by a client of its own, on a
//! thread of its own, so that it can be called from any test, asynchronous or not.

use std::fmt::Debug;
use std::future::Future;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use etcd_client::{
    Certificate, Client, CompactionOptions, ConnectOptions, DeleteOptions, Error, GetOptions,
    Identity, TlsOptions,
};
use tempfile::TempDir;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::process::{self, Process, eventually};

/// Time for a cluster to come up or to agree, on a busy machine.
const SOON: Duration = Duration::from_secs(60);

/// A running cluster.
pub struct Etcd {
    members: Vec<Member>,
    options: Vec<String>,
    tls: Option<Pki>,
    user: Option<(String, String)>,
    runtime: Handle,
    /// Ends the thread of the runtime when dropped.
    _end: oneshot::Sender<()>,
    data: TempDir,
}

struct Member {
    name: String,
    client: String,
    peer: String,
    process: Option<Process>,
    /// Whether it was frozen by a test.
    frozen: bool,
}

/// Certificates made for one test: an authority, and what it vouches for.
pub struct Pki {
    directory: TempDir,
}

/// A value, with what etcd says of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The key.
    pub key: String,
    /// The value.
    pub value: String,
    /// When it was written.
    pub revision: i64,
    /// The lease that it stands under, or 0.
    pub lease: i64,
}

/// What is missing to run etcd here, as a sentence.
pub fn requirements() -> Result<(), String> {
    for program in ["etcd", "etcdctl", "openssl"] {
        if Command::new(program).arg("version").output().is_err() {
            return Err(format!(
                "there is no {program}; install etcd-server, etcd-client, openssl"
            ));
        }
    }
    Ok(())
}

impl Etcd {
    /// Starts a cluster and waits until it answers.
    #[track_caller]
    pub fn start(members: usize) -> Etcd {
        Etcd::start_with(members, &[], None)
    }

    /// The same, with these options for each member, and with TLS.
    #[track_caller]
    pub fn start_with(members: usize, options: &[&str], tls: Option<Pki>) -> Etcd {
        // Somebody else may take a port between the choice and the start.
        for _ in 0..3 {
            let mut etcd = Etcd::chosen(members, options);
            etcd.tls = tls.as_ref().map(Pki::copy);
            (0..members).for_each(|member| etcd.launch(member));
            if etcd.comes_up() {
                return etcd;
            }
        }
        panic!("etcd does not start");
    }

    fn chosen(members: usize, options: &[&str]) -> Etcd {
        let listeners: Vec<TcpListener> = (0..2 * members)
            .map(|_| TcpListener::bind("127.0.0.1:0").expect("a free port"))
            .collect();
        let address = |listener: &TcpListener| {
            let port = listener.local_addr().expect("it is bound").port();
            format!("127.0.0.1:{port}")
        };
        let members = listeners.chunks(2).enumerate().map(|(number, pair)| Member {
            name: format!("m{number}"),
            client: address(&pair[0]),
            peer: address(&pair[1]),
            process: None,
            frozen: false,
        });
        let members = members.collect();
        let (end, ended) = oneshot::channel::<()>();
        let (handle, started) = mpsc::channel();
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.expect("a runtime for the test's own client");
            handle.send(runtime.handle().clone()).expect("it is waited for");
            // An error is the sender's end.
            let _ = runtime.block_on(ended);
        });
        Etcd {
            members,
            options: options.iter().map(|option| (*option).to_owned()).collect(),
            tls: None,
            user: None,
            runtime: started.recv().expect("the thread has started"),
            _end: end,
            data: TempDir::new().expect("a directory for the test"),
        }
    }

    /// Starts a member, with the data that it has.
    #[track_caller]
    pub fn launch(&mut self, member: usize) {
        let cluster: Vec<String> =
            self.members.iter().map(|it| format!("{}=http://{}", it.name, it.peer)).collect();
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let it = &self.members[member];
        let mut command = Command::new("etcd");
        command
            .env_clear()
            .args(["--name", &it.name, "--log-level", "error", "--logger", "zap"])
            .arg("--data-dir")
            .arg(self.data.path().join(&it.name))
            .args(["--listen-client-urls", &format!("{scheme}://{}", it.client)])
            .args(["--advertise-client-urls", &format!("{scheme}://{}", it.client)])
            .args(["--listen-peer-urls", &format!("http://{}", it.peer)])
            .args(["--initial-advertise-peer-urls", &format!("http://{}", it.peer)])
            .args(["--initial-cluster", &cluster.join(",")])
            .args(&self.options);
        if let Some(pki) = &self.tls {
            command
                .arg("--cert-file")
                .arg(pki.file("server.pem"))
                .arg("--key-file")
                .arg(pki.file("server.key"))
                .arg("--trusted-ca-file")
                .arg(pki.file("ca.pem"))
                .arg("--client-cert-auth");
        }
        self.members[member].process = Some(Process::start(&mut command));
    }

    fn comes_up(&mut self) -> bool {
        for _ in 0..600 {
            if self.members.iter_mut().any(|it| it.process().status().is_some()) {
                return false;
            }
            let answers = |member| {
                let probe = async |mut client: Client| client.get("probe", None).await.map(drop);
                self.attempt_at(member, Duration::from_secs(1), probe).is_ok()
            };
            if (0..self.members.len()).all(answers) {
                return true;
            }
            thread::sleep(Duration::from_millis(50));
        }
        false
    }

    /// Waits until all members answer that were not killed or frozen.
    #[track_caller]
    pub fn wait(&self) {
        let up = |member: &usize| {
            let it = &self.members[*member];
            it.process.is_some() && !it.frozen
        };
        for member in (0..self.members.len()).filter(up) {
            eventually("etcd answers", SOON, || {
                let probe = async |mut client: Client| client.get("probe", None).await.map(drop);
                self.attempt_at(member, Duration::from_secs(1), probe).is_ok()
            });
        }
    }

    /// Waits until each member answers.
    #[track_caller]
    pub fn wait_all(&self) {
        for member in 0..self.members.len() {
            eventually("each member answers", SOON, || {
                let probe = async |mut client: Client| client.get("probe", None).await.map(drop);
                self.attempt_at(member, Duration::from_secs(1), probe).is_ok()
            });
        }
    }

    /// Where members listen, as for the configuration.
    pub fn endpoints(&self) -> Vec<String> {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        self.members.iter().map(|it| format!("{scheme}://{}", it.client)).collect()
    }

    /// Freezes a member (SIGSTOP): it keeps its connections and says nothing.
    pub fn stop(&mut self, member: usize) {
        self.members[member].process().signal(libc::SIGSTOP);
        self.members[member].frozen = true;
    }

    /// Lets a frozen member go on.
    pub fn cont(&mut self, member: usize) {
        self.members[member].process().signal(libc::SIGCONT);
        self.members[member].frozen = false;
    }

    /// Ends a member; [`Etcd::launch`] starts it again.
    pub fn kill(&mut self, member: usize) {
        if let Some(mut process) = self.members[member].process.take() {
            process.kill();
        }
    }

    /// Logs in as this user from now on.
    pub fn log_in_as(&mut self, user: &str, password: &str) {
        self.user = Some((user.to_owned(), password.to_owned()));
    }

    /// Writes a value, once more if the members were about to choose a leader. Returns the revision.
    #[track_caller]
    pub fn put(&self, key: &str, value: &str) -> i64 {
        let (key, value) = (key.to_owned(), value.to_owned());
        self.call(async move |mut client: Client| {
            let first = client.put(key.clone(), value.clone(), None).await;
            let put = match first {
                Err(Error::GRpcStatus(status)) if status.message().contains("timed out") => {
                    client.put(key, value, None).await?
                }
                put => put?,
            };
            Ok(put.header().map_or(0, |header| header.revision()))
        })
    }

    /// Deletes a key.
    #[track_caller]
    pub fn delete(&self, key: &str) {
        let key = key.to_owned();
        self.call(async move |mut client: Client| client.delete(key.clone(), None).await.map(drop));
    }

    /// Deletes all keys that begin so.
    #[track_caller]
    pub fn wipe(&self, prefix: &str) {
        let prefix = prefix.to_owned();
        self.call(async move |mut client: Client| {
            let options = DeleteOptions::new().with_prefix();
            client.delete(prefix.clone(), Some(options)).await.map(drop)
        });
    }

    /// What stands under a prefix, by key.
    #[track_caller]
    pub fn list(&self, prefix: &str) -> Vec<Found> {
        let prefix = prefix.to_owned();
        self.call(async move |mut client: Client| {
            let read = client.get(prefix.clone(), Some(GetOptions::new().with_prefix())).await?;
            let found = read.kvs().iter().map(|kv| Found {
                key: String::from_utf8_lossy(kv.key()).into_owned(),
                value: String::from_utf8_lossy(kv.value()).into_owned(),
                revision: kv.mod_revision(),
                lease: kv.lease(),
            });
            Ok(found.collect())
        })
    }

    /// The value at a key.
    #[track_caller]
    pub fn value(&self, key: &str) -> Option<Found> {
        self.list(key).into_iter().find(|found| found.key == key)
    }

    /// Compacts all history up to now.
    #[track_caller]
    pub fn compact(&self) {
        self.call(async |mut client: Client| {
            let now = client.get("now", None).await?.header().map_or(0, |it| it.revision());
            let options = CompactionOptions::new().with_physical();
            client.compact(now, Some(options)).await.map(drop)
        });
    }

    /// Gives the lead to another member.
    #[track_caller]
    pub fn move_leader(&self) {
        for member in 0..self.members.len() {
            let moved = async |mut client: Client| {
                let status = client.status().await?;
                let me = status.header().map_or(0, |header| header.member_id());
                if status.leader() != me {
                    return Ok(false);
                }
                let members = client.member_list().await?;
                let other = members.members().iter().map(|it| it.id()).find(|id| *id != me);
                client.move_leader(other.unwrap_or(me)).await?;
                Ok(true)
            };
            if self.attempt_at(member, SOON, moved).expect("the cluster is up") {
                return;
            }
        }
        panic!("no member is the leader");
    }

    /// Saves the data of the one member there is.
    #[track_caller]
    pub fn save(&self, file: &Path) {
        let endpoint = format!("--endpoints={}", self.endpoints()[0]);
        let mut save = Command::new("etcdctl");
        save.env("ETCDCTL_API", "3").args([&endpoint, "snapshot", "save"]).arg(file);
        process::run(&mut save, SOON).success();
    }

    /// Puts back what was saved, in place of what the one member has, which must have been killed.
    #[track_caller]
    pub fn restore(&mut self, file: &Path) {
        let it = &self.members[0];
        let data = self.data.path().join(&it.name);
        std::fs::remove_dir_all(&data).expect("the data of a member of ours");
        let peer = format!("http://{}", it.peer);
        let mut restore = Command::new("etcdctl");
        restore
            .env("ETCDCTL_API", "3")
            .args(["snapshot", "restore"])
            .arg(file)
            .args(["--name", &it.name, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("{}={peer}", it.name)])
            .arg("--data-dir")
            .arg(&data);
        process::run(&mut restore, SOON).success();
    }

    /// Does something with a client of etcd's, which must succeed.
    #[track_caller]
    pub fn call<T, F, Fut>(&self, act: F) -> T
    where
        F: FnOnce(Client) -> Fut + Send + 'static,
        Fut: Future<Output = Result<T, Error>> + Send,
        T: Send + Debug + 'static,
    {
        self.attempt(SOON, act).expect("etcd does what it is asked")
    }

    fn attempt<T, F, Fut>(&self, patience: Duration, act: F) -> Result<T, String>
    where
        F: FnOnce(Client) -> Fut + Send + 'static,
        Fut: Future<Output = Result<T, Error>> + Send,
        T: Send + 'static,
    {
        // A frozen member would keep a third of the requests.
        let up = self.endpoints().into_iter().zip(&self.members);
        let up = up.filter(|(_, it)| !it.frozen && it.process.is_some());
        self.asked(up.map(|(endpoint, _)| endpoint).collect(), patience, act)
    }

    fn attempt_at<T, F, Fut>(&self, member: usize, patience: Duration, act: F) -> Result<T, String>
    where
        F: FnOnce(Client) -> Fut + Send + 'static,
        Fut: Future<Output = Result<T, Error>> + Send,
        T: Send + 'static,
    {
        self.asked(vec![self.endpoints()[member].clone()], patience, act)
    }

    fn asked<T, F, Fut>(
        &self,
        endpoints: Vec<String>,
        patience: Duration,
        act: F,
    ) -> Result<T, String>
    where
        F: FnOnce(Client) -> Fut + Send + 'static,
        Fut: Future<Output = Result<T, Error>> + Send,
        T: Send + 'static,
    {
        let mut options = ConnectOptions::new();
        if let Some((user, password)) = &self.user {
            options = options.with_user(user, password);
        }
        if let Some(pki) = &self.tls {
            let read = |name| std::fs::read(pki.file(name)).expect("a file that was made");
            let identity = Identity::from_pem(read("client.pem"), read("client.key"));
            let ca = Certificate::from_pem(read("ca.pem"));
            options = options.with_tls(TlsOptions::new().ca_certificate(ca).identity(identity));
        }
        let (answer, answered) = mpsc::channel();
        self.runtime.spawn(async move {
            let done = tokio::time::timeout(patience, async {
                act(Client::connect(endpoints, Some(options)).await?).await
            });
            let done = match done.await {
                Ok(done) => done.map_err(|error: Error| error.to_string()),
                Err(_) => Err("no answer".to_owned()),
            };
            // The test may have ended.
            let _ = answer.send(done);
        });
        answered.recv().unwrap_or_else(|_| Err("the client's thread has ended".to_owned()))
    }
}

impl Member {
    #[track_caller]
    fn process(&mut self) -> &mut Process {
        self.process.as_mut().expect("it was launched")
    }
}

impl Pki {
    /// Makes an authority, and certificates for the loopback address and for a client.
    #[track_caller]
    pub fn new() -> Pki {
        let directory = TempDir::new().expect("a directory for the test");
        let pki = Pki { directory };
        pki.authority("ca");
        pki.issue("server", "ca", "subjectAltName=IP:127.0.0.1");
        pki.issue("client", "ca", "extendedKeyUsage=clientAuth");
        // Somebody whom nobody trusts.
        pki.authority("other-ca");
        pki.issue("stranger", "other-ca", "extendedKeyUsage=clientAuth");
        pki
    }

    /// A file of it: `ca.pem`, `client.pem`, `client.key`, and so on.
    pub fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The same files, for another who looks.
    pub fn copy(&self) -> Pki {
        let directory = TempDir::new().expect("a directory for the test");
        for entry in std::fs::read_dir(self.directory.path()).expect("it is there") {
            let entry = entry.expect("it can be read");
            let copy = directory.path().join(entry.file_name());
            std::fs::copy(entry.path(), copy).expect("a small file");
        }
        Pki { directory }
    }

    fn authority(&self, name: &str) {
        let subject = format!("/CN={name}");
        let (key, pem) = (format!("{name}.key"), format!("{name}.pem"));
        self.openssl(&[
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-days",
            "2",
            "-subj",
            &subject,
            "-keyout",
            &key,
            "-out",
            &pem,
        ]);
    }

    fn issue(&self, name: &str, by: &str, extension: &str) {
        let subject = format!("/CN={name}");
        let [key, request, pem, extensions] =
            ["key", "csr", "pem", "ext"].map(|ending| format!("{name}.{ending}"));
        let (ca, ca_key) = (format!("{by}.pem"), format!("{by}.key"));
        std::fs::write(self.file(&extensions), extension).expect("it can be written");
        self.openssl(&[
            "req",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-subj",
            &subject,
            "-keyout",
            &key,
            "-out",
            &request,
        ]);
        self.openssl(&[
            "x509",
            "-req",
            "-in",
            &request,
            "-CA",
            &ca,
            "-CAkey",
            &ca_key,
            "-CAcreateserial",
            "-days",
            "2",
            "-extfile",
            &extensions,
            "-out",
            &pem,
        ]);
    }

    #[track_caller]
    fn openssl(&self, arguments: &[&str]) {
        let mut command = Command::new("openssl");
        command.args(arguments).current_dir(self.directory.path());
        process::run(&mut command, SOON).success();
    }
}
