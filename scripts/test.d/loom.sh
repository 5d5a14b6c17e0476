#!/bin/bash
# The flow table's lock-free parts under loom, which tries every order of the threads' steps.
set -euo pipefail
# shellcheck source=../lib.sh
. "$(dirname "$0")/../lib.sh"

cd "$SLUICE_ROOT"
RUSTFLAGS='--cfg loom' cargo test --locked -p sluice-dataplane --no-default-features --release --lib \
  --target-dir "$SLUICE_TARGET/loom" flow::loom | tee "$SLUICE_TARGET/loom.out"
grep -qE 'test result: ok\. [1-9]' "$SLUICE_TARGET/loom.out" || die 'no loom test ran'
