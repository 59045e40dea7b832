#!/usr/bin/env bash
# build.sh DIR PACKAGE: makes a test guest of a Debian kernel, DIR/vmlinux and DIR/initrd.gz. PACKAGE is one that depends on
# the kernel's own, linux-image-cloud-amd64 say. Nothing is installed; a guest that is up to date stays as it is.
set -euo pipefail

# What the guest is made with, then what the tests use. Some are built into some kernels.
modules=(virtio_pci virtio_console virtio_net veth tun dummy bridge vxlan sch_ingress cls_bpf openvswitch vport_vxlan
	nf_tables nft_meta_bridge nft_numgen sch_htb sch_netem)
commands=(sh cat grep insmod ip ls mkdir mount poweroff sleep uname)

here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1"
dir=$(cd "$1" && pwd)
find_image() { image=$(apt-cache depends "$2" 2>/dev/null | awk '/Depends: linux-image/ && !n++ {print $2}') || true; }
find_image "$@"
[ -n "$image" ] || { apt-get update -q >/dev/null && find_image "$@"; }
[ -n "$image" ] || { echo "build.sh: apt knows no package $2 that depends on a kernel" >&2; exit 1; }
release=${image#linux-image-}

stamp="$(apt-cache show --no-all-versions "$image" | awk '/^Version:/ {print $2}') $(cat "$here"/build.sh "$here"/init.sh | sha256sum)"
[ "$(cat "$dir/stamp" 2>/dev/null)" = "$image $stamp" ] && exit 0
rm -f "$dir/stamp"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
download() { (cd "$work" && apt-get -q -o APT::Sandbox::User=root download "$image" >/dev/null); }
download || { echo "build.sh: no $image any more? Run apt-get update" >&2; exit 1; }
dpkg -x "$work"/*.deb "$work/image"

# The bzImage's payload is the ELF kernel, compressed: the emulated CPU need not unpack it. The header says
# where it is (Documentation/arch/x86/boot.rst).
bzimage=$work/image/boot/vmlinuz-$release
field() { od -An -v -t "u$2" -j "$1" -N "$2" "$bzimage" | tr -d ' '; }
sectors=$(field $((0x1f1)) 1)
start=$(((sectors + 1) * 512 + $(field $((0x248)) 4)))
length=$(field $((0x24c)) 4)
payload() { dd if="$bzimage" bs=64K iflag=skip_bytes,count_bytes skip=$start count="$1" status=none; }
case $(payload 4 | od -An -t x1 | tr -d ' ') in
fd377a58) payload "$length" | xz -dc --single-stream ;;
28b52ffd) payload $((length - 4)) | zstd -dcq ;; # the length of the kernel follows
02214c18) payload $((length - 4)) | lz4 -dc ;;
*) echo "build.sh: $bzimage is compressed in an unknown way" >&2; exit 1 ;;
esac >"$dir/vmlinux"

root=$work/root
mkdir -p "$root"/{bin,dev,proc,sys,tmp,run,modules,test}
cp /bin/busybox "$root/bin/"
for c in "${commands[@]}"; do ln -s busybox "$root/bin/$c"; done
install -m 755 "$here/init.sh" "$root/init"

# Modules in an order in which each finds what it needs.
tree=$work/image/lib/modules/$release
[ -d "$tree" ] || tree=$work/image/usr/lib/modules/$release
[ -f "$tree/modules.dep" ] || depmod -b "${tree%/lib/modules/*}" "$release"
declare -A added
add() { # path in tree
	[ -z "${added[$1]:-}" ] || return 0
	added[$1]=1
	local d to
	for d in $(grep -m1 "^$1:" "$tree/modules.dep" | cut -d: -f2 | tr ' ' '\n' | tac); do add "$d"; done
	to=$(basename "$1")
	case $to in
	*.xz) to=${to%.xz}; xz -dc "$tree/$1" >"$root/modules/$to" ;;
	*.zst) to=${to%.zst}; zstd -dcq "$tree/$1" >"$root/modules/$to" ;;
	*) cp "$tree/$1" "$root/modules/" ;;
	esac
	echo "$to" >>"$root/modules/order"
}
for m in "${modules[@]}"; do
	file="/${m//_/[-_]}[.]ko"
	path=$(awk -F: -v "file=$file" '$1 ~ file && !n++ {print $1}' "$tree/modules.dep")
	if [ -n "$path" ]; then
		add "$path"
	elif ! grep -q "$file" "$tree/modules.builtin"; then
		echo "build.sh: $image has no module $m" >&2
		exit 1
	fi
done

(cd "$root" && find . | cpio -o -H newc --quiet | gzip -1) >"$dir/initrd.gz"
echo "$release" >"$dir/release"
echo "$image $stamp" >"$dir/stamp"
