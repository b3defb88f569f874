//! A port: where something is attached to a network of this host.
//!
//! Only what this version honours is a field; anything else is refused with the list of what is known,
//! so that nobody believes in a filter that is not there.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use schemars::JsonSchema;
use serde::Serialize;

use super::{
    Attachment, Mac, Mirror, Name, NetworkUuid, Prefix, SecurityGroupUuid, StationAddress, VfDirect,
};
use crate::cores;
use crate::fields::Fields;
use crate::problem::{Fault, Misfit};

/// A port, as `nodes/<host>/ports/<uuid>` holds it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Port {
    /// A name for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Name>,
    /// The network that the port is on.
    pub network: NetworkUuid,
    /// What is attached: `kind` and what belongs to it.
    #[serde(flatten)]
    pub attachment: Attachment,
    /// Whether the port passes frames. A port that is not up stays attached, but neither receives nor
    /// sends.
    #[serde(default = "yes")]
    pub admin_up: bool,
    /// The CPUs whose workers may poll the port, of the configuration's `workers.cores`. Without,
    /// all of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1))]
    pub cores: Vec<u32>,
    /// Whether the port may send only from its own addresses, and send and receive only what its
    /// security groups permit. A port without `mac` can have none; its default is false, and so is
    /// that of a `tap`, which is a service of the switch's owner.
    #[serde(default = "yes")]
    pub port_security: bool,
    /// The addresses that were given to the port.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub fixed_ips: Vec<StationAddress>,
    /// What the port may send from besides: addresses that move, or networks that it routes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub allowed_address_pairs: Vec<AddressPair>,
    /// The security groups of the port. With port security and no group, nothing passes but ARP,
    /// neighbour discovery and the port's own DHCP.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub security_groups: Vec<SecurityGroupUuid>,
    /// What of the port is copied to another port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mirror: Option<Mirror>,
}

/// An address that a port may send from besides its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct AddressPair {
    /// The address, or all addresses of a prefix.
    pub ip: Prefix,
    /// The MAC address that goes with it. Default: the port's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<Mac>,
}

impl Port {
    /// Most pairs of queues that a port can have.
    pub const QUEUES_MAX: u16 = 16;

    /// Most fixed addresses, and most allowed address pairs, that a port can have.
    pub const ADDRESSES_MAX: usize = 64;

    /// Most security groups that a port can have.
    pub const GROUPS_MAX: usize = 32;

    /// A port on this network, all else being as it is where nothing is given.
    pub fn new(network: NetworkUuid, attachment: Attachment) -> Port {
        let mut port = Port {
            name: None,
            network,
            attachment,
            admin_up: true,
            cores: Vec::new(),
            port_security: true,
            fixed_ips: Vec::new(),
            allowed_address_pairs: Vec::new(),
            security_groups: Vec::new(),
            mirror: None,
        };
        port.port_security = port.attachment.is_secured_by_default();
        port
    }

    /// The address that belongs to the port, if one is known.
    pub fn mac(&self) -> Option<Mac> {
        self.attachment.mac()
    }

    /// Whether its frames pass the switch. Those of a VF that is given to a guest do not.
    pub fn is_switched(&self) -> bool {
        !matches!(self.attachment, Attachment::VfDirect(_))
    }

    /// Where the port's socket is, if it has one; relative names are under `directory`.
    pub fn socket_path(&self, directory: &Path) -> Option<PathBuf> {
        match &self.attachment {
            Attachment::VhostUser { socket, .. } => Some(socket.path(directory)),
            Attachment::Ethdev { .. } | Attachment::Tap { .. } | Attachment::VfDirect(_) => None,
        }
    }

    /// Reads a port, or says all that is wrong with it.
    pub(crate) fn from_json(bytes: &[u8]) -> Result<Port, Vec<Fault>> {
        let mut faults = Vec::new();
        let port = Fields::from_json(bytes, "a port", &mut faults).and_then(Port::read);
        match port {
            Some(port) if faults.is_empty() => Ok(port),
            _ => Err(faults),
        }
    }

