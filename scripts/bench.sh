#!/usr/bin/env bash
# Builds and hands over to assent-bench: four validators on this machine under load, measured by their clients.
set -euo pipefail

usage() {
    cat <<'TEXT'
Usage: scripts/bench.sh [--quick] [--validators N] [--one-core] [--delay MS] [--against FILE] [--out DIR] [--yes]
       scripts/bench.sh --parts [--yes] [NAME]

Starts four validators as processes on loopback and puts the way of many persons' records on them: enrolled, anchored,
settled, granted, asked for, delivered, used. Finds the highest rate that they keep up with, and measures at it, at half
of it, at little load, at twice as much, and with one of the four killed. Prints a table; writes results.json (every
figure, beside what this machine can do at most), results.txt and results.svg. Takes about six minutes once built.

  --parts         what the parts of a validator cost, each alone on one core, in two minutes (criterion, which also says
                  what changed since the run before); NAME selects
  --quick         two minutes, for a first impression
  --validators N  so many, 1 to 16
  --one-core      all validators on one core, the clients where the system puts them (needs taskset)
  --delay MS      links on which everything takes so long, each way (needs network namespaces: root on Linux)
  --against FILE  an earlier results.json of the same setting: shows what changed by more than 10 %
  --out DIR       where the results go (target/bench unless said)
  --yes           install what is missing without asking (also with CI=true, or without a terminal)
  --help          this text
TEXT
}

# The parts are criterion's, which `cargo bench` runs; all else is assent-bench's.
parts() {
    local setup=--ask
    case "${1:-}" in
        --yes) setup=--yes && shift ;;
        --help | -h) usage && exit ;;
    esac
    # shellcheck source=scripts/setup.sh
    source "$root/scripts/setup.sh" "$setup"
    cd "$root"
    exec cargo bench --locked --workspace --bench parts -- "$@"
}

# shellcheck source=scripts/handover.sh
source "$(dirname "${BASH_SOURCE[0]}")/handover.sh"
case "${1:-}" in
    --parts) shift && parts "$@" ;;
    *) hand_over assent-bench -- "$@" ;;
esac
