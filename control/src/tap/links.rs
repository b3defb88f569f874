//! This host's network interfaces, asked for and changed by the kernel's netlink.
//!
//! One value is one connection, which also hears what happens to interfaces. Nothing here blocks:
//! the connection is a task of the runtime, and each request has a time in which it must be answered.

use std::io;

use futures_util::StreamExt;
use netlink_packet_route::link::{
    BridgeStpState, InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::packet_core::NetlinkPayload;
use rtnetlink::{Handle, LinkBridge, LinkUnspec, MulticastGroup, new_multicast_connection};
use tokio::task::JoinHandle;

use crate::model::InterfaceName;
use crate::netlink::{errno, sentence, within};

/// A connection. See the [module's head](self).
pub(crate) struct Links {
    handle: Handle,
    events: Events,
    connection: JoinHandle<()>,
}

type Events = futures_util::stream::BoxStream<'static, RouteNetlinkMessage>;

/// An interface, as it was a moment ago.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found {
    pub(crate) index: u32,
    pub(crate) up: bool,
    pub(crate) is_bridge: bool,
    /// Frames can pass: it is up, and what is behind it is there.
    pub(crate) carrier: bool,
    /// The index of the bridge (or bond, or the like) that it is in.
    pub(crate) master: Option<u32>,
}

/// What happened to an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// It is new, or something about it is.
    Changed,
    /// It is not here any more, but in another network namespace.
    Moved {
        /// Its index here.
        index: u32,
    },
    /// It does not exist any more.
    Removed {
        /// Its index.
        index: u32,
    },
}

impl Links {
    /// Opens a connection. Whatever happens from now on is heard.
    pub(crate) fn connect() -> io::Result<Self> {
        let (connection, handle, messages) = new_multicast_connection(&[MulticastGroup::Link])?;
        let events = messages.filter_map(async |(message, _)| match message.payload {
            NetlinkPayload::InnerMessage(message) => Some(message),
            _ => None,
        });
        Ok(Self { handle, events: events.boxed(), connection: tokio::spawn(connection) })
    }

    /// The next event; none if the connection has ended.
    pub(crate) async fn event(&mut self) -> Option<Event> {
        loop {
            match self.events.next().await? {
                RouteNetlinkMessage::NewLink(_) => return Some(Event::Changed),
                RouteNetlinkMessage::DelLink(link) => return Some(Event::of_departed(&link)),
                _ => {}
            }
        }
    }

    /// The interface of this name, if there is one.
    pub(crate) async fn find(&mut self, name: &InterfaceName) -> Result<Option<Found>, String> {
        let mut found = self.handle.link().get().match_name(name.as_str()).execute();
        let doing = format!("asking for interface `{name}`");
        match within(&doing, async { found.next().await.transpose() }).await? {
            Ok(link) => Ok(link.as_ref().map(Found::of)),
            Err(error) if errno(&error) == Some(nix::errno::Errno::ENODEV) => Ok(None),
            Err(error) => Err(sentence(&doing, &error)),
        }
    }

    /// The indexes of all interfaces in a bridge.
    pub(crate) async fn members(&mut self, bridge: u32) -> Result<Vec<u32>, String> {
        let doing = "asking for the interfaces in a bridge";
        let mut all = self.handle.link().get().execute();
        let collected = within(doing, async {
            let mut members = Vec::new();
            while let Some(link) = all.next().await {
                let found = Found::of(&link?);
                members.extend(Some(found.index).filter(|_| found.master == Some(bridge)));
            }
            Ok(members)
        });
        collected.await?.map_err(|error: rtnetlink::Error| sentence(doing, &error))
    }

