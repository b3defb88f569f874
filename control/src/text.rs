//! Values that are written as text: what they have in common.
//!
//! A MAC address, a UUID, a host name: each parses by `FromStr` with a [`Misfit`] that says what to
//! write instead, prints by `Display` so that it parses again, and is a JSON string with a pattern in
//! the schemas. The macro below makes the last part from the first two, so that there is one grammar a
//! type and not three.

use std::fmt::Display;
use std::str::FromStr;

use crate::problem::Misfit;

/// A value written as text. `Display` prints what `FromStr` reads.
pub trait Text: FromStr<Err = Misfit> + Display {
    /// What to write, as a sentence's second half: `write a MAC address such as …`.
    const REMEDY: &'static str;
}

/// Makes a type with `FromStr` and `Display` a [`Text`]: a JSON string with a pattern.
macro_rules! text_type {
    ($type:ident, $description:literal, $pattern:literal, $remedy:literal) => {
        impl $crate::text::Text for $type {
            const REMEDY: &'static str = $remedy;
        }

        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <String as serde::Deserialize>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }

        impl schemars::JsonSchema for $type {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($type).into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({
                    "type": "string",
                    "description": $description,
                    "pattern": $pattern,
                })
            }
        }
    };
}

pub(crate) use text_type;
