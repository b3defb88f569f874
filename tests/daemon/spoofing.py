"""What a guest can try to be somebody else, as frames of scapy's, and what must become of each.

    spoofing.py FROM TO closed|open COMMAND...

FROM and TO are interfaces: the far ends of a port with port security, whose addresses are those
below, and of one without it, which hears everything that the first gets through. `closed`: the port
has no group. `open`: its groups permit all, so nothing but port security is in the way. COMMAND
prints the switch's drops as JSON (`viaduct show drops --json`).

Each frame of the table that is sent to everybody is also sent to the listener alone. It must arrive as it is, or
not at all and be counted under its reason. A frame of the port's own follows each; frames do not
overtake each other, so once it has arrived, nothing that was sent before is still to come.
"""

import json
import logging
import socket
import subprocess
import sys
import time

logging.getLogger("scapy").setLevel(logging.ERROR)
from scapy.all import *  # noqa: E402,F403

# The port's own addresses, as spoofing.rs has them in the store.
MAC, V4, V6 = "52:54:00:00:00:0a", "10.0.0.10", "fd00::5054:ff:fe00:a"
# Link-local: made of the MAC address, and not (RFC 7217).
LL, LL2 = "fe80::5054:ff:fe00:a", "fe80::8d3f:11c9:be07:5a21"
# Allowed pairs: a prefix, and an address with a MAC address of its own.
PAIR4, PAIR6 = "10.0.9.5", "fd00:9::1:2"
MAC2, V4_2, V6_2 = "02:00:00:00:00:77", "10.0.0.77", "fd00::77"

# The listener, which is the gateway, and the address of nobody here.
GATEWAY, GATEWAY4, GATEWAY6 = "52:54:00:00:00:0b", "10.0.0.1", "fd00::1"
ALIEN, ALIEN4, ALIEN6 = "52:54:00:00:00:0c", "10.0.0.12", "fd00::c"
ALL = "ff:ff:ff:ff:ff:ff"

# What becomes of a frame that is not spoofed: it needs no rule, or one, or two for lack of ports.
BASIC, RULE, RULE_FOR_ALL = "", "acl-egress", "acl-egress-fragment"
HONEST = (BASIC, RULE, RULE_FOR_ALL)


def eth(src=MAC, dst=ALL, **more):
    return Ether(src=src, dst=dst, **more)


def v4(src=V4, dst=GATEWAY4, **more):
    return IP(src=src, dst=dst, **more)


def v6(src=V6, dst=GATEWAY6, **more):
    return IPv6(src=src, dst=dst, hlim=255, **more)