    /// Makes a bridge that forwards at once and speaks no spanning-tree protocol. It is down.
    pub(crate) async fn add_bridge(&mut self, name: &InterfaceName) -> Result<(), String> {
        let bridge = LinkBridge::new(name.as_str())
            .forward_delay(0)
            .stp_state(BridgeStpState::Disabled)
            .build();
        let add = self.handle.link().add(bridge).execute();
        let doing = format!("making the bridge `{name}`");
        match within(&doing, add).await? {
            Err(error) if errno(&error) == Some(nix::errno::Errno::EOPNOTSUPP) => {
                Err(format!("{doing}: this kernel has no bridges; load its module `bridge`"))
            }
            outcome => outcome.map_err(|error| sentence(&doing, &error)),
        }
    }

    /// Sets an interface up.
    pub(crate) async fn set_up(&mut self, name: &InterfaceName, index: u32) -> Result<(), String> {
        let change = LinkUnspec::new_with_index(index).up().build();
        self.set(change, format!("setting interface `{name}` up")).await
    }

    /// Says whether what is behind an interface is there, of one whose driver leaves that to others.
    pub(crate) async fn set_carrier(
        &mut self,
        name: &InterfaceName,
        index: u32,
        carrier: bool,
    ) -> Result<(), String> {
        let change = LinkUnspec::new_with_index(index).carrier(carrier).build();
        let word = if carrier { "on" } else { "off" };
        self.set(change, format!("switching the carrier of interface `{name}` {word}")).await
    }

    /// Puts an interface into a bridge, or takes it out of whatever it is in.
    pub(crate) async fn put(
        &mut self,
        name: &InterfaceName,
        index: u32,
        bridge: Option<u32>,
    ) -> Result<(), String> {
        let change = LinkUnspec::new_with_index(index);
        match bridge {
            Some(bridge) => {
                let doing = format!("putting interface `{name}` into its bridge");
                self.set(change.controller(bridge).build(), doing).await
            }
            None => {
                let doing = format!("taking interface `{name}` out of its bridge");
                self.set(change.nocontroller().build(), doing).await
            }
        }
    }

    /// Removes an interface.
    pub(crate) async fn remove(&mut self, name: &InterfaceName, index: u32) -> Result<(), String> {
        let doing = format!("removing the bridge `{name}`");
        let outcome = within(&doing, self.handle.link().del(index).execute()).await?;
        outcome.map_err(|error| sentence(&doing, &error))
    }

    async fn set(&mut self, change: LinkMessage, doing: String) -> Result<(), String> {
        let outcome = within(&doing, self.handle.link().set(change).execute()).await?;
        outcome.map_err(|error| sentence(&doing, &error))
    }
}

impl Drop for Links {
    /// The task would end only with the last of its requests.
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Found {
    fn of(link: &LinkMessage) -> Found {
        let (mut master, mut is_bridge) = (None, false);
        for attribute in &link.attributes {
            match attribute {
                LinkAttribute::Controller(index) => master = Some(*index),
                LinkAttribute::LinkInfo(infos) => {
                    let bridge = |info: &LinkInfo| *info == LinkInfo::Kind(InfoKind::Bridge);
                    is_bridge = infos.iter().any(bridge);
                }
                _ => {}
            }
        }
        let flags = link.header.flags;
        let up = flags.contains(LinkFlags::Up);
        // IFF_LOWER_UP is the carrier itself. IFF_RUNNING follows it by up to a second, and only then
        // does the kernel send again: so a link is lost with the one and is back with the other.
        let carrier = up && flags.contains(LinkFlags::LowerUp | LinkFlags::Running);
        Found { index: link.header.index, up, carrier, is_bridge, master }
    }
}

impl Event {
    fn of_departed(link: &LinkMessage) -> Event {
        let index = link.header.index;
        // A bridge reports under its own family that an interface has left it.
        if link.header.interface_family != AddressFamily::Unspec {
            return Event::Changed;
        }
        let elsewhere = |it: &LinkAttribute| {
            matches!(it, LinkAttribute::NewNetnsId(_) | LinkAttribute::NewIfIndex(_))
        };
        match link.attributes.iter().any(elsewhere) {
            true => Event::Moved { index },
            false => Event::Removed { index },
        }
    }
}
