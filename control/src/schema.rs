//! The JSON schemas of all that people write and read, generated from the types.
//!
//! They are checked in under `docs/schema`, so that an editor can help without a build, and a test
//! holds them to the types. A schema describes one object: what objects have against each other, only
//! `viaduct check` tells.

use schemars::{JsonSchema, Schema, SchemaGenerator};

use crate::config::Config;
use crate::model::{
    AddressGroup, AliveState, GroupMember, Network, PhysnetState, Port, PortState, SecurityGroup,
};

/// Every schema, by the name of its file.
pub fn all() -> Vec<(&'static str, Schema)> {
    vec![
        ("network.json", of::<Network>()),
        ("port.json", of::<Port>()),
        ("security-group.json", of::<SecurityGroup>()),
        ("address-group.json", of::<AddressGroup>()),
        ("group-member.json", of::<GroupMember>()),
        ("port-state.json", of::<PortState>()),
        ("physnet-state.json", of::<PhysnetState>()),
        ("alive-state.json", of::<AliveState>()),
        ("config.json", of::<Config>()),
    ]
}

fn of<T: JsonSchema>() -> Schema {
    SchemaGenerator::default().into_root_schema_for::<T>()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use serde_json::Value;

    use super::*;

    /// Set to write the schemas instead of comparing them.
    const UPDATE: &str = "VIADUCT_UPDATE_SCHEMAS";

    #[test]
    fn the_checked_in_schemas_are_those_of_the_types() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/schema");
        let update = std::env::var_os(UPDATE).is_some();
        for (name, schema) in all() {
            let path = folder.join(name);
            if update {
                std::fs::create_dir_all(&folder).expect("docs can be written");
                std::fs::write(&path, format!("{:#}\n", schema.as_value())).expect("so can files");
            }
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            let checked_in: Option<Value> = serde_json::from_str(&text).ok();
            assert_eq!(
                checked_in.as_ref(),
                Some(schema.as_value()),
                "{} is out of date: run the tests once with {UPDATE}=1 and commit it",
                path.display()
            );
        }
        let files: BTreeSet<_> = std::fs::read_dir(&folder)
            .expect("docs/schema is there")
            .map(|entry| entry.expect("its entries can be read").file_name())
            .collect();
        assert_eq!(files, all().iter().map(|(name, _)| (*name).into()).collect());
    }
}