def part4(packet, first, last, more=True):
    """Octets of what an IPv4 packet carries, as a fragment."""
    whole = bytes(packet)
    packet = IP(whole)
    data = whole[packet.ihl * 4 :][first:last]
    flags = "MF" if more else 0
    return v4(packet.src, packet.dst, proto=packet.proto, frag=first // 8, flags=flags) / data


def part6(packet, first, last, more=True, before=None):
    """The same of IPv6, with extension headers in front of the fragment header."""
    whole = bytes(packet)
    packet = IPv6(whole)
    fragment = IPv6ExtHdrFragment(nh=packet.nh, offset=first // 8, m=int(more), id=7)
    head = v6(packet.src, packet.dst)
    return (head / before if before else head) / fragment / whole[40:][first:last]


def cut(packet, octets):
    """The first octets of a packet whose lengths promise more."""
    return Raw(bytes(packet)[:octets])


def ether(kind, payload):
    """A frame of this ethertype around octets that are laid out elsewhere."""
    return eth(type=kind) / payload


def options(count, pad=4):
    """Destination options headers, with so many octets of padding in each."""
    chain = IPv6ExtHdrDestOpt(options=[PadN(optdata=bytes(pad))])
    for _ in range(count - 1):
        chain = chain / IPv6ExtHdrDestOpt(options=[PadN(optdata=bytes(pad))])
    return chain


def arp(**fields):
    return ARP(**{"hwsrc": MAC, "psrc": V4, "pdst": GATEWAY4, **fields})


def dhcp(kind, src, sport, dport, dst="255.255.255.255"):
    boot = BOOTP(op=1 if kind in ("discover", "request") else 2, chaddr=mac2str(MAC))
    return v4(src, dst) / UDP(sport=sport, dport=dport) / boot / DHCP(
        options=[("message-type", kind), "end"]
    )


def advertise(src=LL, sport=547):
    return v6(src, "ff02::1") / UDP(sport=sport, dport=546) / DHCP6_Advertise()


udp4, udp6 = UDP(sport=4000, dport=5000) / b"own", UDP(sport=4000, dport=5000) / b"own"
syn = TCP(sport=4000, dport=80, flags="S")
alert = IPv6ExtHdrHopByHop(options=[RouterAlert()])
slla, tlla = ICMPv6NDOptSrcLLAddr, ICMPv6NDOptDstLLAddr
ns, na, rs = ICMPv6ND_NS, ICMPv6ND_NA, ICMPv6ND_RS
ra = ICMPv6ND_RA(routerlifetime=1800) / ICMPv6NDOptPrefixInfo(prefix="fd00:bad::", prefixlen=64)
own_ra = v6(LL, "ff02::1") / ra
offer = dhcp("offer", V4, 67, 68)
long4 = v4() / UDP(sport=4000, dport=5000) / bytes(100)
long6 = v6() / UDP(sport=4000, dport=5000) / bytes(100)
tag = lambda payload, vlan=5, **more: Dot1Q(vlan=vlan, **more) / payload

# What each frame is, what becomes of it, and itself.
TABLE = [
    ("own ARP request", BASIC, eth() / arp()),
    ("own ARP reply", BASIC, eth() / arp(op=2, hwdst=GATEWAY)),
    ("own gratuitous ARP", BASIC, eth() / arp(pdst=V4)),
    ("ARP probe", BASIC, eth() / arp(psrc="0.0.0.0", pdst=V4)),
    ("ARP of a pair's MAC", BASIC, eth(MAC2) / arp(hwsrc=MAC2, psrc=V4_2)),
    ("own ARP with a priority tag", BASIC, eth() / Dot1Q(prio=3, vlan=0) / arp()),
    ("DHCP discover", BASIC, eth() / dhcp("discover", "0.0.0.0", 68, 67)),
    ("DHCP renewal", BASIC, eth() / dhcp("request", V4, 68, 67, GATEWAY4)),
    ("DHCPv6 solicit", BASIC, eth() / v6(LL, "ff02::1:2") / UDP(sport=546, dport=547) / DHCP6_Solicit()),
    ("DHCPv6 solicit, RFC 7217", BASIC, eth() / v6(LL2, "ff02::1:2") / UDP(sport=546, dport=547) / DHCP6_Solicit()),
    ("DAD of its own", BASIC, eth() / v6("::", "ff02::1:ff00:a") / ns(tgt=V6)),
    ("DAD of a link-local", BASIC, eth() / v6("::", "ff02::1:ff07:5a21") / ns(tgt=LL2)),
    ("DAD of a pair's MAC", BASIC, eth(MAC2) / v6("::", "ff02::1:ff00:77") / ns(tgt=V6_2)),
    ("own solicitation", BASIC, eth() / v6() / ns(tgt=GATEWAY6) / slla(lladdr=MAC)),
    ("own advertisement", BASIC, eth() / v6() / na(tgt=V6, R=0) / tlla(lladdr=MAC)),
    ("own advertisement without option", BASIC, eth() / v6() / na(tgt=V6, R=0)),
    ("own advertisement of a link-local", BASIC, eth() / v6(LL2, "ff02::1") / na(tgt=LL2, R=0) / tlla(lladdr=MAC)),
    ("own router solicitation", BASIC, eth() / v6(LL, "ff02::2") / rs() / slla(lladdr=MAC)),
    ("router solicitation without address", BASIC, eth() / v6("::", "ff02::2") / rs()),
    ("MLDv2 report", BASIC, eth() / v6(LL, "ff02::16") / alert / ICMPv6MLReport2()),
    ("MLDv2 report without address", BASIC, eth() / v6("::", "ff02::16") / alert / ICMPv6MLReport2()),
    ("MLD report", BASIC, eth() / v6(LL, "ff02::fb") / alert / ICMPv6MLReport(mladdr="ff02::fb")),
    ("MLD done", BASIC, eth() / v6(LL, "ff02::2") / alert / ICMPv6MLDone(mladdr="ff02::fb")),
    ("own UDP", RULE, eth() / v4() / udp4),
    ("own TCP", RULE, eth() / v4() / syn),
    ("own echo", RULE, eth() / v4() / ICMP()),
    ("own UDP of IPv6", RULE, eth() / v6() / udp6),
    ("own TCP of IPv6", RULE, eth() / v6() / syn),
    ("own echo of IPv6", RULE, eth() / v6() / ICMPv6EchoRequest()),
    ("own echo of a link-local", RULE, eth() / v6(LL2) / ICMPv6EchoRequest()),
    ("own UDP with a priority tag", RULE, eth() / Dot1Q(prio=5, vlan=0) / v4() / udp4),
    ("own UDP behind IP options", RULE, eth() / v4(options=IPOption_RR()) / udp4),
    ("own UDP behind destination options", RULE, eth() / v6() / options(3) / udp6),
    ("a pair's prefix", RULE, eth() / v4(PAIR4) / udp4),
    ("a pair's prefix of IPv6", RULE, eth() / v6(PAIR6) / udp6),
    ("a pair's MAC", RULE, eth(MAC2) / v4(V4_2) / udp4),
    ("a pair's MAC of IPv6", RULE, eth(MAC2) / v6(V6_2) / udp6),
    ("own first fragment", RULE, eth() / part4(long4, 0, 48)),
    ("own later fragment", RULE_FOR_ALL, eth() / part4(long4, 48, 108, more=False)),
    ("own first fragment of IPv6", RULE, eth() / part6(long6, 0, 48)),
    ("own later fragment of IPv6", RULE_FOR_ALL, eth() / part6(long6, 48, 108, more=False)),
    ("own atomic fragment", RULE, eth() / part6(long6, 0, 108, more=False)),
    ("MLD query", RULE, eth() / v6(LL, "ff02::1") / alert / ICMPv6MLQuery()),

    # Ethernet.
    ("another's MAC", "spoof-mac", eth(ALIEN) / v4() / udp4),
    ("the gateway's MAC", "spoof-mac", eth(GATEWAY) / v4(GATEWAY4) / udp4),
    ("another's MAC, ARP", "spoof-mac", eth(ALIEN) / arp()),
    ("another's MAC, DAD", "spoof-mac", eth(ALIEN) / v6("::", "ff02::1:ff00:a") / ns(tgt=V6)),
    ("another's MAC, DHCP", "spoof-mac", eth(ALIEN) / dhcp("discover", "0.0.0.0", 68, 67)),
    ("another's MAC, other ethertype", "spoof-mac", eth(ALIEN, type=0x88B5) / bytes(46)),
    ("sent by everybody", "bad-source", eth(ALL) / v4() / udp4),
    ("sent by a group", "bad-source", eth("33:33:00:00:00:01") / v6() / udp6),
    ("sent by nobody", "bad-source", eth("00:00:00:00:00:00") / v4() / udp4),

    # IP.
    ("another's address", "spoof-ip", eth() / v4(ALIEN4) / udp4),
    ("the gateway's address", "spoof-ip", eth() / v4(GATEWAY4) / ICMP()),
    ("no address", "spoof-ip", eth() / v4("0.0.0.0") / udp4),
    ("no address, from DHCP's port only", "spoof-ip", eth() / v4("0.0.0.0") / UDP(sport=68, dport=53)),
    ("no address, to DHCP's port only", "spoof-ip", eth() / v4("0.0.0.0") / UDP(sport=53, dport=67)),
    ("broadcast as address", "spoof-ip", eth() / v4("255.255.255.255") / udp4),
    ("a group's address", "spoof-ip", eth() / v4("224.0.0.5") / udp4),
    ("loopback", "spoof-ip", eth() / v4("127.0.0.1") / udp4),
    ("below a pair's prefix", "spoof-ip", eth() / v4("10.0.8.255") / udp4),
    ("above a pair's prefix", "spoof-ip", eth() / v4("10.0.10.0") / udp4),
    ("own MAC, address of the pair's MAC", "spoof-ip", eth() / v4(V4_2) / udp4),
    ("the pair's MAC, own address", "spoof-ip", eth(MAC2) / v4() / udp4),
    ("another's address behind IP options", "spoof-ip", eth() / v4(ALIEN4, options=IPOption_RR()) / udp4),
    ("another's address in a fragment", "spoof-ip", eth() / part4(v4(ALIEN4) / udp4 / bytes(99), 24, 64)),
    ("another's address of IPv6", "spoof-ip", eth() / v6(ALIEN6) / udp6),
    ("no address of IPv6", "spoof-ip", eth() / v6("::") / udp6),
    ("no address of IPv6, echo", "spoof-ip", eth() / v6("::") / ICMPv6EchoRequest()),
    ("loopback of IPv6", "spoof-ip", eth() / v6("::1") / udp6),
    ("a group's address of IPv6", "spoof-ip", eth() / v6("ff02::1") / udp6),
    ("site-local", "spoof-ip", eth() / v6("fec0::1") / udp6),
    ("own address mapped to IPv6", "spoof-ip", eth() / v6("::ffff:" + V4) / udp6),
    ("own MAC, IPv6 of the pair's MAC", "spoof-ip", eth() / v6(V6_2) / udp6),
    ("the pair's MAC, own IPv6", "spoof-ip", eth(MAC2) / v6() / udp6),
    ("above a pair's prefix of IPv6", "spoof-ip", eth() / v6("fd00:9:0:1::") / udp6),
    ("another's address behind options", "spoof-ip", eth() / v6(ALIEN6) / options(2) / udp6),
    ("another's echo of IPv6", "spoof-ip", eth() / v6(ALIEN6) / ICMPv6EchoRequest()),
    ("another's MLD report", "spoof-ip", eth() / v6(ALIEN6) / alert / ICMPv6MLReport2()),

    # ARP.
    ("reply for the gateway", "spoof-arp", eth() / arp(op=2, psrc=GATEWAY4, pdst=ALIEN4)),
    ("gratuitous ARP of another", "spoof-arp", eth() / arp(psrc=ALIEN4, pdst=ALIEN4)),
    ("gratuitous reply of the gateway", "spoof-arp", eth() / arp(op=2, psrc=GATEWAY4, pdst=GATEWAY4)),
    ("request as another", "spoof-arp", eth() / arp(psrc=ALIEN4)),
    ("ARP with another's MAC", "spoof-arp", eth() / arp(hwsrc=ALIEN)),
    ("ARP as the gateway, MAC and address", "spoof-arp", eth() / arp(op=2, hwsrc=GATEWAY, psrc=GATEWAY4)),
    ("ARP probe with another's MAC", "spoof-arp", eth() / arp(hwsrc=ALIEN, psrc="0.0.0.0")),
    ("ARP of the pair's MAC with own address", "spoof-arp", eth() / arp(hwsrc=MAC2)),
    ("ARP of own MAC with the pair's address", "spoof-arp", eth() / arp(psrc=V4_2)),
    ("ARP of other hardware", "spoof-arp", eth() / arp(hwtype=6)),
    ("ARP of another protocol", "spoof-arp", eth() / arp(ptype=0x86DD)),
    ("ARP with long hardware addresses", "spoof-arp", eth() / arp(hwlen=8)),
    ("ARP cut short", "truncated-header", ether(0x0806, cut(arp(), 20))),
    ("reply for the gateway with a priority tag", "spoof-arp", eth() / tag(arp(op=2, psrc=GATEWAY4), 0)),
    ("reverse ARP", "ethertype", ether(0x8035, arp(op=4, psrc=ALIEN4))),

    # Neighbour discovery.
    ("advertisement of another", "spoof-nd", eth() / v6() / na(tgt=ALIEN6) / tlla(lladdr=MAC)),
    ("advertisement of another without option", "spoof-nd", eth() / v6() / na(tgt=ALIEN6)),
    ("advertisement of the gateway", "spoof-nd", eth() / v6(LL, "ff02::1") / na(tgt=GATEWAY6, O=1, S=0) / tlla(lladdr=MAC)),
    ("advertisement of the pair's address", "spoof-nd", eth() / v6() / na(tgt=V6_2) / tlla(lladdr=MAC)),
    ("advertisement with another's MAC", "spoof-nd", eth() / v6() / na(tgt=V6) / tlla(lladdr=ALIEN)),
    ("advertisement with two MACs", "spoof-nd", eth() / v6() / na(tgt=V6) / tlla(lladdr=MAC) / tlla(lladdr=ALIEN)),
    ("advertisement with a source's option", "spoof-nd", eth() / v6() / na(tgt=V6) / slla(lladdr=ALIEN)),
    ("advertisement from another", "spoof-ip", eth() / v6(ALIEN6) / na(tgt=V6) / tlla(lladdr=MAC)),
    ("advertisement with an option of no length", "spoof-nd", eth() / v6() / na(tgt=V6) / tlla(len=0, lladdr=ALIEN)),
    ("advertisement with an option that is cut", "spoof-nd", eth() / v6() / na(tgt=V6) / cut(tlla(lladdr=MAC), 4)),
    ("advertisement cut short", "spoof-nd", eth() / v6(nh=58) / cut(na(tgt=V6), 16)),
    ("advertisement behind options", "spoof-nd", eth() / v6() / options(2) / na(tgt=ALIEN6) / tlla(lladdr=MAC)),
    ("DAD of another", "spoof-nd", eth() / v6("::", "ff02::1:ff00:c") / ns(tgt=ALIEN6)),
    ("DAD of the gateway", "spoof-nd", eth() / v6("::", "ff02::1:ff00:1") / ns(tgt=GATEWAY6)),
    ("DAD with a MAC", "spoof-nd", eth() / v6("::") / ns(tgt=V6) / slla(lladdr=ALIEN)),
    ("solicitation with another's MAC", "spoof-nd", eth() / v6() / ns(tgt=GATEWAY6) / slla(lladdr=ALIEN)),
    ("solicitation from another", "spoof-ip", eth() / v6(ALIEN6) / ns(tgt=GATEWAY6)),
    ("solicitation from another, own MAC", "spoof-nd", eth() / v6(ALIEN6) / ns(tgt=GATEWAY6) / slla(lladdr=MAC)),
    ("router solicitation with another's MAC", "spoof-nd", eth() / v6(LL, "ff02::2") / rs() / slla(lladdr=ALIEN)),
    ("solicitation in an atomic fragment", "nd-fragment", eth() / part6(v6() / ns(tgt=GATEWAY6), 0, 24, more=False)),
    ("advertisement in a fragment", "nd-fragment", eth() / part6(v6() / na(tgt=V6) / tlla(lladdr=ALIEN), 0, 24)),
    ("the rest of that advertisement", RULE_FOR_ALL, eth() / part6(v6() / na(tgt=V6) / tlla(lladdr=ALIEN), 24, 32, more=False)),

    # Routers.
    ("router advertisement", "router-advertisement", eth() / own_ra),
    ("router advertisement of the gateway", "router-advertisement", eth() / v6(GATEWAY6, "ff02::1") / ra),
    ("router advertisement from a global address", "router-advertisement", eth() / v6(V6, "ff02::1") / ra),
    ("router advertisement of no lifetime", "router-advertisement", eth() / v6(LL) / ICMPv6ND_RA(routerlifetime=0)),
    ("behind hop-by-hop options", "router-advertisement", eth() / v6(LL, "ff02::1") / alert / ra),
    ("behind destination options", "router-advertisement", eth() / v6(LL, "ff02::1") / options(1) / ra),
    ("behind eight headers", "router-advertisement", eth() / v6(LL, "ff02::1") / options(8) / ra),
    ("behind nine headers", "header-chain", eth() / v6(LL, "ff02::1") / options(9) / ra),
    ("behind long options", "header-chain", eth() / v6(LL, "ff02::1") / options(5, 252) / ra),
    ("behind a routing header", "router-advertisement", eth() / v6(LL, "ff02::1") / IPv6ExtHdrRouting(addresses=[]) / ra),
    ("behind a mobility header", "router-advertisement", eth() / v6(LL, nh=135) / bytes([58, 0, 0, 0, 0, 0, 0, 0]) / ra),
    ("behind an authentication header", "router-advertisement", eth() / v6(LL, nh=51) / bytes([58, 1] + [0] * 10) / ra),
    ("with many options", "router-advertisement", eth() / own_ra / ICMPv6NDOptRDNSS(dns=["fd00::1"] * 9)),
    ("with a priority tag", "router-advertisement", eth() / tag(own_ra, 0)),
    ("in an atomic fragment", "nd-fragment", eth() / part6(own_ra, 0, 48, more=False)),
    ("in a first fragment", "nd-fragment", eth() / part6(own_ra, 0, 24)),
    ("in a later fragment", RULE_FOR_ALL, eth() / part6(own_ra, 24, 48, more=False)),
    ("in a fragment behind options", "nd-fragment", eth() / part6(own_ra, 0, 24, before=options(2))),
    ("options in a fragment, the message in the next", "tiny-fragment", eth() / part6(v6(LL) / options(3) / ra, 0, 24)),
    ("the message after these options", RULE_FOR_ALL, eth() / part6(v6(LL) / options(3) / ra, 24, 72, more=False)),
    ("no octet of it in the first fragment", "tiny-fragment", eth() / part6(own_ra, 0, 0)),
    ("all of it in what should be the second", "tiny-fragment", eth() / part6(v6(LL) / options(1) / ra, 8, 56, more=False)),
    ("a fragment in a fragment", "nd-fragment", eth() / part6(part6(own_ra, 0, 24), 0, 32)),
    ("redirect", "router-advertisement", eth() / v6(LL) / ICMPv6ND_Redirect(tgt=LL, dst=GATEWAY6)),

    # DHCP servers.
    ("DHCP offer", "dhcp-server", eth() / offer),
    ("DHCP acknowledgement to one", "dhcp-server", eth() / dhcp("ack", V4, 67, 68, ALIEN4)),
    ("DHCP offer from another port", "dhcp-server", eth() / dhcp("offer", V4, 4000, 68)),
    ("DHCP offer behind IP options", "dhcp-server", eth() / v4(options=IPOption_RR()) / UDP(sport=67, dport=68)),
    ("DHCP offer in a fragment", "dhcp-server", eth() / part4(offer, 0, 48)),
    ("the rest of that offer", RULE_FOR_ALL, eth() / part4(offer, 48, 250, more=False)),
    ("DHCP offer of the gateway", "dhcp-server", eth() / dhcp("offer", GATEWAY4, 67, 68)),
    ("DHCP offer without address", "dhcp-server", eth() / dhcp("offer", "0.0.0.0", 67, 68)),
    ("DHCP discover of another", "spoof-ip", eth() / dhcp("discover", ALIEN4, 68, 67)),
    ("DHCPv6 advertise", "dhcp-server", eth() / advertise()),
    ("DHCPv6 advertise from a global address", "dhcp-server", eth() / advertise(V6)),
    ("DHCPv6 advertise from another port", "dhcp-server", eth() / advertise(sport=4000)),
    ("DHCPv6 advertise behind options", "dhcp-server", eth() / v6(LL) / options(2) / UDP(sport=547, dport=546)),
    ("DHCPv6 advertise in a fragment", "dhcp-server", eth() / part6(advertise() / bytes(50), 0, 24)),
    ("DHCPv6 advertise in an atomic fragment", "dhcp-server", eth() / part6(advertise(), 0, 99, more=False)),

    # Fragments.
    ("TCP header in two fragments", "tiny-fragment", eth() / part4(v4() / syn, 0, 8)),
    ("the second of these", "tiny-fragment", eth() / part4(v4() / syn, 8, 20, more=False)),
    ("fragment at 16 octets", "tiny-fragment", eth() / part4(v4() / syn / bytes(40), 16, 40)),
    ("first fragment without octets", "tiny-fragment", eth() / part4(v4() / udp4, 0, 0)),
    ("TCP header in two fragments of IPv6", "tiny-fragment", eth() / part6(v6() / syn, 0, 8)),
    ("the second of these of IPv6", "tiny-fragment", eth() / part6(v6() / syn, 8, 20, more=False)),
    ("echo in a fragment of 4 octets", "tiny-fragment", eth() / v6() / IPv6ExtHdrFragment(nh=58, m=1) / bytes(4)),

    # Tags.
    ("802.1Q", "tagged-on-access", eth() / tag(v4() / udp4)),
    ("802.1Q, spoofed", "tagged-on-access", eth() / tag(arp(op=2, psrc=GATEWAY4))),
    ("802.1Q twice", "tagged-on-access", eth() / tag(tag(v4() / udp4, 6))),
    ("802.1Q behind a priority tag", "ethertype", eth() / tag(tag(v4() / udp4), 0)),
    ("802.1ad", "tagged-on-access", eth(type=0x88A8) / tag(v4() / udp4)),
    ("802.1ad without VLAN", "tagged-on-access", eth(type=0x88A8) / tag(v4() / udp4, 0)),
    ("802.1Q in 802.1ad", "tagged-on-access", eth(type=0x88A8) / tag(tag(v4() / udp4, type=0x0800))),
    ("the tag of old switches", "ethertype", eth(type=0x9100) / tag(v4() / udp4)),

    # What is neither IP nor ARP.
    ("LLDP", "reserved-group", eth(dst="01:80:c2:00:00:0e", type=0x88CC) / bytes(46)),
    ("LLDP to everybody", "ethertype", eth(type=0x88CC) / bytes(46)),
    ("spanning tree", "reserved-group", Dot3(src=MAC, dst="01:80:c2:00:00:00") / LLC() / STP()),
    ("spanning tree to all", "ethertype", Dot3(src=MAC, dst=ALL) / LLC() / STP()),
    ("spanning tree of each VLAN", "ethertype", Dot3(src=MAC, dst="01:00:0c:cc:cc:cd") / LLC() / SNAP() / STP()),
    ("IPv4 in 802.3", "ethertype", Dot3(src=MAC, dst=ALL) / LLC() / SNAP(code=0x0800) / v4() / udp4),
    ("802.1X", "reserved-group", eth(dst="01:80:c2:00:00:03", type=0x888E) / bytes(46)),
    ("PPPoE discovery", "ethertype", eth() / PPPoED() / bytes(20)),
    ("PPPoE", "ethertype", eth() / PPPoE() / PPP() / v4(ALIEN4) / udp4),
    ("MPLS", "ethertype", ether(0x8847, Raw(bytes.fromhex("000641ff") + bytes(v4(ALIEN4) / udp4)))),
    ("MACsec", "ethertype", ether(0x88E5, Raw(bytes(46)))),
    ("loopback test", "ethertype", ether(0x9000, Raw(bytes(46)))),
    ("an ethertype for experiments", "ethertype", ether(0x88B5, Raw(bytes(46)))),
    ("a length of zero", "ethertype", ether(0, Raw(bytes(46)))),

    # Headers that are not what they say.
    ("half an IPv4 header", "truncated-header", ether(0x0800, cut(v4() / udp4, 10))),
    ("IPv4 with a header of 16 octets", "truncated-header", eth() / v4(ihl=4) / udp4),
    ("IPv4 with a header beyond its end", "truncated-header", eth() / v4(ihl=15) / udp4),
    ("IPv4 shorter than its header", "truncated-header", eth() / v4(len=12) / udp4),
    ("IPv4 that ends in the UDP header", "truncated-header", eth() / v4(len=24) / udp4),
    ("IPv4 cut in the TCP header", "truncated-header", ether(0x0800, cut(v4() / syn, 33))),
    ("IPv6 as IPv4", "truncated-header", ether(0x0800, v6() / udp6)),
    ("IPv4 as IPv6", "truncated-header", ether(0x86DD, v4() / udp4 / bytes(40))),
    ("half an IPv6 header", "truncated-header", ether(0x86DD, cut(v6() / udp6, 24))),
    ("IPv6 of no length", "truncated-header", eth() / v6(plen=0) / udp6),
    ("IPv6 that ends in its options", "truncated-header", eth() / v6(plen=4) / options(1) / udp6),
    ("options beyond the frame", "truncated-header", eth() / v6() / IPv6ExtHdrDestOpt(len=9) / udp6),
    ("IPv6 cut in the UDP header", "truncated-header", ether(0x86DD, cut(v6() / udp6, 44))),
]


class Bed:
    """Both ends, and the switch's counts."""

    def __init__(self, sender, listener, command):
        every = socket.htons(3)
        self.sender = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        self.sender.bind((sender, 0))
        self.listener = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, every)
        self.listener.bind((listener, 3))
        self.command = command
        self.marks = 0
        self.drops = self.read_drops()

    def read_drops(self):
        text = subprocess.run(self.command, check=True, capture_output=True).stdout
        return {drop["reason"]: drop["frames"] for drop in json.loads(text)}

    def arrivals(self, frames, seconds=20):
        """Sends frames and a mark behind them. What has arrived before the mark."""
        self.marks += 1
        mark = bytes(eth() / arp(pdst=f"10.255.{self.marks >> 8}.{self.marks & 255}"))
        for frame in [*frames, mark]:
            self.sender.send(frame)
        arrived = []
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self.listener.settimeout(left)
            try:
                frame = self.listener.recv(65536)
            except TimeoutError:
                break
            if frame == mark:
                return arrived
            arrived.append(frame)
        raise SystemExit(f"a frame of the port's own did not arrive within {seconds} s")

    def counted(self, expected, seconds=5):
        """What was dropped since the last call: as expected, or else what it stays at. Counts are
        written a moment after the frames have left."""
        deadline = time.monotonic() + seconds
        while True:
            now = self.read_drops()
            new = {reason: now[reason] - self.drops.get(reason, 0) for reason in now}
            new = {reason: frames for reason, frames in new.items() if frames}
            if new == expected or time.monotonic() > deadline:
                self.drops = now
                return new


def trial(bed, rows, passes):
    """Sends some rows of one outcome. Tells what has arrived and should not have, or the reverse.
    Returns how many do so, and what is to be counted for all of them."""
    sent = wrong = 0
    for name, _, frame in rows:
        frames = [bytes(frame)]
        if frame.dst == ALL:
            alone = frame.copy()
            alone.dst = GATEWAY
            frames.append(bytes(alone))
        sent += len(frames)
        # A priority tag does not leave with the frame.
        bare = [one[:12] + one[16:] if one[12:14] == b"\x81\x00" else one for one in frames]
        arrived = bed.arrivals(frames)
        if arrived != (bare if passes else []):
            what = " ".join(one.hex() for one in arrived) or "nothing"
            print(f"{name} ({frames[0].hex()}): {what} has arrived", flush=True)
            wrong += 1
    return wrong, {} if passes else {rows[0][1]: sent}


def main():
    sender, listener, state, *command = sys.argv[1:]
    bed = Bed(sender, listener, command)
    passed = failed = 0
    # What is counted is read once for all of an outcome: each frame has one reason. Only if that
    # is not the expected one, row by row.
    for outcome in dict.fromkeys(outcome for _, outcome, _ in TABLE):
        rows = [row for row in TABLE if row[1] == outcome]
        passes = outcome == BASIC or outcome in HONEST and state == "open"
        passed += len(rows) if passes else 0
        wrong, expected = trial(bed, rows, passes)
        failed += wrong
        for row in rows if bed.counted(expected) != expected else []:
            _, expected = trial(bed, [row], passes)
            counted = bed.counted(expected, 0.3)
            if counted != expected:
                print(f"{row[0]}: counted as {counted}, not as {expected}", flush=True)
                failed += 1
    print(f"{len(TABLE)} kinds of frames, of which {passed} passed; {failed} problems")
    sys.exit(1 if failed else 0)


main()
