package mirror

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/viaduct-net/viaduct/internal/base/tag"
	"github.com/viaduct-net/viaduct/internal/topo/model"
)

// A subnet reaches its bridge, and its MTU the routers there; flows of both are invalidated when it changes.
func TestSubnet(t *testing.T) {
	r := start(t)
	r.next(t)
	s := &model.Subnet{Meta: model.Meta{ID: id(30), Name: "n4"}, BridgeID: br, CIDR: pfx("10.0.0.0/24")[0], EnableDHCP: true, MTU: 1400, LeaseTime: 60,
		Gateway: netip.MustParseAddr("10.0.0.1"), HostRoutes: []model.HostRoute{{Destination: pfx("10.9.0.0/16")[0], NextHop: netip.MustParseAddr("10.0.0.9")}},
		ExtraOptions: []model.ExtraOption{{Name: "ntp-server", Value: "10.0.0.3"}}}
	six := &model.Subnet{Meta: model.Meta{ID: id(31)}, BridgeID: br, CIDR: pfx("fd00::/64")[0], EnableDHCP: true, MTU: 1300,
		Gateway: netip.MustParseAddr("fd00::1"), IPv6RAMode: model.IPv6Stateless, IPv6AddressMode: model.IPv6Stateless}
	r.txn(t, create(s, six)...)
	c := r.next(t)
	for _, want := range []tag.Tag{{Kind: tag.Device, ID: br}, {Kind: tag.Port, ID: lan}} {
		if !slices.Contains(c.Tags, want) {
			t.Errorf("tags %v lack %s", c.Tags, want)
		}
	}
	v := c.Snapshot.Bridge(br).Subnets
	if len(v) != 2 || !v[0].DHCP || v[0].Prefix != s.CIDR || v[0].Lease != 60 || len(v[0].Routes) != 1 || len(v[0].Options) != 1 || v[0].Options[0].Code != 42 {
		t.Errorf("subnets %+v", v)
	}
	if x := v[1]; !x.DHCP || x.DHCPv6 || !x.RA || x.Managed || !x.Other || !x.Auto {
		t.Errorf("stateless became %+v", x)
	}
	if mtu := c.Snapshot.Port(lan).MTU; mtu != 1300 {
		t.Errorf("the router's MTU on the link is %d, want the least of its subnets", mtu)
	}
	r.txn(t, remove(s), remove(six))
	c = r.next(t)
	if len(c.Snapshot.Bridge(br).Subnets) != 0 || c.Snapshot.Port(lan).MTU != 0 || !slices.Contains(c.Tags, tag.Tag{Kind: tag.Device, ID: br}) {
		t.Errorf("after removal: %+v, tags %v", c.Snapshot.Bridge(br), c.Tags)
	}
}
