#!/usr/bin/env bash
# What the scripts have in common that build a program and hand over to it: --help and --yes, set-up, build. Sourced, by
# a script with a function `usage`. The program runs where the script was called, so that folders may be relative.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

# hand_over PROGRAM [SETUP-OPTION...] -- ARGUMENT...
hand_over() {
    local program=$1 setup=() pass=() argument
    shift
    while [ "$1" != -- ]; do
        setup+=("$1")
        shift
    done
    shift
    for argument in "$@"; do
        case $argument in
            --help | -h) usage && exit ;;
            --yes) setup+=(--yes) ;;
            *) pass+=("$argument") ;;
        esac
    done

    # shellcheck source=scripts/setup.sh
    source "$root/scripts/setup.sh" --ask ${setup[@]+"${setup[@]}"}
    # A relative CARGO_TARGET_DIR counts from where cargo runs.
    local target=${CARGO_TARGET_DIR:-target}
    [[ $target == /* ]] || target=$root/$target
    [ -x "$target/release/$program" ] ||
        echo "Building. The first time takes 10 to 20 minutes on two cores, most of it RocksDB." >&2
    (cd "$root" && cargo build --release --locked --workspace --bins)
    exec "$target/release/$program" ${pass[@]+"${pass[@]}"}
}
