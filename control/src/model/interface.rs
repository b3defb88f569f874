//! The name of a network interface of this host's kernel.

use std::fmt;
use std::str::FromStr;

use crate::problem::{Misfit, quoted};
use crate::text::{Text, text_type};

/// The name of a network interface.
///
/// The kernel takes nearly all octets. Here only such are, that mean nothing to whoever else reads
/// the name: `%` is a place for a number to the kernel itself, `,` and `=` separate the arguments of
/// DPDK's devices, and `all` and `default` are not interfaces where interfaces are configured.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InterfaceName(String);

text_type!(
    InterfaceName,
    "The name of a network interface of the host's kernel.",
    "^[A-Za-z0-9_][A-Za-z0-9._-]{0,14}$",
    "write 1 to 15 letters, digits, `.`, `_` or `-`, the first a letter, a digit or `_`, and not \
     `all` or `default`"
);

impl InterfaceName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for InterfaceName {
    type Err = Misfit;

    fn from_str(text: &str) -> Result<Self, Misfit> {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        let first = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        // IFNAMSIZ is 16, a final zero included.
        if text.len() <= 15
            && text.bytes().all(fits)
            && text.bytes().next().is_some_and(first)
            && !["all", "default"].contains(&text)
        {
            return Ok(InterfaceName(text.to_owned()));
        }
        Err(Misfit::new(format!("{} is not the name of an interface", quoted(text)), Self::REMEDY))
    }
}

impl fmt::Display for InterfaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_mean_an_interface_to_everybody() {
        for good in ["tap0", "vpp1a2b3c4d-5e", "br-1a2b3c4d-5e", "_x", "a.100", "fifteen_octets_"] {
            assert_eq!(good.parse::<InterfaceName>().expect(good).as_str(), good);
        }
        let bad =
            ["", ".", "..", "-x", "tap%d", "a,b", "a=b", "a/b", "a b", "a:b", "all", "default"];
        for bad in bad.into_iter().chain(["sixteen_octets__", "ä"]) {
            let message = bad.parse::<InterfaceName>().expect_err(bad).to_string();
            let end = " is not the name of an interface; write 1 to 15 letters, digits, `.`, `_` or \
                       `-`, the first a letter, a digit or `_`, and not `all` or `default`";
            assert!(message.ends_with(end), "{message}");
        }
    }
}
