#!/usr/bin/env bash
# Everything a change has to pass. The tests come last, so that the closing lines are cargo's own.
set -euo pipefail

usage() {
    cat <<'TEXT'
Usage: scripts/test.sh [--yes]

Sets up what is missing, then runs formatting, lints, documentation (warnings are errors in both), the programs'
build, and all tests. A first run takes 10 to 20 minutes longer, most of it RocksDB. As root, tests over several hosts
run in network namespaces; elsewhere they say that they are skipped.

  --yes   install what is missing without asking (also with CI=true, or without a terminal)
  --help  this text
TEXT
}

setup=--ask
case "${1:-}" in
    --help | -h) usage && exit ;;
    --yes) setup=--yes ;;
    "") ;;
    *) echo "test: unknown option $1; see scripts/test.sh --help" >&2 && exit 2 ;;
esac

cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/setup.sh
source scripts/setup.sh "$setup" --hosts

step() {
    printf '== %dm%02ds: %s\n' $((SECONDS / 60)) $((SECONDS % 60)) "$*" >&2
    "$@"
}

# One profile for all, since each builds RocksDB anew.
step cargo fmt --all --check
step cargo clippy --release --locked --workspace --all-targets -- -D warnings
step env RUSTDOCFLAGS="-D warnings" cargo doc --release --locked --workspace --no-deps --document-private-items
# Faults planted behind a feature must be caught by the simulation. Before the programs' build, which undoes the feature.
step cargo test --release --locked --workspace --features assent-tests/mutations --test mutations
step cargo build --release --locked --workspace --bins
step cargo test --release --locked --workspace --doc
step cargo test --release --locked --workspace --lib --bins --tests --no-fail-fast
