//! `viaduct show`: asks the daemon, leaves what was asked for, prints it.
//!
//! The daemon answers questions about one object only where its answer would be large or dear
//! otherwise; all other choosing is done here, on what it shows anyway.

use std::io::Write;
use std::path::PathBuf;

use control::model::{NetworkUuid, PortUuid};
use control::show::view::{NetworkRef, PortRef, PortSecurity};
use control::show::{Answer, Query, ask};
use serde::Serialize;

use super::arguments::{RebalanceArguments, ShowArguments, What};
use super::failure::Failure;
use super::pick::{Candidate, pick};
use super::{block_on, place};
use crate::render;

/// `ask` gives the answer to its question or an error.
pub(super) const ASKED: &str = "the answer is to the question";

/// Shows what is asked for.
pub fn show(arguments: &ShowArguments, out: &mut dyn Write) -> Result<(), Failure> {
    let daemon = Daemon { socket: place::socket(&arguments.daemon)? };
    let mut page = Page { json: arguments.json, out };
    let wide = arguments.wide;
    match &arguments.what {
        None => {
            let Answer::Summary(view) = daemon.ask(Query::Summary {})? else {
                unreachable!("{ASKED}")
            };
            page.print(&view, |view| render::summary(view))
        }
        Some(What::Ports { network, port }) => {
            let Answer::Ports(mut views) = daemon.ask(Query::Ports {})? else {
                unreachable!("{ASKED}")
            };
            if let Some(wanted) = network {
                let networks = views.iter().filter_map(|view| view.network.clone());
                let wanted = pick_network(wanted, networks)?;
                views.retain(|view| view.network.as_ref().is_some_and(|it| it.uuid == wanted));
            }
            if let Some(wanted) = port {
                let wanted = pick_port(wanted, views.iter().map(|view| view.port.clone()))?;
                views.retain(|view| view.port == wanted);
            }
            page.print(&views, |views| render::ports(views, wide))
        }
        Some(What::Bonds) => {
            let Answer::Bonds(views) = daemon.ask(Query::Bonds {})? else {
                unreachable!("{ASKED}")
            };
            page.print(&views, |views| render::bonds(views))
        }
        Some(What::Mirrors) => {
            let Answer::Ports(mut views) = daemon.ask(Query::Ports {})? else {
                unreachable!("{ASKED}")
            };
            views.retain(|view| view.mirror.is_some());
            page.print(&views, |views| render::mirrors(views, wide))
        }
        Some(What::Domains { network }) => {
            let Answer::Domains(mut views) = daemon.ask(Query::Domains {})? else {
                unreachable!("{ASKED}")
            };
            if let Some(wanted) = network {
                let wanted = pick_network(wanted, views.iter().map(|view| view.network.clone()))?;
                views.retain(|view| view.network.uuid == wanted);
            }
            page.print(&views, |views| render::domains(views, wide))
        }
        Some(What::Fdb { network, port }) => {
            let network = network.as_ref().map(|wanted| daemon.network(wanted)).transpose()?;
            let port = port.as_ref().map(|wanted| daemon.port(wanted)).transpose()?;
            let Answer::Fdb(mut view) = daemon.ask(Query::Fdb { network })? else {
                unreachable!("{ASKED}")
            };
            view.entries.retain(|entry| port.as_ref().is_none_or(|port| entry.port == *port));
            page.print(&view, |view| render::fdb(view, wide))
        }
        Some(What::Vhost { port }) => {
            let wanted = port.as_ref().map(|wanted| daemon.port(wanted)).transpose()?;
            let port = wanted.as_ref().map(guest_of).transpose()?;
            let Answer::Vhost(views) = daemon.ask(Query::Vhost { port })? else {
                unreachable!("{ASKED}")
            };
            page.print(&views, |views| match (&wanted, &views[..]) {
                (Some(_), [view]) => render::vhost_session(view),
                _ => render::vhost(views, wide),
            })
        }
        Some(What::Workers { rxqs }) => {
            let Answer::Workers(views) = daemon.ask(Query::Workers {})? else {
                unreachable!("{ASKED}")
            };
            page.print(&views, |views| match rxqs {
                true => render::rxqs(views, wide),
                false => render::workers(views),
            })
        }
        Some(What::Acl { port, rules }) => {
            let wanted = port.as_ref().map(|wanted| daemon.filtered(wanted)).transpose()?;
            let rules = *rules || wanted.is_some();
            let Answer::Acl(views) = daemon.ask(Query::Acl { port: wanted, rules })? else {
                unreachable!("{ASKED}")
            };
            page.print(&views, |views| match rules {
                true => render::acl_rules(views, wide),
                false => render::acl(views, wide),
            })
        }
        Some(What::Drops { port }) => {
            let port = port.as_ref().map(|wanted| daemon.port(wanted)).transpose()?;
            let Answer::Drops(mut views) = daemon.ask(Query::Drops {})? else {
                unreachable!("{ASKED}")
            };
            views.retain(|view| port.as_ref().is_none_or(|port| view.port == *port));
            page.print(&views, |views| render::drops(views, wide))
        }
        Some(What::Config) => {
            let Answer::Config(view) = daemon.ask(Query::Config {})? else {
                unreachable!("{ASKED}")
            };
            page.print(&view, render::config)
        }
        Some(What::Memory) => {
            let Answer::Memory(view) = daemon.ask(Query::Memory {})? else {
                unreachable!("{ASKED}")
            };
            page.print(&view, |view| render::memory(view, wide))
        }
        Some(What::Store) => {
            let Answer::Store(view) = daemon.ask(Query::Store {})? else { unreachable!("{ASKED}") };
            page.print(&view, |view| render::store(view))
        }
        Some(What::Errors) => {
            let Answer::Errors(views) = daemon.ask(Query::Errors {})? else {
                unreachable!("{ASKED}")
            };
            page.print(&views, |views| render::errors(views))
        }
    }
}

