//! A client of etcd's v2 API: JSON over HTTP, under `/v2/keys`.
//!
//! Each request goes to the server that answered last, and to the others in turn when that one does
//! not answer, so that one of several may be down. Every request made here may be made twice without
//! harm. Nobody is waited for longer than the configured time: of a watch, that holds until it is
//! accepted, as from then on silence is what it is for.

mod reply;
mod wait;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use reqwest::{Method, Response, StatusCode};
use tokio::time::{Instant, timeout_at};

pub use self::reply::{Event, Node, Refusal};
pub use self::wait::Waiting;
use crate::config::Servers;
use crate::store::StoreError;

/// Octets of an answer, at most: all groups of a large cloud are some tens of MiB.
const ANSWER_OCTETS_MAX: usize = 1 << 30;

/// A whole tree may take this many times as long as a single key.
const TREE_FACTOR: u32 = 10;

/// The servers of one etcd, spoken to by v2.
#[derive(Debug)]
pub struct Client {
    http: reqwest::Client,
    endpoints: Vec<String>,
    /// The endpoint that is asked first: the last that answered.
    preferred: AtomicUsize,
    user: Option<(String, PathBuf)>,
    timeout: Duration,
    location: String,
}

/// Why a request came to nothing.
#[derive(Debug)]
pub enum Failure {
    /// etcd refused it.
    Refused(Refusal),
    /// No server could be asked, or none gave an answer that makes sense.
    Store(StoreError),
}

/// An answer and the index of the store at its time.
#[derive(Debug)]
pub struct Answer {
    /// What etcd said.
    pub event: Event,
    /// `X-Etcd-Index`: all changes up to here are in the answer.
    pub index: u64,
}

/// One request, to whichever server.
#[derive(Clone, Debug)]
struct Request<'a> {
    method: Method,
    key: &'a str,
    /// Of GET and DELETE in the query, of PUT in the body.
    parameters: &'a [(&'a str, &'a str)],
}

impl Client {
    /// A client of these servers, none of which need be there yet.
    pub fn new(servers: &Servers) -> Result<Client, StoreError> {
        let endpoints: Vec<String> = servers.endpoints.iter().map(ToString::to_string).collect();
        let location = format!("etcd v2 at {}", endpoints.join(","));
        let mut http = reqwest::Client::builder()
            .use_rustls_tls()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(servers.timeout())
            // What is idle for longer may have been forgotten by whatever is in between.
            .pool_idle_timeout(Duration::from_secs(30));
        if let Some(ca) = &servers.ca {
            let found = reqwest::Certificate::from_pem_bundle(&read(ca)?);
            let authorities = found.map_err(|error| unusable(ca, "certificates", &error))?;
            http = http.tls_built_in_root_certs(false);
            http = authorities.into_iter().fold(http, |http, one| http.add_root_certificate(one));
        }
        if let (Some(certificate), Some(key)) = (&servers.certificate, &servers.key) {
            let both = [read(certificate)?, b"\n".to_vec(), read(key)?].concat();
            let identity = reqwest::Identity::from_pem(&both);
            let identity = identity.map_err(|error| unusable(key, "key", &error))?;
            http = http.identity(identity);
        }
        let http = http.build().map_err(|error| StoreError::Remote {
            location: location.clone(),
            what: format!("a client of HTTP cannot be made: {}", words(&error)),
            remedy: "correct the certificates in the configuration",
        })?;
        let user = servers.user.clone().zip(servers.password_file.clone());
        let timeout = servers.timeout();
        Ok(Client { http, endpoints, preferred: AtomicUsize::new(0), user, timeout, location })
    }

    /// Where it is, for people.
    pub fn location(&self) -> &str {
        &self.location
    }

    /// All that is below a directory, as most servers have it.
    pub async fn tree(&self, key: &str) -> Result<Answer, Failure> {
        let parameters = [("recursive", "true"), ("quorum", "true")];
        let request = Request { method: Method::GET, key, parameters: &parameters };
        self.ask(request, self.timeout * TREE_FACTOR).await
    }

