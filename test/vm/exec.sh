#!/usr/bin/env bash
# exec.sh GUEST BINARY [ARGUMENT...]: runs a static binary in the guest that build.sh has made in the directory GUEST, with the
# testdata of the working directory. Its output and exit status are this script's. go test takes it: -exec "exec.sh GUEST".
# What the environment has of VIADUCT_* goes along. VM_PROGRAMS: an archive that programs.sh has made; VM_FILES: files to
# be found in the guest's working directory, /test.
set -euo pipefail

guest=$1 binary=$2
shift 2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Further archives behind the guest's own.
mkdir -p "$work/root/test"
cp "$binary" "$work/root/test/binary"
[ ! -d testdata ] || cp -r testdata "$work/root/test/"
for f in ${VM_FILES:-}; do cp "$f" "$work/root/test/"; done
printf '%q ' "$@" >"$work/root/test/arguments"
for v in "${!VIADUCT_@}"; do printf 'export %s=%q\n' "$v" "${!v}"; done >"$work/root/test/environment"
cp "$guest/initrd.gz" "$work/initrd"
truncate -s %4 "$work/initrd"
[ -z "${VM_PROGRAMS:-}" ] || cat "$VM_PROGRAMS" >>"$work/initrd"
(cd "$work/root" && find . | cpio -o -H newc --quiet) >>"$work/initrd"

# Emulated in software, so that it is the same everywhere, in a cloud's VM too. 6.12 panics on
# QEMU 7.2's cx16. One thread: with one for each CPU, a CPU goes on with code that another has patched, and 6.12 panics over an int3 that is
# no longer there (within a second, when SO_TIMESTAMP is switched on and off beside packets). no_timer_check and nowatchdog, since a busy host is late with ticks. A port is where the guest's name for it comes from (init.sh).
port() { echo "-chardev file,id=$1,path=$work/$1 -device virtserialport,chardev=$1,name=$1"; }
# shellcheck disable=SC2046 # words
timeout "${VM_TIMEOUT:-1800}" qemu-system-x86_64 -M pc -accel tcg,thread=single -cpu max,-cx16 -smp 2 -m 1024 \
	-nic none -display none -monitor none -serial "file:$work/console" -no-reboot \
	-device virtio-serial-pci $(port output) $(port status) \
	-kernel "$guest/vmlinux" -initrd "$work/initrd" -append "console=ttyS0 quiet loglevel=5 oops=panic panic=-1 no_timer_check nowatchdog" \
	</dev/null || echo "exec.sh: the guest was ended ($?)" >&2

cat "$work/output" 2>/dev/null || true
code=$(tr -dc 0-9 <"$work/status" 2>/dev/null || true)
if [ -z "$code" ]; then
	echo "exec.sh: the guest gave no exit status; the end of its console:" >&2
	tail -n 40 "$work/console" >&2
	exit 125
fi
if grep -aE 'WARNING: |BUG: |Oops|refcount|insmod:' "$work/console" >&2; then
	echo "exec.sh: the kernel complained" >&2
	exit 126
fi
exit "$code"
