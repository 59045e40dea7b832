#!/usr/bin/env bash
# programs.sh DIR: makes DIR/programs.cpio, an archive of programs of Debian that exec.sh adds to a guest when VM_PROGRAMS
# names it: the oracle for datapath/ovs, Open vSwitch's own tools and daemons, and what the laboratory runs in its
# VMs. Nothing is installed; an archive that is up to date stays as it is.
set -euo pipefail

programs=(usr/bin/ovs-dpctl usr/bin/ovs-appctl usr/bin/ovs-vsctl usr/bin/ovsdb-tool usr/sbin/ovsdb-server
	usr/lib/openvswitch-switch/ovs-vswitchd bin/ping usr/bin/arping bin/bash usr/sbin/nft)
data=(usr/share/openvswitch/vswitch.ovsschema)
packages=(openvswitch-switch openvswitch-common iputils-ping iputils-arping bash nftables)
# Those of the shared libraries: one that is missing is told by name.
packages+=(libc6 libbpf1 libcap-ng0 libcap2 libelf1 libevent-2.1-7 libgmp10 libhogweed6 libidn2-0 libjansson4 libmnl0 libnettle8 libnftables1 libnftnl11
	libnuma1 libreadline8 libssl3 libtinfo6 libunbound8 libunistring2 libxdp1 libxtables12 zlib1g)

here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1"
dir=$(cd "$1" && pwd)
versions() { apt-cache show --no-all-versions "${packages[@]}" 2>/dev/null | grep -E '^(Package|Version):'; }
[ "$(versions | grep -c '^Package:')" -ge "${#packages[@]}" ] || apt-get update -q >/dev/null
stamp="$({ versions; cat "$here/programs.sh"; } | sha256sum)"
[ "$(cat "$dir/programs.stamp" 2>/dev/null)" = "$stamp" ] && exit 0
rm -f "$dir/programs.stamp"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
(cd "$work" && apt-get -q -o APT::Sandbox::User=root download "${packages[@]}" >/dev/null) ||
	{ echo "programs.sh: a package is not to be had any more? Run apt-get update" >&2; exit 1; }
for p in "$work"/*.deb; do dpkg -x "$p" "$work/all"; done

all=$work/all root=$work/root
mkdir -p "$root"/{lib64,usr/lib,usr/bin,usr/share/openvswitch}
loader=lib64/ld-linux-x86-64.so.2
cp -L "$all/$loader" "$root/lib64/"
for p in "${programs[@]}"; do
	cp "$all/$p" "$root/usr/bin/"
	libraries=$("$all/$loader" --library-path "$all/lib/x86_64-linux-gnu:$all/usr/lib/x86_64-linux-gnu" --list "$all/$p")
	if grep 'not found' <<<"$libraries" >&2; then echo "programs.sh: $p needs another package" >&2; exit 1; fi
	awk '$2 == "=>" && $3 ~ /^\// {print $3}' <<<"$libraries" | grep -v "$loader" | xargs -I{} cp -Lu {} "$root/usr/lib/"
done
for d in "${data[@]}"; do cp "$all/$d" "$root/$d"; done

# Not compressed: the emulated CPU would have to unpack it.
(cd "$root" && find . | cpio -o -H newc --quiet) >"$dir/programs.cpio"
echo "$stamp" >"$dir/programs.stamp"
