//! What a port may send and be sent: anti-spoofing, rules, and the basics that neither forbids.
//!
//! A port with a policy sends only what is its own ([`Guard`]) and what a rule permits, and is sent
//! only what a rule permits ([`Acl`]). Without a rule pass, so that a guest can come up at all:
//!
//! | from the guest | to the guest |
//! | --- | --- |
//! | ARP with its own addresses | ARP |
//! | neighbour solicitations and advertisements of its own addresses, router solicitations | these, and router advertisements |
//! | multicast listener reports (RFC 2710, RFC 3810) | multicast listener queries |
//! | DHCP and DHCPv6 of a client | DHCP and DHCPv6 of a server |
//!
//! These are looked at only where no rule permits, so they cost what passes by rules nothing.

mod guard;
mod neighbours;

use std::sync::Arc;

use crate::acl::{Acl, Direction};
use crate::counters::DropReason;
use crate::headers::Headers;
use crate::packet::{Form, Ip, Packet, Plane, Transport, icmpv6, service};

pub use guard::{Guard, Station};

/// See the [module's head](self).
#[derive(Debug)]
pub struct Policy {
    /// What is the port's own.
    pub guard: Guard,
    /// What rules permit; ports with the same groups share it.
    pub acl: Arc<Acl>,
}

/// A packet as a policy looks at it: of a kind that is known when the code is compiled, so that what
/// is most frequent, IPv4, stays in registers on its whole way.
pub trait Inspect: Copy {
    /// Whether a port with this policy may send the packet, whose frame has this head.
    fn may_leave(&self, policy: &Policy, head: &[u8], headers: &Headers) -> Result<(), DropReason>;
    /// Whether a port with this policy may be sent the packet.
    fn may_enter(&self, policy: &Policy) -> Result<(), DropReason>;
}

/// A packet that was not looked into, as no port has a policy.
#[derive(Clone, Copy, Debug)]
pub struct Unread;

impl Inspect for Unread {
    #[inline(always)]
    fn may_leave(&self, _: &Policy, _: &[u8], _: &Headers) -> Result<(), DropReason> {
        Ok(())
    }

    #[inline(always)]
    fn may_enter(&self, _: &Policy) -> Result<(), DropReason> {
        Ok(())
    }
}

impl Inspect for Ip<u32> {
    #[inline(always)]
    fn may_leave(&self, policy: &Policy, _: &[u8], headers: &Headers) -> Result<(), DropReason> {
        policy.guard.check_v4(headers, self)?;
        if policy.acl.judge_v4(Direction::Egress, self).permits() {
            return Ok(());
        }
        leave_without_rule(&Packet::V4(*self))
    }

    #[inline(always)]
    fn may_enter(&self, policy: &Policy) -> Result<(), DropReason> {
        if policy.acl.judge_v4(Direction::Ingress, self).permits() {
            return Ok(());
        }
        enter_without_rule(&Packet::V4(*self))
    }
}

impl Inspect for Ip<u128> {
    #[inline(always)]
    fn may_leave(&self, policy: &Policy, head: &[u8], headers: &Headers) -> Result<(), DropReason> {
        policy.guard.check_v6(head, headers, self)?;
        if policy.acl.judge_v6(Direction::Egress, self).permits() {
            return Ok(());
        }
        leave_without_rule(&Packet::V6(*self))
    }

    #[inline(always)]
    fn may_enter(&self, policy: &Policy) -> Result<(), DropReason> {
        if policy.acl.judge_v6(Direction::Ingress, self).permits() {
            return Ok(());
        }
        enter_without_rule(&Packet::V6(*self))
    }
}

/// What is not IP: ARP, or the ethertype.
impl Inspect for Packet {
    fn may_leave(&self, policy: &Policy, head: &[u8], headers: &Headers) -> Result<(), DropReason> {
        match self {
            Packet::V4(ip) => ip.may_leave(policy, head, headers),
            Packet::V6(ip) => ip.may_leave(policy, head, headers),
            Packet::Arp => policy.guard.check_arp(head, headers),
            Packet::Other(number) => policy.guard.check_other(headers, *number),
        }
    }

    fn may_enter(&self, policy: &Policy) -> Result<(), DropReason> {
        match self {
            Packet::V4(ip) => ip.may_enter(policy),
            Packet::V6(ip) => ip.may_enter(policy),
            Packet::Arp => Ok(()),
            Packet::Other(number) if policy.guard.has_ethertype(*number) => Ok(()),
            Packet::Other(_) => Err(DropReason::EthertypeIn),
        }
    }
}

/// Whether a port may send what no rule permits. The guard has passed it.
#[inline(never)]
fn leave_without_rule(packet: &Packet) -> Result<(), DropReason> {
    match packet.form() {
        _ if is_basic_out(packet) => Ok(()),
        Form::Later => Err(DropReason::FragmentOut),
        _ => Err(DropReason::AclOut),
    }
}

/// Whether a port may be sent what no rule permits.
#[inline(never)]
fn enter_without_rule(packet: &Packet) -> Result<(), DropReason> {
    match packet.form() {
        Form::Whole if is_basic_in(packet) => Ok(()),
        Form::Whole => Err(DropReason::AclIn),
        Form::Later => Err(DropReason::FragmentIn),
        Form::Tiny | Form::Truncated | Form::Deep => Err(DropReason::MalformedIn),
    }
}

/// Whether UDP goes from one port to another.
fn is_udp(transport: &Transport, from: u16, to: u16) -> bool {
    transport.plane == Plane::Udp && transport.source_port == from && transport.selector == to
}

/// Whether a guest may send the packet without a rule. The guard has passed it.
pub fn is_basic_out(packet: &Packet) -> bool {
    match packet {
        Packet::V4(ip) => is_udp(&ip.transport, service::DHCP_CLIENT, service::DHCP_SERVER),
        Packet::V6(ip) => match (ip.transport.plane, ip.transport.icmp_type()) {
            (Plane::Icmp, kind) => matches!(
                kind,
                icmpv6::ROUTER_SOLICITATION
                    | icmpv6::NEIGHBOUR_SOLICITATION
                    | icmpv6::NEIGHBOUR_ADVERTISEMENT
                    | icmpv6::LISTENER_REPORT
                    | icmpv6::LISTENER_DONE
                    | icmpv6::LISTENER_REPORT_2
            ),
            _ => is_udp(&ip.transport, service::DHCPV6_CLIENT, service::DHCPV6_SERVER),
        },
        Packet::Arp | Packet::Other(_) => false,
    }
}

/// Whether a guest may be sent the packet without a rule.
pub fn is_basic_in(packet: &Packet) -> bool {
    match packet {
        Packet::V4(ip) => is_udp(&ip.transport, service::DHCP_SERVER, service::DHCP_CLIENT),
        Packet::V6(ip) => match (ip.transport.plane, ip.transport.icmp_type()) {
            (Plane::Icmp, kind) => matches!(
                kind,
                icmpv6::LISTENER_QUERY
                    | icmpv6::ROUTER_ADVERTISEMENT
                    | icmpv6::NEIGHBOUR_SOLICITATION
                    | icmpv6::NEIGHBOUR_ADVERTISEMENT
            ),
            _ => is_udp(&ip.transport, service::DHCPV6_SERVER, service::DHCPV6_CLIENT),
        },
        Packet::Arp | Packet::Other(_) => false,
    }
}

#[cfg(test)]
mod tests;
