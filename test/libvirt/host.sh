#!/usr/bin/env bash
# host.sh WORK VIADUCT: in the network namespace of a host, and mounts of its own: libvirt runs the domain, unmodified.
set -euo pipefail

work=$1 viaduct=$2
for d in /run/libvirt /var/lib/libvirt /var/log/libvirt /var/cache/libvirt /etc/libvirt; do
	mkdir -p $d
	mount -t tmpfs tmpfs $d
done
ip link add overlay mtu 1450 type bridge # any device would do
mkdir -p "$work/bin"
ln -s "$viaduct" "$work/bin/mm-ctl"
export PATH=$work/bin:$PATH
cat >"$work/libvirtd.conf" <<EOF
log_outputs = "2:file:$work/libvirtd.log"
EOF
# What a machine that runs systemd would do with the guest, and what needs more of one than a test has.
cat >/etc/libvirt/qemu.conf <<EOF
user = "root"
group = "root"
security_driver = "none"
cgroup_controllers = []
namespaces = []
stdio_handler = "file"
remember_owner = 0
EOF
libvirtd -f "$work/libvirtd.conf" -p "$work/libvirtd.pid" &
libvirtd=$!
trap 'virsh -q -c qemu:///system destroy web >/dev/null 2>&1 || true; kill $libvirtd; wait $libvirtd || true' EXIT
virsh() { command virsh -q -c qemu:///system "$@"; }
for _ in $(seq 600); do
	! virsh list >/dev/null 2>&1 || break
	sleep 0.1
done
virsh create "$work/domain.xml"
"$viaduct" ports # the port is this host's, on libvirt's tap
"$viaduct" ports | grep -q 'web .* vnet'
for _ in $(seq 3000); do
	[ -n "$(virsh list --name | tr -d '\n')" ] || break
	sleep 0.1
done
[ -z "$(virsh list --name | tr -d '\n')" ] || { echo "host.sh: the guest does not end" >&2; exit 1; }
