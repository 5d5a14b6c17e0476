#!/bin/bash
# Every example in configs/ is what it says: it passes `sluice check` without a word of complaint, and
# in the lab of its mode every request is answered.
set -euo pipefail
# shellcheck source=lab.bash
. "$(dirname "$0")/lab.bash"

for file in "$SLUICE_ROOT"/configs/*.conf; do
  mode=$(basename "$file" .conf)
  # The network that a file is for has its name, but for what is built on another mode's.
  case $mode in synproxy | persistence | nat-rules) topology=nat ;; *) topology=$mode ;; esac
  "$SLUICE_BIN" check "$file"
  [[ $mode != ftp-* ]] || continue # it has no web service: lab-ftp.sh runs it
  lab up "$topology"
  lab director start "$file"
  for family in 4 6; do
    answered=$(http_load $family 300 "$mode$family")
    say "$mode, IPv$family: $(lab count "$mode$family" | tr '\n' ' ')"
    [ "$answered" = 300 ] || fail "$mode, IPv$family: $((300 - answered)) of 300 requests failed"
  done
done
