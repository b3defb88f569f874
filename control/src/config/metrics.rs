//! `[metrics]`: where metrics are served.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::Serialize;

use crate::fields::Fields;
use crate::problem::{Misfit, quoted};
use crate::text::{Text, text_type};

/// `[metrics]`: where metrics are served.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(default, deny_unknown_fields)]
pub struct MetricsConfig {
    /// Where OpenMetrics can be scraped over HTTP: `ADDRESS:PORT` on loopback, or the absolute path of
    /// a unix socket. Default: nowhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen: Option<Listen>,
}

/// A place on this host to listen at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// An address on loopback, and a port.
    Address(SocketAddr),
    /// The path of a unix socket.
    Unix(PathBuf),
}

text_type!(
    Listen,
    "`ADDRESS:PORT` on loopback, or the absolute path of a unix socket.",
    "^/.+$|^127\\.[0-9.]+:[0-9]{1,5}$|^\\[::1\\]:[0-9]{1,5}$",
    "write an address of this host alone, such as \"127.0.0.1:9750\", or the path of a unix socket"
);

impl FromStr for Listen {
    type Err = Misfit;

    fn from_str(text: &str) -> Result<Listen, Misfit> {
        if text.starts_with('/') && text.len() > 1 && !text.chars().any(char::is_control) {
            return Ok(Listen::Unix(text.into()));
        }
        let misfit =
            |what: &str| Misfit::new(format!("{} {what}", quoted(text)), <Listen as Text>::REMEDY);
        match text.parse::<SocketAddr>() {
            Ok(address) if !address.ip().is_loopback() => {
                Err(misfit("can be reached by other hosts, and metrics name ports and networks"))
            }
            Ok(address) if address.port() != 0 => Ok(Listen::Address(address)),
            _ => Err(misfit("is no place to listen at")),
        }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Listen::Address(address) => address.fmt(f),
            Listen::Unix(path) => path.display().fmt(f),
        }
    }
}

/// Reads `[metrics]`.
pub(super) fn read(mut fields: Fields<'_>) -> MetricsConfig {
    let listen = fields.text("listen");
    fields.finish();
    MetricsConfig { listen }
}
