#!/usr/bin/env bash
# What the build needs and this machine lacks. Prints nothing if all is there.
# Run on its own, or sourced by the other scripts (so that a toolchain outside PATH is found by them too).
set -euo pipefail

setup_usage() {
    cat <<'TEXT'
Usage: scripts/setup.sh [--yes] [--hosts]

Checks for what the build needs: Rust, a C++ compiler, libclang. On Debian and Ubuntu it names the missing packages
and asks before it installs them; elsewhere it names them and exits with 1. Rust it never installs.

  --yes    install without asking (also with CI=true, or without a terminal)
  --hosts  also what tests over several hosts need: ip and tc, to make network namespaces (Linux)
  --help   this text
TEXT
}

setup_main() {
    local yes=no hosts=no argument
    for argument in "$@"; do
        case "$argument" in
            --help | -h) setup_usage && return ;;
            --yes) yes=yes ;;
            --hosts) hosts=yes ;;
            --ask) ;;
            *) setup_fail "unknown option $argument; see scripts/setup.sh --help" ;;
        esac
    done
    setup_rust
    local missing=()
    setup_has_cxx || missing+=(g++)
    setup_has_libclang || missing+=(libclang-dev)
    [ $hosts = no ] || setup_has_hosts || missing+=(iproute2)
    [ ${#missing[@]} -eq 0 ] || setup_packages "$yes" "${missing[@]}"
}

setup_fail() {
    printf 'setup: %s\n' "$*" >&2
    exit 1
}

# ---- Rust: rustup reads rust-toolchain.toml and fetches that compiler by itself

setup_rust() {
    local root minimum version
    root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
    command -v cargo >/dev/null || PATH="${CARGO_HOME:-$HOME/.cargo}/bin:$PATH"
    command -v cargo >/dev/null || setup_fail "Rust is missing. Install rustup (https://rustup.rs), then run this again."
    version=$(cd "$root" && rustc --version) ||
        setup_fail "rustc does not start; the line above says why. The build needs the toolchain of rust-toolchain.toml."
    version=$(cut -d' ' -f2 <<<"$version")
    minimum=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$root/Cargo.toml")
    [ "$(printf '%s\n' "$minimum" "$version" | sort -V | head -n 1)" = "$minimum" ] ||
        setup_fail "Rust $version is too old, the build needs $minimum. With rustup (https://rustup.rs) it comes by itself."
}

# ---- RocksDB: compiled from C++, its bindings made with libclang

setup_has_cxx() {
    command -v cc >/dev/null && command -v c++ >/dev/null
}

# The library alone is not enough on Debian: its package libclang1 comes without the compiler's own headers.
setup_has_libclang() {
    [ -z "${LIBCLANG_PATH:-}" ] || return 0
    setup_libclang_library && { ! command -v apt-get >/dev/null || setup_libclang_headers; }
}

setup_libclang_library() {
    case "$(PATH="$PATH:/sbin:/usr/sbin" ldconfig -p 2>/dev/null)" in
        *libclang.so* | *libclang-[0-9]*) return 0 ;;
    esac
    local llvm=()
    ! command -v llvm-config >/dev/null || llvm=("$(llvm-config --libdir)"/libclang*)
    setup_any ${llvm[@]+"${llvm[@]}"} /usr/lib/llvm-*/lib/libclang*.so* /Library/Developer/CommandLineTools/usr/lib/libclang.dylib \
        /Applications/Xcode.app/Contents/Developer/Toolchains/XcodeDefault.xctoolchain/usr/lib/libclang.dylib
}

setup_libclang_headers() {
    setup_any /usr/lib/llvm-*/lib/clang/*/include/stddef.h /usr/lib/clang/*/include/stddef.h
}

setup_any() {
    local file
    for file in "$@"; do
        [ ! -e "$file" ] || return 0
    done
    return 1
}

# ---- Several hosts on one: Linux has them in its kernel, iproute2 makes them

setup_has_hosts() {
    [ "$(uname -s)" = Linux ] || return 0
    PATH="$PATH:/sbin:/usr/sbin" command -v ip >/dev/null && PATH="$PATH:/sbin:/usr/sbin" command -v tc >/dev/null
}

# ---- Packages

setup_packages() {
    local yes=$1 package answer sudo=()
    shift
    echo "The build needs, and this machine lacks:" >&2
    for package in "$@"; do
        case $package in
            g++) echo "  g++            C and C++ compiler, for RocksDB" >&2 ;;
            iproute2) echo "  iproute2       ip and tc, for tests over several hosts" >&2 ;;
            libclang-dev) echo "  libclang-dev   libclang and its headers, for RocksDB's bindings" >&2 ;;
        esac
    done
    command -v apt-get >/dev/null ||
        setup_fail "those are Debian's names; install the like for your system (macOS: xcode-select --install), then run this again."
    if [ "$(id -u)" -ne 0 ]; then
        command -v sudo >/dev/null || setup_fail "not root and no sudo; as root: apt-get install --no-install-recommends $*"
        sudo=(sudo)
    fi
    echo "To be run: ${sudo[*]:+${sudo[*]} }apt-get update; ${sudo[*]:+${sudo[*]} }apt-get install --no-install-recommends $*" >&2
    if [ "$yes" = no ] && [ "${CI:-}" != true ] && [ -t 0 ]; then
        read -r -p "Install? [y/N] " answer
        [[ $answer == [yY]* ]] || setup_fail "nothing was installed."
    fi
    # apt's own words go to standard error: standard output is the caller's.
    "${sudo[@]}" apt-get update -q >&2
    "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$@" >&2
}

setup_main "$@"
