package sim_test

import (
	"fmt"
	"testing"

	"github.com/viaduct-net/viaduct/internal/path/pathtest"
	"github.com/viaduct-net/viaduct/internal/path/sim"
)

const small = `
bridge a
bridge b
router r
vm va a 02:00:00:00:00:0a 10.0.1.5 fd01::5
vm vb b 02:00:00:00:00:0b 10.0.2.5 fd02::5
vm vc a
vm vd a
link a r=10.0.1.1/24,fd01::1/64
link b r=10.0.2.1/24,fd02::1/64
`

// served is small with somebody to tell hosts what they are.
const served = small + `
subnet a4 a 10.0.1.0/24 gw=10.0.1.1
subnet a6 a fd01::/64 gw=fd01::1 mode=stateful
`

var cases = []struct{ name, packet string }{
	{"BridgeRouterBridge", "va udp eth=va>r:a ip=10.0.1.5>10.0.2.5 ports=1>2"},
	{"BridgeRouterBridgeV6", "va udp eth=va>r:a ip=fd01::5>fd02::5 ports=1>2"},
	{"Flood", "va udp eth=va>broadcast ip=10.0.1.5>10.0.1.255 ports=1>2"},
	{"Learn", "vc udp eth=02:00:00:00:00:0c>va ip=10.0.1.7>10.0.1.5 ports=1>2"},
	{"ARP", "va arp eth=va>broadcast ip=10.0.1.5>10.0.1.1"},
	{"ND", "va ns eth=va>33:33:ff:00:00:01 ip=fd01::5>ff02::1:ff00:1 target=fd01::1 lla=va"},
	{"Echo", "va echo eth=va>r:a ip=10.0.1.5>10.0.1.1 len=1000"},
	{"TimeExceeded", "va udp eth=va>r:a ip=10.0.1.5>10.0.2.5 ports=1>2 ttl=1"},
	{"NotYet", "va udp eth=va>r:a ip=10.0.1.5>10.0.2.9 ports=1>2"},
}

// hundred is a filter of a hundred rules of several kinds, of which none decides, behind a secured port.
func hundred() string {
	text := "secure va\ngroup some 192.0.2.1 192.0.2.2 198.51.100.0/24\nfilter va in long\nfilter vb out long\n"
	for i := range 25 {
		text += fmt.Sprintf("rule long drop proto=6 dst_ports=%d\nrule long drop src=192.0.2.%d\nrule long reject dst_group=some\nrule long drop proto=17 dst_ports=%d !src=10.0.0.0/8\n", i+1000, i, i)
	}
	return text
}

func TestFiltersDoNotAllocate(t *testing.T) {
	topo := pathtest.MustParse(small + hundred())
	for _, tc := range cases {
		in := topo.MustInject(tc.packet)
		var c sim.Context
		topo.Simulate(&c, &in)
		if n := testing.AllocsPerRun(100, func() { topo.Simulate(&c, &in) }); n != 0 {
			t.Errorf("%s: %v allocations, want 0", tc.name, n)
		}
	}
}

// hundredAllowed are two groups with a hundred rules of each sort between them, of which the last allow.
func hundredAllowed() string {
	text := "secure va\nsecure vb\ngroups va g h\ngroups vb g h\ngroup some 192.0.2.1 192.0.2.2 198.51.100.0/24\n"
	for i := range 24 {
		text += fmt.Sprintf("allow g in proto=6 ports=%d\nallow g out proto=17 ports=%d prefix=192.0.2.0/24\nallow h in proto=17 ports=%d addresses=some\nallow h out proto=17 ports=%d\n",
			i+1000, i+1, i+1, i+1000)
	}
	return text + "allow g out proto=17 remote=h\nallow g in proto=17 prefix=10.0.0.0/8\nallow h out six\nallow h in six\n"
}

