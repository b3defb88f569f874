#!/usr/bin/bash
# /init of the test guest: process 1 of a machine that exists to send and receive frames.
#
# It makes the kernel's file systems, loads the network driver, sets up eth0 as the kernel's
# command line says, prints one line `READY name seconds-since-boot` (or `FAILED name reason`)
# on the console and then serves a shell there. The parameters, all optional:
#   viaduct.name=red1              host name, and the name in the READY line
#   viaduct.ip=10.0.0.1/24,fd00::1/64   addresses of eth0; without it eth0 is up but bare
#   viaduct.mtu=9000               MTU of eth0
#   viaduct.queues=2               queue pairs to use; Linux takes one per CPU by itself
#   viaduct.shell=interactive      a shell for a person: prompt, echo, job control
# Without the last one the shell is for a program: each line is a command; no prompt, no echo, LF
# as the line end.
#
# The shell is bash and the tools are the real ones: busybox's own shell would run its built-in
# `ip` and `ping` in front of them.

export PATH=/usr/bin:/bin HOME=/root TERM=${TERM:-linux}
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sys /sys
/bin/busybox mount -t devtmpfs dev /dev
/bin/busybox mkdir -p /dev/pts /dev/shm
/bin/busybox mount -t devpts devpts /dev/pts
/bin/busybox mount -t tmpfs tmpfs /dev/shm

name=guest ip='' mtu='' queues='' shell=program
read -r -a arguments </proc/cmdline
for argument in "${arguments[@]}"; do
    case $argument in
        viaduct.name=*) name=${argument#*=} ;;
        viaduct.ip=*) ip=${argument#*=} ;;
        viaduct.mtu=*) mtu=${argument#*=} ;;
        viaduct.queues=*) queues=${argument#*=} ;;
        viaduct.shell=*) shell=${argument#*=} ;;
    esac
done

# setup: everything that can fail; prints the reason when it does.
setup() {
    echo "$name" >/proc/sys/kernel/hostname
    ip link set lo up || return
    modprobe -a virtio_pci virtio_net || return
    [[ -e /sys/class/net/eth0 ]] || { echo "no eth0: the machine has no virtio-net device"; return 1; }
    [[ -z $mtu ]] || ip link set eth0 mtu "$mtu" || return
    [[ -z $queues ]] || ethtool -L eth0 combined "$queues" || return
    ip link set eth0 up || return
    local address
    for address in ${ip//,/ }; do
        # No duplicate address detection: the address must be usable when READY is printed.
        if [[ $address == *:* ]]; then
            ip address add "$address" dev eth0 nodad || return
        else
            ip address add "$address" dev eth0 || return
        fi
    done
}

# A guest of another kind brings its own.
[[ ! -e /etc/guest-setup ]] || source /etc/guest-setup

if [[ $shell == program ]]; then
    stty -echo -onlcr </dev/ttyS0
fi
if reason=$(setup 2>&1); then
    read -r uptime _ </proc/uptime
    echo "READY $name $uptime"
else
    echo "FAILED $name ${reason//$'\n'/; }"
fi

# The program's shell: `read` fails with more than 128 when Ctrl-C ends it, and with 1 at the end
# of the file. The trap keeps the shell, and with it all background jobs; commands do not inherit it.
serve='trap : INT
while IFS= read -r line || (($? > 128)); do
    eval "$line"
    line=
done'

# setsid -c makes ttyS0 the controlling terminal: Ctrl-C ends the command that runs. The shell
# is started again when it ends, since a kernel without process 1 panics.
while :; do
    if [[ $shell == interactive ]]; then
        PS1="$name# " setsid -c bash --norc --noprofile -i </dev/ttyS0 >/dev/ttyS0 2>&1
    else
        setsid -c bash -c "$serve" </dev/ttyS0 >/dev/ttyS0 2>&1
    fi
done
