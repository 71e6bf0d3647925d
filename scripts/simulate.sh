#!/usr/bin/env bash
# Builds and hands over to assent-simulate: whole validators under a virtual clock, with faults and liars.
set -euo pipefail

usage() {
    cat <<'TEXT'
Usage: scripts/simulate.sh [--seeds N] [--from S] [--jobs J] [--verbose] [--yes]
       scripts/simulate.sh --hours H [--from S] [--yes]

Runs a stretch of seeds of the simulation. Each is one run of four, seven or ten validators, always the same one. Stops
at the first seed that fails, says what was wrong and how to replay it, and exits with a number other than 0. The last
line is "N passed, M failed". With --hours it is one long run under constant load, with what is in memory every hour.

  --seeds N   how many seeds (300 unless said)
  --from S    the first seed (0 unless said)
  --jobs J    runs at a time (as many as there are cores unless said)
  --verbose   a line for each seed
  --hours H   so many hours of virtual time under constant load, instead of seeds
  --yes       install what is missing without asking (also with CI=true, or without a terminal)
  --help      this text
TEXT
}

# shellcheck source=scripts/handover.sh
source "$(dirname "${BASH_SOURCE[0]}")/handover.sh"
hand_over assent-simulate -- "$@"
