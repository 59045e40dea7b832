package pathtest

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/viaduct-net/viaduct/internal/topo/view"
)

func TestParseRefuses(t *testing.T) {
	for text, want := range map[string]string{
		"bogus x":                             "unknown statement",
		"bridge":                              "index out of range",
		"bridge b\nvm v b 02:00":              "no MAC 02:00",
		"bridge b\ndown v":                    "no port v",
		"router r\nroute r 10.0.0.0/8 up":     "unknown word up",
		"router r\nuplink u r broadcast 10/8": "10/8",
	} {
		if _, err := Parse(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

func TestInjectRefuses(t *testing.T) {
	topo := MustParse("bridge b\nvm v b 02:00:00:00:00:01\n")
	for _, line := range []string{"w udp", "v bogus eth=v>v", "v udp eth=v ip=10.0.0.1>10.0.0.2", "v udp eth=v>v ip=10.0.0.1>x ports=1>2"} {
		if _, err := topo.Inject(line); err == nil {
			t.Errorf("%q was accepted", line)
		}
	}
}

func TestRoutes(t *testing.T) {
	topo := MustParse(`
router r
uplink a r 02:00:00:00:00:01 192.0.2.1/24
uplink b r 02:00:00:00:00:02 198.51.100.1/24
route r 0.0.0.0/0 via 192.0.2.9 out a weight 10
route r 0.0.0.0/0 via 198.51.100.9 out b
route r 10.0.0.0/8 reject
route r 10.1.0.0/16 src 192.0.2.0/24 out a
route r 10.1.0.0/16 src 192.0.2.128/25 out b
route r 10.2.0.0/16 out a
route r 10.2.0.0/16 out b
`)
	table := topo.Router(ID("r")).Table
	for _, tc := range []struct {
		dst, src string
		hash     uint32
		hop      view.NextHop
		port     string
	}{
		{"8.8.8.8", "10.0.0.1", 0, view.ToPort, "a"},       // lower weight
		{"192.0.2.1", "10.0.0.1", 0, view.ToLocal, "a"},    // own address
		{"10.1.0.1", "192.0.2.5", 0, view.ToPort, "a"},     // source
		{"10.1.0.1", "192.0.2.200", 0, view.ToPort, "b"},   // longer source
		{"10.1.0.1", "203.0.113.1", 0, view.Reject, ""},    // no source: shorter destination
		{"10.2.0.1", "203.0.113.1", 0, view.ToPort, "a"},   // equals
		{"10.2.0.1", "203.0.113.1", 1, view.ToPort, "b"},   // by hash
		{"10.2.0.1", "203.0.113.1", 102, view.ToPort, "a"}, // again
	} {
		rt, ok := table.Lookup(netip.MustParseAddr(tc.dst), netip.MustParseAddr(tc.src), tc.hash)
		if !ok || rt.NextHop != tc.hop || tc.port != "" && rt.Port != ID(tc.port) {
			t.Errorf("%s from %s: %+v %v", tc.dst, tc.src, rt, ok)
		}
	}
	if _, ok := table.Lookup(netip.MustParseAddr("fd00::1"), netip.MustParseAddr("fd00::2"), 0); ok {
		t.Error("found an IPv6 route")
	}
}
