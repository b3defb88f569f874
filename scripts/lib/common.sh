# Shell functions that every script of the project shares: messages, root rights, packages.
# To be sourced by bash after `set -euo pipefail`; it runs nothing by itself.

# `sbin` holds modprobe, depmod and sysctl, and is not on an ordinary user's path.
export PATH="$PATH:/usr/sbin:/sbin"

# The root of the source tree, where `.cache/` and `target/` are.
repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)

# say TEXT...: one line for the person who watches. It goes to stderr, as stdout is for results.
say() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
}

# fail TEXT...: says what is wrong and what to do about it, and ends the script.
fail() {
    say "$*"
    exit 1
}

# as_root COMMAND...: runs the command as root, by sudo where we are not root already.
as_root() {
    if ((EUID == 0)); then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        fail "'$*' needs root: run this script as root, or install sudo"
    fi
}

# missing_packages PACKAGE...: prints those that dpkg does not hold as installed, one a line.
missing_packages() {
    comm -13 \
        <(dpkg-query -W -f '${Package} ${db:Status-Status}\n' "$@" 2>/dev/null |
            sed -n 's/ installed$//p' | sort -u) \
        <(printf '%s\n' "$@" | sort -u)
}

# apt_update: fetches the package lists. apt's own lock timeout covers only dpkg's lock, not the
# lock on the lists, so another apt that runs right now is waited for here, five minutes at most.
apt_update() {
    local deadline=$((SECONDS + 300)) output
    until output=$(as_root apt-get -q update 2>&1); do
        if [[ $output != *"Could not get lock"* ]] || ((SECONDS > deadline)); then
            printf '%s\n' "$output" >&2
            fail "apt-get update failed: mend what it says above and run this again"
        fi
        sleep 2
    done
}

# apt_install PACKAGE...: installs those that are missing and leaves apt alone if none is. Takes
# milliseconds when there is nothing to do, so that every script may call it each time.
apt_install() {
    local missing
    command -v apt-get >/dev/null ||
        fail "this machine has no apt: install the counterparts of these Debian packages: $*"
    mapfile -t missing < <(missing_packages "$@")
    ((${#missing[@]})) || return 0
    say "installing ${missing[*]}"
    apt_update
    # A configuration question, such as iperf3's about a daemon, must not stop a script.
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-install-recommends \
        -o DPkg::Lock::Timeout=600 install "${missing[@]}" >&2 ||
        fail "apt could not install ${missing[*]}: mend what it says above and run this again"
}