func TestSecurityGroupsDoNotAllocate(t *testing.T) {
	topo := pathtest.MustParse(small + hundredAllowed())
	for _, tc := range cases {
		in := topo.MustInject(tc.packet)
		var c sim.Context
		topo.Simulate(&c, &in)
		if n := testing.AllocsPerRun(100, func() { topo.Simulate(&c, &in) }); n != 0 {
			t.Errorf("%s: %v allocations, want 0", tc.name, n)
		}
	}
}

// stateful is a VM behind groups of a hundred rules and a router that masquerades, and a new connection of it to the world; ports
// to translate it to are leased.
func stateful() (*pathtest.Topology, pathtest.Injection) {
	topo := pathtest.MustParse(`
bridge in
router r
bridge out
vm va in 02:00:00:00:00:0a 10.0.1.5
vm vb out 02:00:00:00:00:0b 203.0.113.9
link in r=10.0.1.1/24
link out r=203.0.113.1/24
masquerade r:out
` + hundredAllowed() + "allow g out proto=17 prefix=0.0.0.0/0\nallow g in proto=17 prefix=203.0.113.0/24\n")
	in := topo.MustInject("va udp eth=va>r:in ip=10.0.1.5>203.0.113.9 ports=1>2")
	var c sim.Context
	for topo.Simulate(&c, &in); c.Result == sim.ResultNotYet; topo.Simulate(&c, &in) {
		topo.State.Lease(&c)
	}
	return topo, in
}

// TestStatefulDoesNotAllocate: neither for a new connection nor for one that is there.
func TestStatefulDoesNotAllocate(t *testing.T) {
	topo, in := stateful()
	var c sim.Context
	for range 2 {
		topo.Simulate(&c, &in)
		if c.Result != sim.ResultForward || !c.Stateful {
			t.Fatalf("%s %s", c.Result, c.Reason)
		}
		if n := testing.AllocsPerRun(100, func() { topo.Simulate(&c, &in) }); n != 0 {
			t.Errorf("%v allocations, want 0", n)
		}
		topo.State.Commit(&c)
	}
}

func BenchmarkSimulateStateful(b *testing.B) {
	topo, in := stateful()
	var c sim.Context
	b.ReportAllocs()
	for b.Loop() {
		topo.Simulate(&c, &in)
	}
}

func BenchmarkSimulateSecurityGroups(b *testing.B) {
	bench(b, pathtest.MustParse(small+hundredAllowed()), cases[0].packet)
}

func BenchmarkSimulateFilters(b *testing.B) {
	bench(b, pathtest.MustParse(small+hundred()), cases[0].packet)
}

func TestNoAllocations(t *testing.T) {
	for _, text := range []string{small, served} {
		topo := pathtest.MustParse(text)
		for _, tc := range cases {
			in := topo.MustInject(tc.packet)
			var c sim.Context
			topo.Simulate(&c, &in)
			if n := testing.AllocsPerRun(100, func() { topo.Simulate(&c, &in) }); n != 0 {
				t.Errorf("%s: %v allocations, want 0", tc.name, n)
			}
		}
	}
}

func BenchmarkSimulate(b *testing.B) {
	topo := pathtest.MustParse(small)
	for _, tc := range cases {
		b.Run(tc.name, func(b *testing.B) { bench(b, topo, tc.packet) })
	}
}

// BenchmarkSimulateServed is what subnets cost packets that are no DHCP.
func BenchmarkSimulateServed(b *testing.B) { bench(b, pathtest.MustParse(served), cases[0].packet) }

// BenchmarkSimulateDHCP is an answer to a client.
func BenchmarkSimulateDHCP(b *testing.B) {
	bench(b, pathtest.MustParse(served), "va dhcp eth=va>broadcast ip=0.0.0.0>255.255.255.255 type=1")
}

func BenchmarkSimulateBridgeRouterBridge(b *testing.B) {
	bench(b, pathtest.MustParse(small), cases[0].packet)
}

func bench(b *testing.B, topo *pathtest.Topology, packet string) {
	in := topo.MustInject(packet)
	var c sim.Context
	b.ReportAllocs()
	for b.Loop() {
		topo.Simulate(&c, &in)
	}
}
