//! Groups: the rules that ports have, and the sets of addresses that rules name.
//!
//! A set is an object of its own. A member that joins or leaves changes that object, and none of the
//! rules that name it.

use schemars::JsonSchema;
use serde::Serialize;

use super::{AddressGroupUuid, Name, Prefix, Remote, Rule};
use crate::fields::Fields;
use crate::problem::Fault;

/// A security group, as `security-groups/<uuid>` holds it: what ports that have it may send and
/// receive. What no rule of any group of a port permits is dropped.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct SecurityGroup {
    /// A name for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Name>,
    /// What the rules permit of the answers to what they permit.
    #[serde(default)]
    pub return_traffic: ReturnTraffic,
    /// The rules, in any order: priorities say what is looked at first.
    #[serde(default)]
    pub rules: Vec<Rule>,
}

/// What a group's rules permit in the other direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ReturnTraffic {
    /// What answers look like, as far as that can be told without remembering connections.
    #[default]
    Established,
    /// Nothing: rules are written for both directions.
    None,
}

/// An address group, as `address-groups/<uuid>` holds it: a set that rules name as the other end.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct AddressGroup {
    /// A name for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Name>,
    /// Addresses and prefixes, IPv4 and IPv6. Sorted and each once, however they were written.
    #[serde(default)]
    pub addresses: Vec<Prefix>,
}

/// That a port, of whatever host, is a member of a security group, as
/// `group-members/<group>/<port>` holds it: rules with that group as `remote_group` mean its
/// addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct GroupMember {
    /// The port's addresses and prefixes. Sorted and each once, however they were written.
    #[serde(default)]
    pub addresses: Vec<Prefix>,
}

impl SecurityGroup {
    /// The address groups that rules name, with the place of the first such rule.
    pub fn address_groups(&self) -> impl Iterator<Item = (usize, AddressGroupUuid)> + '_ {
        let mut seen = std::collections::BTreeSet::new();
        self.rules.iter().enumerate().filter_map(move |(index, rule)| match rule.remote {
            Some(Remote::AddressGroup(group)) if seen.insert(group) => Some((index, group)),
            _ => None,
        })
    }

    /// Reads a security group, or says all that is wrong with it.
    pub(crate) fn from_json(bytes: &[u8]) -> Result<SecurityGroup, Vec<Fault>> {
        read(bytes, "a security group", |mut fields| {
            let name = fields.text("name");
            let modes =
                [("established", ReturnTraffic::Established), ("none", ReturnTraffic::None)];
            let return_traffic = fields.choice("return_traffic", &modes).unwrap_or_default();
            let rules = fields.objects("rules", "a rule", Rule::read).unwrap_or_default();
            fields.finish();
            Some(SecurityGroup { name, return_traffic, rules })
        })
    }
}

impl AddressGroup {
    /// Reads an address group, or says all that is wrong with it.
    pub(crate) fn from_json(bytes: &[u8]) -> Result<AddressGroup, Vec<Fault>> {
        read(bytes, "an address group", |mut fields| {
            let name = fields.text("name");
            let addresses = set(&mut fields);
            fields.finish();
            Some(AddressGroup { name, addresses })
        })
    }
}

impl GroupMember {
    /// Reads a member of a group, or says all that is wrong with it.
    pub(crate) fn from_json(bytes: &[u8]) -> Result<GroupMember, Vec<Fault>> {
        read(bytes, "a member of a group", |mut fields| {
            let addresses = set(&mut fields);
            fields.finish();
            Some(GroupMember { addresses })
        })
    }
}

fn read<T>(
    bytes: &[u8],
    subject: &str,
    read: impl FnOnce(Fields<'_>) -> Option<T>,
) -> Result<T, Vec<Fault>> {
    let mut faults = Vec::new();
    match Fields::from_json(bytes, subject, &mut faults).and_then(read) {
        Some(object) if faults.is_empty() => Ok(object),
        _ => Err(faults),
    }
}

/// The field `addresses`. It is a set: order and repetition mean nothing, and make no difference.
fn set(fields: &mut Fields<'_>) -> Vec<Prefix> {
    let read = fields.list("addresses", |fields, name, value| fields.text_from(name, value));
    let mut addresses: Vec<Prefix> = read.unwrap_or_default();
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}
