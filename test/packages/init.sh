#!/bin/sh
# The guest's first process: loads the modules, and becomes systemd.
for m in $(/test/busybox cat /test/modules/order); do /test/busybox insmod "/test/modules/$m"; done
exec /lib/systemd/systemd
