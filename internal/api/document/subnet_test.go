package document_test

import (
	"strings"
	"testing"

	"github.com/viaduct-net/viaduct/internal/api/document"
	"github.com/viaduct-net/viaduct/internal/api/ref"
	"github.com/viaduct-net/viaduct/internal/topo/model"
	"github.com/viaduct-net/viaduct/internal/topo/store/mem"
)

const subnets = `
- {kind: bridge, name: blue}
- kind: subnet
  name: blue4
  bridge: blue
  cidr: 10.0.1.0/24
  gateway: 10.0.1.1
  dns_servers: [9.9.9.9]
  domain: example.org
  mtu: 1400
  lease_time: 600
  host_routes: [{destination: 10.9.0.0/16, next_hop: 10.0.1.254}]
  extra_options: {ntp-server: 10.0.1.3, 119: example.org}
- {kind: subnet, name: blue6, bridge: blue, cidr: "fd00::/64", gateway: "fd00::1", ipv6_ra_mode: slaac, ipv6_address_mode: slaac}
`

// What is rendered is what would be applied without a change.
func TestSubnetRoundTrip(t *testing.T) {
	st := mem.New()
	defer st.Close()
	if _, err := parse(t, subnets).Apply(t.Context(), st); err != nil {
		t.Fatal(err)
	}
	x, err := ref.Load(t.Context(), st)
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range x.List(model.KindSubnet) {
		text, err := document.Render(o, x)
		if err != nil {
			t.Fatal(err)
		}
		changes, err := parse(t, string(text)).Apply(t.Context(), st)
		if err != nil || len(changes) != 1 || changes[0].Action != document.Unchanged {
			t.Errorf("%v %v of\n%s", changes, err, text)
		}
	}
}

func TestSubnetRefused(t *testing.T) {
	for from, want := range map[string]string{
		"10.9.0.0/16":            "host_routes[0].destination",
		"ntp-server: 10.0.1.3":   "extra_options.ntp-server",
		"gateway: 10.0.1.1":      "gateway: \"x\" is not an IP address",
		"dns_servers: [9.9.9.9]": "dns_servers: wants a list",
	} {
		st := mem.New()
		defer st.Close()
		to := map[string]string{"10.9.0.0/16": "10.9.0.1/16", "ntp-server: 10.0.1.3": "ntp-server: y", "gateway: 10.0.1.1": "gateway: x", "dns_servers: [9.9.9.9]": "dns_servers: 9.9.9.9"}[from]
		set, err := document.Parse(strings.NewReader(strings.Replace(subnets, from, to, 1)), "f")
		if err == nil {
			_, err = set.Apply(t.Context(), st)
		}
		if err == nil || !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), "f:") {
			t.Errorf("%s: %v, want %q", to, err, want)
		}
	}
}
