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

# shellcheck source=scripts/handover.sh
source "$(dirname "${BASH_SOURCE[0]}")/handover.sh"
hand_over assent-demo -- "$@"
