#!/bin/bash
# performance.sh [--quick] [--no-measure] [REPORT OPTION...]: measures everything that docs/performance.md tells, and
# makes the page and its pictures of it. Takes about 15 minutes, with --quick 5; nothing else should run meanwhile.
#
#   --quick        fewer packets and repetitions
#   --no-measure   only makes the page again, of what was measured before
#   other options go to `sluice-bench report`; `--only pipeline,cookie` measures these parts again and keeps the others
#
# The comparisons with other programs (scripts/compare/*.sh) are not run: what they wrote last into target/compare is
# taken into the page.
set -euo pipefail
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

usage() { sed -n '2,/^set/s/^# \{0,1\}//p' "$0"; }

measures=yes
options=()
for option in "$@"; do
  case $option in
    -h | --help)
      usage
      exit 0
      ;;
    --no-measure) measures=no ;;
    *) options+=("$option") ;;
  esac
done

cd "$SLUICE_ROOT"
results=docs/performance
bench=$SLUICE_TARGET/release/sluice-bench
step 'building sluice-bench'
cargo build --locked --release -p sluice-bench --bin sluice-bench
if [ "$measures" = yes ]; then
  step 'measuring'
  "$bench" report --out "$results" "${options[@]}"
fi
compared=()
for peer in haproxy ipvs veth; do
  [ ! -e "$SLUICE_TARGET/compare/$peer.json" ] || compared+=("$SLUICE_TARGET/compare/$peer.json")
done
if [ ${#compared[@]} -gt 0 ]; then
  cp "${compared[@]}" "$results/"
else
  warn "no comparison was run here (scripts/compare/*.sh): the page keeps those that are in $results"
fi
step 'making docs/performance.md'
"$bench" document --results "$results" --page docs/performance.md
give_target_back
