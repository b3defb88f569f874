//! Hosts that are not there: trees of files as sysfs has them. What needs a kernel that acts on what is
//! written, binding drivers, is tested in a machine with SR-IOV (`tests/sriov`).

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use tempfile::TempDir;

use super::*;
use crate::config::Config;
use crate::nic::VfSettings;
use crate::nics;

const CARD: &str = "0000:01:00.0";
const VF: &str = "0000:01:10.2";

/// A host with a card `ens1f0` that has two of seven virtual functions, each in a group of its own.
struct Tree {
    folder: TempDir,
}

impl Tree {
    fn new() -> Tree {
        let tree = Tree { folder: TempDir::new().expect("a directory for the test") };
        tree.write("sys/class/net/lo/flags", "0x9");
        tree.write("dev/vfio/vfio", "");
        tree.device(CARD, "0x10c9", 12);
        tree.driver(CARD, "igb");
        tree.write(&format!("sys/bus/pci/devices/{CARD}/sriov_totalvfs"), "7");
        tree.write(&format!("sys/bus/pci/devices/{CARD}/sriov_numvfs"), "2");
        tree.interface(CARD, "ens1f0", "0x1003");
        for (number, address) in ["0000:01:10.0", VF].into_iter().enumerate() {
            tree.device(address, "0x10ca", 20 + number as u32);
            let card = format!("sys/bus/pci/devices/{CARD}");
            tree.link(&format!("{card}/virtfn{number}"), &format!("sys/bus/pci/devices/{address}"));
            tree.link(&format!("sys/bus/pci/devices/{address}/physfn"), &card);
        }
        tree
    }

    fn host(&self) -> Host {
        Host::below(self.folder.path())
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.folder.path().join(path);
        fs::create_dir_all(path.parent().expect("a folder")).expect("folders can be made");
        fs::write(path, format!("{text}\n")).expect("files can be written");
    }

    fn link(&self, from: &str, to: &str) {
        let (from, to) = (self.folder.path().join(from), self.folder.path().join(to));
        fs::create_dir_all(from.parent().expect("a folder")).expect("folders can be made");
        fs::create_dir_all(&to).expect("folders can be made");
        let _ = fs::remove_file(&from);
        symlink(to, from).expect("links can be made");
    }

    fn device(&self, address: &str, device: &str, group: u32) {
        let path = format!("sys/bus/pci/devices/{address}");
        for (name, text) in
            [("vendor", "0x8086"), ("device", device), ("class", "0x020000"), ("numa_node", "1")]
        {
            self.write(&format!("{path}/{name}"), text);
        }
        self.group(address, group);
    }

    fn group(&self, address: &str, group: u32) {
        let members = format!("sys/kernel/iommu_groups/{group}");
        self.link(&format!("sys/bus/pci/devices/{address}/iommu_group"), &members);
        self.write(&format!("{members}/devices/{address}"), "");
    }

    fn driver(&self, address: &str, driver: &str) {
        let to = format!("sys/bus/pci/drivers/{driver}");
        self.link(&format!("sys/bus/pci/devices/{address}/driver"), &to);
    }

    fn interface(&self, address: &str, name: &str, flags: &str) {
        self.write(&format!("sys/bus/pci/devices/{address}/net/{name}/type"), "1");
        self.write(&format!("sys/class/net/{name}/flags"), flags);
        self.write(&format!("sys/class/net/{name}/carrier"), "1");
        self.write(&format!("sys/class/net/{name}/carrier_changes"), "2");
        let device = format!("sys/bus/pci/devices/{address}");
        self.link(&format!("sys/class/net/{name}/device"), &device);
    }

    /// A process with this file open.
    fn process(&self, pid: u32, name: &str, file: &str) {
        self.write(&format!("proc/{pid}/comm"), name);
        let fds = self.folder.path().join(format!("proc/{pid}/fd"));
        fs::create_dir_all(&fds).expect("folders can be made");
        symlink(Path::new(file), fds.join("7")).expect("links can be made");
    }

    fn address(&self, device: &str) -> Result<Option<String>, String> {
        let device = device.parse().expect(device);
        address(&self.host(), &device).map_err(|misfit| misfit.to_string())
    }

