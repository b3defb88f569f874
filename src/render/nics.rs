//! `viaduct nics`.

use control::model::{LinkState, VfActual};
use control::nics::{NicView, VfCountView, VfOfView};

use super::table::Table;

/// Network cards and virtual functions, one a line.
pub fn nics(views: &[NicView]) -> String {
    let columns = [
        "ADDRESS",
        "ID",
        "INTERFACE",
        "VF",
        "DRIVER",
        ">NUMA",
        ">GROUP",
        ">VFS",
        "PORT",
        "HELD-BY",
        "SETTINGS",
    ];
    let mut table = Table::new(&columns, "there are no network cards on PCI");
    let number = |number: Option<u32>| number.map(|it| it.to_string()).unwrap_or_default();
    for view in views {
        let holders: Vec<String> =
            view.held_by.iter().map(|holder| format!("{} ({})", holder.pid, holder.name)).collect();
        let shared = if view.group_shared_with.is_empty() { "" } else { "+" };
        table.row([
            view.address.clone(),
            view.ids.clone(),
            view.interfaces.join(","),
            view.of.as_ref().map(virtual_function).unwrap_or_default(),
            view.driver.clone().unwrap_or_default(),
            number(view.numa_node),
            view.iommu_group.map(|group| format!("{group}{shared}")).unwrap_or_default(),
            view.vfs
                .map(|VfCountView { there, most }| format!("{there}/{most}"))
                .unwrap_or_default(),
            view.port.clone().unwrap_or_default(),
            holders.join(", "),
            view.of.as_ref().and_then(|of| of.settings.as_ref()).map(settings).unwrap_or_default(),
        ]);
    }
    table.text()
}

/// As it is named in a configuration, where its card has an interface.
fn virtual_function(of: &VfOfView) -> String {
    let card = of.interface.as_ref().unwrap_or(&of.address);
    match of.number {
        Some(number) => format!("{card}/{number}"),
        None => card.clone(),
    }
}

/// How a virtual function is set, in the words of ip(8). What is as it always is at first is left out.
fn settings(set: &VfActual) -> String {
    let on = |on: bool| if on { "on" } else { "off" };
    let mut words = vec![
        set.mac.map_or_else(|| "no mac".to_owned(), |mac| format!("mac {mac}")),
        format!("spoofchk {}", on(set.spoofchk)),
        format!("trust {}", on(set.trust)),
    ];
    if set.vlan != 0 {
        words.push(format!("vlan {}", set.vlan));
    }
    if set.qos != 0 {
        words.push(format!("qos {}", set.qos));
    }
    if set.link_state != LinkState::Auto {
        words.push(format!("state {}", set.link_state));
    }
    if set.max_rate_mbps != 0 {
        words.push(format!("max_tx_rate {}", set.max_rate_mbps));
    }
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use control::nics::HolderView;

    use super::*;

    #[test]
    fn a_card_and_its_virtual_function_are_a_line_each() {
        let card = NicView {
            address: "0000:01:00.0".to_owned(),
            ids: "8086:10c9".to_owned(),
            interfaces: vec!["ens1f0".to_owned()],
            driver: Some("igb".to_owned()),
            numa_node: Some(0),
            iommu_group: Some(12),
            group_shared_with: vec!["0000:01:00.1".to_owned()],
            of: None,
            vfs: Some(VfCountView { there: 2, most: 7 }),
            held_by: Vec::new(),
            port: None,
        };
        let vf = NicView {
            address: "0000:01:10.0".to_owned(),
            ids: "8086:10ca".to_owned(),
            interfaces: Vec::new(),
            driver: Some("vfio-pci".to_owned()),
            group_shared_with: Vec::new(),
            of: Some(VfOfView {
                address: "0000:01:00.0".to_owned(),
                interface: Some("ens1f0".to_owned()),
                number: Some(0),
                settings: Some(VfActual {
                    mac: "52:54:00:00:00:01".parse().ok(),
                    vlan: 100,
                    qos: 3,
                    spoofchk: true,
                    trust: false,
                    link_state: LinkState::Disable,
                    max_rate_mbps: 200,
                }),
            }),
            vfs: None,
            held_by: vec![HolderView { pid: 4711, name: "viaduct".to_owned() }],
            port: Some("physnet1".to_owned()),
            ..card.clone()
        };
        assert_eq!(
            nics(&[card, vf]),
            "ADDRESS       ID         INTERFACE  VF        DRIVER    NUMA  GROUP  VFS  PORT      HELD-BY         SETTINGS\n\
             0000:01:00.0  8086:10c9  ens1f0     -         igb          0    12+  2/7  -         -               -\n\
             0000:01:10.0  8086:10ca  -          ens1f0/0  vfio-pci     0     12    -  physnet1  4711 (viaduct)  mac 52:54:00:00:00:01 spoofchk on trust off vlan 100 qos 3 state disable \
             max_tx_rate 200\n"
        );
        assert_eq!(nics(&[]), "there are no network cards on PCI\n");
    }
}
