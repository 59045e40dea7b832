#!/usr/bin/env bash
# test.sh: a guest of an unmodified libvirt, whose interface names a port of the virtual network, gets its address from Viaduct
# and reaches its gateway; afterwards the port is free again. Needs root; the guest is emulated in software.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
viaduct=$root/bin/viaduct
guest=$root/build/vm/linux-image-6.12-cloud-amd64
"$root/test/vm/build.sh" "$guest" "$(basename "$guest")"
lab=libvirt$$
work=$(mktemp -d)
finish() {
	code=$?
	[ $code = 0 ] || tail -n 30 "$work/console" "$work/libvirtd.log" 2>/dev/null || true
	"$viaduct" lab down --name $lab || true
	rm -rf "$work"
	rmdir /run/libvirt 2>/dev/null || true # on which host.sh has mounted its own
	exit $code
}
trap finish EXIT

mkdir -p "$work/root/bin"
install -m 755 "$here/init.sh" "$work/root/init"
for c in udhcpc ping chmod; do ln -s busybox "$work/root/bin/$c"; done
cp "$guest/initrd.gz" "$work/initrd"
truncate -s %4 "$work/initrd"
(cd "$work/root" && find . | cpio -o -H newc --quiet) >>"$work/initrd"
sed "s|@WORK@|$work|; s|@GUEST@|$guest|" "$here/domain.xml" >"$work/domain.xml"

"$viaduct" lab up --name $lab -f "$here/network.yaml"
VIADUCT_SOCKET=$("$viaduct" lab status --name $lab -o json | jq -r '.hosts[0].agent.socket')
export VIADUCT_SOCKET
"$viaduct" lab exec --name $lab h1 -- unshare --mount --propagation private timeout 450 "$here/host.sh" "$work" "$viaduct"

tr -d '\r' <"$work/console" | grep -E 'lease:|bytes from|packets'
tr -d '\r' <"$work/console" | grep -q '^lease: 10.0.1.50/24 router 10.0.1.1 dns 9.9.9.9'
tr -d '\r' <"$work/console" | grep -q '3 packets received'
# libvirt has unbound the port when the guest ended.
"$viaduct" ports
[ "$("$viaduct" ports -o json | jq length)" = 0 ]
