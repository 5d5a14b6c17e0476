#!/bin/bash
# Runs a script under a kernel that has IPVS, which the kernel of a test machine often has not:
# Debian's stock kernel in qemu (software emulation, no /dev/kvm needed), about 10 s to boot.
# The VM sees this machine's files read-only below a layer of its own in memory, has no network
# but what the script makes, and hands back what the script leaves in /out.
#
#   scripts/ipvs-vm.sh [-i] [-o DIR] [-m MIB] [-t SECONDS] SCRIPT [ARG...]
#
#   -i          one CPU, and its clock is a count: a nanosecond an instruction, whatever this machine does meanwhile; waiting
#               takes no time. What is busy inside takes about ten times longer (default: two CPUs and this machine's clock)
#   -o DIR      /out of the VM (default: a directory that is thrown away)
#   -m MIB      memory, 2048
#   -t SECONDS  the VM is stopped after so long, 600
# Exit status: the script's; 125 when the VM did not get as far as running it.
# Modules are not loaded on demand inside: the script does `modprobe ip_vs_wrr` and so on itself.
set -euo pipefail
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

VM_HOME=$SLUICE_CACHE/vm
out='' memory=2048 limit=600
cpus=(-accel 'tcg,thread=multi' -smp 2)

usage() {
  sed -n '2,/^set/s/^# \{0,1\}//p' "$0"
  exit 2
}

# The kernel image and modules of Debian's current linux-image-amd64, unpacked, not installed.
fetch_kernel() {
  local package
  step 'fetching the kernel of the VM (once)'
  apt_quietly update
  package=$(apt-cache depends linux-image-amd64 | sed -n 's/.*Depends: \(linux-image-[0-9].*\)/\1/p' | head -n1)
  [ -n "$package" ] || die 'apt knows no linux-image-amd64: the VM needs a Debian amd64 machine'
  (cd "$VM_HOME" && apt-get -q download "$package" >/dev/null)
  dpkg-deb --extract "$VM_HOME/$package"_*.deb "$VM_HOME/kernel"
  rm -f "$VM_HOME/$package"_*.deb
  depmod --basedir "$VM_HOME/kernel" "$(kernel_version)"
}

kernel_version() { ls "$VM_HOME/kernel/lib/modules"; }

# What runs first inside: loads 9p and overlay, stacks a tmpfs over our file system, runs the job there.
init_script() {
  cat <<'INIT'
#!/bin/busybox sh
export PATH=/bin
for module in /modules/*; do busybox insmod "$module"; done
busybox mount -t proc none /proc
busybox mount -t sysfs none /sys
busybox mount -t devtmpfs none /dev
nine() { busybox mount -t 9p -o "trans=virtio,version=9p2000.L,msize=262144,$3" "$1" "$2"; }
nine files /below ro,cache=loose
busybox mount -t tmpfs none /layer
busybox mkdir /layer/data /layer/work
busybox mount -t overlay -o lowerdir=/below,upperdir=/layer/data,workdir=/layer/work none /new
for dir in proc sys dev; do busybox mount --move "/$dir" "/new/$dir"; done
for dir in tmp run; do busybox mount -t tmpfs none "/new/$dir"; done
busybox mkdir -p /new/out /new/run/job /new/run/modules /new/lib/modules
nine out /new/out cache=none
nine job /new/run/job ro,cache=loose
nine modules /new/run/modules ro,cache=loose
busybox ln -sfn "/run/modules/$(busybox uname -r)" "/new/lib/modules/$(busybox uname -r)"
busybox mount -t bpf none /new/sys/fs/bpf
busybox chroot /new /bin/bash /run/job/start
busybox echo $? >/new/out/.status
busybox sync
busybox poweroff -f
INIT
}

build_initrd() {
  local tree number=10 module
  tree=$(mktemp -d "$VM_HOME/initrd.XXXXXX")
  mkdir -p "$tree"/{bin,proc,sys,dev,modules,below,layer,new}
  cp "$(command -v busybox)" "$tree/bin/busybox"
  init_script >"$tree/init"
  chmod 755 "$tree/init"
  for name in 9p 9pnet_virtio virtio_pci overlay; do
    modprobe -d "$VM_HOME/kernel" -S "$(kernel_version)" --show-depends "$name"
  done | awk '$1 == "insmod" && !seen[$2]++ { print $2 }' | while read -r module; do
    cp "$module" "$tree/modules/$number-${module##*/}"
    number=$((number + 1))
  done
  (cd "$tree" && find . | cpio --quiet -o -H newc | gzip -1) >"$VM_HOME/initrd.gz"
  rm -rf "$tree"
}

prepare() {
  # shellcheck disable=SC2086 # one word a package
  install_packages 'the virtual machine' $PACKAGES_VM
  [ ! -e "$VM_HOME/ready-1" ] || return 0
  rm -rf "$VM_HOME"
  mkdir -p "$VM_HOME"
  fetch_kernel
  build_initrd
  touch "$VM_HOME/ready-1"
}

# share DIR TAG [OPTION]: qemu's words for handing a directory to the guest.
share() { printf '%s\n' -virtfs "local,path=$1,mount_tag=$2,security_model=none,multidevs=remap${3:-}"; }

boot() {
  local job=$1 shares
  mapfile -t shares < <(
    share / files ,readonly=on
    share "$job" job ,readonly=on
    share "$VM_HOME/kernel/lib/modules" modules ,readonly=on
    share "$out"  out
  )
  timeout "$limit" qemu-system-x86_64 "${cpus[@]}" -cpu max -m "$memory" \
    -display none -serial stdio -monitor none -no-reboot -net none \
    -kernel "$VM_HOME"/kernel/boot/vmlinuz-* -initrd "$VM_HOME/initrd.gz" \
    -append 'console=ttyS0 quiet panic=1 mitigations=off' "${shares[@]}" </dev/null |
    sed -u 's/\r$//'
}

run_job() {
  local job
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  job=$work/job
  mkdir "$job"
  [ -n "$out" ] || { out=$work/out && mkdir "$out"; }
  rm -f "$out/.status"
  cp "$1" "$job/script"
  {
    say 'export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root'
    printf 'cd /tmp && exec bash /run/job/script'
    shift
    [ $# = 0 ] || printf ' %q' "$@"
    say ''
  } >"$job/start"
  # qemu's own status says nothing of the script; the file that the guest writes does.
  boot "$job" || warn 'qemu was stopped, or ended badly'
  [ -s "$out/.status" ] || { warn 'the VM did not run the script to its end'; return 125; }
  return "$(cat "$out/.status")"
}

while getopts io:m:t:h option; do
  case $option in
    i) cpus=(-accel 'tcg,thread=single' -icount 'shift=0,sleep=off' -smp 1) ;;
    o) out=$(mkdir -p "$OPTARG" && cd "$OPTARG" && pwd) ;;
    m) memory=$OPTARG ;;
    t) limit=$OPTARG ;;
    *) usage ;;
  esac
done
shift $((OPTIND - 1))
[ $# -ge 1 ] || usage
[ -r "$1" ] || die "cannot read $1"
prepare
run_job "$@"
