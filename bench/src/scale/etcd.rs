//! An etcd of one member on the loopback interface, what is written to it, and what it says of itself.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use etcd_client::{Client, CompactionOptions, Txn, TxnOp};
use serde_json::Value;
use tempfile::TempDir;
use tokio::time::sleep;

/// Values in a transaction, and octets in one: etcd's own bounds are 128 and 1.5 MiB.
const AT_ONCE: (usize, usize) = (100, 512 << 10);
/// How long a start may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// Where data lies if there is room: in memory, so that no disk is measured.
const SHARED_MEMORY: &str = "/dev/shm";

/// A running etcd. Dropping it ends it and removes its data.
#[derive(Debug)]
pub struct Etcd {
    child: Option<Child>,
    client: String,
    peer: String,
    data: TempDir,
    log: PathBuf,
}

/// What it says of itself.
#[derive(Clone, Copy, Debug)]
pub struct Figures {
    /// Octets sent to clients so far.
    pub sent: f64,
    /// CPU seconds used so far.
    pub cpu: f64,
    /// Memory, in octets.
    pub resident: f64,
    /// The database, in octets.
    pub database: f64,
    /// Watches.
    pub watchers: f64,
}

impl Etcd {
    /// Starts one, its log in `directory`.
    pub async fn start(directory: &Path) -> Result<Etcd> {
        let data = tempfile::Builder::new().prefix("viaduct-scale-etcd-").tempdir_in(place());
        let data = data.context("a directory for etcd")?;
        let (client, peer) = (free_address()?, free_address()?);
        let mut etcd = Etcd { child: None, client, peer, data, log: directory.join("etcd.log") };
        etcd.restart().await?;
        Ok(etcd)
    }

    /// Where its data lies.
    pub fn place() -> String {
        place().display().to_string()
    }

    /// Starts it with the data that it has, and waits until it answers.
    pub async fn restart(&mut self) -> Result<()> {
        let log = std::fs::File::options().create(true).append(true).open(&self.log);
        let log = log.context("etcd's log")?;
        let (client, peer) = (format!("http://{}", self.client), format!("http://{}", self.peer));
        // It ends with this process, however that ends.
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL", "--", "etcd", "--name", "scale"])
            .args(["--log-level", "error", "--logger", "zap"])
            .arg("--data-dir")
            .arg(self.data.path())
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("scale={peer}")])
            .stdin(Stdio::null())
            .stdout(log.try_clone().context("etcd's log")?)
            .stderr(log);
        self.child = Some(command.spawn().context("starting etcd: install etcd-server")?);
        let deadline = Instant::now() + PATIENCE;
        loop {
            let status = self.child.as_mut().and_then(|child| child.try_wait().ok().flatten());
            if let Some(status) = status {
                bail!("etcd ended ({status}): {}", self.log_end());
            }
            if let Ok(mut client) = self.client().await
                && client.get("probe", None).await.is_ok()
            {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "etcd does not answer: {}", self.log_end());
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// Ends it at once, as a crash would.
    pub fn kill(&mut self) -> Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill().context("ending etcd")?;
            child.wait().context("waiting for etcd's end")?;
        }
        Ok(())
    }

    /// For clients.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.client)
    }

    /// A client with a connection of its own.
    pub async fn client(&self) -> Result<Client> {
        Client::connect([self.endpoint()], None).await.context("connecting to etcd")
    }

    /// Writes values, many to a transaction. Returns their octets.
    pub async fn write(&self, values: &[(String, Value)]) -> Result<usize> {
        let mut client = self.client().await?;
        let (mut operations, mut octets, mut total) = (Vec::new(), 0, 0);
        for (key, value) in values {
            let text = value.to_string();
            let more = key.len() + text.len();
            if operations.len() == AT_ONCE.0 || octets + more > AT_ONCE.1 {
                let full = std::mem::take(&mut operations);
                client.txn(Txn::new().and_then(full)).await.context("writing desired state")?;
                octets = 0;
            }
            octets += more;
            total += more;
            operations.push(TxnOp::put(key.as_str(), text, None));
        }
        client.txn(Txn::new().and_then(operations)).await.context("writing desired state")?;
        Ok(total)
    }

    /// Forgets all values that were replaced.
    pub async fn compact(&self) -> Result<()> {
        let mut client = self.client().await?;
        let now = client.get("probe", None).await?;
        let now = now.header().map_or(0, |header| header.revision());
        let physical = CompactionOptions::new().with_physical();
        client.compact(now, Some(physical)).await.context("compacting")?;
        Ok(())
    }

    /// What it says of itself now.
    pub fn figures(&self) -> Result<Figures> {
        let mut stream = TcpStream::connect(&self.client).context("connecting to etcd")?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text).context("reading etcd's metrics")?;
        let figure = |name: &str| -> Result<f64> {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            let line = line.with_context(|| format!("etcd has no metric {name}"))?;
            line.parse().with_context(|| format!("etcd's metric {name}"))
        };
        Ok(Figures {
            sent: figure("etcd_network_client_grpc_sent_bytes_total")?,
            cpu: figure("process_cpu_seconds_total")?,
            resident: figure("process_resident_memory_bytes")?,
            database: figure("etcd_mvcc_db_total_size_in_use_in_bytes")?,
            watchers: figure("etcd_debugging_mvcc_watcher_total")?,
        })
    }

    fn log_end(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(5)..].join("\n")
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        if let Err(error) = self.kill() {
            eprintln!("etcd may still be running: {error:#}");
        }
    }
}

fn place() -> PathBuf {
    let memory = Path::new(SHARED_MEMORY);
    if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() }
}

fn free_address() -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").context("a free port")?;
    Ok(listener.local_addr()?.to_string())
}
