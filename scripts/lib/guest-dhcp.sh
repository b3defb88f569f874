#!/usr/bin/bash
# Sets the address that a DHCP client in the guest was given, and takes it away again.
#
# udhcpc says what happened as an argument, dhclient (for DHCPv6) as $reason; both give the rest in
# the environment. Routes and name servers are not set: test guests have one network.

case ${1-$reason} in
    bound | renew) ip address replace "$ip/$mask" dev "$interface" ;;
    deconfig) ip -4 address flush dev "$interface" ;;
    # Its address is set at once, as the server has just vouched for it.
    BOUND6 | RENEW6 | REBIND6)
        ip address replace "$new_ip6_address/$new_ip6_prefixlen" dev "$interface" nodad
        ;;
    EXPIRE6 | RELEASE6 | STOP6)
        ip address delete "$old_ip6_address/$old_ip6_prefixlen" dev "$interface"
        ;;
esac
