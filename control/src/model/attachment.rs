//! What a port attaches to the switch: a guest, a device, an interface of this host.

use std::fmt;
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;

use schemars::JsonSchema;
use serde::Serialize;

use super::{Devargs, InterfaceName, Mac, Port, VfDirect};
use crate::fields::Fields;
use crate::problem::{Misfit, quoted};
use crate::text::{Text, text_type};

/// What is attached to the switch by a port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Attachment {
    /// A guest, by a vhost-user socket.
    VhostUser {
        /// The guest's address.
        mac: Mac,
        /// The socket: a name under the configured socket directory, or an absolute path.
        socket: SocketName,
        /// Who makes the socket.
        #[serde(default)]
        mode: SocketMode,
        /// Pairs of queues that the guest may use, at most.
        #[serde(default = "default_queues")]
        #[schemars(range(min = 1, max = 16))]
        queues: u16,
    },
    /// A DPDK ethernet device.
    Ethdev {
        /// The address of the one station behind the device, if there is just one. Without, addresses
        /// are learned.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        mac: Option<Mac>,
        /// The device.
        device: Devargs,
    },
    /// A tap interface of this host, which the switch makes and removes.
    Tap {
        /// The address of the one station behind the interface, if there is just one; the interface
        /// gets it, unless it is in a bridge. Without, addresses are learned.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        mac: Option<Mac>,
        /// The interface.
        interface: InterfaceName,
        /// A Linux bridge that connects the interface to another one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        bridge: Option<TapBridge>,
    },
    /// A VF that is given to a guest by PCI passthrough. Its frames never see the switch, which sets
    /// what the NIC does for it, and keeps it set.
    VfDirect(VfDirect),
}

/// A Linux bridge between a port's tap interface and another interface of this host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct TapBridge {
    /// The bridge, which the switch makes if it is not there.
    pub name: InterfaceName,
    /// The other interface. It may come later, and go and come again.
    pub member: InterfaceName,
}

/// Who makes a vhost-user socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SocketMode {
    /// The guest's VMM makes it (QEMU: `server=on`); we connect, and connect again when it returns.
    #[default]
    Client,
    /// We make it; the VMM connects.
    Server,
}

impl Attachment {
    /// How the kind is written.
    pub fn kind(&self) -> &'static str {
        match self {
            Attachment::VhostUser { .. } => "vhost-user",
            Attachment::Ethdev { .. } => "ethdev",
            Attachment::Tap { .. } => "tap",
            Attachment::VfDirect(_) => "vf-direct",
        }
    }

    pub(super) fn mac(&self) -> Option<Mac> {
        match self {
            Attachment::VhostUser { mac, .. } => Some(*mac),
            Attachment::Ethdev { mac, .. } | Attachment::Tap { mac, .. } => *mac,
            Attachment::VfDirect(vf) => Some(vf.mac),
        }
    }

    /// The names of kernel interfaces that the port takes for itself, each with its field.
    pub(super) fn interfaces(&self) -> impl Iterator<Item = (&'static str, &InterfaceName)> {
        let (interface, bridge) = match self {
            Attachment::Tap { interface, bridge, .. } => (Some(interface), bridge.as_ref()),
            _ => (None, None),
        };
        let interface = interface.map(|interface| ("interface", interface));
        let bridge = bridge.map(|it| [("bridge.name", &it.name), ("bridge.member", &it.member)]);
        interface.into_iter().chain(bridge.into_iter().flatten())
    }

    /// Whether a port has port security if nothing is said. Behind a tap interface are services of
    /// whoever owns the switch, which answer for addresses that are not their own; what a NIC does for
    /// a VF is less than port security, and has names of its own.
    pub(super) fn is_secured_by_default(&self) -> bool {
        match self {
            Attachment::VhostUser { .. } | Attachment::Ethdev { .. } => self.mac().is_some(),
            Attachment::Tap { .. } | Attachment::VfDirect(_) => false,
        }
    }

    pub(super) fn read(fields: &mut Fields<'_>) -> Option<Attachment> {
        #[derive(Clone, Copy)]
        enum Kind {
            VhostUser,
            Ethdev,
            Tap,
            VfDirect,
        }
        fields.require("kind", "write `vhost-user`, `ethdev`, `tap` or `vf-direct`");
        let kinds = [
            ("vhost-user", Kind::VhostUser),
            ("ethdev", Kind::Ethdev),
            ("tap", Kind::Tap),
            ("vf-direct", Kind::VfDirect),
        ];
        let Some(kind) = fields.choice("kind", &kinds) else {
            // Which fields belong here is not known; the kind's own fault is enough.
            fields.pass_over(&["mac", "socket", "mode", "queues", "device", "interface", "bridge"]);
            fields.pass_over(&VfDirect::FIELDS);
            return None;
        };
        match kind {
            Kind::VhostUser => {
                fields.subject.push_str(" of kind `vhost-user`");
                fields.require("mac", "write the guest's MAC address");
                let need_socket = "write a name under the socket directory, or an absolute path";
                fields.require("socket", need_socket);
                let (mac, socket) = (fields.text("mac"), fields.text("socket"));
                let modes = [("client", SocketMode::Client), ("server", SocketMode::Server)];
                let mode = fields.choice("mode", &modes).unwrap_or_default();
                let most = Port::QUEUES_MAX.into();
                let queues = fields.number("queues", 1..=most).unwrap_or(default_queues());
                Some(Attachment::VhostUser { mac: mac?, socket: socket?, mode, queues })
            }
            Kind::Ethdev => {
                fields.subject.push_str(" of kind `ethdev`");
                fields.require("device", Devargs::REMEDY);
                let mac = fields.text("mac");
                Some(Attachment::Ethdev { mac, device: fields.text("device")? })
            }
            Kind::Tap => {
                fields.subject.push_str(" of kind `tap`");
                fields.require("interface", InterfaceName::REMEDY);
                let (mac, interface) = (fields.text("mac"), fields.text("interface"));
                let bridge = fields.object("bridge", "a bridge", TapBridge::read);
                let attachment = Attachment::Tap { mac, interface: interface?, bridge };
                attachment.distinct(fields)
            }
            Kind::VfDirect => VfDirect::read(fields).map(Attachment::VfDirect),
        }
    }

    /// The attachment, if it names each interface once.
    fn distinct(self, fields: &mut Fields<'_>) -> Option<Attachment> {
        let names: Vec<_> = self.interfaces().collect();
        for (index, (field, name)) in names.iter().enumerate() {
            if names[..index].iter().any(|(_, earlier)| earlier == name) {
                let what =
                    format!("{} stands for another interface of this port", quoted(name.as_str()));
                fields.fault(field, what, "name another interface");
                return None;
            }
        }
        Some(self)
    }
}

