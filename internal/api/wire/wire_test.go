package wire_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/viaduct-net/viaduct/internal/api/wire"
)

// TestParseMAC: what is read is written back, in lower case; all else is refused.
func TestParseMAC(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := rapid.StringMatching(`[0-9a-f]{2}(:[0-9a-f]{2}){5}`).Draw(t, "mac")
		m, err := wire.ParseMAC(s)
		if err != nil || m.String() != s {
			t.Fatalf("%s: %s, %v", s, m, err)
		}
	})
	for _, s := range []string{"", "02:00:00:00:00", "02:00:00:00:00:0g", "2:0:0:0:0:1", "02-00-00-00-00-01", "02:00:00:00:00:01:02", "+2:00:00:00:00:01"} {
		if m, err := wire.ParseMAC(s); err == nil {
			t.Errorf("%q was taken for %s", s, m)
		}
	}
}

// TestRoundTrip: an object goes to the model and back unchanged but for defaults.
func TestRoundTrip(t *testing.T) {
	const a, b = "11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222"
	down, weight, mtu := false, 7, 1400
	for _, w := range []wire.Object{
		&wire.Bridge{Meta: wire.Meta{ID: a, Name: "n", Revision: 3}, AdminStateUp: &down},
		&wire.Router{Meta: wire.Meta{ID: a}, AdminStateUp: &down},
		&wire.Host{Meta: wire.Meta{ID: a}},
		&wire.Port{Meta: wire.Meta{ID: a}, RouterID: b, PeerID: b, AdminStateUp: &down, MAC: "02:00:00:00:00:01", Addresses: []string{"10.0.1.1/24", "2001:db8::1/64"}},
		&wire.Route{Meta: wire.Meta{ID: a}, RouterID: b, Destination: "10.0.0.0/8", Source: "::/0", NextHop: "reject", PortID: b, Gateway: "10.0.0.1", Weight: &weight},
		&wire.Subnet{Meta: wire.Meta{ID: a, Name: "s"}, BridgeID: b, CIDR: "10.0.1.0/24", Gateway: "10.0.1.1", EnableDHCP: &down, DNSServers: []string{"9.9.9.9"},
			Domain: "example.org", MTU: &mtu, LeaseTime: &mtu, HostRoutes: []wire.HostRoute{{Destination: "10.9.0.0/16", NextHop: "10.0.1.254"}},
			ExtraOptions: map[string]string{"ntp-server": "10.0.1.3", "wpad": "http://x"}, IPv6RAMode: "slaac", IPv6AddressMode: "slaac"},
		&wire.Binding{Meta: wire.Meta{ID: b}, PortID: b, HostID: a, Interface: "eth0"},
	} {
		o, err := w.Model()
		if err != nil {
			t.Error(err)
			continue
		}
		if d := cmp.Diff(w, wire.FromModel(o)); d != "" {
			t.Error(d)
		}
		if got, err := wire.Wrap(w).Object(); err != nil || got != w {
			t.Errorf("wrapped %v: %v, %v", w, got, err)
		}
	}
}
