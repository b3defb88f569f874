//! `[store]`: which store desired state is in, and how it is reached.
//!
//! A directory of files is the default. `[store.etcd]` and `[store.networking_vpp]` each put another
//! one in its place; there is one store at a time.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Serialize;

use super::read::path;
use crate::fields::Fields;
use crate::model::{PhysnetName, Port};
use crate::problem::{Misfit, quoted};
use crate::text::{Text, text_type};

/// `[store]`: where desired state is read and actual state is written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(default, deny_unknown_fields)]
pub struct StoreConfig {
    /// A directory of files. It must exist; what is in it is described in `desired-state.md`. Without
    /// effect where another store is configured, and not to be given there.
    pub directory: PathBuf,
    /// etcd v3 instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub etcd: Option<Etcd>,
    /// etcd v2 in the layout of networking-vpp instead, as its ML2 driver for OpenStack writes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub networking_vpp: Option<NetworkingVpp>,
    /// The file in which the daemon keeps what it read last of a store on the network, so that it can
    /// start while that cannot be reached. Its directory must exist.
    pub cache: PathBuf,
}

/// How servers of etcd are reached, of either version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Servers {
    /// The servers of one cluster, each as `http://HOST:PORT` or all as `https://HOST:PORT`.
    #[schemars(length(min = 1))]
    pub endpoints: Vec<Endpoint>,
    /// With https: a PEM file of the authorities that may vouch for the servers. Default: those that
    /// the system trusts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    /// With https: a PEM file of the certificate that we show to the servers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<PathBuf>,
    /// With https: a PEM file of the key of that certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<PathBuf>,
    /// The user to log in as.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The file whose first line is the user's password. It is read at each login.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password_file: Option<PathBuf>,
    /// Milliseconds that a server may take to answer, or to show that it is there.
    #[schemars(range(min = 100, max = 60_000))]
    pub timeout_ms: u32,
}

/// `[store.etcd]`: etcd v3.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Etcd {
    /// How it is reached.
    #[serde(flatten)]
    pub servers: Servers,
    /// What stands before every key. It begins and ends with `/`.
    pub prefix: Prefix,
    /// Seconds after which the host counts as dead when its daemon is not heard.
    #[schemars(range(min = 5, max = 3_600))]
    pub lease_seconds: u32,
}

/// `[store.networking_vpp]`: etcd v2 in the layout of networking-vpp.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct NetworkingVpp {
    /// How it is reached.
    #[serde(flatten)]
    pub servers: Servers,
    /// Which frames answer what a port's groups permit, for groups that cannot say it themselves.
    pub return_traffic: ReturnTraffic,
    /// Whether groups are in force. The same as the driver's `enable_security_group`.
    pub security_groups: bool,
    /// Pairs of queues that each guest may use, at most: the driver cannot say it.
    #[schemars(range(min = 1, max = 16))]
    pub queues: u16,
    /// The MTU of all networks, as the driver always says 1500. Default: what the physnet carries.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 68, max = 9216))]
    pub mtu: Option<u16>,
    /// What each physnet carries, by `[physnets]`; not part of this table.
    #[serde(skip)]
    pub physnet_mtus: BTreeMap<PhysnetName, u16>,
}

/// Which frames pass as answers, beside those that rules permit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ReturnTraffic {
    /// Those that can be told from the beginning of something new.
    Established,
    /// None.
    None,
}

/// A server of etcd: `http://HOST:PORT` or `https://HOST:PORT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    tls: bool,
    host: String,
    port: u16,
}

text_type!(
    Endpoint,
    "A server of etcd.",
    "^https?://[^/:]+:[0-9]{1,5}/?$|^https?://\\[[0-9A-Fa-f:.]+\\]:[0-9]{1,5}/?$",
    "write it as http://HOST:PORT or https://HOST:PORT, an IPv6 address in brackets"
);

/// What stands before every key in etcd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prefix(String);

text_type!(
    Prefix,
    "What stands before every key in etcd.",
    "^/([!-.0-~]+/)+$",
    "write one that begins and ends with `/`, such as \"/viaduct/v1/\""
);

impl Servers {
    /// Whether the servers are spoken to by TLS.
    pub fn tls(&self) -> bool {
        self.endpoints.iter().any(|endpoint| endpoint.tls)
    }

    /// How long a server may take to answer.
    pub fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout_ms.into())
    }
}

impl Endpoint {
    /// Whether it is spoken to by TLS.
    pub fn tls(&self) -> bool {
        self.tls
    }
}

impl Prefix {
    /// As it stands before a key.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for Prefix {
    fn default() -> Self {
        Prefix("/viaduct/v1/".to_owned())
    }
}

impl FromStr for Endpoint {
    type Err = Misfit;

    fn from_str(text: &str) -> Result<Endpoint, Misfit> {
        let misfit = || {
            let what = format!("{} is not an address of a server", quoted(text));
            Misfit::new(what, <Endpoint as Text>::REMEDY)
        };
        let (scheme, rest) = text.split_once("://").ok_or_else(misfit)?;
        let tls = match scheme {
            "http" => false,
            "https" => true,
            _ => return Err(misfit()),
        };
        let (host, port) =
            rest.strip_suffix('/').unwrap_or(rest).rsplit_once(':').ok_or_else(misfit)?;
        let good = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
            Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
            None => {
                let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
                !host.is_empty() && host.chars().all(plain)
            }
        };
        let port = port.parse().ok().filter(|port| *port != 0 && good).ok_or_else(misfit)?;
        Ok(Endpoint { tls, host: host.to_owned(), port })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        write!(f, "{scheme}://{}:{}", self.host, self.port)
    }
}

