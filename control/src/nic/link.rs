//! PFs by the kernel's netlink: their VFs, the unicast filters of their own queues, and what happens
//! to them.
//!
//! A connection is two values, requests and events. Nothing here blocks: the connection is a task of the runtime, and each
//! request has a time in which it must be answered. What the kernel tells without being asked has no
//! VFs in it, so a change is heard as just that, and who wants to know asks.

use std::io;

use futures_util::StreamExt;
use netlink_packet_route::link::{
    LinkAttribute, LinkExtentMask, LinkFlags, LinkMessage, LinkVfInfo,
};
use netlink_packet_route::neighbour::{
    NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use nix::errno::Errno;
use rtnetlink::packet_core::NetlinkPayload;
use rtnetlink::{Handle, LinkUnspec, MulticastGroup, new_multicast_connection};
use tokio::task::JoinHandle;

use super::settings::{VfSetting, VfSettings};
use crate::model::{InterfaceName, Mac};
use crate::netlink::{errno, sentence, within};

/// A connection, by which is asked and told. See the [module's head](self).
pub(crate) struct NicLinks {
    handle: Handle,
    connection: JoinHandle<()>,
}

/// The same connection, by which is heard what happens.
pub(crate) struct NicEvents(futures_util::stream::BoxStream<'static, RouteNetlinkMessage>);

/// A NIC's interface, as it was a moment ago.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NicLink {
    /// Its index. An interface that was made again has another one.
    pub(crate) index: u32,
    /// Whether somebody has set it up.
    pub(crate) up: bool,
    /// Whether its wire is alive. Not known, hence false, of an interface that is down.
    pub(crate) carrier: bool,
    /// Whether it is set to take all frames.
    pub(crate) promiscuous: bool,
    /// Its VFs by number, if it is a PF that has any.
    pub(crate) vfs: Vec<(u32, VfSettings)>,
}

/// Why the kernel, or the driver behind it, did not do what it was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// The kernel's number, if it was the kernel.
    pub(crate) errno: Option<Errno>,
    /// What failed, as a sentence.
    pub(crate) sentence: String,
}

impl NicLinks {
    /// Opens a connection. Whatever happens from now on is heard.
    pub(crate) fn connect() -> io::Result<(NicLinks, NicEvents)> {
        let (connection, handle, messages) = new_multicast_connection(&[MulticastGroup::Link])?;
        let events = messages.filter_map(async |(message, _)| match message.payload {
            NetlinkPayload::InnerMessage(message) => Some(message),
            _ => None,
        });
        let links = NicLinks { handle, connection: tokio::spawn(connection) };
        Ok((links, NicEvents(events.boxed())))
    }

    /// The interface of this name with its VFs, if there is one.
    pub(crate) async fn find(&self, name: &InterfaceName) -> Result<Option<NicLink>, String> {
        let request = self.handle.link().get().match_name(name.as_str());
        let request = request.set_filter_mask(AddressFamily::Unspec, vec![LinkExtentMask::Vf]);
        let mut found = Box::pin(request.execute());
        let doing = format!("asking for interface `{name}`");
        match within(&doing, async { found.next().await.transpose() }).await? {
            Ok(link) => Ok(link.as_ref().map(NicLink::of)),
            Err(error) if errno(&error) == Some(Errno::ENODEV) => Ok(None),
            Err(error) => Err(sentence(&doing, &error)),
        }
    }

    /// Sets one setting of one VF.
    pub(crate) async fn set_vf(
        &self,
        index: u32,
        vf: u32,
        settings: &VfSettings,
        setting: VfSetting,
    ) -> Result<(), Refusal> {
        let info = LinkVfInfo(vec![settings.info(vf, setting)]);
        let change = LinkUnspec::new_with_index(index)
            .append_extra_attribute(LinkAttribute::VfInfoList(vec![info]))
            .build();
        let doing = format!("setting the {setting} of VF {vf}");
        let answer = within(&doing, self.handle.link().set(change).execute()).await;
        Refusal::of(&doing, answer)
    }

    /// Has the interface take all frames, or only those that are meant for it.
    pub(crate) async fn set_promiscuous(&self, index: u32, on: bool) -> Result<(), Refusal> {
        let change = LinkUnspec::new_with_index(index).promiscuous(on).build();
        let doing = "changing the promiscuous mode";
        let answer = within(doing, self.handle.link().set(change).execute()).await;
        Refusal::of(doing, answer)
    }

