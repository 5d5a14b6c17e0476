# shellcheck shell=bash
# Functions that every script here uses: messages, Debian packages, root, the build.
# Sourced, never run. Callers have set -euo pipefail.

SLUICE_ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# Where slow things (a VM's kernel, cargo tools) are kept between runs.
SLUICE_CACHE=${SLUICE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/sluice}
# Everything that is compiled. Tests of the scripts themselves may point it elsewhere.
SLUICE_TARGET=${CARGO_TARGET_DIR:-$SLUICE_ROOT/target}
# The program under test.
SLUICE_BIN=${SLUICE_BIN:-$SLUICE_TARGET/lab/sluice}
export SLUICE_ROOT SLUICE_CACHE SLUICE_TARGET SLUICE_BIN

if [ -t 1 ]; then
  BOLD=$'\e[1m' GREEN=$'\e[32m' RED=$'\e[31m' DIM=$'\e[2m' PLAIN=$'\e[0m'
else
  BOLD='' GREEN='' RED='' DIM='' PLAIN=''
fi
export BOLD GREEN RED DIM PLAIN

say() { printf '%s\n' "$*"; }
step() { printf '%s==>%s %s\n' "$BOLD" "$PLAIN" "$*"; }
warn() { printf '%swarning:%s %s\n' "$BOLD" "$PLAIN" "$*" >&2; }
die() {
  printf '%serror:%s %s\n' "$RED" "$PLAIN" "$*" >&2
  exit 1
}

# need_root WHY: stops unless we are root, saying what root is needed for.
need_root() {
  [ "$(id -u)" = 0 ] || die "this needs root: $1. Run it again with sudo."
}

have() { command -v "$1" >/dev/null 2>&1; }

# Debian package and a file or command that shows that it is there, one pair a word.
PACKAGES_BUILD='clang:clang llvm:llvm-strip gcc:gcc make:make m4:m4 pkg-config:pkg-config
  libelf-dev:/usr/include/libelf.h zlib1g-dev:/usr/include/zlib.h libc6-dev:/usr/include/stdio.h
  linux-libc-dev:/usr/include/linux/if_xdp.h'
PACKAGES_LAB='iproute2:ip ethtool:ethtool nginx-light:nginx curl:curl iperf3:iperf3 tshark:tshark
  dnsutils:dig procps:pgrep python3:/usr/bin/python3 socat:socat jq:jq nftables:nft util-linux:setsid'
PACKAGES_FTP='vsftpd:vsftpd'
PACKAGES_CHECK='shellcheck:shellcheck strace:strace'
PACKAGES_VM='qemu-system-x86:qemu-system-x86_64 busybox-static:busybox kmod:depmod cpio:cpio
  ipvsadm:ipvsadm iproute2:ip procps:sysctl python3:/usr/bin/python3'
export PACKAGES_BUILD PACKAGES_LAB PACKAGES_FTP PACKAGES_CHECK PACKAGES_VM

# missing_packages PAIR...: prints the packages whose witness is not on this machine.
missing_packages() {
  local pair witness
  for pair in "$@"; do
    witness=${pair#*:}
    case $witness in
      /*) [ -e "$witness" ] || say "${pair%%:*}" ;;
      *) have "$witness" || [ -x "/usr/sbin/$witness" ] || say "${pair%%:*}" ;;
    esac
  done
}

# install_packages WHAT PAIR...: installs what is missing and says so; quiet when nothing is.
install_packages() {
  local what=$1 missing
  shift
  mapfile -t missing < <(missing_packages "$@")
  [ "${#missing[@]}" -gt 0 ] || return 0
  need_root "packages for $what are missing (${missing[*]})"
  have apt-get || die "packages for $what are missing (${missing[*]}) and there is no apt-get: install them by hand"
  step "installing for $what: ${missing[*]}"
  apt_quietly update
  # nginx would start a web server on port 80 of this machine: policy-rc.d says no to that.
  without_services apt_quietly install -y --no-install-recommends "${missing[@]}"
}

# apt_quietly ARG...: apt-get without questions; its output is shown only when it fails.
apt_quietly() {
  local log
  log=$(mktemp)
  if ! DEBIAN_FRONTEND=noninteractive apt-get -q "$@" >"$log" 2>&1; then
    cat "$log" >&2
    rm -f "$log"
    die "apt-get $* failed"
  fi
  rm -f "$log"
}

# without_services COMMAND...: runs it while Debian's packages may not start daemons.
without_services() (
  policy=/usr/sbin/policy-rc.d
  if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
  fi
  "$@"
)

# need_rust: a toolchain that is new enough, from wherever rustup put it.
need_rust() {
  local oldest=1.91 version
  have cargo || PATH="${CARGO_HOME:-$HOME/.cargo}/bin:$PATH"
  have cargo || use_rust_of_sudo_user
  have cargo || die "no cargo: install Rust $oldest or newer (https://rustup.rs), then run this again"
  version=$(rustc --version | cut -d' ' -f2)
  [ "$(printf '%s\n' "$oldest" "$version" | sort -V | head -n1)" = "$oldest" ] ||
    die "rustc is $version, Sluice needs $oldest or newer: rustup update"
}

# Under sudo the toolchain is often in the home of the user who called it. What cargo downloads stays
# in root's own home: files of root in the user's would be in the way later.
use_rust_of_sudo_user() {
  local home
  [ -n "${SUDO_USER:-}" ] || return 0
  home=$(getent passwd "$SUDO_USER" | cut -d: -f6)
  [ -x "$home/.cargo/bin/cargo" ] || return 0
  export RUSTUP_HOME="${RUSTUP_HOME:-$home/.rustup}" PATH="$home/.cargo/bin:$PATH"
}

# What was built under sudo belongs to the user who called it.
give_target_back() {
  [ -n "${SUDO_UID:-}" ] && [ -d "$SLUICE_TARGET" ] || return 0
  chown -R "$SUDO_UID:${SUDO_GID:-$SUDO_UID}" "$SLUICE_TARGET"
}

# build_sluice: the program as the lab runs it, optimised but quick to build.
build_sluice() {
  need_rust
  # shellcheck disable=SC2086 # one word a package
  install_packages 'the build' $PACKAGES_BUILD
  step 'building sluice (profile lab)'
  (cd "$SLUICE_ROOT" && cargo build --locked --profile lab -p sluice)
  give_target_back
  [ -x "$SLUICE_BIN" ] || die "the build left no $SLUICE_BIN"
}

# wait_until SECONDS COMMAND...: repeats the command every 50 ms until it succeeds or the time is over.
wait_until() {
  local tries=$(($1 * 20))
  shift
  until "$@" >/dev/null 2>&1; do
    tries=$((tries - 1))
    [ "$tries" -gt 0 ] || return 1
    sleep 0.05
  done
}
