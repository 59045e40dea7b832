package hostctl

import (
	"strings"
	"testing"

	"github.com/viaduct-net/viaduct/internal/agent/debug"
	"github.com/viaduct-net/viaduct/internal/base/drop"
	"github.com/viaduct-net/viaduct/internal/base/packet"
	"github.com/viaduct-net/viaduct/internal/ctl/exit"
)

var (
	vm1   = debug.Port{Name: "vm1", Device: "bridge blue", MAC: "02:00:00:00:00:01", Addresses: []string{"10.0.0.1/32", "fd00::1/128"}, GatewayMAC: "02:00:00:00:00:fe"}
	vm2   = debug.Port{Name: "vm2", Device: "bridge blue", MAC: "02:00:00:00:00:02", Addresses: []string{"10.0.0.2/32"}}
	other = debug.Port{Name: "vm3", Device: "bridge red", MAC: "02:00:00:00:00:03", Addresses: []string{"10.9.0.3/32"}}
	known = []debug.Port{vm1, vm2, other}
)

func TestBuild(t *testing.T) {
	for _, c := range []struct {
		name string
		p    packetFlags
		want string
	}{
		{"a neighbour has its own MAC", packetFlags{dst: "10.0.0.2", udp: "4000:53"},
			"eth_src=02:00:00:00:00:01 eth_dst=02:00:00:00:00:02 eth_type=0x0800 src=10.0.0.1 dst=10.0.0.2 proto=17 src_port=4000 dst_port=53"},
		{"others are behind the gateway", packetFlags{dst: "10.9.0.3", tcp: "1:22"},
			"eth_src=02:00:00:00:00:01 eth_dst=02:00:00:00:00:fe eth_type=0x0800 src=10.0.0.1 dst=10.9.0.3 proto=6 src_port=1 dst_port=22"},
		{"echo is the default, in both families", packetFlags{dst: "fd00:2::1"},
			"eth_src=02:00:00:00:00:01 eth_dst=02:00:00:00:00:fe eth_type=0x86dd src=fd00::1 dst=fd00:2::1 proto=58 src_port=type128/code0 dst_port=id1"},
		{"ARP", packetFlags{dst: "10.0.0.254", arp: true},
			"eth_src=02:00:00:00:00:01 eth_dst=ff:ff:ff:ff:ff:ff eth_type=0x0806 src=10.0.0.1 dst=10.0.0.254 proto=1"},
		{"all given, tagged", packetFlags{src: "1.2.3.4", dst: "5.6.7.8", srcMAC: "02:00:00:00:00:aa", dstMAC: "02:00:00:00:00:bb", udp: "1:2", vlan: 7},
			"eth_src=02:00:00:00:00:aa eth_dst=02:00:00:00:00:bb vlan=7 eth_type=0x0800 src=1.2.3.4 dst=5.6.7.8 proto=17 src_port=1 dst_port=2"},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.p.ttl = 64
			f, err := c.p.build(vm1, known)
			if err != nil {
				t.Fatal(err)
			}
			v, bad := packet.Parse(f, 0)
			if got := v.Key.String(); bad != drop.None || got != "in_port=0 "+c.want {
				t.Errorf("got  %s\nwant in_port=0 %s", got, c.want)
			}
		})
	}
}

func TestBuildRefuses(t *testing.T) {
	nothing := debug.Port{Name: "bare", Device: "bridge blue"}
	for _, c := range []struct {
		at   debug.Port
		p    packetFlags
		want string
	}{
		{vm1, packetFlags{dst: "10.0.0.300"}, "--dst"},
		{vm1, packetFlags{src: "fd00::1", dst: "10.0.0.2"}, "different families"},
		{nothing, packetFlags{dst: "10.0.0.2"}, "--src: the topology knows no address"},
		{nothing, packetFlags{src: "10.0.0.9", dst: "10.0.0.2"}, "--src-mac: the topology does not know it"},
		{vm1, packetFlags{dst: "10.0.0.2", dstMAC: "nonsense"}, "--dst-mac"},
		{vm1, packetFlags{dst: "10.0.0.2", udp: "1:2", tcp: "1:2"}, "choose one"},
		{vm1, packetFlags{dst: "10.0.0.2", udp: "99999:2"}, "0 to 65535"},
		{vm1, packetFlags{dst: "10.0.0.2", tcp: "80"}, "SOURCE:DESTINATION"},
	} {
		_, err := c.p.build(c.at, known)
		if err == nil || !strings.Contains(err.Error(), c.want) || exit.Of(err) != exit.Usage {
			t.Errorf("%+v: %v (exit %d), want usage and %q", c.p, err, exit.Of(err), c.want)
		}
	}
}