    /// The unicast addresses that the interface takes frames for besides its own: what `bridge fdb
    /// show` tells as `self`. Whoever added them.
    pub(crate) async fn filters(&self, index: u32) -> Result<Vec<Mac>, String> {
        let doing = "asking for unicast filters";
        let request = self.handle.neighbours().get().set_address_family(AddressFamily::Bridge);
        let mut all = Box::pin(request.execute());
        let collected = within(doing, async {
            let mut filters = Vec::new();
            // The kernel tells those of all interfaces, whichever is asked for.
            while let Some(entry) = all.next().await {
                let entry = entry?;
                let own = entry.header.flags.contains(NeighbourFlags::Own);
                if own && entry.header.ifindex == index {
                    filters.extend(entry.attributes.iter().find_map(address));
                }
            }
            Ok(filters)
        });
        collected.await?.map_err(|error: rtnetlink::Error| sentence(doing, &error))
    }

    /// Has the interface take frames for this address too. One that is there already stays there.
    pub(crate) async fn add_filter(&self, index: u32, mac: Mac) -> Result<(), Refusal> {
        let doing = format!("adding a filter for {mac}");
        let request = self.handle.neighbours().add_bridge(index, &mac.octets());
        let request = request.flags(NeighbourFlags::Own).state(NeighbourState::Permanent);
        match Refusal::of(&doing, within(&doing, request.execute()).await) {
            Err(refusal) if refusal.errno == Some(Errno::EEXIST) => Ok(()),
            outcome => outcome,
        }
    }

    /// Has the interface take no frames for this address any more.
    pub(crate) async fn remove_filter(&self, index: u32, mac: Mac) -> Result<(), Refusal> {
        let mut entry = NeighbourMessage::default();
        entry.header.family = AddressFamily::Bridge;
        entry.header.ifindex = index;
        entry.header.state = NeighbourState::Permanent;
        entry.header.flags = NeighbourFlags::Own;
        entry.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.octets().to_vec()));
        let doing = format!("removing the filter for {mac}");
        let answer = within(&doing, self.handle.neighbours().del(entry).execute()).await;
        match Refusal::of(&doing, answer) {
            Err(refusal) if refusal.errno == Some(Errno::ENOENT) => Ok(()),
            outcome => outcome,
        }
    }
}

impl NicEvents {
    /// Waits until something happens to an interface; false if the connection has ended.
    pub(crate) async fn changed(&mut self) -> bool {
        while let Some(message) = self.0.next().await {
            if matches!(message, RouteNetlinkMessage::NewLink(_) | RouteNetlinkMessage::DelLink(_))
            {
                return true;
            }
        }
        false
    }
}