    /// What is directly in a directory.
    pub async fn folder(&self, key: &str) -> Result<Answer, Failure> {
        let request = Request { method: Method::GET, key, parameters: &[] };
        self.ask(request, self.timeout).await
    }

    /// The same, or a single key, as most servers have it.
    pub async fn read(&self, key: &str) -> Result<Answer, Failure> {
        let request = Request { method: Method::GET, key, parameters: &[("quorum", "true")] };
        self.ask(request, self.timeout).await
    }

    /// Writes as `parameters` say: `value`, `ttl`, `prevExist`, `prevValue`, `refresh`, `dir`.
    pub async fn put(&self, key: &str, parameters: &[(&str, &str)]) -> Result<Answer, Failure> {
        let request = Request { method: Method::PUT, key, parameters };
        self.ask(request, self.timeout).await
    }

    /// Deletes a key, if it is there and, with `prevValue`, has that value.
    pub async fn delete(&self, key: &str, parameters: &[(&str, &str)]) -> Result<(), Failure> {
        let request = Request { method: Method::DELETE, key, parameters };
        match self.ask(request, self.timeout).await {
            Err(Failure::Refused(Refusal { code: Refusal::NOT_FOUND, .. })) => Ok(()),
            other => other.map(|_| ()),
        }
    }

    /// Asks to be told of the first change at or below a key from this index on. Returns once the
    /// server has accepted, with the change still to come.
    pub async fn wait(&self, key: &str, index: u64) -> Result<Waiting, Failure> {
        let index = index.to_string();
        let parameters = [("wait", "true"), ("recursive", "true"), ("waitIndex", index.as_str())];
        let request = Request { method: Method::GET, key, parameters: &parameters };
        let deadline = Instant::now() + self.timeout;
        let response = self.first_answer(&request, deadline).await?;
        if response.status() == StatusCode::OK {
            return Waiting::new(response).map_err(|what| Failure::Store(self.error(what)));
        }
        // Whatever it is, it is no event.
        Err(match self.judge(response, deadline).await {
            Ok(_) => Failure::Store(self.error("a server answered a watch with no event".into())),
            Err(failure) => failure,
        })
    }

    /// Asks, and reads the answer, within this time.
    async fn ask(&self, request: Request<'_>, within: Duration) -> Result<Answer, Failure> {
        let deadline = Instant::now() + within;
        let response = self.first_answer(&request, deadline).await?;
        self.judge(response, deadline).await
    }

    /// The first server's answer. Each has its share of the time, so that a silent one is not all that
    /// is asked.
    async fn first_answer(
        &self,
        request: &Request<'_>,
        deadline: Instant,
    ) -> Result<Response, Failure> {
        let first = self.preferred.load(Ordering::Relaxed);
        let count = self.endpoints.len();
        let mut complaints = Vec::new();
        for turn in 0..count {
            let left = deadline.saturating_duration_since(Instant::now());
            let share = left / u32::try_from(count - turn).unwrap_or(1).max(1);
            let number = (first + turn) % count;
            let endpoint = &self.endpoints[number];
            let asked = self.send(endpoint, request)?;
            let complaint = match timeout_at(Instant::now() + share, asked).await {
                Ok(Ok(response)) if response.status().is_server_error() => {
                    format!("{endpoint} answers {}", response.status())
                }
                Ok(Ok(response)) => {
                    self.preferred.store(number, Ordering::Relaxed);
                    return Ok(response);
                }
                Ok(Err(error)) => format!("{endpoint}: {}", words(&error)),
                Err(_) => format!("{endpoint} does not answer"),
            };
            complaints.push(complaint);
        }
        // Another is asked first the next time: this one may take connections and do nothing.
        self.preferred.store((first + 1) % count, Ordering::Relaxed);
        Err(Failure::Store(self.error(complaints.join("; "))))
    }

