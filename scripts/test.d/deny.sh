#!/bin/bash
# cargo deny: licences, sources and duplicates always; known vulnerabilities where the advisory
# database can be fetched, which needs GitHub.
set -euo pipefail
# shellcheck source=../lib.sh
. "$(dirname "$0")/../lib.sh"

TOOLS=$SLUICE_CACHE/tools
PATH=$TOOLS/bin:$PATH
DATABASE=https://github.com/RustSec/advisory-db

cd "$SLUICE_ROOT"
if ! have cargo-deny; then
  say 'installing cargo-deny (once, a few minutes)'
  # Unoptimised: it runs for a second and would compile for many minutes.
  cargo install --locked --debug --root "$TOOLS" cargo-deny
fi
cargo deny --locked check licenses bans sources
if timeout 30 git ls-remote --quiet --exit-code "$DATABASE" HEAD >/dev/null 2>&1; then
  cargo deny --locked check advisories
else
  say "advisories NOT checked: $DATABASE cannot be reached from here"
fi
