#!/bin/bash
# lab-ftp.sh MODE [--syn-proxy|--cross]: vsftpd behind NAT, FULLNAT or DR by configs/ftp-MODE.conf, with the SYN proxy
# or (FULLNAT) with servers of the other family where asked for, and curl as a client of it: passive and active, extended
# and plain, both families, several files over one connection of commands, and a file sent the other way.
set -euo pipefail
# shellcheck source=lab.bash
. "$(dirname "$0")/lab.bash"
need_root 'network namespaces and AF_XDP'
mode=$1 how=${2:-}
# shellcheck disable=SC2086 # one word a package
install_packages 'the FTP test' $PACKAGES_FTP
files=$WORK/ftp

server_config() { # RS
  cat <<VSFTPD
background=NO
listen=NO
listen_ipv6=YES
anonymous_enable=YES
anon_root=$files
anon_upload_enable=YES
anon_umask=022
write_enable=YES
no_anon_password=YES
connect_from_port_20=YES
seccomp_sandbox=NO
secure_chroot_dir=$WORK/empty
xferlog_enable=YES
xferlog_file=$WORK/$1.xfer
VSFTPD
}

# get FAMILY WHAT OPTION...: three files over one connection, each as it was.
get() {
  local family=$1 what=$2 n host
  shift 2
  host=$(vip "$family")
  [ "$family" = 4 ] || host="[$host]"
  on client curl -gsS --max-time 20 "$@" "ftp://$host/one" -o "$WORK/got1" "ftp://$host/two" -o "$WORK/got2" \
    "ftp://$host/three" -o "$WORK/got3" || fail "IPv$family, $what: curl ended with $?"
  n=0
  for name in one two three; do
    n=$((n + 1))
    cmp "$files/$name" "$WORK/got$n" || fail "IPv$family, $what: $name is not what it was"
  done
  on client curl -gsS --max-time 20 "$@" -T "$files/two" "ftp://$host/in/$what$family" ||
    fail "IPv$family, $what: sending a file failed, $?"
  cmp "$files/two" "$files/in/$what$family" || fail "IPv$family, $what: what was sent is not what it was"
  say "IPv$family, $what: 3 files fetched, 1 sent"
}

chmod 755 "$WORK"
mkdir -p "$files/in" "$WORK/empty"
for name in one two three; do head -c 300000 /dev/urandom >"$files/$name"; done
chmod 755 "$files"
chown ftp "$files/in"
lab up "$mode"
for rs in rs1 rs2 rs3; do
  server_config $rs >"$WORK/$rs.conf"
  lab start $rs-ftp $rs vsftpd "$WORK/$rs.conf"
done
config=$SLUICE_ROOT/configs/ftp-$mode.conf
case $how in
  --syn-proxy) sed 's/^    protocol TCP$/&\n    syn_proxy/' "$config" >"$WORK/now.conf" ;;
  --cross) sed -E 's/(real_server) 10\.30\.0\./\1 fd00:30::/; t; s/(real_server) fd00:30::/\1 10.30.0./' "$config" >"$WORK/now.conf" ;;
  *) cp "$config" "$WORK/now.conf" ;;
esac
lab director start "$WORK/now.conf"
for rs in rs1 rs2 rs3; do
  wait_until 10 on $rs curl -fsS -o /dev/null "ftp://127.0.0.1/one" || fail "vsftpd on $rs does not answer"
done
for family in 4 6; do
  get $family epsv
  get $family eprt -P -
done
rows=4
# These say an address of IPv4, whatever the server's is.
if [ "$how" != --cross ]; then
  rows=6
  get 4 pasv --disable-epsv
  get 4 port -P - --disable-eprt
fi
status=$("$SLUICE_BIN" status --state-dir "$LAB/sluice")
# at_least NUMBER COUNTER
at_least() {
  local counted
  counted=$(awk -v name="$2" '$1 == name { n = $2 } END { print n + 0 }' <<<"$status")
  [ "$counted" -ge "$1" ] || fail "$2 is $counted, not $1"
}
# Each row has two connections of commands; three files and one sent are a data connection each.
if [ "$mode" = dr ]; then at_least 2 template_created; else at_least $((rows * 4)) ftp_expected; fi
[ "$how" != --syn-proxy ] || at_least $((rows * 2)) handshake_joined
grep -E 'ftp_|template_|handshake_' <<<"$status"
