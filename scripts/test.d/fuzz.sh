#!/bin/bash
# fuzz.sh MINUTES: each fuzz target for so long, from its seeds on; what is found stays in corpus/, which is nobody's
# but this machine's. On the stable toolchain, so without a sanitizer: what is looked for is panics, overflows, endless
# loops, and what the targets themselves claim.
set -euo pipefail
# shellcheck source=../lib.sh
. "$(dirname "$0")/../lib.sh"

TOOLS=$SLUICE_CACHE/tools
PATH=$TOOLS/bin:$PATH

if ! have cargo-fuzz; then
  say 'installing cargo-fuzz (once)'
  cargo install --locked --debug --root "$TOOLS" cargo-fuzz
fi
ran=0
for crate in dataplane control; do
  [ -d "$SLUICE_ROOT/$crate/fuzz" ] || continue
  cd "$SLUICE_ROOT/$crate"
  for target in $(cargo fuzz list); do
    step "$crate: $target, $1 minutes"
    mkdir -p "fuzz/corpus/$target"
    cargo fuzz run -s none "$target" "fuzz/corpus/$target" "fuzz/seeds/$target" -- -max_total_time=$(($1 * 60)) -timeout=10 -print_final_stats=1
    ran=$((ran + 1))
  done
done
[ "$ran" -gt 0 ] || die 'there is no fuzz target'
say "$ran targets, nothing found"
