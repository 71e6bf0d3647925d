#!/usr/bin/env bash
# The whole story on this machine: sets up, builds, then hands over to assent-demo.
set -euo pipefail

usage() {
    cat <<'TEXT'
Usage: scripts/demo.sh [--lang zh|en] [--out DIR] [--keep] [--yes]

Starts four validators on loopback (insurance bureau, two hospitals, an insurer) and plays the main job through them,
from enrolment to evidence that is checked with all nodes stopped. Exits with 0 if every step came out as told.

  --lang zh|en  the language of the story
  --out DIR     where the genesis file, the evidence files and summary.json go
  --keep        leave the network running at the end
  --yes         install what is missing without asking (also with CI=true, or without a terminal)
  --help        this text
TEXT
}

setup=--ask
pass=()
for argument in "$@"; do
    case $argument in
        --help | -h) usage && exit ;;
        --yes) setup=--yes ;;
        *) pass+=("$argument") ;;
    esac
done

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=scripts/setup.sh
source "$root/scripts/setup.sh" "$setup"

# A relative CARGO_TARGET_DIR counts from where cargo runs. The demo itself runs where it was called: --out may be relative.
target=${CARGO_TARGET_DIR:-target}
[[ $target == /* ]] || target=$root/$target
[ -x "$target/release/assent-demo" ] ||
    echo "Building. The first time takes 10 to 20 minutes on two cores, most of it RocksDB." >&2
(cd "$root" && cargo build --release --locked --workspace --bins)
exec "$target/release/assent-demo" ${pass[@]+"${pass[@]}"}
