#!/bin/bash
# Makes docs/quickstart.svg: the output of a real run of scripts/quickstart.sh, drawn as a terminal.
# When the run fails, the old picture stays.
set -euo pipefail
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

LINE=20 MARGIN=16 WIDTH=860

# svg: reads the terminal's text, writes the picture.
svg() {
  local lines=() line y
  mapfile -t lines
  y=$((MARGIN * 3))
  printf '<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="ui-monospace,Menlo,Consolas,monospace" font-size="14">\n' \
    $WIDTH $((y + LINE * ${#lines[@]} + MARGIN))
  printf '<rect width="100%%" height="100%%" rx="8" fill="#16181d"/>\n'
  printf '<circle cx="20" cy="18" r="6" fill="#e5534b"/><circle cx="40" cy="18" r="6" fill="#daaa3f"/><circle cx="60" cy="18" r="6" fill="#57ab5a"/>\n'
  for line in "${lines[@]}"; do
    printf '<text x="%d" y="%d" xml:space="preserve" fill="%s">%s</text>\n' $MARGIN $y "$(colour "$line")" "$(escape "$line")"
    y=$((y + LINE))
  done
  printf '</svg>\n'
}

colour() {
  case $1 in
    '$ '*) say '#ffffff' ;;
    '==>'*) say '#6cb6ff' ;;
    Every*) say '#57ab5a' ;;
    mode*) say '#ffffff' ;;
    *) say '#b6c2cf' ;;
  esac
}

escape() { sed 's/&/\&amp;/g; s/</\&lt;/g; s/>/\&gt;/g' <<<"$1"; }

# What cargo prints while it builds is no part of the picture.
without_cargo() { grep -vE '^ +(Compiling|Finished|Downloaded|Downloading|Updating|Locking) '; }

text=$("$SLUICE_ROOT/scripts/quickstart.sh" "$@" | without_cargo)
picture=$({ say '$ sudo scripts/quickstart.sh' && say "$text"; } | svg)
say "$picture" >"$SLUICE_ROOT/docs/quickstart.svg"
say "$text"
say "docs/quickstart.svg is new"
