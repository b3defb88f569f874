//! Switching, as tables: see [`common::scenario`] for the language.

mod common;

use common::scenario::run;

#[test]
fn a_domain_floods_learns_and_forwards() {
    run("domain red: a b c
         a < 1>* =* b c           # broadcast goes everywhere but back
         b < 2>1 = a              # 1 was learned on a
         a < 1>9 =* b c           # unknown unicast floods
         a < 1>2 = b
         c < 1>2 = b              # 1 has moved to c
         b < 2>1 = c
         b < 2>2 = drop:hairpin
         a < 3>^5 =* b c          # multicast floods
         a < 1>2+1400 = b         # a body beyond the private head
         a < 1>2+1486 = b         # the longest that an MTU of 1500 allows
         a < 1>2+1501 = drop:over-mtu");
}

#[test]
fn domains_are_apart() {
    run("domain red: a b
         domain blue: c d
         a < 1>* =* b
         c < 1>* =* d             # the same address in another domain
         b < 2>1 = a
         d < 2>1 = c
         a < 1>7 =* b");
}

#[test]
fn what_no_bridge_forwards() {
    run("domain red: a b
         a < 1>~ = drop:reserved-group
         a < ^1>2 = drop:bad-source
         a < *>2 = drop:bad-source
         a < 0>2 = drop:bad-source
         a < 1>2!13 = drop:runt
         a < 1>2!0 = drop:runt
         a < 1>2/5!17 = drop:runt
         a < 1>2!14 =* b          # a header and nothing else is a frame
         a < 1>2/5 = drop:tagged-on-access
         a < 1>2/5s = drop:tagged-on-access
         a < 1>2/0s = drop:tagged-on-access
         b < 3>1 = a              # the drops taught nothing but what the good frame did
         domain lonely: z
         z < 1>* = drop:no-listener");
}

#[test]
fn a_vlan_is_pushed_and_popped_at_the_uplink() {
    run("domain red vlan 100 on w: a b
         domain blue vlan 200 on w: c
         a < 1>* =* b w/100
         w < 9>1/100 = a          # popped
         a < 1>9 = w/100          # pushed
         a < 1>9+1400 = w/100
         w < 9>1/100+1500 = a     # the tag does not count against the MTU
         w < 9>1/100+1501 = drop:over-mtu
         w < 9>*/100 =* a b
         w < 9>*/200 =* c         # the same station in another VLAN
         c < 1>9 = w/200
         w < 8>*/300 = drop:unknown-vlan
         w < 8>* = drop:untagged
         w < 8>*/0 = drop:untagged
         w < 8>*/100s = drop:unknown-vlan
         w < 7>1/100.6 = a
         a < 1>7/0.5 = w/100.5    # a guest's priority is kept
         b < 2>1/0.3 = a          # and leaves with the tag where no tag leaves
         w < 5>9/100 = drop:hairpin");
}

#[test]
fn a_flat_network_is_the_untagged_wire() {
    run("domain flat flat on w: a b
         domain red vlan 7 on w: c
         a < 1>* =* b w
         w < 9>1 = a
         a < 1>9 = w
         w < 9>1/0.4 = a
         w < 9>*/7 =* c
         c < 1>* =* w/7");
}

#[test]
fn each_network_has_its_own_mtu_and_policy() {
    run("domain small, mtu 1000: a b
         a < 1>2+1000 =* b
         a < 1>2+1001 = drop:over-mtu
         domain deaf, deaf: c d e
         c < 1>* =* d e
         d < 2>1 =* c e           # nothing was learned
         domain quiet, quiet: f g
         f < 1>* =* g             # broadcast is no unknown unicast
         f < 1>2 = drop:no-flooding
         g < 2>1 = f
         f < 1>2 = g");
}

#[test]
fn jumbo_frames_cross_whole() {
    run("domain big, mtu 9000: a b
         a < 1>2+9000 =* b
         a < 1>2+2300 =* b
         a < 1>2+9001 = drop:over-mtu");
}

#[test]
fn addresses_that_desired_state_gives_need_no_learning_and_cannot_be_taken() {
    run("domain red: a b c
         station a 1
         station b 2
         a < 1>2 = b              # never heard, yet known
         c < 2>1 = a              # c claims the address of b
         a < 1>2 = b              # in vain");
}

#[test]
fn ports_go_down_and_come_back() {
    run("domain red: a b c
         a < 1>* =* b c
         b < 2>* =* a c
         down b
         a < 1>2 =* c             # what the FDB says of b no longer counts
         b < 2>1 = drop:port-down
         up b
         a < 1>2 = b
         detach b
         a < 1>2 =* c
         attach b
         a < 1>2 = b");
}

#[test]
fn a_guest_without_buffers_loses_its_own_frames_only() {
    run("domain red: a b c
         b < 2>* =* a c
         starve b
         a < 1>2 = b drop:ring-full
         a < 1>* =* b drop:ring-full c
         feed b
         a < 1>2 = b");
}

#[test]
fn between_nics_a_frame_stays_in_its_mbuf() {
    run("domain red vlan 10 on w: a nic1 nic2
         domain blue flat on v: nic3
         nic1 < 1>* =* a nic2 w/10
         w < 5>1/10 = nic1        # popped where it lies
         nic1 < 1>5 = w/10        # pushed where it lies
         w < 5>1/10+1400 = nic1
         nic1 < 1>5/0.7+1400 = w/10.7
         nic2 < 2>1 = nic1
         a < 3>1 = nic1           # copied: it comes from a guest
         w < 5>3/10 = a
         nic3 < 1>* =* v
         v < 6>1 = nic3");
}
