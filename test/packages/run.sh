#!/bin/sh
# Runs what is tested under systemd, hands back its output and exit status, ends the guest.
for p in /sys/class/virtio-ports/*; do
	read -r name <"$p/name"
	eval "$name=/dev/${p##*/}"
done
sh -eu /test/inside.sh >"$output" 2>&1 </dev/null
code=$?
[ $code = 0 ] || {
	systemctl --no-pager --failed
	journalctl --no-pager -b -u 'viaduct-*' | tail -n 60
} >>"$output" 2>&1
echo $code >"$status"
sync
systemctl poweroff -ff
