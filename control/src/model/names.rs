//! What groups are called, as the groups in force say.

use super::desired::Desired;
use super::rule_text::GroupNames;
use super::{AddressGroupUuid, Name, Remote, SecurityGroupUuid};
use crate::problem::{Misfit, quoted};

impl GroupNames for Desired {
    /// The group of this name or UUID. A UUID need not be that of a group in force.
    fn security_group(&self, word: &str) -> Result<SecurityGroupUuid, Misfit> {
        let all = self.security_groups.iter().map(|(id, group)| (*id, group.name.as_ref()));
        called("security group", word, all)
    }

    /// The group of this name or UUID. A UUID need not be that of a group in force.
    fn address_group(&self, word: &str) -> Result<AddressGroupUuid, Misfit> {
        let all = self.address_groups.iter().map(|(id, group)| (*id, group.name.as_ref()));
        called("address group", word, all)
    }

    /// The name of the group, if no other group has it too.
    fn name(&self, remote: Remote) -> Option<String> {
        let name = match remote {
            Remote::Prefix(_) => return None,
            Remote::Group(id) => self.security_groups.get(&id)?.name.as_ref()?,
            Remote::AddressGroup(id) => self.address_groups.get(&id)?.name.as_ref()?,
        };
        let back = match remote {
            Remote::AddressGroup(_) => self.address_group(name.as_str()).map(Remote::AddressGroup),
            _ => self.security_group(name.as_str()).map(Remote::Group),
        };
        (back == Ok(remote)).then(|| name.to_string())
    }
}

/// The one that is called so, by UUID or by name.
fn called<'a, I: Copy + std::str::FromStr + ToString>(
    kind: &str,
    word: &str,
    all: impl Iterator<Item = (I, Option<&'a Name>)>,
) -> Result<I, Misfit> {
    if let Ok(id) = word.parse() {
        return Ok(id);
    }
    let named = all.filter(|(_, name)| name.is_some_and(|name| name.as_str() == word));
    let named: Vec<I> = named.map(|(id, _)| id).collect();
    match named[..] {
        [id] => Ok(id),
        [] => Err(Misfit::new(
            format!("there is no {kind} {}", quoted(word)),
            "correct the name, or write its UUID",
        )),
        _ => {
            let uuids: Vec<String> = named.iter().map(I::to_string).collect();
            let what = format!("several {kind}s are called {}", quoted(word));
            Err(Misfit::new(what, format!("name one by UUID: {}", uuids.join(", "))))
        }
    }
}