    /// A request to one server, ready to be awaited.
    fn send(
        &self,
        endpoint: &str,
        request: &Request<'_>,
    ) -> Result<impl Future<Output = reqwest::Result<Response>> + use<>, Failure> {
        let Request { method, key, parameters } = request;
        let url = format!("{}/v2/keys{key}", endpoint.trim_end_matches('/'));
        let mut building = self.http.request(method.clone(), url);
        building = if *method == Method::PUT {
            building.form(parameters)
        } else {
            building.query(parameters)
        };
        if let Some((user, file)) = &self.user {
            // A line of a local file: reading it takes no longer than handing it to another thread.
            let password = std::fs::read_to_string(file);
            let password =
                password.map_err(|source| Failure::Store(io("reading", file, source)))?;
            building = building.basic_auth(user, password.lines().next());
        }
        Ok(building.send())
    }

    /// What an answer means.
    async fn judge(&self, response: Response, deadline: Instant) -> Result<Answer, Failure> {
        let status = response.status();
        let index = index_of(&response);
        let read = timeout_at(deadline, wait::body(response, ANSWER_OCTETS_MAX)).await;
        let complaint = |what: String| Failure::Store(self.error(what));
        let body = match read {
            Ok(body) => body.map_err(complaint)?,
            Err(_) => return Err(complaint("a server does not end its answer".into())),
        };
        if status.is_success() {
            let event = serde_json::from_slice(&body).map_err(|error| {
                complaint(format!("a server's answer is not that of etcd v2: {error}"))
            })?;
            return Ok(Answer { event, index: index.unwrap_or_default() });
        }
        match serde_json::from_slice::<Refusal>(&body) {
            Ok(refusal) if Refusal::INTERNAL.contains(&refusal.code) => {
                Err(complaint(format!("etcd answers: {}: {}", refusal.message, refusal.cause)))
            }
            Ok(refusal) => Err(Failure::Refused(refusal)),
            // A v3-only etcd answers 404 with a text.
            Err(_) => Err(complaint(format!(
                "a server answers {status}, and not as etcd v2 does (is it started with \
                 --enable-v2=true?)"
            ))),
        }
    }

    fn error(&self, what: String) -> StoreError {
        StoreError::Remote { location: self.location.clone(), what, remedy: REMEDY }
    }
}

/// What to do when no server does what it should.
const REMEDY: &str = "start etcd with --enable-v2=true, or correct store.networking_vpp";

impl Failure {
    /// The code of a refusal.
    pub fn code(&self) -> Option<u32> {
        match self {
            Failure::Refused(refusal) => Some(refusal.code),
            Failure::Store(_) => None,
        }
    }

    /// As an error of the store at `client`.
    pub fn into_error(self, client: &Client) -> StoreError {
        match self {
            Failure::Store(error) => error,
            Failure::Refused(Refusal { code, message, cause, .. }) => StoreError::Remote {
                location: client.location.clone(),
                what: format!("etcd answers {code}: {message} ({cause})"),
                remedy: match code {
                    Refusal::NOT_PERMITTED => "give the user a role that may do that",
                    _ => "look at that key",
                },
            },
        }
    }
}

fn index_of(response: &Response) -> Option<u64> {
    response.headers().get("X-Etcd-Index")?.to_str().ok()?.parse().ok()
}

/// An error of HTTP with all its causes, without the address, which is told beside it.
fn words(error: &reqwest::Error) -> String {
    let mut words = Vec::new();
    let mut next = std::error::Error::source(error);
    while let Some(cause) = next {
        words.push(cause.to_string());
        next = cause.source();
    }
    // The innermost is what happened; those around it are of the library.
    words.pop().unwrap_or_else(|| error.to_string())
}

fn read(file: &Path) -> Result<Vec<u8>, StoreError> {
    std::fs::read(file).map_err(|source| io("reading", file, source))
}

fn io(doing: &'static str, file: &Path, source: std::io::Error) -> StoreError {
    let remedy = "correct the path, or let the user that runs viaduct read it";
    StoreError::Io { doing, path: file.into(), source, remedy }
}

fn unusable(file: &Path, what: &str, error: &reqwest::Error) -> StoreError {
    StoreError::Remote {
        location: file.display().to_string(),
        what: format!("no {what} can be read there: {}", words(error)),
        remedy: "name a PEM file",
    }
}
