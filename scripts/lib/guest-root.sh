# Shell functions that make the root file system of a test guest as a directory, from the programs of
# this machine. To be sourced after common.sh; it runs nothing by itself.

# add_program ROOT PROGRAM: copies a program of this machine with the libraries that it names.
add_program() {
    local root=$1 path library
    path=$(command -v "$2") || fail "$2 is not on this machine though its package is installed"
    cp -L "$path" "$root/usr/bin/$2"
    while read -r library; do
        add_library "$root" "$library"
    done < <(ldd "$path" | grep -oE '/[^ ]+')
}

# add_library ROOT LIBRARY: copies a library of this machine with those that it names.
add_library() {
    local root=$1 library
    [[ ! -e $root$2 ]] || return 0
    install -D "$2" "$root$2"
    while read -r library; do
        [[ -e $root$library ]] || install -D "$library" "$root$library"
    done < <(ldd "$2" | grep -oE '/[^ ]+')
}

# guest_root ROOT TOOL...: a root file system with busybox and these programs of this machine. Where a
# tool has the name of one of busybox's, the tool it is.
guest_root() {
    local root=$1 tool applet
    shift
    mkdir -p "$root"/{bin,dev,etc,lib,lib64,proc,root,run,sys,tmp,usr/bin,usr/lib,var}
    ln -s ../run "$root/var/run"
    # The kernel loads modules by itself through /sbin/modprobe.
    ln -s bin "$root/sbin"
    cp "$(command -v busybox)" "$root/bin/busybox"
    for tool in "$@"; do add_program "$root" "$tool"; done
    # Threads that end open it by name, so ldd does not tell.
    install -D /lib/x86_64-linux-gnu/libgcc_s.so.1 "$root/lib/x86_64-linux-gnu/libgcc_s.so.1"
    while read -r applet; do
        [[ -e $root/usr/bin/$applet || $applet == busybox ]] || ln -s busybox "$root/bin/$applet"
    done < <(busybox --list)
    # tcpdump gives up its rights for those of the user tcpdump: here, these are root's.
    printf '%s:x:0:0::/root:/usr/bin/bash\n' root tcpdump >"$root/etc/passwd"
    echo 'root:x:0:' >"$root/etc/group"
    echo '127.0.0.1 localhost' >"$root/etc/hosts"
}
