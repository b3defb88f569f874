//! VFs that are given to guests: what of them is read, and what a NIC cannot do and is refused.

use serde_json::{Value, json};

use super::super::*;
use super::{Host, NET, NET2, PORT, PORT2, guest, in_force, messages, raw, vlan};

/// A port that gives a VF to a guest, with more fields or others.
fn port(more: Value) -> Value {
    let mut port = json!({
        "network": NET, "kind": "vf-direct", "mac": "52:54:00:00:00:01", "vf": "ens1f0/3",
    });
    for (name, value) in more.as_object().expect("an object") {
        port[name] = value.clone();
    }
    port
}

#[test]
fn a_vf_is_read_and_comes_back() {
    let bare = VfDirect {
        mac: "52:54:00:00:00:01".parse().expect("a MAC"),
        vf: "ens1f0/3".parse().expect("a VF"),
        qos: 0,
        spoofchk: true,
        trust: false,
        link_state: LinkState::Auto,
        max_rate_mbps: None,
    };
    let set = VfDirect {
        vf: "0000:01:10.2".parse().expect("a VF"),
        qos: 5,
        spoofchk: false,
        trust: true,
        link_state: LinkState::Enable,
        max_rate_mbps: Some(200),
        ..bare.clone()
    };
    let all = json!({
        "vf": "0000:01:10.2", "qos": 5, "spoofchk": false, "trust": true, "link_state": "enable",
        "max_rate_mbps": 200, "allowed_address_pairs": [{"ip": "10.0.0.9", "mac": "52:54:00:00:00:09"}],
    });
    let own = json!({"allowed_address_pairs": [{"ip": "10.0.0.9"}], "fixed_ips": ["10.0.0.1"]});
    for (value, vf) in [(port(json!({})), &bare), (port(own), &bare), (port(all), &set)] {
        let read = Port::from_json(value.to_string().as_bytes()).expect("good");
        assert_eq!(read.attachment, Attachment::VfDirect(vf.clone()));
        assert!(!read.port_security && !read.is_switched());
        let written = serde_json::to_vec(&read).expect("JSON");
        assert_eq!(Port::from_json(&written), Ok(read));
    }
}

#[test]
fn what_a_nic_cannot_do_is_refused_in_words() {
    let enforced = "a NIC enforces no rules and no IP addresses: of a VF's frames it checks the source \
                    MAC (`spoofchk`), sets the VLAN and bounds the rate; remove it and filter inside \
                    the guest, or make the port `vhost-user`";
    let group = "22222222-2222-4222-8222-222222222222";
    let key = format!("nodes/h/ports/{PORT}");
    for (more, wanted) in [
        (json!({"security_groups": [group]}), format!("security_groups: {enforced}")),
        (json!({"port_security": true}), format!("port_security: {enforced}")),
        (
            json!({"allowed_address_pairs": [{"ip": "10.0.0.9", "mac": "52:54:00:00:00:09"}]}),
            "allowed_address_pairs[0].mac: a NIC gives a VF frames to 52:54:00:00:00:09 only if the VF \
             is trusted and its driver asks for them; set `trust` to true, or remove the pair"
                .to_owned(),
        ),
        (
            json!({"cores": [2]}),
            "cores: no worker polls a VF that is given to a guest; remove the field".to_owned(),
        ),
        (
            json!({"mirror": {"to": PORT2}}),
            "mirror: the switch sees no frames of a VF that is given to a guest; remove the field, or \
             make the port `vhost-user`"
                .to_owned(),
        ),
        (
            json!({"vf": "ens1f0"}),
            "vf: `ens1f0` is not a VF; write the interface of its PF and its number, such as ens1f0/3, \
             or its PCI address, such as 0000:01:10.2"
                .to_owned(),
        ),
        (
            json!({"qos": 8}),
            "qos: 8 is too large; write a whole number from 0 to 7".to_owned(),
        ),
        (
            json!({"link_state": "up"}),
            "link_state: `up` is not known; write `auto` or `enable` or `disable`".to_owned(),
        ),
    ] {
        let net = format!("networks/{NET}");
        let desired = Desired::build(&raw(&[(&net, vlan("p", 100)), (&key, port(more))]), Host::new().site());
        assert_eq!(messages(&desired), [format!("{key}: {wanted}")]);
        assert_eq!(in_force(&desired), [NET]);
    }
}

#[test]
fn a_vf_is_judged_among_the_others() {
    let host = Host::new();
    let (net, net2) = (format!("networks/{NET}"), format!("networks/{NET2}"));
    let (key, key2) = (format!("nodes/h/ports/{PORT}"), format!("nodes/h/ports/{PORT2}"));
    let judge = |values: &[(&str, Value)]| messages(&Desired::build(&raw(values), host.site()));
    let wire = vlan("p", 100);

    let local = [(&*net, json!({"type": "local"})), (&*key, port(json!({})))];
    assert_eq!(
        judge(&local),
        [format!(
            "{key}: network: a VF reaches the wire and nothing else of this host, and the network has no \
         physnet; choose a network of type `vlan` or `flat`, or make the port `vhost-user`"
        )]
    );
    let flat = json!({"type": "flat", "physnet": "q"});
    assert_eq!(
        judge(&[(&net, flat), (&key, port(json!({"qos": 3})))]),
        [format!(
            "{key}: qos: frames of a network without a VLAN have no priority in them; remove the field, or \
         choose a network of type `vlan`"
        )]
    );
    let again = port(json!({"mac": "52:54:00:00:00:02"}));
    assert_eq!(
        judge(&[(&net, wire.clone()), (&key, port(json!({}))), (&key2, again)]),
        [format!(
            "{key2}: vf: `ens1f0/3` is the VF of {key}, which stays in force; choose another VF, or delete \
         one of the two ports"
        )]
    );
    let of_switch = port(json!({"vf": "0000:01:10.0"}));
    assert_eq!(
        judge(&[(&net, wire.clone()), (&key, of_switch)]),
        [format!(
            "{key}: vf: `0000:01:10.0` is the device of physnet `q`; choose another device, or put the \
         port's network on that physnet"
        )]
    );
    // One address on one network is one station's, whatever its kind; on two networks it is two's.
    assert_eq!(
        judge(&[(&net, wire.clone()), (&key, port(json!({}))), (&key2, guest(NET, "a", 1))]),
        [format!(
            "{key2}: mac: 52:54:00:00:00:01 is on this network already, as the address of {key}, which \
             stays in force; choose another address, or another network, or delete one of the two ports"
        )]
    );
    let apart = [
        (&*net, wire),
        (&*net2, json!({"type": "flat", "physnet": "q"})),
        (&*key, port(json!({}))),
        (&*key2, guest(NET2, "a", 1)),
    ];
    assert_eq!(judge(&apart), [""; 0]);
}