    fn refusal(&self, address: &str) -> String {
        Claim::take(&self.host(), address).expect_err("it is refused").to_string()
    }
}

#[test]
fn a_virtual_function_is_found_by_its_card_and_number() {
    let tree = Tree::new();
    let found = |device: &str| tree.address(device);
    assert_eq!(found("ens1f0/1,a=b"), Ok(Some(VF.to_owned())));
    assert_eq!(found("01:10.2"), Ok(Some(VF.to_owned())));
    assert_eq!(found("net_tap0,iface=ens1f0"), Ok(None));
    for (device, words) in [
        ("ens9/0", "there is no interface ens9, of which `ens9/0` is a virtual function; correct"),
        ("lo/0", "lo is not the interface of a card, and has no virtual functions; name one"),
        (
            "ens1f0/7",
            "ens1f0 has no virtual function 7: it can have 7, from number 0; write a number up to 6",
        ),
        (
            "ens1f0/2",
            "ens1f0 has no virtual function 2: there are 2, from number 0; write a number up to 1; or \
             make more, which takes those that there are from who uses them: echo 0, then echo 3 \
             >/sys/class/net/ens1f0/device/sriov_numvfs",
        ),
    ] {
        let said = found(device).expect_err(device);
        assert!(said.starts_with(words), "{said}");
    }
    tree.write(&format!("sys/bus/pci/devices/{CARD}/sriov_numvfs"), "0");
    let said = found("ens1f0/3").expect_err("there is none");
    assert!(
        said.ends_with("make them: echo 4 >/sys/class/net/ens1f0/device/sriov_numvfs"),
        "{said}"
    );
    tree.write(&format!("sys/bus/pci/devices/{CARD}/sriov_totalvfs"), "0");
    let said = found("ens1f0/3").expect_err("there can be none");
    assert!(said.starts_with("ens1f0 has no virtual functions and can have none; "), "{said}");
}

#[test]
fn what_is_in_use_is_not_taken() {
    let tree = Tree::new();
    let none = tree.refusal("0000:09:00.0");
    assert!(none.starts_with("there is no PCI device 0000:09:00.0; "), "{none}");

    // A card that the host uses, and one whose functions others may use.
    let up = tree.refusal(CARD);
    assert_eq!(
        up,
        "0000:01:00.0 is in use: igb has it, and its interface ens1f0 is up; if nothing depends on \
         it, ip link set ens1f0 down"
    );
    tree.write("sys/class/net/ens1f0/flags", "0x1002");
    let parent = tree.refusal(CARD);
    assert!(
        parent.starts_with("0000:01:00.0 has virtual functions, which would go with"),
        "{parent}"
    );

    // A virtual function that the host uses.
    tree.driver(VF, "igbvf");
    tree.interface(VF, "ens1f0v1", "0x1003");
    let up = tree.refusal(VF);
    assert!(
        up.starts_with("0000:01:10.2 is in use: igbvf has it, and its interface ens1f0v1"),
        "{up}"
    );

    // One that a guest has.
    tree.driver(VF, "vfio-pci");
    tree.process(4711, "qemu-system-x86", "/dev/vfio/21");
    assert_eq!(
        tree.refusal(VF),
        "0000:01:10.2 is in use: process 4711 (qemu-system-x86) holds it; name another device, or \
         end that process if it is not meant to have this one"
    );
    let ours = std::process::id();
    tree.device("0000:01:10.4", "0x10ca", 22);
    tree.driver("0000:01:10.4", "vfio-pci");
    tree.process(ours, "viaduct", "/dev/vfio/22");
    let twice = tree.refusal("0000:01:10.4");
    assert!(
        twice.starts_with("0000:01:10.4 is another port's or physnet's of this switch; "),
        "{twice}"
    );
}

