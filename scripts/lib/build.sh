# Shell functions to build Viaduct on a machine that may have nothing yet.
# To be sourced after common.sh; it runs nothing by itself.

# What building takes: a C toolchain, DPDK, libclang, by which its headers are read, and protoc, by
# which etcd's messages are.
build_packages=(
    build-essential clang libclang-dev libdpdk-dev libprotobuf-dev pkg-config protobuf-compiler
)

# need_cargo: fails with what to do unless there is a Rust that is recent enough. Debian's own is
# not, and an installer run by somebody else's script is not what people expect: so it only tells.
need_cargo() {
    local wanted found
    # Where rustup puts it, even if this shell was opened before.
    export PATH="$PATH:${CARGO_HOME:-$HOME/.cargo}/bin"
    wanted=$(sed -n 's/^rust-version = "\(.*\)"$/\1/p' "$repo/Cargo.toml")
    command -v cargo >/dev/null ||
        fail "Rust is missing: install $wanted or newer, by rustup for example, then run this again"
    found=$(rustc --version 2>/dev/null | cut -d ' ' -f 2)
    [[ $(printf '%s\n' "$wanted" "${found:-0}" | sort -V | head -n 1) == "$wanted" ]] ||
        fail "Rust $wanted is needed and this is ${found:-broken}: update it with \`rustup update\`"
}

# target_dir: where cargo puts what it builds.
target_dir() {
    echo "${CARGO_TARGET_DIR:-$repo/target}"
}
