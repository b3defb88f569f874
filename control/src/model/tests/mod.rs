//! What the tests of the model share: a host, and short ways to write objects.

mod change;
mod groups;
mod objects;
mod set;
mod vf;

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::*;
use crate::config::{Physnet, Vhost};
use crate::documented::assert_documented;
use crate::key::Key;

const NET: &str = "11111111-1111-4111-8111-111111111111";
const NET2: &str = "22222222-2222-4222-8222-222222222222";
const GROUP: &str = "cccccccc-cccc-4ccc-8ccc-cccccccccccc";
const GROUP2: &str = "dddddddd-dddd-4ddd-8ddd-dddddddddddd";
const PORT: &str = "aaaaaaaa-aaaa-4aaa-8aaa-aaaaaaaaaaaa";
const PORT2: &str = "bbbbbbbb-bbbb-4bbb-8bbb-bbbbbbbbbbbb";

/// A host `h` with physnets `p` (VLANs 100-199, MTU 1500) and `q` (all VLANs, MTU 9000).
pub struct Host {
    pub name: HostName,
    physnets: BTreeMap<PhysnetName, Physnet>,
    vhost: Vhost,
}

impl Host {
    pub fn new() -> Host {
        let all = VlanRanges::all();
        let some = VlanRanges::new(vec![parse_range("100-199").expect("a range")]);
        let physnet = |device: &str, vlans, mtu| {
            let device = device.parse().expect("a device");
            let filters_full = Default::default();
            Physnet {
                device: Some(device),
                bond: None,
                vlans,
                mtu,
                cores: Vec::new(),
                filters_full,
            }
        };
        let name = |name: &str| -> PhysnetName { name.parse().expect("a name") };
        Host {
            name: "h".parse().expect("a name"),
            physnets: BTreeMap::from([
                (name("p"), physnet("net_tap0,iface=p", some, 1500)),
                (name("q"), physnet("0000:01:10.0", all, 9000)),
            ]),
            vhost: Vhost { queues_max: 4, ..Vhost::default() },
        }
    }

    pub fn site(&self) -> Site<'_> {
        Site {
            host: &self.name,
            physnets: Some(&self.physnets),
            vhost: &self.vhost,
            cores: &[2, 3],
        }
    }
}

fn raw(values: &[(&str, Value)]) -> BTreeMap<Key, RawValue> {
    let parse = |(key, value): &(&str, Value)| {
        let bytes = match value {
            // A text stands for a file that is not JSON.
            Value::String(text) => text.clone().into_bytes(),
            value => value.to_string().into_bytes(),
        };
        (key.parse().expect(key), RawValue::Json(bytes.into()))
    };
    values.iter().map(parse).collect()
}

fn vlan(physnet: &str, vlan: u16) -> Value {
    json!({"type": "vlan", "physnet": physnet, "vlan": vlan})
}

fn guest(network: &str, socket: &str, last: u8) -> Value {
    json!({
        "network": network, "kind": "vhost-user", "socket": socket,
        "mac": format!("52:54:00:00:00:{last:02x}"),
    })
}

fn messages(desired: &Desired) -> Vec<String> {
    let problems = desired.problems.values().chain(desired.warnings.values()).flatten();
    problems.inspect(|problem| assert_documented(problem)).map(ToString::to_string).collect()
}

fn in_force(desired: &Desired) -> Vec<String> {
    let networks = desired.networks.keys().map(|id| id.to_string());
    networks.chain(desired.ports.keys().map(|id| id.to_string())).collect()
}
