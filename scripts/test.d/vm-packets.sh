#!/bin/bash
# Gives IPVS, in the virtual machine, the packets of scripts/vm/packets.py again, and compares what it makes of
# them with what a replay makes of the same.
set -euo pipefail
# shellcheck source=../lib.sh
. "$(dirname "$0")/../lib.sh"

out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
"$SLUICE_ROOT/scripts/ipvs-vm.sh" -o "$out" "$SLUICE_ROOT/scripts/vm/packets.sh" "$SLUICE_ROOT"
cd "$SLUICE_ROOT"
SLUICE_IPVS_PACKETS=$out/packets cargo test --locked -p sluice --test replay as_ipvs_does_it
