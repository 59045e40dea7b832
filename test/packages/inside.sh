# What is tested, as root on a Debian system with systemd: install, use, configure, upgrade, remove.
step() { echo "$(cut -d. -f1 /proc/uptime)s $*"; }
fail() { echo "FAILED: $*" >&2; exit 1; }
soon() { # COMMAND...: until it succeeds, a minute at most
	n=300
	until "$@" >/dev/null 2>&1; do
		n=$((n - 1))
		[ $n -gt 0 ] || { "$@" || true; fail "not in time: $*"; }
		sleep 0.2
	done
}
is() { [ "$2" = "$3" ] || fail "$1: got '$2', want '$3'"; }
version() { dpkg-deb -f "/test/$1"/viaduct_*.deb Version; }
running() { systemctl show -P "$2" "viaduct-$1.service"; }
# All that packages could leave behind.
machine() {
	find / -xdev \( -path /proc -o -path /sys -o -path /tmp -o -path /test -o -path /var/log -o -path /run/systemd -o -path /run/udev -o -path /dev \
		-o -path /var/lib/dpkg -o -path /var/cache -o -path /run/log -o -path /var/lib/systemd \) -prune -o -print
	find /run /dev/shm /sys/fs/bpf -path /run/systemd -prune -o -path /run/udev -prune -o -path /run/log -prune -o -print
	ip -o link | cut -d: -f2
	bpftool prog list | grep -o 'name via[a-z_]*' || true
	bpftool map list | grep -o 'name [a-z_]*' || true
	cut -d: -f1 /etc/passwd /etc/group
	dpkg -l | awk '$2 ~ /viaduct/ {print $1, $2}'
}

host=$(hostname)
machine | sort >/tmp/before

step install
dpkg -i /test/old/*.deb >/tmp/dpkg.log 2>&1 || { cat /tmp/dpkg.log; fail install; }
for s in server agent; do
	is "$s" "$(systemctl is-active viaduct-$s)" active
	is "$s at boot" "$(systemctl is-enabled viaduct-$s)" enabled
done
is "user of the server" "$(ps -o user= -p "$(running server MainPID)" 2>/dev/null || stat -c %U "/proc/$(running server MainPID)")" viaduct
is "watchdog of the agent" "$(running agent WatchdogUSec)" 30s
soon sh -c 'systemctl show -P StatusText viaduct-agent | grep -q "serving host"'
viaduct version
mm-ctl --help >/dev/null
/usr/lib/cni/viaduct-cni </dev/null 2>&1 | grep -q 'CNI protocol versions' || fail "viaduct-cni does not say what it is"

step network
echo "# Mine." >>/etc/viaduct/viaduct.yaml

soon viaduct get host
viaduct apply -f /test/network.yaml
n=10
for vm in alice bob; do
	ip netns add $vm
	ip link add tap-$vm type veth peer name eth0 netns $vm address 02:00:00:00:01:$n
	ip link set tap-$vm up
	ip -n $vm addr add 10.0.1.$n/24 dev eth0
	ip -n $vm link set eth0 up
	n=$((n + 1))
done
attached() { viaduct ports | grep -c ' up ' | grep -qx 2; }
soon attached
ip netns exec alice ping -q -c 3 -i 0.2 -W 5 10.0.1.11

step "configure one host"
# Another host of the same cloud: a second agent, with a datapath of its own.
systemd-run -q --unit second -p RuntimeDirectory=second viaduct agent --host second --name second --run-dir /run/second --tunnel-device second
soon viaduct flows --socket /run/second/agent.sock
key=agent.datapath.vm_incoming_burst_capacity
value() { viaduct conf get --host "$1" $key | awk -v key=$key '$1 == key {print $2}'; }
credit() { viaduct ports -o json --socket "$1" | tr -d ' ,"' | sed -n 's/^credit://p' | sort -u | tr '\n' ' '; }
viaduct conf set --host "$host" $key 8
changed() { [ "$(credit /run/viaduct/agent.sock)" = "8 " ]; }
soon changed
is "$key of this host" "$(value "$host")" 8
is "$key of the other host" "$(value second)" 32
systemctl stop second
viaduct agent --cleanup --name second --tunnel-device second

step upgrade
# Datagrams, to whatever port: InDatagrams and NoPorts.
received() { ip netns exec bob awk '$1 == "Udp:" && $2 ~ /[0-9]/ {print $2 + $3}' /proc/net/snmp; }
flow="ip netns exec alice viaduct lab tool flood --mode=destinations --target=10.0.1.11/32 --rate=500"
$flow --count=1 --duration=5s >/dev/null # the flow is there before what counts
sleep 1
before=$(received)
$flow --duration=300s >/tmp/flood.json &
flood=$!
sleep 2
old_agent=$(running agent MainPID)
dpkg -i /test/new/*.deb >/tmp/dpkg.log 2>&1 || { cat /tmp/dpkg.log; fail upgrade; }
step upgraded
[ "$(running agent MainPID)" != "$old_agent" ] || fail "the agent is still the old one"
is version "$(viaduct version | head -n 1 | cut -d' ' -f2)-1" "$(version new)"
for s in server agent; do is "$s" "$(systemctl is-active viaduct-$s)" active; done
soon sh -c 'systemctl show -P StatusText viaduct-agent | grep -q "serving host"'
sleep 1
kill $flood # by now it has seen an agent go, and another come
wait
sleep 1
cat /tmp/flood.json
sent=$(tr ',' '\n' </tmp/flood.json | grep '"sent"' | tr -dc 0-9)
[ "$sent" -gt 1000 ] || fail "only $sent frames were sent"
is "frames received of $sent" $(($(received) - before)) "$sent"
soon attached
ip netns exec bob ping -q -c 3 -i 0.2 -W 5 10.0.1.10
grep -q Mine /etc/viaduct/viaduct.yaml || fail "the operator's /etc/viaduct/viaduct.yaml is lost"
is "$key of this host" "$(value "$host")" 8

step "an agent that hangs"
mkdir -p /run/systemd/system/viaduct-agent.service.d
printf '[Service]\nWatchdogSec=8s\nTimeoutAbortSec=2s\n' >/run/systemd/system/viaduct-agent.service.d/soon.conf
systemctl daemon-reload
systemctl restart viaduct-agent
hung=$(running agent MainPID)
kill -STOP "$hung"
soon sh -c "systemctl show -P Result viaduct-agent | grep -q watchdog || [ \$(systemctl show -P NRestarts viaduct-agent) -gt 0 ]"
soon sh -c "systemctl show -P MainPID viaduct-agent | grep -qvx -e $hung -e 0"
soon attached
ip netns exec bob ping -q -c 3 -i 0.2 -W 5 10.0.1.10
rm -r /run/systemd/system/viaduct-agent.service.d
systemctl daemon-reload

step remove
ip netns del alice
ip netns del bob
soon sh -c '! ip link show tap-alice'
dpkg -r viaduct-cni viaduct-agent viaduct-server viaduct >/tmp/dpkg.log 2>&1 || { cat /tmp/dpkg.log; fail remove; }
bpftool prog list | grep 'name via' && fail "programs are left after removal"
[ -d /var/lib/viaduct/server ] || fail "removal has deleted the data: that is for purge"
dpkg -P viaduct-cni viaduct-agent viaduct-server viaduct >/tmp/dpkg.log 2>&1 || { cat /tmp/dpkg.log; fail purge; }
umount /run/netns && rmdir /run/netns # of ip netns
machine | sort >/tmp/after
diff /tmp/before /tmp/after || fail "something is left"
step "nothing is left"
