#!/bin/bash
# Asks IPVS itself again, in the virtual machine, and compares with the fixtures that the tests
# of schedulers and states rely on.
set -euo pipefail
# shellcheck source=../lib.sh
. "$(dirname "$0")/../lib.sh"

out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
for script in sequences schedulers activity overload sctp-states; do
  "$SLUICE_ROOT/scripts/ipvs-vm.sh" -t 900 -o "$out" "$SLUICE_ROOT/scripts/vm/$script.sh" "$SLUICE_ROOT"
done
for fixture in "$SLUICE_ROOT"/scripts/vm/fixtures/*.txt; do
  # The first line names the kernel, which may be a newer one.
  diff <(tail -n +2 "$fixture") <(tail -n +2 "$out/${fixture##*/}") || die "IPVS now differs from ${fixture##*/}"
done
say 'IPVS gives what the fixtures say'
