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

use vhost::{FrameRef, Frames};

use crate::acl::{Acl, Direction};
use crate::counters::DropReason;
use crate::headers::Headers;
use crate::packet::{Asked, Form, Looks, Packet, Plane, icmpv6, service};

use guard::PlainGuard;
pub use guard::{Guard, Station};

/// See the [module's head](self).
#[derive(Debug)]
pub struct Policy {
    /// What is the port's own.
    pub guard: Guard,
    /// What rules permit; ports with the same groups share it.
    pub acl: Arc<Acl>,
}

impl Policy {
    /// Whether the port may send a packet, whose frame has this head and these headers.
    pub fn leave(&self, head: &[u8], headers: &Headers, packet: &Packet) -> Result<(), DropReason> {
        self.guard.check(head, headers, packet)?;
        // The guard knows which of what is not IP may be sent.
        let asks = matches!(packet, Packet::V4(_) | Packet::V6(_));
        if !asks || self.acl.judge(Direction::Egress, packet).permits() {
            return Ok(());
        }
        leave_without_rule(packet)
    }

    /// Whether the port may be sent a packet.
    pub fn enter(&self, packet: &Packet) -> Result<(), DropReason> {
        match packet {
            Packet::Arp => Ok(()),
            Packet::Other(number) if self.guard.has_ethertype(*number) => Ok(()),
            Packet::Other(_) => Err(DropReason::EthertypeIn),
            _ if self.acl.judge(Direction::Ingress, packet).permits() => Ok(()),
            _ => enter_without_rule(packet),
        }
    }

    /// As [`leave`](Self::leave), of a burst, whose frames' looks are filled in. Returns which frames may
    /// be sent, and tells of each other why. What `accept` says no to is not the policy's to judge, nor
    /// are frames of which not even the headers can be read: it may be among the frames that are returned.
    pub(crate) fn leave_burst(
        &self,
        frames: Frames<'_>,
        looks: &mut Looks,
        accept: impl Fn(&Headers) -> bool,
        mut deny: impl FnMut(usize, DropReason),
    ) -> Left {
        let (guard, rules) = (self.guard.plain(), self.acl.plain(Direction::Egress));
        let mut plain = read_own(&guard, frames, looks);
        if let Some(address) = guard.only_address() {
            looks.know(plain, address);
        }
        if !rules.is_open() {
            plain = rules.permit_each(looks.all(), plain, None);
        }
        let mut passed = plain;
        let mut rest = !plain & frames.all();
        while rest != 0 {
            let index = rest.trailing_zeros() as usize;
            rest &= rest - 1;
            let (frame, look) = (frames.frame(index), looks.of(index as u8));
            let owned = look.is_plain() && guard.is_own(frame.fixed_head().0, look);
            match self.leave_rest(frame, owned.then_some(&look.asked), &accept) {
                Ok(()) => passed |= 1 << index,
                Err(reason) => deny(index, reason),
            }
        }
        Left { passed, plain }
    }

    /// What is not plain, or not known to be the port's own; and what is, and was `stopped` as no rule
    /// permits it, which a flood may consist of.
    #[cold]
    fn leave_rest(
        &self,
        frame: FrameRef<'_>,
        stopped: Option<&Asked>,
        accept: &impl Fn(&Headers) -> bool,
    ) -> Result<(), DropReason> {
        match (Headers::parse(frame), stopped) {
            (Ok(headers), _) if !accept(&headers) => Ok(()),
            (Ok(_), Some(asked)) if asks_dhcp(asked) => Ok(()),
            (Ok(_), Some(_)) => Err(DropReason::AclOut),
            (Ok(headers), None) => {
                self.leave(frame.head(), &headers, &Packet::parse(frame.head(), &headers))
            }
            (Err(_), _) => Ok(()),
        }
    }

