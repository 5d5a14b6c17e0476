#!/bin/bash
# cargo-tests.sh unit|root: the tests of the crates. What needs privilege is named root_… and runs
# by itself, one at a time. With cargo-nextest where there is one, else with cargo test.
set -euo pipefail
# shellcheck source=../lib.sh
. "$(dirname "$0")/../lib.sh"

ROOT_TESTS='test(/root_/)'
cd "$SLUICE_ROOT"
case ${1:-} in
  unit)
    if have cargo-nextest; then
      cargo nextest run --locked --workspace --no-fail-fast -E "not $ROOT_TESTS"
      cargo test --locked --workspace --doc
    else
      cargo test --locked --workspace --no-fail-fast -- --skip root_
    fi
    ;;
  root)
    need_root 'AF_XDP sockets and network namespaces'
    if have cargo-nextest; then
      cargo nextest run --locked --workspace --no-fail-fast -j 1 --run-ignored all -E "$ROOT_TESTS"
    else
      cargo test --locked --workspace --no-fail-fast -- root_ --include-ignored --test-threads 1
    fi
    ;;
  *) die 'cargo-tests.sh unit|root' ;;
esac
