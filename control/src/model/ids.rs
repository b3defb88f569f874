//! What objects are called: UUIDs, and the names of hosts and physnets.
//!
//! All of these become parts of keys, hence of file names and of etcd keys, so their grammar is strict:
//! one spelling each, no separator, nothing that hides a file. A display [`Name`] is for people and
//! takes nearly anything.

use std::fmt;
use std::str::FromStr;

use uuid::Uuid;

use crate::problem::{Misfit, quoted};
use crate::text::{Text, text_type};

/// The UUID of a network (a bridge domain).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NetworkUuid(Uuid);

/// The UUID of a port. It alone identifies the port, whatever MAC it carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortUuid(Uuid);

/// The UUID of a security group: rules, and the set of the ports that have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SecurityGroupUuid(Uuid);

/// The UUID of an address group: a set of prefixes that rules name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AddressGroupUuid(Uuid);

text_type!(
    NetworkUuid,
    "The UUID of a network.",
    "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$",
    "write a UUID such as 6f1c0f5e-8a3b-4c58-9d52-0c7f0b1f2e3d"
);
text_type!(
    PortUuid,
    "The UUID of a port.",
    "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$",
    "write a UUID such as 6f1c0f5e-8a3b-4c58-9d52-0c7f0b1f2e3d"
);
text_type!(
    SecurityGroupUuid,
    "The UUID of a security group.",
    "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$",
    "write a UUID such as 6f1c0f5e-8a3b-4c58-9d52-0c7f0b1f2e3d"
);
text_type!(
    AddressGroupUuid,
    "The UUID of an address group.",
    "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$",
    "write a UUID such as 6f1c0f5e-8a3b-4c58-9d52-0c7f0b1f2e3d"
);

