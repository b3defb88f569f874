# What the machine of scripts/sriov-image sets up when it boots, in the place of guest-init.sh's own.
# See the head of scripts/sriov-image for what is there then.

setup() {
    echo "$name" >/proc/sys/kernel/hostname
    # Whatever an interface would send by itself is nothing that a test waits for.
    sysctl -q -w net.ipv6.conf.default.disable_ipv6=1 net.ipv6.conf.all.disable_ipv6=1
    ip link set lo up || return
    mkdir -p /dev/hugepages /etc/viaduct
    mount -t hugetlbfs hugetlbfs /dev/hugepages || return
    echo 224 >/proc/sys/vm/nr_hugepages
    modprobe -a virtio_pci virtio_blk tun igb vfio_iommu_type1 vfio_pci || return
    local pf vf
    # Named by the order of their slots. igb's functions have every other number.
    for pf in 0 1 2; do
        local old=/sys/bus/pci/devices/0000:0$((pf + 1)):00.0/net
        old=$(ls "$old" 2>&1) || { echo "there is no card in slot $pf"; return 1; }
        ip link set "$old" down
        ip link set "$old" name "pf$pf" || return
    done
    for pf in 0 1; do
        ip link set "pf$pf" up || return
        echo 2 >"/sys/class/net/pf$pf/device/sriov_numvfs" || return
        for vf in 0 1; do
            ip link set "pf$pf" vf "$vf" mac "52:54:00:aa:0$pf:0$vf" || return
        done
    done
}
