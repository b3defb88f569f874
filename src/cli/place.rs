//! Where the store and the daemon are, from what was typed and configured.
//!
//! The configuration is read without a look at the machine, since a command may well run where the
//! daemon could not. A configuration that is named must be good; the one at the usual place need not
//! be there.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use control::config::{Config, ControlSocket, Machine, Vhost};
use control::model::{HostName, Site};
use control::store::directory::Directory;
use control::store::{self, Store};

use super::arguments::{DaemonArguments, StoreArguments};
use super::failure::Failure;

/// A store, and the host whose ports are edited in it.
pub struct Place {
    store: Arc<dyn Store>,
    site: OwnedSite,
}

/// What desired state is judged by.
enum OwnedSite {
    Configured(Box<Config>),
    /// Without a configuration, nothing is refused for its physnet.
    Bare {
        host: HostName,
        vhost: Vhost,
    },
}

impl Place {
    /// The place that these arguments name.
    pub fn find(arguments: &StoreArguments) -> Result<Place, Failure> {
        let config = configuration(arguments.config.as_deref())?;
        let named = arguments.store.as_ref();
        let named = named.map(|directory| Arc::new(Directory::new(directory)) as Arc<dyn Store>);
        let (store, site) = match (config, named) {
            (Some(config), named) => {
                let store = named.map_or_else(|| store::open(&config.store), Ok)?;
                (store, OwnedSite::Configured(Box::new(config)))
            }
            (None, Some(store)) => {
                (store, OwnedSite::Bare { host: this_host()?, vhost: Vhost::default() })
            }
            (None, None) => {
                return Err(Failure::Wrong(no_configuration("the store by --store DIR")));
            }
        };
        Ok(Place { store, site })
    }

    /// The store.
    pub fn store(&self) -> &dyn Store {
        &*self.store
    }

    /// What desired state is judged by.
    pub fn site(&self) -> Site<'_> {
        match &self.site {
            OwnedSite::Configured(config) => Site::from(&**config),
            OwnedSite::Bare { host, vhost } => Site { host, physnets: None, vhost, cores: &[] },
        }
    }
}

/// The daemon's socket.
pub fn socket(arguments: &DaemonArguments) -> Result<PathBuf, Failure> {
    if let Some(socket) = &arguments.socket {
        return Ok(socket.clone());
    }
    let config = configuration(arguments.config.as_deref())?;
    Ok(config.map_or_else(ControlSocket::default, |config| config.control).socket)
}

/// That the usual configuration is not there, and what to name instead.
pub fn no_configuration(or: &str) -> String {
    format!("there is no {}; name a configuration by --config FILE, or {or}", Config::PATH)
}

/// The configuration that is named, or else the usual one, if it is there.
fn configuration(named: Option<&Path>) -> Result<Option<Config>, Failure> {
    match named {
        Some(path) => Ok(Some(Config::read(path)?)),
        None if Path::new(Config::PATH).exists() => {
            Ok(Some(Config::read(Path::new(Config::PATH))?))
        }
        None => Ok(None),
    }
}

fn this_host() -> Result<HostName, Failure> {
    let machine = Machine::here().map_err(|problem| Failure::Failed(problem.to_string()))?;
    machine.host.map_err(|misfit| {
        let remedy = "set `host` in a configuration and name that by --config FILE";
        Failure::Failed(format!("the kernel's host name: {}; {remedy}", misfit.what))
    })
}
