#!/bin/bash
# Every script of the project under shellcheck.
set -euo pipefail
# shellcheck source=../lib.sh
. "$(dirname "$0")/../lib.sh"

cd "$SLUICE_ROOT"
mapfile -t scripts < <(git ls-files --cached --others --exclude-standard '*.sh' '*.bash' .ci/run)
[ "${#scripts[@]}" -gt 5 ] || die "only ${#scripts[@]} scripts found"
shellcheck "${scripts[@]}"
say "${#scripts[@]} scripts, nothing found"
