#!/bin/bash
# lab-transfer.sh MODE MIB: so many MiB of random bytes down by curl and up again, in each family,
# compared by SHA-256.
set -euo pipefail
# shellcheck source=lab.bash
. "$(dirname "$0")/lab.bash"
mode=$1 mebibytes=$2

lab_with_director "$mode" --queues 2
lab bigfile "$mebibytes"
expected=$(sha256sum <"$LAB/www/big")
for family in 4 6; do
  began=$SECONDS
  got=$(on client curl -gsS --max-time 500 "$(url $family)/big" | sha256sum)
  [ "$got" = "$expected" ] || fail "IPv$family: $mebibytes MiB came down as something else"
  say "$(vip $family): $mebibytes MiB down, intact, $((SECONDS - began)) s"
  python_on client upload.py "$(vip $family)" "$mebibytes"
done