/// Gives receive queues to workers by what they cost, or shows how it would.
pub fn rebalance(arguments: &RebalanceArguments, out: &mut dyn Write) -> Result<(), Failure> {
    let daemon = Daemon { socket: place::socket(&arguments.daemon)? };
    let query = Query::Rebalance { dry_run: arguments.dry_run };
    let Answer::Rebalance(view) = daemon.ask(query)? else { unreachable!("{ASKED}") };
    Page { json: arguments.json, out }.print(&view, render::rebalance)
}

/// Prints a value as JSON that people can read, too.
pub fn print_json(value: &impl Serialize, out: &mut dyn Write) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value)
        .map_err(|error| Failure::Failed(format!("writing JSON: {error}")))?;
    Ok(writeln!(out, "{text}")?)
}

/// Where the answer goes, and for whom.
pub(super) struct Page<'a> {
    pub json: bool,
    pub out: &'a mut dyn Write,
}

impl Page<'_> {
    pub fn print<T: Serialize>(
        &mut self,
        value: &T,
        render: impl FnOnce(&T) -> String,
    ) -> Result<(), Failure> {
        if self.json {
            return print_json(value, self.out);
        }
        Ok(self.out.write_all(render(value).as_bytes())?)
    }
}

/// The daemon, and what people call the things that it has.
pub(super) struct Daemon {
    pub socket: PathBuf,
}

impl Daemon {
    pub fn ask(&self, query: Query) -> Result<Answer, Failure> {
        Ok(block_on(ask(&self.socket, &query))??)
    }

    fn network(&self, wanted: &str) -> Result<NetworkUuid, Failure> {
        let Answer::Domains(views) = self.ask(Query::Domains {})? else { unreachable!("{ASKED}") };
        pick_network(wanted, views.into_iter().map(|view| view.network))
    }

    /// The port, which has port security.
    fn filtered(&self, wanted: &str) -> Result<PortUuid, Failure> {
        let Answer::Ports(views) = self.ask(Query::Ports {})? else { unreachable!("{ASKED}") };
        let port = pick_port(wanted, views.iter().map(|view| view.port.clone()))?;
        let security = views.iter().find(|view| view.port == port).map(|view| view.port_security);
        match (&port, security.flatten()) {
            (PortRef::Port { uuid, .. }, Some(PortSecurity::Filtered | PortSecurity::Closed)) => {
                Ok(*uuid)
            }
            _ => Err(Failure::Failed(format!("`{wanted}` has no port security: all frames pass"))),
        }
    }

    pub fn port(&self, wanted: &str) -> Result<PortRef, Failure> {
        let Answer::Ports(views) = self.ask(Query::Ports {})? else { unreachable!("{ASKED}") };
        pick_port(wanted, views.into_iter().map(|view| view.port))
    }
}

fn pick_network(
    wanted: &str,
    networks: impl Iterator<Item = NetworkRef>,
) -> Result<NetworkUuid, Failure> {
    let mut candidates: Vec<_> = networks
        .map(|network| Candidate {
            item: network.uuid,
            uuid: Some(network.uuid.to_string()),
            name: network.name.map(|name| name.to_string()),
        })
        .collect();
    // Of ports on one network, each brings it.
    candidates.sort_by_key(|candidate| candidate.item);
    candidates.dedup_by_key(|candidate| candidate.item);
    pick("network", "domains", wanted, &candidates)
}

fn pick_port(wanted: &str, ports: impl Iterator<Item = PortRef>) -> Result<PortRef, Failure> {
    let candidates: Vec<_> = ports
        .map(|port| {
            let (uuid, name) = match &port {
                PortRef::Port { uuid, name } => {
                    (Some(uuid.to_string()), name.as_ref().map(ToString::to_string))
                }
                PortRef::Uplink { physnet } => (None, Some(physnet.to_string())),
            };
            Candidate { item: port, uuid, name }
        })
        .collect();
    pick("port", "ports", wanted, &candidates)
}

/// The port as one of a guest.
fn guest_of(port: &PortRef) -> Result<control::model::PortUuid, Failure> {
    match port {
        PortRef::Port { uuid, .. } => Ok(*uuid),
        PortRef::Uplink { physnet } => Err(Failure::Failed(format!(
            "{physnet} is an uplink and has no vhost-user session; see `viaduct show ports`"
        ))),
    }
}
