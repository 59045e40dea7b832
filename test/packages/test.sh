#!/usr/bin/env bash
# test.sh OLD NEW: installs the packages in OLD on a Debian system with systemd, upgrades them to those in NEW while packets flow,
# and removes them: see inside.sh. The system runs in a guest, emulated in software.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
old=$(cd "$1" && pwd) new=$(cd "$2" && pwd)
build=$here/../../build
guest=$build/vm/linux-image-6.12-cloud-amd64
"$here/../vm/build.sh" "$guest" "$(basename "$guest")"
"$here/guest.sh" "$build/packages-guest" "$guest"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/root/test/old" "$work/root/test/new"
cp "$old"/*.deb "$work/root/test/old/"
cp "$new"/*.deb "$work/root/test/new/"
cp "$here"/inside.sh "$here"/run.sh "$here"/network.yaml "$work/root/test/"
cp "$build/packages-guest/root.cpio" "$work/initrd"
(cd "$work/root" && find . | cpio -o -H newc --quiet) >>"$work/initrd"

port() { echo "-chardev file,id=$1,path=$work/$1 -device virtserialport,chardev=$1,name=$1"; }
# shellcheck disable=SC2046 # words; for the CPU and the kernel's arguments see ../vm/exec.sh
timeout "${VM_TIMEOUT:-600}" qemu-system-x86_64 -M pc -accel tcg,thread=multi -cpu max,-cx16 -smp 2 -m 3072 \
	-nic none -display none -monitor none -serial "file:$work/console" -no-reboot \
	-device virtio-serial-pci $(port output) $(port status) \
	-kernel "$guest/vmlinux" -initrd "$work/initrd" \
	-append "console=ttyS0 quiet loglevel=5 oops=panic panic=-1 no_timer_check nowatchdog rdinit=/init systemd.show_status=false" \
	</dev/null || echo "test.sh: the guest was ended ($?)" >&2

cat "$work/output" 2>/dev/null || true
code=$(tr -dc 0-9 <"$work/status" 2>/dev/null || true)
if [ -z "$code" ]; then
	echo "test.sh: the guest gave no exit status; the end of its console:" >&2
	tail -n 40 "$work/console" >&2
	exit 125
fi
exit "$code"
