#!/usr/bin/env bash
# Builds and hands over to assent-bench: four validators on this machine under load, measured by their clients.
set -euo pipefail

usage() {
    cat <<'TEXT'
Usage: scripts/bench.sh [--quick] [--against FILE] [--out DIR] [--yes]

Starts four validators as processes on loopback and puts the way of many persons' records on them: enrolled, anchored,
settled, granted, asked for, delivered, used. Finds the highest rate that they keep up with, and measures at it, at half
of it, at little load, at twice as much, and with one of the four killed. Prints a table; writes results.json (every
figure, beside what this machine can do at most), results.txt and results.svg. Takes about six minutes once built.

  --quick         two minutes, for a first impression
  --against FILE  an earlier results.json: shows what changed by more than 10 %
  --out DIR       where the results go (target/bench unless said)
  --yes           install what is missing without asking (also with CI=true, or without a terminal)
  --help          this text
TEXT
}

# shellcheck source=scripts/handover.sh
source "$(dirname "${BASH_SOURCE[0]}")/handover.sh"
hand_over assent-bench -- "$@"
