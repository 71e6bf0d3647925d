#!/usr/bin/env bash
# Fuzzes what reads bytes from outside and what executes arbitrary transactions, guided by coverage. What is done with the
# bytes: tests/src/fuzz.rs. What was found worth keeping: tests/fuzz/*.hex, which tests/tests/corpus.rs runs every time.
set -euo pipefail

usage() {
    cat <<'TEXT'
Usage: scripts/fuzz.sh [--minutes M] [--keep] [decode|execute]

Fuzzes both targets side by side, or the one named, beginning with what earlier runs kept. Prints libFuzzer's progress, stops
at the first input that fails, and says where it is: target/fuzz/TARGET/failed. Exits with 0 if none did.

  --minutes M   how long (10 unless said)
  --keep        afterwards keep the smallest set of inputs that reaches as much, in tests/fuzz/TARGET.hex
  --help        this text

Needs a nightly compiler (rustup toolchain install nightly) and cargo-fuzz (cargo install cargo-fuzz).
TEXT
}

minutes=10 keep=no targets=()
while [ $# -gt 0 ]; do
    case $1 in
        --help | -h) usage && exit ;;
        --keep) keep=yes ;;
        --minutes)
            [[ ${2:-} =~ ^[1-9][0-9]{0,4}$ ]] || { echo "fuzz: --minutes wants a number of minutes" >&2 && exit 2; }
            minutes=$2 && shift
            ;;
        decode | execute) targets+=("$1") ;;
        *) echo "fuzz: unknown option $1; see scripts/fuzz.sh --help" >&2 && exit 2 ;;
    esac
    shift
done
[ ${#targets[@]} -gt 0 ] || targets=(decode execute)

cd "$(dirname "${BASH_SOURCE[0]}")/.."
cargo +nightly fuzz --version >/dev/null 2>&1 ||
    { echo "fuzz: needs a nightly compiler and cargo-fuzz; see scripts/fuzz.sh --help" >&2 && exit 1; }

# One input a line, in hexadecimal: a thousand small files would be harder to look through.
unpack() {
    local line n=0
    mkdir -p "$2"
    sed 's/../\\x&/g' "$1" | while read -r line; do
        # shellcheck disable=SC2059 # the line is nothing but \x escapes
        printf "$line" >"$2/$((n += 1))"
    done
}
pack() {
    local file
    find "$1" -type f | while read -r file; do
        od -An -v -tx1 "$file" | tr -d ' \n' && echo
    done | LC_ALL=C sort -u
}

build=$PWD/target/fuzz
bounds=(-max_len=4096 -timeout=60 -rss_limit_mb=2048)
export CARGO_TARGET_DIR=$build/build
cargo +nightly fuzz build --fuzz-dir tests/fuzz -s none
programs=$(find "$CARGO_TARGET_DIR" -maxdepth 3 -type f -name execute -path '*/release/*' -printf '%h\n')

running=()
for target in "${targets[@]}"; do
    mkdir -p "$build/$target/found" "$build/$target/failed"
    unpack "tests/fuzz/$target.hex" "$build/$target/kept"
    "$programs/$target" "${bounds[@]}" -max_total_time=$((minutes * 60)) -print_final_stats=1 \
        -artifact_prefix="$build/$target/failed/" "$build/$target/found" "$build/$target/kept" &
    running+=($!)
done
for one in "${running[@]}"; do
    wait "$one" || { kill "${running[@]}" 2>/dev/null || true; echo "fuzz: see $build/*/failed" >&2; exit 1; }
done

[ $keep = no ] || for target in "${targets[@]}"; do
    rm -rf "$build/$target/least" && mkdir "$build/$target/least"
    "$programs/$target" "${bounds[@]}" -merge=1 "$build/$target/least" "$build/$target/found" "$build/$target/kept"
    pack "$build/$target/least" >"tests/fuzz/$target.hex"
done