    fn read(mut fields: Fields<'_>) -> Option<Port> {
        let name = fields.text("name");
        fields.require("network", "write the UUID of the network that the port is on");
        let network = fields.text("network");
        let attachment = Attachment::read(&mut fields);
        let admin_up = fields.flag("admin_up").unwrap_or(true);
        let cores = cores::read(&mut fields).unwrap_or_default();
        let port_security = read_port_security(&mut fields, attachment.as_ref());
        let most = Port::ADDRESSES_MAX;
        let fixed_ips =
            fields.list("fixed_ips", |fields, name, value| fields.text_from(name, value));
        let fixed_ips = few(&mut fields, "fixed_ips", "addresses", most, fixed_ips);
        let pairs = fields.objects("allowed_address_pairs", "a pair", AddressPair::read);
        let pairs = few(&mut fields, "allowed_address_pairs", "pairs", most, pairs);
        let most = Port::GROUPS_MAX;
        let groups =
            fields.list("security_groups", |fields, name, value| fields.text_from(name, value));
        let security_groups = few(&mut fields, "security_groups", "groups", most, groups);
        match &attachment {
            Some(Attachment::VfDirect(vf)) => {
                if !cores.is_empty() {
                    let what = "no worker polls a VF that is given to a guest";
                    fields.fault("cores", what, "remove the field");
                }
                if port_security == Some(true) {
                    fields.fault("port_security", VfDirect::ENFORCED, VfDirect::UNSECURED);
                }
                if !security_groups.is_empty() {
                    fields.fault("security_groups", VfDirect::ENFORCED, VfDirect::UNSECURED);
                }
                vf.judge_pairs(&mut fields, &pairs);
            }
            _ if port_security == Some(false) && !security_groups.is_empty() => fields.fault(
                "security_groups",
                "groups do nothing without port security",
                "set port_security to true (which needs a mac), or remove the groups",
            ),
            _ => {}
        }
        let mirror = fields.object("mirror", "a mirror", Mirror::read);
        if mirror.is_some() && matches!(attachment, Some(Attachment::VfDirect(_))) {
            let what = "the switch sees no frames of a VF that is given to a guest";
            fields.fault("mirror", what, "remove the field, or make the port `vhost-user`");
        }
        fields.finish();
        Some(Port {
            name,
            network: network?,
            attachment: attachment?,
            admin_up,
            cores,
            port_security: port_security?,
            fixed_ips,
            allowed_address_pairs: pairs,
            security_groups,
            mirror,
        })
    }
}

/// The field `port_security`, which depends on whether the port has an address of its own. None if
/// that is not known, or for a fault.
fn read_port_security(fields: &mut Fields<'_>, attachment: Option<&Attachment>) -> Option<bool> {
    let wanted = fields.flag("port_security");
    let attachment = attachment?;
    if wanted == Some(true) && attachment.mac().is_none() {
        let what = "a port without `mac` cannot have port security";
        fields.fault("port_security", what, "add the `mac` of the station behind it, or set false");
        return None;
    }
    Some(wanted.unwrap_or(attachment.is_secured_by_default()))
}

/// The items of a list that is not longer than it may be, and has each once.
fn few<T: Copy + Ord + fmt::Display>(
    fields: &mut Fields<'_>,
    name: &str,
    items: &str,
    most: usize,
    read: Option<Vec<T>>,
) -> Vec<T> {
    let read = read.unwrap_or_default();
    if read.len() > most {
        let what = format!("has {} {items}", read.len());
        fields.fault(name, what, format!("keep to {most} at most"));
        return Vec::new();
    }
    for (index, item) in read.iter().enumerate() {
        if read[..index].contains(item) {
            let remedy = "remove one of the two";
            fields.fault(&format!("{name}[{index}]"), format!("{item} is listed twice"), remedy);
        }
    }
    read
}

impl AddressPair {
    fn read(mut fields: Fields<'_>) -> Option<AddressPair> {
        fields.require("ip", "write the address or prefix that the port may send from");
        let ip: Option<Prefix> = fields.text("ip");
        if let Some(misfit) = ip.and_then(multicast_misfit) {
            fields.fault("ip", misfit.what, misfit.remedy);
        }
        let mac = fields.text("mac");
        fields.finish();
        Some(AddressPair { ip: ip?, mac })
    }
}

impl FromStr for AddressPair {
    type Err = Misfit;

    /// Reads `IP` or `IP,MAC`, as commands take it.
    fn from_str(text: &str) -> Result<AddressPair, Misfit> {
        let (ip, mac) = match text.split_once(',') {
            Some((ip, mac)) => (ip, Some(mac.parse()?)),
            None => (text, None),
        };
        let ip: Prefix = ip.parse()?;
        match multicast_misfit(ip) {
            Some(misfit) => Err(misfit),
            None => Ok(AddressPair { ip, mac }),
        }
    }
}

/// Why nobody can be permitted to send from here.
fn multicast_misfit(ip: Prefix) -> Option<Misfit> {
    ip.net().addr().is_multicast().then(|| {
        let what = format!("{ip} is the address of a group, from which nobody sends");
        Misfit::new(what, "write addresses of stations")
    })
}

impl fmt::Display for AddressPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.mac {
            Some(mac) => write!(f, "{},{mac}", self.ip),
            None => self.ip.fmt(f),
        }
    }
}

fn yes() -> bool {
    true
}
