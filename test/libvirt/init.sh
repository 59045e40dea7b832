#!/bin/sh
# The guest's first process: asks for an address, pings its gateway, and powers off.
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
for m in $(cat /modules/order); do insmod "/modules/$m"; done
cat >/lease <<'EOF'
#!/bin/sh
[ "$1" = bound ] || exit 0
ip addr add "$ip/$mask" dev "$interface"
ip route add default via "$router"
echo "lease: $ip/$mask router $router dns $dns mtu ${mtu:-none}"
EOF
chmod +x /lease
ip link set eth0 up
udhcpc -q -n -i eth0 -s /lease -t 10 -T 2
ping -c 3 -W 5 10.0.1.1
poweroff -f
