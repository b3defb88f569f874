//! VLAN ids, and the ranges of them that a physnet carries.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::problem::{Misfit, quoted};

/// A VLAN id, 1 to 4094. 0 means "no VLAN, priority only" and 4095 is reserved (802.1Q §9.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u16", into = "u16")]
pub struct Vid(u16);

impl Vid {
    /// The smallest id.
    pub const MIN: u16 = 1;
    /// The largest id.
    pub const MAX: u16 = 4094;

    /// The id as a number.
    pub fn number(self) -> u16 {
        self.0
    }
}

impl TryFrom<u16> for Vid {
    type Error = Misfit;

    fn try_from(number: u16) -> Result<Vid, Misfit> {
        if (Vid::MIN..=Vid::MAX).contains(&number) {
            return Ok(Vid(number));
        }
        Err(Misfit::new(format!("{number} is not a VLAN id"), "write a number from 1 to 4094"))
    }
}

impl From<Vid> for u16 {
    fn from(vid: Vid) -> u16 {
        vid.0
    }
}

impl FromStr for Vid {
    type Err = Misfit;

    fn from_str(text: &str) -> Result<Vid, Misfit> {
        let misfit = || {
            let what = format!("{} is not a VLAN id", quoted(text));
            Misfit::new(what, "write a number from 1 to 4094")
        };
        // The parser of numbers would also take a sign.
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        let number = text.parse::<u16>().ok().filter(|_| digits).ok_or_else(misfit)?;
        Vid::try_from(number).map_err(|_| misfit())
    }
}

impl fmt::Display for Vid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A set of VLAN ids, written as ranges: `["100-199", 300]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VlanRanges(Vec<RangeInclusive<u16>>);

impl VlanRanges {
    /// All VLANs: 1 to 4094.
    pub fn all() -> VlanRanges {
        VlanRanges(vec![Vid::MIN..=Vid::MAX])
    }

    /// The union of these ranges, which may overlap and stand in any order.
    pub fn new(mut ranges: Vec<RangeInclusive<Vid>>) -> VlanRanges {
        ranges.sort_by_key(|range| *range.start());
        let mut merged: Vec<RangeInclusive<u16>> = Vec::new();
        for range in ranges {
            let (start, end) = (range.start().0, range.end().0);
            match merged.last_mut() {
                Some(last) if start <= last.end().saturating_add(1) => {
                    *last = *last.start()..=end.max(*last.end());
                }
                _ => merged.push(start..=end),
            }
        }
        VlanRanges(merged)
    }

    /// Whether the VLAN is one of them.
    pub fn contains(&self, vid: Vid) -> bool {
        self.0.iter().any(|range| range.contains(&vid.0))
    }
}

/// Reads `100-199` or `300`.
pub(crate) fn parse_range(text: &str) -> Result<RangeInclusive<Vid>, Misfit> {
    let misfit = || {
        let what = format!("{} is not a range of VLANs", quoted(text));
        Misfit::new(what, RANGE_REMEDY)
    };
    let (start, end) = text.split_once('-').unwrap_or((text, text));
    let start: Vid = start.trim().parse().map_err(|_| misfit())?;
    let end: Vid = end.trim().parse().map_err(|_| misfit())?;
    if start > end {
        let what = format!("{} ends before it begins", quoted(text));
        return Err(Misfit::new(what, format!("write \"{end}-{start}\"")));
    }
    Ok(start..=end)
}

/// What to write for one range of VLANs.
pub(crate) const RANGE_REMEDY: &str = "write a VLAN such as 300 or a range such as \"100-199\", \
                                       within 1 to 4094";

impl fmt::Display for VlanRanges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, range) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { ", " };
            match (range.start(), range.end()) {
                (start, end) if start == end => write!(f, "{separator}{start}")?,
                (start, end) => write!(f, "{separator}{start}-{end}")?,
            }
        }
        Ok(())
    }
}

impl Serialize for VlanRanges {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer
            .collect_seq(self.0.iter().map(|range| format!("{}-{}", range.start(), range.end())))
    }
}

impl JsonSchema for Vid {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Vid".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "description": "A VLAN id.",
            "type": "integer",
            "minimum": Vid::MIN,
            "maximum": Vid::MAX,
        })
    }
}

impl JsonSchema for VlanRanges {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "VlanRanges".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "description": "VLAN ids and ranges of them, such as [\"100-199\", 300].",
            "type": "array",
            "items": {
                "anyOf": [
                    { "type": "integer", "minimum": Vid::MIN, "maximum": Vid::MAX },
                    { "type": "string", "pattern": "^[0-9]{1,4}( *- *[0-9]{1,4})?$" }
                ]
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_run_from_1_to_4094() {
        for good in ["1", "100", "4094"] {
            assert_eq!(good.parse::<Vid>().expect(good).to_string(), good);
        }
        for bad in ["", "0", "4095", "65536", "-1", "+1", "1.0", "x", " 1"] {
            assert_eq!(
                bad.parse::<Vid>().expect_err(bad).to_string(),
                format!("`{bad}` is not a VLAN id; write a number from 1 to 4094")
            );
        }
    }

    #[test]
    fn ranges_merge_and_print() {
        let ranges = |texts: &[&str]| {
            VlanRanges::new(texts.iter().map(|text| parse_range(text).expect(text)).collect())
        };
        for (texts, printed) in [
            (&["300", "100-199"][..], "100-199, 300"),
            (&["100-199", "150-250", "251"], "100-251"),
            (&["4094", "1-4093"], "1-4094"),
            (&["100-199", "120-130"], "100-199"),
            (&[], ""),
        ] {
            assert_eq!(ranges(texts).to_string(), printed);
        }
        let some = ranges(&["100-199", "300"]);
        for (vid, inside) in [(99, false), (100, true), (199, true), (200, false), (300, true)] {
            assert_eq!(some.contains(Vid(vid)), inside, "{vid}");
        }
        assert!(VlanRanges::all().contains(Vid(4094)));
    }

    #[test]
    fn bad_ranges_are_refused() {
        for bad in ["", "-", "1-", "-5", "0-5", "1-4095", "1-2-3", "a-b"] {
            assert_eq!(
                parse_range(bad).expect_err(bad).to_string(),
                format!(
                    "`{bad}` is not a range of VLANs; write a VLAN such as 300 or a range such as \
                     \"100-199\", within 1 to 4094"
                )
            );
        }
        assert_eq!(
            parse_range("199-100").expect_err("backwards").to_string(),
            "`199-100` ends before it begins; write \"100-199\""
        );
    }
}
