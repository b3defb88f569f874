//! Reaches the servers of a cluster: one at a time, another one when it fails.
//!
//! Each server has a connection of its own, made when it is needed and kept as long as it works. The
//! client's own way, one connection that spreads requests over all servers, would send every third
//! request to a frozen one. A connection that failed is thrown away, so that the next one reads
//! certificates and passwords anew.

use std::future::Future;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use etcd_client::{
    Certificate, Client, ConnectOptions, Error, Identity, KvClient, LeaseClient, TlsOptions,
    WatchClient,
};
use parking_lot::Mutex;
use tokio::time::{Instant, sleep, timeout};

use super::trouble::{Kind, Trouble};
use crate::config::Servers;

/// The way to a cluster.
pub(super) struct Connection {
    location: String,
    config: Servers,
    servers: Vec<Server>,
    /// The server that is spoken to.
    current: AtomicUsize,
}

struct Server {
    address: String,
    link: Mutex<Option<Link>>,
}

/// A connection to one server, logged in.
#[derive(Clone)]
pub(super) struct Link {
    pub kv: KvClient,
    pub watch: WatchClient,
    pub lease: LeaseClient,
    client: Client,
}

/// How long before a request that failed is tried again.
const PAUSE: Duration = Duration::from_millis(100);

/// The least time between two signs of life that are asked for on an idle connection. etcd ends
/// connections that ask more than every 5 s (its --grpc-keepalive-min-time).
const KEEP_ALIVE_MIN: Duration = Duration::from_secs(6);

/// Bounds a message only by what the format can say: a catch-up of a watch, or a page of large
/// values, has more than the 4 MiB that are usual.
const MESSAGE_OCTETS_MAX: usize = i32::MAX as usize;

/// Where systems keep the authorities that they trust.
const AUTHORITIES: [&str; 3] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
];

impl Connection {
    /// The way to these servers. Nothing is sent before something is asked.
    pub fn new(config: Servers) -> Connection {
        let addresses: Vec<String> = config.endpoints.iter().map(ToString::to_string).collect();
        let servers: Vec<Server> = addresses
            .iter()
            .map(|address| Server { address: address.clone(), link: Mutex::default() })
            .collect();
        // Hosts begin with different servers, so that each has its share.
        let first = random() as usize % servers.len().max(1);
        let location = format!("etcd {}", addresses.join(", "));
        Connection { location, config, servers, current: AtomicUsize::new(first) }
    }

    /// Which cluster, for people.
    pub fn location(&self) -> &str {
        &self.location
    }

    /// How long a server may take to answer.
    pub fn patience(&self) -> Duration {
        self.config.timeout()
    }

    /// Asks, in vain for as long as it is of use: other servers, and the same again a moment later.
    /// What is asked must do no harm if it is done twice.
    pub async fn call<T, F, Fut>(&self, doing: &str, ask: F) -> Result<T, Trouble>
    where
        F: Fn(Link) -> Fut,
        Fut: Future<Output = Result<T, Error>>,
    {
        // Silent servers take their time each.
        let silent = self.servers.len().min(3) as u32;
        let deadline = Instant::now() + self.patience() * silent;
        loop {
            match self.attempt(doing, &ask).await {
                Err(trouble) if trouble.kind.passes() && Instant::now() + PAUSE < deadline => {
                    sleep(PAUSE).await;
                }
                result => return result,
            }
        }
    }

    /// Asks one server, once; twice if the login has run out. If it fails, the next one is current.
    pub async fn attempt<T, F, Fut>(&self, doing: &str, ask: &F) -> Result<T, Trouble>
    where
        F: Fn(Link) -> Fut,
        Fut: Future<Output = Result<T, Error>>,
    {
        let index = self.current.load(Ordering::Relaxed);
        let Some(server) = self.servers.get(index) else {
            return Err(Trouble::new(Kind::Other, &self.location, "no server is configured"));
        };
        let told = |error: &Error| Trouble::told(error, &self.location, &server.address, doing);
        let asked = async {
            let link = self.link(server).await?;
            match ask(link.clone()).await {
                Ok(answer) => return Ok(answer),
                Err(error) => match told(&error) {
                    trouble if trouble.kind == Kind::Token && self.config.user.is_some() => {}
                    trouble => return Err(trouble),
                },
            }
            self.log_in(server, &link).await?;
            ask(link).await.map_err(|error| told(&error))
        };
        // The connection's own limit bounds the wait for the beginning of an answer.
        let answer = match timeout(self.patience() * 4, asked).await {
            Ok(answer) => answer,
            Err(_) => Err(Trouble::silent(&self.location, &server.address)),
        };
        if answer.as_ref().is_err_and(|trouble| trouble.kind.passes()) {
            self.leave(index);
        }
        answer
    }