impl FromStr for Prefix {
    type Err = Misfit;

    fn from_str(text: &str) -> Result<Prefix, Misfit> {
        let inner = text.strip_prefix('/').and_then(|text| text.strip_suffix('/'));
        let graphic = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_graphic());
        match inner {
            Some(inner) if inner.split('/').all(graphic) => Ok(Prefix(text.to_owned())),
            _ => Err(Misfit::new(
                format!("{} is no beginning of keys", quoted(text)),
                <Prefix as Text>::REMEDY,
            )),
        }
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Default for StoreConfig {
    fn default() -> Self {
        StoreConfig {
            directory: "/var/lib/viaduct".into(),
            etcd: None,
            networking_vpp: None,
            cache: "/var/lib/viaduct/last-read.json".into(),
        }
    }
}

/// Reads `[store]`.
pub(super) fn read(mut fields: Fields<'_>) -> StoreConfig {
    let default = StoreConfig::default();
    let remote: Vec<&str> =
        ["etcd", "networking_vpp"].into_iter().filter(|name| fields.has(name)).collect();
    let mut alone = |name: &'static str, when: bool, why: &str| {
        if when && fields.has(name) {
            fields.fault(name, why.to_owned(), "remove the line, or the other");
        }
    };
    alone(
        "directory",
        !remote.is_empty(),
        &format!("is not used beside store.{}", remote.join("")),
    );
    alone("cache", remote.is_empty(), "is used only with store.etcd or store.networking_vpp");
    alone("networking_vpp", remote.len() > 1, "there is one store, and store.etcd is given too");
    let directory = path(&mut fields, "directory").unwrap_or(default.directory);
    let cache = path(&mut fields, "cache").unwrap_or(default.cache);
    let has = |name| remote.contains(&name);
    let etcd = has("etcd").then(|| fields.table("etcd").map(read_etcd)).flatten();
    let networking_vpp = has("networking_vpp")
        .then(|| fields.table("networking_vpp").map(read_networking_vpp))
        .flatten();
    fields.finish();
    StoreConfig { directory, etcd, networking_vpp, cache }
}

fn read_etcd(mut fields: Fields<'_>) -> Etcd {
    let servers = read_servers(&mut fields);
    let prefix = fields.text("prefix").unwrap_or_default();
    let lease_seconds = fields.number("lease_seconds", 5..=3_600).unwrap_or(15);
    fields.finish();
    Etcd { servers, prefix, lease_seconds }
}

fn read_networking_vpp(mut fields: Fields<'_>) -> NetworkingVpp {
    let servers = read_servers(&mut fields);
    let words = [("established", ReturnTraffic::Established), ("none", ReturnTraffic::None)];
    let return_traffic =
        fields.choice("return_traffic", &words).unwrap_or(ReturnTraffic::Established);
    let security_groups = fields.flag("security_groups").unwrap_or(true);
    let queues = fields.number("queues", 1..=Port::QUEUES_MAX.into()).unwrap_or(1);
    let mtu = fields.number("mtu", 68..=9216);
    fields.finish();
    let physnet_mtus = BTreeMap::new();
    NetworkingVpp { servers, return_traffic, security_groups, queues, mtu, physnet_mtus }
}

fn read_servers(fields: &mut Fields<'_>) -> Servers {
    fields.require("endpoints", "list its servers, such as [\"http://127.0.0.1:2379\"]");
    let endpoint = |fields: &mut Fields<'_>, name: &str, value: &serde_json::Value| {
        fields.text_from::<Endpoint>(name, value)
    };
    let servers = Servers {
        endpoints: fields.list("endpoints", endpoint).unwrap_or_default(),
        ca: path(fields, "ca"),
        certificate: path(fields, "certificate"),
        key: path(fields, "key"),
        user: fields.text::<UserName>("user").map(|user| user.0),
        password_file: path(fields, "password_file"),
        timeout_ms: fields.number("timeout_ms", 100..=60_000).unwrap_or(3_000),
    };
    let mut fault = |name: &str, what: &str, remedy: &str| fields.fault(name, what, remedy);
    let schemes = servers.endpoints.iter().filter(|endpoint| endpoint.tls).count();
    if schemes != 0 && schemes != servers.endpoints.len() {
        fault("endpoints", "some are http and some https", "write all of them in one way");
    }
    if !servers.tls() && !servers.endpoints.is_empty() {
        let files = [("ca", &servers.ca), ("certificate", &servers.certificate)];
        for (name, file) in files.into_iter().chain([("key", &servers.key)]) {
            if file.is_some() {
                fault(name, "is used only with https", "write endpoints with https, or remove it");
            }
        }
    }
    let pairs = [
        ("certificate", "key", servers.certificate.is_some(), servers.key.is_some()),
        ("user", "password_file", servers.user.is_some(), servers.password_file.is_some()),
    ];
    for (one, other, has_one, has_other) in pairs {
        let (given, missing) = if has_one { (one, other) } else { (other, one) };
        if has_one != has_other {
            fault(given, &format!("is of no use without {missing}"), "give both or none");
        }
    }
    servers
}

/// The name of a user of etcd.
struct UserName(String);

impl Text for UserName {
    const REMEDY: &'static str = "write the name of a user of etcd";
}

impl FromStr for UserName {
    type Err = Misfit;

    fn from_str(text: &str) -> Result<Self, Misfit> {
        if text.is_empty() || text.chars().any(char::is_control) {
            return Err(Misfit::new(format!("{} is no name", quoted(text)), Self::REMEDY));
        }
        Ok(UserName(text.to_owned()))
    }
}

impl fmt::Display for UserName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
