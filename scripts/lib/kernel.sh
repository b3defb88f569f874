# Shell functions that get Debian's kernel for test guests, without installing it: the cloud flavour,
# or the one in $kernel_flavour. To be sourced after common.sh; it runs nothing by itself. What they
# use is in $kernel_packages.

kernel_packages=(cpio kmod lz4 xz-utils zstd)
kernel_flavour=${kernel_flavour:-cloud-amd64}

# kernel_package: the package with the kernel itself. The meta package depends on it by name;
# the name carries the ABI number, which changes with every security update.
kernel_package() {
    apt-cache depends "linux-image-$kernel_flavour" 2>/dev/null |
        sed -n 's/^ *Depends: \(linux-image-[0-9].*\)/\1/p' | head -n 1
}

# kernel_fetch DIRECTORY REFRESH: downloads the current kernel's package (the newest there is if REFRESH
# is yes) and unpacks it to DIRECTORY/tree. The directory is the caller's own.
kernel_fetch() {
    local package
    package=$(kernel_package)
    if [[ -z $package || $2 == yes ]]; then
        apt_update
        package=$(kernel_package)
    fi
    [[ -n $package ]] || fail "apt knows no linux-image-$kernel_flavour: add Debian's main component"
    say "fetching $package"
    if ! kernel_download "$1" "$package"; then
        # Package lists of some weeks ago name a version that the mirror has no more.
        apt_update
        package=$(kernel_package)
        kernel_download "$1" "$package" ||
            fail "apt could not download $package: see what it says above"
    fi
    dpkg-deb -x "$1"/linux-image-*.deb "$1/tree"
    rm "$1"/linux-image-*.deb
}

# kernel_download DIRECTORY PACKAGE: the directory is one that apt's download user may not enter.
kernel_download() {
    (cd "$1" && apt-get -q -o APT::Sandbox::User="$(id -un)" download "$2" >&2)
}

# extract_vmlinux BZIMAGE OUT: the ELF kernel inside a bzImage. The fields are those of the
# kernel's Documentation/x86/boot.rst: setup_sects at 0x1f1, payload_offset and payload_length at
# 0x248. The last four bytes of the payload are the length before compression.
extract_vmlinux() {
    local bzimage=$1 out=$2 sectors offset length start magic unpack
    sectors=$(($(od -An -tu1 -j $((0x1f1)) -N 1 "$bzimage")))
    read -r offset length < <(od -An -tu4 -j $((0x248)) -N 8 "$bzimage")
    start=$(((sectors ? sectors : 4) * 512 + 512 + offset))
    magic=$(od -An -tx1 -j "$start" -N 4 "$bzimage")
    case $magic in
        ' 02 21 4c 18') unpack=(lz4 -dc) ;;
        ' 28 b5 2f fd') unpack=(zstd -dc) ;;
        ' fd 37 7a 58') unpack=(xz -dc) ;;
        *) fail "$bzimage is compressed in a way that is not known here (it begins with$magic)" ;;
    esac
    head -c $((start + length - 4)) "$bzimage" | tail -c +$((start + 1)) | "${unpack[@]}" >"$out"
    [[ $(od -An -tx1 -N 4 "$out") == ' 7f 45 4c 46' ]] || fail "no ELF kernel came out of $bzimage"
}

# add_modules ROOT TREE RELEASE MODULE...: copies the modules and all they depend on, not compressed.
add_modules() {
    local root=$1 tree=$2 release=$3 folder=lib/modules/$3 module file to
    shift 3
    depmod -b "$tree" "$release"
    mkdir -p "$root/$folder"
    cp "$tree/$folder"/modules.{builtin,builtin.modinfo,order} "$root/$folder/"
    for module in "$@"; do
        while read -r file; do
            to=$root/$folder/${file##*/"$folder"/}
            mkdir -p "${to%/*}"
            case $file in
                *.xz) xz -dc "$file" >"${to%.xz}" ;;
                *.zst) zstd -qdc "$file" >"${to%.zst}" ;;
                *) cp "$file" "$to" ;;
            esac
        done < <(modprobe -d "$tree" -S "$release" --show-depends "$module" | sed -n 's/^insmod \([^ ]*\).*/\1/p')
    done
    depmod -b "$root" "$release"
}
