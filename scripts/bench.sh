#!/usr/bin/env bash
# Builds and hands over to assent-bench: four validators on this machine under load, measured by their clients.
set -euo pipefail

usage() {
    cat <<'TEXT'
Usage: scripts/bench.sh [--quick] [--validators N] [--one-core] [--delay MS] [--against FILE] [--out DIR] [--yes]
       scripts/bench.sh --growth [N...] [--lineage N] [--out DIR] [--yes]
       scripts/bench.sh --parts [--yes] [NAME]

Starts four validators as processes on loopback and puts the way of many persons' records on them: enrolled, anchored,
settled, granted, asked for, delivered, used. Finds the highest rate that they keep up with, and measures at it, at half
of it, at little load, at twice as much, and with one of the four killed; then, half a minute each, one validator on one
core, seven validators, and four with links of 20 ms. Prints a table; writes results.json (every figure, beside what
this machine can do at most), results.txt and results.svg. Takes less than ten minutes once built.

  --quick          two minutes, for a first impression; the one setting alone
  --validators N   so many, 1 to 16
  --one-core       all validators on one core, the clients where the system puts them (needs taskset)
  --delay MS       links on which everything takes so long, each way (needs network namespaces: root on Linux). Frames
                   pass through the measuring process, which bounds how many there can be
  --against FILE   an earlier results.json of the same setting: shows what changed by more than 10 %

  --growth [N...]  instead: one validator with so many standing grants (1k 100k 1M unless said; 10M takes more than an
                   hour and some 20 GB), and at each size its throughput, memory, disk, restart after a kill, and proofs;
                   then --lineage. Writes growth.json, growth.txt and growth.svg
  --lineage N      so many recorded activities (100k unless said), and how long an auditor's question takes among them,
                   back from a product and forward; alone, without growth before it

  --parts          instead: what the parts of a validator cost, each alone on one core, in two minutes (criterion, which
                   also says what changed since the run before). Must stand first; NAME selects

  --out DIR        where the results go (target/bench unless said)
  --yes            install what is missing without asking (also with CI=true, or without a terminal)
  --help           this text

Examples:
  scripts/bench.sh                                   all of it
  scripts/bench.sh --quick --against before.json     is this change faster?
  scripts/bench.sh --validators 7 --delay 20         seven, far from each other
  scripts/bench.sh --growth 1k 10M --lineage 10M     how large can it grow?
  scripts/bench.sh --parts signatures                what a signature costs
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