impl Drop for NicLinks {
    /// The task would end only with the last of its requests.
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl NicLink {
    fn of(link: &LinkMessage) -> NicLink {
        let infos = link.attributes.iter().filter_map(|attribute| match attribute {
            LinkAttribute::VfInfoList(infos) => Some(infos),
            _ => None,
        });
        NicLink {
            index: link.header.index,
            up: link.header.flags.contains(LinkFlags::Up),
            carrier: link.header.flags.contains(LinkFlags::LowerUp),
            promiscuous: link.header.flags.contains(LinkFlags::Promisc),
            vfs: infos.flatten().filter_map(VfSettings::read).collect(),
        }
    }

    /// A VF as it is; none if the PF has no VF of this number.
    pub(crate) fn vf(&self, number: u32) -> Option<&VfSettings> {
        self.vfs.iter().find(|(vf, _)| *vf == number).map(|(_, settings)| settings)
    }
}

impl Refusal {
    fn of(
        doing: &str,
        answer: Result<Result<(), rtnetlink::Error>, String>,
    ) -> Result<(), Refusal> {
        match answer {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => {
                Err(Refusal { errno: errno(&error), sentence: sentence(doing, &error) })
            }
            Err(sentence) => Err(Refusal { errno: None, sentence }),
        }
    }
}

/// The unicast address of an entry.
fn address(attribute: &NeighbourAttribute) -> Option<Mac> {
    match attribute {
        NeighbourAttribute::LinkLayerAddress(octets) => {
            Mac::new(octets.as_slice().try_into().ok()?).ok()
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use nix::sched::{CloneFlags, unshare};

    use super::*;

    /// Runs in a network namespace of its own, which has an interface `nic0`.
    fn in_namespace<T: Send>(run: impl AsyncFnOnce(NicLinks, NicEvents) -> T + Send) -> T {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                unshare(CloneFlags::CLONE_NEWNET).expect("a namespace, as root");
                ip(&["link", "add", "nic0", "type", "veth", "peer", "name", "nic1"]);
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .expect("a runtime");
                runtime.block_on(async {
                    let (links, events) = NicLinks::connect().expect("netlink");
                    run(links, events).await
                })
            });
            thread.join().expect("the thread ends well")
        })
    }

    fn ip(arguments: &[&str]) -> String {
        tool("ip", arguments)
    }

    fn tool(program: &str, arguments: &[&str]) -> String {
        let output = Command::new(program).args(arguments).output().expect("iproute2");
        assert!(output.status.success(), "{program} {arguments:?}: {output:?}");
        String::from_utf8(output.stdout).expect("text")
    }

    fn name(name: &str) -> InterfaceName {
        name.parse().expect("a name")
    }

    /// What `bridge fdb` tells of the interface's own filters.
    fn fdb() -> Vec<String> {
        let shown = tool("bridge", &["-j", "fdb", "show", "dev", "nic0"]);
        let entries: serde_json::Value = serde_json::from_str(&shown).expect("JSON");
        let entries = entries.as_array().expect("a list").iter();
        let own = entries.filter(|entry| entry["flags"].to_string().contains("self"));
        let macs = own.map(|entry| entry["mac"].as_str().expect("an address").to_owned());
        // The kernel's own are those of groups.
        let mut macs: Vec<_> = macs.filter(|mac| mac.starts_with("52:54")).collect();
        macs.sort();
        macs
    }

    #[test]
    fn filters_come_and_go_as_the_kernel_tells() {
        in_namespace(async |links, _| {
            let nic = links.find(&name("nic0")).await.expect("an answer").expect("there");
            let [a, b]: [Mac; 2] =
                ["52:54:00:00:00:01", "52:54:00:00:00:02"].map(|mac| mac.parse().expect("a MAC"));
            links.add_filter(nic.index, a).await.expect("room");
            links.add_filter(nic.index, b).await.expect("room");
            links.add_filter(nic.index, a).await.expect("one that is there is no error");
            assert_eq!(fdb(), [a.to_string(), b.to_string()]);
            let mut filters = links.filters(nic.index).await.expect("an answer");
            filters.sort();
            assert_eq!(filters, [a, b]);

            links.remove_filter(nic.index, a).await.expect("gone");
            links.remove_filter(nic.index, a).await.expect("one that is gone is no error");
            assert_eq!(fdb(), [b.to_string()]);
            assert_eq!(links.filters(nic.index).await.expect("an answer"), [b]);
        });
    }

    #[test]
    fn promiscuous_mode_is_seen_by_others() {
        in_namespace(async |links, _| {
            let nic = links.find(&name("nic0")).await.expect("an answer").expect("there");
            links.set_promiscuous(nic.index, true).await.expect("on");
            assert!(ip(&["-j", "link", "show", "nic0"]).contains("PROMISC"));
            links.set_promiscuous(nic.index, false).await.expect("off");
            assert!(!ip(&["-j", "link", "show", "nic0"]).contains("PROMISC"));
        });
    }

    #[test]
    fn an_interface_without_vfs_refuses_what_is_for_vfs() {
        in_namespace(async |links, _| {
            assert_eq!(links.find(&name("nic9")).await, Ok(None));
            let nic = links.find(&name("nic0")).await.expect("an answer").expect("there");
            assert_eq!((nic.up, nic.vf(0)), (false, None));
            let wanted = VfSettings { vlan: 5, ..VfSettings::UNUSED };
            let refusal = links.set_vf(nic.index, 0, &wanted, VfSetting::Vlan).await;
            let refusal = refusal.expect_err("no VFs");
            assert_eq!(refusal.errno, Some(Errno::EOPNOTSUPP));
            assert!(refusal.sentence.starts_with("setting the VLAN of VF 0: "), "{refusal:?}");
        });
    }

    #[test]
    fn changes_are_heard() {
        in_namespace(async |_links, mut events| {
            ip(&["link", "set", "nic0", "up"]);
            assert!(events.changed().await);
        });
    }
}