    /// Turns to the next server, if this one is still current, and forgets the connection to it.
    fn leave(&self, index: usize) {
        let next = (index + 1) % self.servers.len().max(1);
        // If it fails, somebody else was faster.
        let _ = self.current.compare_exchange(index, next, Ordering::Relaxed, Ordering::Relaxed);
        if let Some(server) = self.servers.get(index) {
            *server.link.lock() = None;
        }
    }

    /// Turns away from the server that is spoken to.
    pub fn leave_current(&self) -> Trouble {
        let index = self.current.load(Ordering::Relaxed);
        self.leave(index);
        let address = self.servers.get(index).map_or("no server", |server| &server.address);
        Trouble::silent(&self.location, address)
    }

    async fn link(&self, server: &Server) -> Result<Link, Trouble> {
        if let Some(link) = &*server.link.lock() {
            return Ok(link.clone());
        }
        let options = self.options()?;
        let client = Client::connect([&server.address], Some(options)).await.map_err(|error| {
            Trouble::told(&error, &self.location, &server.address, "connecting")
        })?;
        let link = Link {
            kv: client.kv_client().max_decoding_message_size(MESSAGE_OCTETS_MAX),
            watch: client.watch_client().max_decoding_message_size(MESSAGE_OCTETS_MAX),
            lease: client.lease_client(),
            client,
        };
        self.log_in(server, &link).await?;
        *server.link.lock() = Some(link.clone());
        Ok(link)
    }

    /// Logs in, if there is a user, with the password that the file has now.
    async fn log_in(&self, server: &Server, link: &Link) -> Result<(), Trouble> {
        let (Some(user), Some(file)) = (&self.config.user, &self.config.password_file) else {
            return Ok(());
        };
        let text = self.read("password_file", file)?;
        let text = String::from_utf8_lossy(&text);
        let password = text.lines().next().unwrap_or_default().to_owned();
        let done = link.client.clone().update_user(Some((user.clone(), password))).await;
        match done {
            Ok(()) => Ok(()),
            // Where nobody needs to log in, nobody can: go on as everybody does.
            Err(Error::GRpcStatus(status)) if status.message().contains("is not enabled") => Ok(()),
            Err(error) => {
                let doing = format!("the login of user `{user}`");
                Err(Trouble::told(&error, &self.location, &server.address, &doing))
            }
        }
    }

    fn options(&self) -> Result<ConnectOptions, Trouble> {
        let patience = self.patience();
        let options = ConnectOptions::new()
            .with_connect_timeout(patience)
            .with_timeout(patience)
            .with_keep_alive(patience.max(KEEP_ALIVE_MIN), patience)
            .with_keep_alive_while_idle(true)
            .with_require_leader(true);
        if self.config.tls() { Ok(options.with_tls(self.tls()?)) } else { Ok(options) }
    }

    fn tls(&self) -> Result<TlsOptions, Trouble> {
        let authorities = match &self.config.ca {
            Some(ca) => self.read("ca", ca)?,
            None => {
                let found = AUTHORITIES.iter().map(Path::new).find(|path| path.exists());
                let Some(found) = found else {
                    let what = "this system keeps no list of authorities that it trusts";
                    return Err(Trouble::new(Kind::Untrusted, &self.location, what));
                };
                self.read("ca", found)?
            }
        };
        let tls = TlsOptions::new().ca_certificate(Certificate::from_pem(authorities));
        match (&self.config.certificate, &self.config.key) {
            (Some(certificate), Some(key)) => {
                let certificate = self.read("certificate", certificate)?;
                let key = self.read("key", key)?;
                Ok(tls.identity(Identity::from_pem(certificate, key)))
            }
            _ => Ok(tls),
        }
    }

    fn read(&self, field: &str, path: &Path) -> Result<Vec<u8>, Trouble> {
        std::fs::read(path).map_err(|error| {
            let what = format!("reading {field} {} failed: {error}", path.display());
            Trouble::new(Kind::File, &self.location, what)
        })
    }
}

/// A number that differs from host to host and from time to time.
pub(super) fn random() -> u64 {
    uuid::Uuid::new_v4().as_u64_pair().1
}
