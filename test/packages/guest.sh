#!/usr/bin/env bash
# guest.sh DIR GUEST: a Debian system with systemd as an archive for a guest's memory, DIR/root.cpio, with the modules
# of the guest that test/vm/build.sh has made in GUEST. What is up to date stays as it is.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1"
dir=$(cd "$1" && pwd) guest=$(cd "$2" && pwd)
stamp="$(cat "$guest/stamp") $(sha256sum <"$here/guest.sh")"
[ "$(cat "$dir/stamp" 2>/dev/null)" = "$stamp" ] && exit 0
rm -f "$dir/stamp"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# What nobody reads in a guest, and the archives of packages, need not be unpacked at each boot.
mmdebstrap --quiet --variant=minbase --include=systemd-sysv,iproute2,iputils-ping,bpftool \
	--dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='path-exclude=/usr/share/doc/*' \
	--dpkgopt='path-exclude=/usr/lib/python3/*' --aptopt='Acquire::Languages "none"' \
	--customize-hook='rm -rf "$1"/var/cache/apt/* "$1"/var/lib/apt/lists/* "$1"/usr/share/zoneinfo "$1"/usr/lib/x86_64-linux-gnu/gconv' \
	--customize-hook='rm -f "$1"/etc/dpkg/dpkg.cfg.d/99mmdebstrap' \
	bookworm "$work/root.tar"
mkdir "$work/root" "$work/initrd"
tar -C "$work/root" -xf "$work/root.tar" --exclude='./dev/*'
(cd "$work/initrd" && gzip -dc "$guest/initrd.gz" | cpio -idm --quiet)
root=$work/root
mkdir -p "$root/test"
cp -r "$work/initrd/modules" "$root/test/modules"
cp "$work/initrd/bin/busybox" "$root/test/busybox"
echo viaduct-guest >"$root/etc/hostname"
printf '127.0.0.1 localhost\n127.0.1.1 viaduct-guest\n' >"$root/etc/hosts"
: >"$root/etc/machine-id"
install -m 755 "$here/init.sh" "$root/init"
cat >"$root/etc/systemd/system/test.service" <<'EOF'
[Unit]
Description=What is tested
After=multi-user.target

[Service]
Type=oneshot
ExecStart=/test/run.sh

[Install]
WantedBy=default.target
EOF
mkdir -p "$root/etc/systemd/system/default.target.wants"
ln -s ../test.service "$root/etc/systemd/system/default.target.wants/"
for unit in apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service fstrim.timer \
	systemd-tmpfiles-clean.timer systemd-firstboot.service systemd-timesyncd.service systemd-pcrphase.service getty.target; do
	ln -sf /dev/null "$root/etc/systemd/system/$unit"
done
(cd "$root" && find . | cpio -o -H newc --quiet) >"$dir/root.cpio"
truncate -s %4 "$dir/root.cpio"
echo "$stamp" >"$dir/stamp"