    /// As [`enter`](Self::enter), of the frames of a burst that are `staged` for the port, a bit for
    /// each by its index. Returns which of them may be sent, and tells of each other why.
    #[inline(always)]
    pub(crate) fn enter_burst(
        &self,
        frames: Frames<'_>,
        looks: &Looks,
        staged: u64,
        deny: impl FnMut(u8, DropReason),
    ) -> u64 {
        let rules = self.acl.plain(Direction::Ingress);
        let mut passed = staged & looks.plain();
        if passed != 0 && !rules.is_open() {
            passed = rules.permit_each(looks.all(), passed, looks.source_of(passed));
        }
        if passed == staged {
            return staged;
        }
        passed | self.enter_rest(frames, looks, staged & !passed, deny)
    }

    /// The same of those that are not plain, or that no rule permits.
    #[inline(never)]
    fn enter_rest(
        &self,
        frames: Frames<'_>,
        looks: &Looks,
        staged: u64,
        mut deny: impl FnMut(u8, DropReason),
    ) -> u64 {
        let (mut passed, mut rest) = (0, staged);
        while rest != 0 {
            let index = rest.trailing_zeros() as u8;
            rest &= rest - 1;
            let judged = match looks.of(index) {
                look if !look.is_plain() => {
                    self.enter_frame(frames.frame(usize::from(index)).head())
                }
                look if answers_dhcp(&look.asked) => Ok(()),
                _ => Err(DropReason::AclIn),
            };
            match judged {
                Ok(()) => passed |= 1 << index,
                Err(reason) => deny(index, reason),
            }
        }
        passed
    }

    fn enter_frame(&self, head: &[u8]) -> Result<(), DropReason> {
        let headers = Headers::parse_head(head, head.len())?;
        self.enter(&Packet::parse(head, &headers))
    }
}

/// Which frames of a burst are left when their port's policy was asked, a bit for each by its index.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Left {
    /// Those that may be sent.
    pub passed: u64,
    /// Those of them that are plain and from the port's own address.
    pub plain: u64,
}

impl Left {
    /// All, if there is no policy.
    pub const ALL: Self = Self { passed: u64::MAX, plain: 0 };
}

/// Looks at the frames. Returns which are plain and a port's own, a bit for each.
#[inline(never)]
fn read_own(guard: &PlainGuard<'_>, frames: Frames<'_>, looks: &mut Looks) -> u64 {
    looks.read(frames, |head, look| guard.is_own(head, look))
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
fn is_udp(asked: &Asked, from: u16, to: u16) -> bool {
    asked.plane == Plane::Udp && asked.source_port == from && asked.selector == to
}

/// Whether a packet of IPv4 is a DHCP client's.
fn asks_dhcp(asked: &Asked) -> bool {
    is_udp(asked, service::DHCP_CLIENT, service::DHCP_SERVER)
}

/// Whether a packet of IPv4 is a DHCP server's.
fn answers_dhcp(asked: &Asked) -> bool {
    is_udp(asked, service::DHCP_SERVER, service::DHCP_CLIENT)
}

/// Whether a guest may send the packet without a rule. The guard has passed it.
pub fn is_basic_out(packet: &Packet) -> bool {
    match packet {
        Packet::V4(ip) => asks_dhcp(&ip.transport.asked()),
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
            _ => is_udp(&ip.transport.asked(), service::DHCPV6_CLIENT, service::DHCPV6_SERVER),
        },
        Packet::Arp | Packet::Other(_) => false,
    }
}

/// Whether a guest may be sent the packet without a rule.
pub fn is_basic_in(packet: &Packet) -> bool {
    match packet {
        Packet::V4(ip) => answers_dhcp(&ip.transport.asked()),
        Packet::V6(ip) => match (ip.transport.plane, ip.transport.icmp_type()) {
            (Plane::Icmp, kind) => matches!(
                kind,
                icmpv6::LISTENER_QUERY
                    | icmpv6::ROUTER_ADVERTISEMENT
                    | icmpv6::NEIGHBOUR_SOLICITATION
                    | icmpv6::NEIGHBOUR_ADVERTISEMENT
            ),
            _ => is_udp(&ip.transport.asked(), service::DHCPV6_SERVER, service::DHCPV6_CLIENT),
        },
        Packet::Arp | Packet::Other(_) => false,
    }
}

#[cfg(test)]
mod tests;
