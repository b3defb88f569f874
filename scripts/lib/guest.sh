# Shell functions to talk to a guest that scripts/guest started with --console and --log.
# To be sourced after common.sh. Needs socat, which scripts/guest-image installs.

# guest_wait NAME LOG PID SECONDS: waits for the guest's first boot to end with READY. Fails with
# the reason when the guest says FAILED, ends, panics, or takes longer than that.
guest_wait() {
    local name=$1 log=$2 pid=$3 deadline=$((SECONDS + $4)) line
    while ((SECONDS <= deadline)); do
        line=$(grep -a -m 1 -E "^(READY|FAILED) $name|Kernel panic" "$log" 2>/dev/null || true)
        case $line in
            READY*) return 0 ;;
            ?*) say "guest $name: $line (its console: $log)"; return 1 ;;
        esac
        kill -0 "$pid" 2>/dev/null || { say "guest $name ended before it was ready (its console: $log)"; return 1; }
        sleep 0.1
    done
    say "guest $name was not ready after $4 s (its console: $log); is the switch on its socket?"
    return 1
}

# guest_run CONSOLE SECONDS COMMAND...: runs a command line in the guest, prints what it prints,
# and returns its status: 124 when it takes longer than that (it is then interrupted), 125 when
# the guest ended meanwhile. A command left in the background must start with `setsid`, or the
# interrupt of a later one ends it too.
guest_run() {
    local console=$1 deadline=$((SECONDS + $2)) token=$RANDOM$RANDOM$RANDOM line began=no
    local result=0 status=''
    shift 2
    # A connection for each command: QEMU drops what the guest prints when nobody is connected,
    # so an idle guest never waits for a reader.
    coproc GUEST { exec socat - "UNIX-CONNECT:$console"; }
    # Kept, because bash unsets them when socat ends.
    local pid=$GUEST_PID from=${GUEST[0]} to=${GUEST[1]}
    printf 'echo BEGIN%s; eval %q </dev/null 2>&1; echo END%s:$?\n' "$token" "$*" "$token" >&"$to"
    while [[ -z $status ]]; do
        IFS= read -r -t $((deadline > SECONDS ? deadline - SECONDS : 1)) -u "$from" line || result=$?
        if ((result > 128)); then
            # socat must have passed the Ctrl-C on before it is ended.
            printf '\003' >&"$to"
            sleep 0.5
            status=124
        elif ((result > 0)); then
            status=125
        elif [[ $line == *END$token:* ]]; then
            status=${line##*END"$token":}
            line=${line%%END"$token":*}
            [[ -z $line ]] || printf '%s\n' "$line"
        elif [[ $began == yes ]]; then
            printf '%s\n' "$line"
        elif [[ $line == *BEGIN$token ]]; then
            began=yes
        fi
    done
    kill "$pid" 2>/dev/null || true
    wait "$pid" 2>/dev/null || true
    return "$status"
}

# guest_stop PID: ends the guest and waits until it is gone. The sockets' files may be left: a guest
# that had not booted yet does not remove them.
guest_stop() {
    local deadline=$((SECONDS + 5))
    kill "$1" 2>/dev/null || return 0
    while kill -0 "$1" 2>/dev/null && ((SECONDS < deadline)); do sleep 0.1; done
    kill -9 "$1" 2>/dev/null || true
    # A child of this shell stays in the list of processes until it is waited for.
    wait "$1" 2>/dev/null || true
}