impl TapBridge {
    fn read(mut fields: Fields<'_>) -> Option<TapBridge> {
        fields.require("name", "write the name of the bridge, which is made if it is not there");
        fields.require("member", "write the name of the interface that the bridge connects to");
        let (name, member) = (fields.text("name"), fields.text("member"));
        fields.finish();
        Some(TapBridge { name: name?, member: member? })
    }
}

fn default_queues() -> u16 {
    1
}

/// Where a vhost-user socket is: a path under the configured socket directory, or an absolute one.
///
/// It has no `.`, `..` or empty parts, so that two names of one socket are one text, and nothing
/// leaves the socket directory by accident.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SocketName(String);

text_type!(
    SocketName,
    "The path of a socket: relative to the configured socket directory, or absolute.",
    "^[^\\x00-\\x1f\\x7f]{1,107}$",
    "write a name such as guest1.sock, or an absolute path, without `.` and `..` in it"
);

impl SocketName {
    /// Octets of a path that the kernel takes: `sun_path` of unix(7) less its final zero.
    pub const PATH_LENGTH_MAX: usize = 107;

    /// The name as written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The path, given where relative names are.
    pub fn path(&self, directory: &Path) -> PathBuf {
        directory.join(&self.0)
    }
}

/// Why the kernel will not take this path for a socket.
pub(crate) fn socket_path_misfit(path: &Path) -> Option<Misfit> {
    let length = path.as_os_str().len();
    let most = SocketName::PATH_LENGTH_MAX;
    (length > most).then(|| {
        Misfit::new(
            format!("{} is {length} octets long", quoted(&path.display().to_string())),
            format!("choose a socket path of at most {most} octets: the kernel takes no more"),
        )
    })
}

impl FromStr for SocketName {
    type Err = Misfit;

    fn from_str(text: &str) -> Result<Self, Misfit> {
        if let Some(misfit) = socket_path_misfit(Path::new(text)) {
            return Err(misfit);
        }
        let relative = text.strip_prefix('/').unwrap_or(text);
        // Path::components drops inner `.`, empty parts and a final slash, so the parts are looked at
        // as text as well.
        let plain = relative.split('/').all(|part| !part.is_empty() && part != ".")
            && Path::new(relative).components().all(|part| matches!(part, Component::Normal(_)));
        if plain && !text.chars().any(char::is_control) {
            return Ok(SocketName(text.to_owned()));
        }
        Err(Misfit::new(format!("{} is not the path of a socket", quoted(text)), Self::REMEDY))
    }
}

impl fmt::Display for SocketName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