#[test]
fn what_cannot_be_given_away_alone_is_not_taken() {
    let tree = Tree::new();
    let no_module = tree.refusal(VF);
    assert!(no_module.contains("modprobe vfio-pci"), "{no_module}");
    assert!(!tree.folder.path().join("run/viaduct/drivers").join(VF).exists(), "a note is left");
    fs::remove_file(tree.folder.path().join("dev/vfio/vfio")).expect("it is there");
    let no_module = tree.refusal(VF);
    assert!(no_module.contains("there is no /dev/vfio/vfio; load the module"), "{no_module}");

    // A bridge in the group and a device that nobody has are no obstacle; another device is.
    tree.device("0000:00:02.0", "0x3420", 21);
    tree.write("sys/bus/pci/devices/0000:00:02.0/class", "0x060400");
    tree.driver("0000:00:02.0", "some-bridge");
    tree.device("0000:02:00.0", "0x10c9", 21);
    let function = Function::look(&tree.host(), VF).expect("it is there");
    let companions = function.companions(&tree.host());
    assert_eq!(companions.len(), 1, "{companions:?}");
    assert!(Claim::would_fit(&tree.host(), VF).is_ok());
    tree.driver("0000:02:00.0", "igb");
    assert_eq!(
        tree.refusal(VF),
        "0000:01:10.2 shares IOMMU group 21 with 0000:02:00.0, which igb has: they can only be given \
         away together; put the card into a slot whose ports have ACS (often those of the \
         processor), or use a card whose functions are in groups of their own"
    );
    fs::remove_file(tree.folder.path().join(format!("sys/bus/pci/devices/{VF}/iommu_group")))
        .expect("it is there");
    let no_group = tree.refusal(VF);
    assert!(no_group.starts_with("0000:01:10.2 has no IOMMU group: "), "{no_group}");
}

#[test]
fn what_another_process_goes_on_with_stays_and_what_nobody_wants_is_given_back() {
    let tree = Tree::new();
    tree.driver(VF, "vfio-pci");
    let note = tree.folder.path().join("run/viaduct/drivers").join(VF);
    tree.write(&format!("run/viaduct/drivers/{VF}"), "igbvf");
    let claim = Claim::take(&tree.host(), VF).expect("nothing speaks against it");
    claim.stay().set();
    drop(claim);
    assert!(note.exists(), "the next process knows nothing of its former driver");
    tree.process(4711, "viaduct", "/dev/vfio/21");
    return_unheld(&tree.host());
    assert!(note.exists(), "the other process has it");
    fs::remove_dir_all(tree.folder.path().join("proc/4711")).expect("it is there");
    return_unheld(&tree.host());
    assert!(!note.exists());
}

#[test]
fn a_card_that_was_down_is_noticed() {
    let tree = Tree::new();
    assert!(PfWatch::of(&tree.host(), CARD).is_none(), "a card hangs on no card");
    let mut watch = PfWatch::of(&tree.host(), VF).expect("it is a virtual function");
    let card = || "ens1f0".to_owned();
    assert_eq!(watch.look(), PfState::Well);
    tree.write("sys/class/net/ens1f0/flags", "0x1002");
    assert_eq!(watch.look(), PfState::Down(card()));
    tree.write("sys/class/net/ens1f0/flags", "0x1003");
    tree.write("sys/class/net/ens1f0/carrier", "0");
    assert_eq!(watch.look(), PfState::NoCarrier(card()));
    tree.write("sys/class/net/ens1f0/carrier", "1");
    tree.write("sys/class/net/ens1f0/carrier_changes", "4");
    assert_eq!(watch.look(), PfState::Returned(card()));
    watch.started();
    assert_eq!(watch.look(), PfState::Well);
    // In another namespace, or with another driver, there is nothing to see.
    fs::remove_dir_all(tree.folder.path().join(format!("sys/bus/pci/devices/{CARD}/net")))
        .expect("it is there");
    assert_eq!(watch.look(), PfState::Well);
}

