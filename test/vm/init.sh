#!/bin/sh
# The guest's first process: loads the modules, runs /test/binary, hands back its output and exit status, powers off.
export PATH=/bin:/usr/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs tmp /tmp
mount -t tmpfs run /run
for m in $(cat /modules/order); do insmod "/modules/$m"; done
ip link set lo up
for p in /sys/class/virtio-ports/*; do
	read -r name <"$p/name"
	eval "$name=/dev/${p##*/}"
done
cd /test
. ./environment
eval "set -- $(cat arguments)"
./binary "$@" >"$output" 2>&1 </dev/null
echo $? >"$status"
poweroff -f
