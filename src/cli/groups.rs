//! `viaduct group` and `viaduct address-group`: desired state in the store, as for networks and ports.

use std::io::Write;
use std::sync::Arc;

use control::edit::{
    add_address_group, add_security_group, change_address_group, change_security_group,
    delete_address_group, delete_member, delete_security_group, leave_address_group, rule_number,
    set_member,
};
use control::key::Key;
use control::model::{
    AddressGroup, AddressGroupUuid, Desired, GroupMember, ReturnTraffic, Rule, SecurityGroup,
    SecurityGroupUuid,
};

use super::arguments::{
    self, AddressGroupAction, AddressGroupArguments, GroupAction, GroupAdd, GroupArguments,
    MemberAction, RuleAction,
};
use super::edit::refusal;
use super::failure::Failure;
use super::place::Place;
use super::{block_on, pick};

/// Does what was asked with a security group.
pub fn group(arguments: &GroupArguments, out: &mut dyn Write) -> Result<(), Failure> {
    let place = Place::find(&arguments.store)?;
    block_on(async {
        match &arguments.action {
            GroupAction::Add(add) => add_group(&place, add, out).await,
            GroupAction::Del { group } => {
                let id = security_group(&place, group).await?;
                delete_security_group(place.store(), &id.to_string()).await?;
                Ok(())
            }
            GroupAction::Rule(action) => rule(&place, action, out).await,
            GroupAction::Member(action) => member(&place, action, out).await,
        }
    })?
}

/// Does what was asked with an address group.
pub fn address_group(
    arguments: &AddressGroupArguments,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let place = Place::find(&arguments.store)?;
    block_on(async {
        match &arguments.action {
            AddressGroupAction::Add { name, uuid, addresses } => {
                let uuid = uuid.unwrap_or_else(AddressGroupUuid::random);
                let group = AddressGroup { name: name.clone(), addresses: addresses.clone() };
                let added =
                    add_address_group(place.store(), place.site(), Some(uuid), &group).await;
                added.map_err(|error| refusal(error, &Key::AddressGroup(uuid)))?;
                Ok(writeln!(out, "{uuid}")?)
            }
            AddressGroupAction::Del { group } => {
                let id = set(&place, group).await?;
                delete_address_group(place.store(), &id.to_string()).await?;
                Ok(())
            }
            AddressGroupAction::Join { group, addresses } => {
                let id = set(&place, group).await?;
                change_address_group(place.store(), place.site(), id, |_, group| {
                    group.addresses.extend(addresses);
                    Ok(())
                })
                .await?;
                Ok(())
            }
            AddressGroupAction::List { group } => {
                let id = set(&place, group).await?;
                let desired = in_force(&place).await?;
                let group = desired.address_groups.get(&id);
                for address in &good(&desired, Key::AddressGroup(id), group)?.addresses {
                    writeln!(out, "{address}")?;
                }
                Ok(())
            }
            AddressGroupAction::Leave { group, addresses } => {
                let id = set(&place, group).await?;
                change_address_group(place.store(), place.site(), id, |key, group| {
                    leave_address_group(key, group, addresses)
                })
                .await?;
                Ok(())
            }
        }
    })?
}

async fn add_group(place: &Place, add: &GroupAdd, out: &mut dyn Write) -> Result<(), Failure> {
    let uuid = add.uuid.unwrap_or_else(SecurityGroupUuid::random);
    let return_traffic = match add.return_traffic {
        arguments::ReturnTraffic::Established => ReturnTraffic::Established,
        arguments::ReturnTraffic::None => ReturnTraffic::None,
    };
    let mut group = SecurityGroup { name: add.name.clone(), return_traffic, rules: Vec::new() };
    let mut names = in_force(place).await?;
    // Its rules may name the group itself.
    names.security_groups.insert(uuid, Arc::new(group.clone()));
    for line in &add.rule {
        group.rules.push(parse(line, &names)?);
    }
    let added = add_security_group(place.store(), place.site(), Some(uuid), &group).await;
    added.map_err(|error| refusal(error, &Key::SecurityGroup(uuid)))?;
    Ok(writeln!(out, "{uuid}")?)
}

async fn rule(place: &Place, action: &RuleAction, out: &mut dyn Write) -> Result<(), Failure> {
    let names = in_force(place).await?;
    match action {
        RuleAction::Add { group, rule } => {
            let id = security_group(place, group).await?;
            let rule = parse(&rule.join(" "), &names)?;
            let number = change_security_group(place.store(), place.site(), id, |_, group| {
                group.rules.push(rule);
                Ok(group.rules.len() - 1)
            });
            let number = number.await.map_err(|error| refusal(error, &Key::SecurityGroup(id)))?;
            Ok(writeln!(out, "{number}")?)
        }
        RuleAction::Del { group, rule } => {
            let id = security_group(place, group).await?;
            change_security_group(place.store(), place.site(), id, |key, group| {
                let number = rule_number(key, group, rule)?;
                group.rules.remove(number);
                Ok(())
            })
            .await?;
            Ok(())
        }
        RuleAction::List { group } => {
            let id = security_group(place, group).await?;
            let group = good(&names, Key::SecurityGroup(id), names.security_groups.get(&id))?;
            let width = group.rules.len().saturating_sub(1).to_string().len();
            for (number, rule) in group.rules.iter().enumerate() {
                writeln!(out, "{number:>width$}  {}", rule.named(&names))?;
            }
            Ok(())
        }
    }
}

async fn member(place: &Place, action: &MemberAction, out: &mut dyn Write) -> Result<(), Failure> {
    match action {
        MemberAction::Add { group, port, addresses } => {
            let group = security_group(place, group).await?;
            let member = GroupMember { addresses: addresses.clone() };
            set_member(place.store(), place.site(), group, *port, &member).await?;
        }
        MemberAction::Del { group, port } => {
            let group = security_group(place, group).await?;
            delete_member(place.store(), group, *port).await?;
        }
        MemberAction::List { group } => {
            let group = security_group(place, group).await?;
            let desired = in_force(place).await?;
            for (port, member) in desired.group_members.get(&group).into_iter().flatten() {
                let addresses: Vec<_> = member.addresses.iter().map(ToString::to_string).collect();
                writeln!(out, "{port}  {}", addresses.join(" "))?;
            }
        }
    }
    Ok(())
}

fn parse(line: &str, names: &Desired) -> Result<Rule, Failure> {
    Rule::parse(line, names)
        .map_err(|misfit| Failure::Wrong(format!("the rule `{line}`: {misfit}")))
}

/// The group, or what is wrong with it.
fn good<'a, T>(desired: &Desired, key: Key, group: Option<&'a Arc<T>>) -> Result<&'a T, Failure> {
    group.map(|group| &**group).ok_or_else(|| {
        let problems = desired.problems.get(&key).into_iter().flatten();
        let problems: Vec<String> = problems.map(ToString::to_string).collect();
        Failure::Failed(problems.join("\n"))
    })
}

/// The good part of the store: whose groups names mean.
async fn in_force(place: &Place) -> Result<Desired, Failure> {
    Ok(Desired::build(&place.store().list().await?.values, place.site()))
}

async fn security_group(place: &Place, wanted: &str) -> Result<SecurityGroupUuid, Failure> {
    Ok(pick::security_group_of_store(&place.store().list().await?.values, wanted)?)
}

async fn set(place: &Place, wanted: &str) -> Result<AddressGroupUuid, Failure> {
    Ok(pick::address_group_of_store(&place.store().list().await?.values, wanted)?)
}