#[test]
fn cards_are_listed_with_who_has_them() {
    let tree = Tree::new();
    tree.device("0000:00:1f.2", "0x2922", 3);
    tree.write("sys/bus/pci/devices/0000:00:1f.2/class", "0x010601");
    tree.driver(VF, "vfio-pci");
    tree.process(4711, "viaduct", "/dev/vfio/21");
    let ports = [("ens1f0/1".to_owned(), "wire".to_owned())];
    let set = VfSettings { vlan: 7, ..VfSettings::UNUSED };
    let settings = [(("ens1f0".to_owned(), 1), set)].into();
    let views = nics::listed(&tree.host(), &ports, &settings);
    let addresses: Vec<&str> = views.iter().map(|view| &*view.address).collect();
    assert_eq!(addresses, [CARD, "0000:01:10.0", VF], "a disk is no network card");
    let [card, free, ours] = &views[..] else { unreachable!("there are three") };
    assert_eq!(
        (card.interfaces.as_slice(), card.driver.as_deref()),
        (&["ens1f0".to_owned()][..], Some("igb"))
    );
    assert_eq!(card.vfs.map(|vfs| (vfs.there, vfs.most)), Some((2, 7)));
    assert_eq!(
        (free.driver.as_deref(), free.port.as_deref(), free.numa_node),
        (None, None, Some(1))
    );
    let of = ours.of.as_ref().expect("it is a virtual function");
    assert_eq!((of.interface.as_deref(), of.number), (Some("ens1f0"), Some(1)));
    assert_eq!(of.settings.as_ref().map(|set| set.vlan), Some(7));
    let other = free.of.as_ref().expect("it is one too");
    assert_eq!(other.settings, None, "of which its card says nothing");
    assert_eq!(ours.port.as_deref(), Some("wire"));
    assert_eq!(ours.held_by[0].pid, 4711);
}

#[test]
fn doubts_about_cards_name_the_physnet_and_the_remedy() {
    let tree = Tree::new();
    tree.link("sys/devices/system/cpu/cpu1/node0", "sys/devices/system/node/node0");
    let pages = "hugepages/hugepages-2048kB/nr_hugepages";
    tree.write(&format!("sys/devices/system/node/node1/{pages}"), "0");
    let place = tree.folder.path();
    let file = place.join("viaduct.toml");
    let config = format!(
        "host = 'h'\nstore.directory = '{0}'\ncontrol.socket = '{0}/c'\nvhost.socket_directory = '{0}'\n\
         [workers]\ncores = [1]\n\
         [physnets.p]\ndevice = 'ens1f0/1'\n[physnets.q]\ndevice = 'ens1f0/9'\n\
         [physnets.r]\ndevice = 'net_null0'\n\
         [physnets.s.bond]\nmembers = ['net_tap1,iface=s', 'ens1f0/8']\n",
        place.display()
    );
    fs::write(&file, config).expect("it can be written");
    let config = Config::read(&file).expect("it is right");
    let set = |number: u32, spoofchk: bool| {
        let settings = VfSettings { spoofchk, ..VfSettings::UNUSED };
        (("ens1f0".to_owned(), number), settings)
    };
    let settings = [set(0, false), set(1, true)].into();
    let doubts = nics::doubts_on(&tree.host(), &settings, &config, &file);
    let said: Vec<String> = doubts
        .iter()
        .inspect(|problem| {
            assert!(!problem.is_error(), "a card may come later: {problem}");
            crate::documented::assert_documented(problem);
        })
        .map(|problem| format!("{}: {}", problem.field, problem.what))
        .collect();
    assert_eq!(
        said,
        [
            "physnets.p.device: 0000:01:10.2 is on NUMA node 1, and CPUs 1, which poll it, are on \
             node 0",
            "physnets.p.device: 0000:01:10.2 is on NUMA node 1, which has no huge pages",
            "physnets.p.device: the card of 0000:01:10.2 drops what it sends from other addresses than its \
             own",
            "physnets.q.device: ens1f0 has no virtual function 9: it can have 7, from number 0",
            "physnets.s.bond.members[1]: ens1f0 has no virtual function 8: it can have 7, from number 0",
        ]
    );
    tree.link("sys/devices/system/cpu/cpu1/node1", "sys/devices/system/node/node1");
    fs::remove_file(place.join("sys/devices/system/cpu/cpu1/node0")).expect("it is there");
    tree.write(&format!("sys/devices/system/node/node1/{pages}"), "64");
    assert_eq!(nics::doubts_on(&tree.host(), &settings, &config, &file).len(), 3);
}