macro_rules! uuid_type {
    ($type:ident) => {
        impl $type {
            /// A UUID that nobody has.
            pub fn random() -> Self {
                $type(Uuid::new_v4())
            }

            /// The UUID itself.
            pub fn uuid(self) -> Uuid {
                self.0
            }
        }

        impl From<Uuid> for $type {
            fn from(uuid: Uuid) -> Self {
                $type(uuid)
            }
        }

        impl FromStr for $type {
            type Err = Misfit;

            /// Only the canonical form: an object has one key, and not one per spelling.
            fn from_str(text: &str) -> Result<Self, Misfit> {
                match Uuid::try_parse(text) {
                    Ok(uuid) if uuid.to_string() == text => Ok($type(uuid)),
                    Ok(uuid) => Err(Misfit::new(
                        format!("{} is a UUID, but not in the usual form", quoted(text)),
                        format!("write {uuid}"),
                    )),
                    Err(_) => {
                        Err(Misfit::new(format!("{} is not a UUID", quoted(text)), Self::REMEDY))
                    }
                }
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

uuid_type!(NetworkUuid);
uuid_type!(PortUuid);
uuid_type!(SecurityGroupUuid);
uuid_type!(AddressGroupUuid);

/// The name of a host, as in `nodes/<host>/…`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostName(String);

/// The name of a physnet: a wire of this host, by the name that networks use.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PhysnetName(String);

/// A name for people. It need not be unique and nothing depends on it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(String);

text_type!(
    HostName,
    "The name of a host.",
    "^[A-Za-z0-9][A-Za-z0-9._-]{0,199}$",
    "write 1 to 200 letters, digits, `.`, `_` or `-`, the first a letter or digit"
);
text_type!(
    PhysnetName,
    "The name of a physnet of the host's configuration.",
    "^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$",
    "write 1 to 63 letters, digits, `.`, `_` or `-`, the first a letter or digit"
);
text_type!(
    Name,
    "A name for people: 1 to 255 characters.",
    "^[^\\x00-\\x1f\\x7f-\\x9f]{1,255}$",
    "write 1 to 255 printable characters"
);

/// Whether a text can be one part of a key. 200 octets leave room for `.json` and a temporary name in
/// the 255 of a file name.
fn is_key_part(text: &str, length_max: usize) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    text.len() <= length_max
        && text.bytes().all(fits)
        && text.bytes().next().is_some_and(|first| first.is_ascii_alphanumeric())
}

impl FromStr for HostName {
    type Err = Misfit;

    fn from_str(text: &str) -> Result<Self, Misfit> {
        if is_key_part(text, 200) {
            return Ok(HostName(text.to_owned()));
        }
        Err(Misfit::new(format!("{} is not a host name", quoted(text)), Self::REMEDY))
    }
}

impl FromStr for PhysnetName {
    type Err = Misfit;

    fn from_str(text: &str) -> Result<Self, Misfit> {
        if is_key_part(text, 63) {
            return Ok(PhysnetName(text.to_owned()));
        }
        Err(Misfit::new(format!("{} is not the name of a physnet", quoted(text)), Self::REMEDY))
    }
}

impl FromStr for Name {
    type Err = Misfit;

    fn from_str(text: &str) -> Result<Self, Misfit> {
        let length = text.chars().count();
        if (1..=255).contains(&length) && !text.chars().any(char::is_control) {
            return Ok(Name(text.to_owned()));
        }
        Err(Misfit::new(format!("{} is not a name", quoted(text)), Self::REMEDY))
    }
}

macro_rules! name_type {
    ($type:ident) => {
        impl $type {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name_type!(HostName);
name_type!(PhysnetName);
name_type!(Name);

#[cfg(test)]
mod tests {
    use super::*;

    const UUID: &str = "6f1c0f5e-8a3b-4c58-9d52-0c7f0b1f2e3d";

    #[test]
    fn a_uuid_has_one_spelling() {
        assert_eq!(UUID.parse::<PortUuid>().expect(UUID).to_string(), UUID);
        for (text, message) in [
            ("", "`` is not a UUID; write a UUID such as 6f1c0f5e-8a3b-4c58-9d52-0c7f0b1f2e3d"),
            ("x", "`x` is not a UUID; write a UUID such as 6f1c0f5e-8a3b-4c58-9d52-0c7f0b1f2e3d"),
            (
                "6F1C0F5E-8A3B-4C58-9D52-0C7F0B1F2E3D",
                "`6F1C0F5E-8A3B-4C58-9D52-0C7F0B1F2E3D` is a UUID, but not in the usual form; \
                 write 6f1c0f5e-8a3b-4c58-9d52-0c7f0b1f2e3d",
            ),
            (
                "{6f1c0f5e-8a3b-4c58-9d52-0c7f0b1f2e3d}",
                "`{6f1c0f5e-8a3b-4c58-9d52-0c7f0b1f2e3d}` is a UUID, but not in the usual form; \
                 write 6f1c0f5e-8a3b-4c58-9d52-0c7f0b1f2e3d",
            ),
        ] {
            assert_eq!(text.parse::<NetworkUuid>().expect_err(text).to_string(), message);
        }
    }

    #[test]
    fn names_in_keys_hide_nothing_and_separate_nothing() {
        for good in ["a", "compute-1.example.org", "physnet_1", "0"] {
            assert_eq!(good.parse::<HostName>().expect(good).as_str(), good);
            assert_eq!(good.parse::<PhysnetName>().expect(good).as_str(), good);
        }
        let long = "x".repeat(201);
        for bad in ["", ".", "..", ".hidden", "a/b", "a b", "ä", "a\0", "-x", &long] {
            assert!(bad.parse::<HostName>().is_err(), "{bad:?}");
            assert!(bad.parse::<PhysnetName>().is_err(), "{bad:?}");
        }
        assert_eq!(
            "a/b".parse::<PhysnetName>().expect_err("a slash").to_string(),
            "`a/b` is not the name of a physnet; write 1 to 63 letters, digits, `.`, `_` or `-`, \
             the first a letter or digit"
        );
    }

    #[test]
    fn a_display_name_takes_what_people_write() {
        for good in ["web 1", "Größe", "日本"] {
            assert_eq!(good.parse::<Name>().expect(good).as_str(), good);
        }
        for bad in ["", "a\nb", &"x".repeat(256)] {
            assert!(bad.parse::<Name>().is_err(), "{bad:?}");
        }
    }
}
