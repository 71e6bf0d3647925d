#!/usr/bin/env bash
# Builds and hands over to assent-chaos: real validators on hosts of their own, among failing networks and processes.
set -euo pipefail

usage() {
    cat <<'TEXT'
Usage: scripts/chaos.sh [--nodes 4|7] [--minutes N] [--seed S] [--persons P] [--pace-ms MS] [--out DIR] [--yes]
       scripts/chaos.sh measure [--seconds N] [--rate R] [--clients C] [--yes]
       scripts/chaos.sh soak [--minutes N] [--rate R] [--every SECONDS] [--yes]
       scripts/chaos.sh --clean

The first starts 4 (or 7) validators, each in a network namespace of its own, over a wire with delays of 5, 20 and 50 ms
and 1 % loss. For 10 minutes it parts the network, makes links flap, kills with -9 and pauses at random, while clients
submit. Then a checker that shares no code with the ledger's rules reads every node and all that clients were told. It
exits with a number other than 0 if anything is wrong; its last line is "N passed, M failed". It needs root (or
CAP_NET_ADMIN and CAP_SYS_ADMIN), iproute2, and bridges and VXLAN in the kernel.

measure prints throughput and time to finality with all four validators up and with one killed; soak puts constant load
on four and prints memory and file descriptors. Both run on loopback and need no rights.

  --nodes N     how many validators (4 unless said)
  --minutes N   for how long (10 unless said; soak: 30)
  --seed S      chooses the faults (1 unless said)
  --persons P   persons who live their lives at once (8 unless said)
  --pace-ms MS  pause between two things that a person does (200 unless said)
  --seconds N   how long each of the four measurements takes (30 unless said)
  --rate R      transactions a second: of measure's moderate load (100 unless said), of soak (40)
  --clients C   of measure's full load, each with one transaction at a time (512 unless said)
  --every S     seconds between two lines of soak (60 unless said)
  --out DIR     keep the nodes' folders and logs and the clients' history there
  --clean       remove the namespaces and bridges that killed runs have left behind, and do nothing else
  --yes         install what is missing without asking (also with CI=true, or without a terminal)
  --help        this text
TEXT
}

# shellcheck source=scripts/handover.sh
source "$(dirname "${BASH_SOURCE[0]}")/handover.sh"
hand_over assent-chaos --hosts -- "$@"
