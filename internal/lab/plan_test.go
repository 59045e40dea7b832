package lab

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/viaduct-net/viaduct/internal/api/document"
	"github.com/viaduct-net/viaduct/internal/lab/examples"
	"github.com/viaduct-net/viaduct/internal/lab/plug"
)

func parse(t *testing.T, text string) *document.Set {
	t.Helper()
	set, err := document.Parse(strings.NewReader(text), "test.yaml")
	if err != nil {
		t.Fatal(err)
	}
	return set
}

func TestPlan(t *testing.T) {
	l, err := plan(t.Context(), "/r", "", "/bin/viaduct", parse(t, examples.TwoSubnets))
	if err != nil {
		t.Fatal(err)
	}
	bob, err := l.VM("bob")
	if err != nil {
		t.Fatal(err)
	}
	want := VM{Name: "bob", Space: "two-subnets.vm.bob", Host: "h1", Port: "bob", Interface: "tap-bob", Device: Veth, Plugged: true, NIC: plug.NIC{
		Name: "eth0", MAC: "02:00:00:00:02:10",
		Addresses: []netip.Prefix{netip.MustParsePrefix("10.0.2.10/24"), netip.MustParsePrefix("fd00:2::10/64")},
		Gateways:  []netip.Addr{netip.MustParseAddr("10.0.2.1"), netip.MustParseAddr("fd00:2::1")},
	}}
	equal := cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })
	equalAddr := cmp.Comparer(func(a, b netip.Addr) bool { return a == b })
	if d := cmp.Diff(want, *bob, equal, equalAddr); d != "" {
		t.Error(d)
	}
	if carol, err := l.VM("carol"); err != nil || len(carol.NIC.Addresses) != 0 {
		t.Errorf("%+v, %v: an empty list of addresses is a list", carol, err)
	}
	if len(l.VMs) != 4 || len(l.Hosts) != 1 || l.Hosts[0].Pins != "/sys/fs/bpf/viaduct/two-subnets_h1" || len(l.spaces()) != 6 {
		t.Errorf("%+v", l.Manifest)
	}
}

// A VM may stand for what is behind a router's own port; one may begin with nothing but its MAC.
func TestPlanStory(t *testing.T) {
	l, err := plan(t.Context(), "/r", "", "/bin/viaduct", parse(t, examples.Story))
	if err != nil {
		t.Fatal(err)
	}
	internet, err := l.VM("internet")
	if err != nil || internet.Host != "host6" || internet.Interface != "uplink" || internet.NIC.MAC != "02:00:00:00:03:64" || len(internet.NIC.Routes) != 1 {
		t.Errorf("%+v, %v", internet, err)
	}
	vm, err := l.VM("vm")
	if err != nil || vm.Host != "host5" || vm.Interface != "tap123" || vm.NIC.MAC != "02:00:00:00:01:05" || len(vm.NIC.Addresses)+len(vm.NIC.Gateways) != 0 {
		t.Errorf("%+v, %v", vm, err)
	}
}

const onePort = `
{kind: bridge, name: b}
---
{kind: port, name: p, bridge: b, addresses: [10.9.0.1], binding: {host: h, interface: i}}
---
{kind: port, name: unbound, bridge: b}
---
`

func TestPlanRefuses(t *testing.T) {
	for _, c := range []struct{ name, vm, want string }{
		{"no port", `{kind: vm, name: v, port: q}`, `test.yaml:8:1: vm v: port: no port "q"`},
		{"unbound", `{kind: vm, name: v, port: unbound}`, "has no binding"},
		{"other host", `{kind: vm, name: v, port: p, host: x}`, "bound on h"},
		{"no prefix length", `{kind: vm, name: v, port: p}`, "10.9.0.1 is on no subnet"},
		{"device", `{kind: vm, name: v, port: p, device: sriov, addresses: [10.9.0.1/24]}`, `device: "sriov": want veth or tap`},
		{"name", `{kind: vm, name: ../v, port: p}`, "letters"},
		{"field", `{kind: vm, name: v, port: p, colour: red}`, "colour"},
		{"address", `{kind: vm, name: v, port: p, addresses: [10.9.0.1]}`, "addresses[0]"},
		{"twice", "{kind: vm, name: v, port: p, addresses: [10.9.0.1/24]}\n---\n{kind: vm, name: v, port: p, addresses: [10.9.0.1/24]}", "described twice"},
		{"lab twice", "{kind: lab, name: a}\n---\n{kind: lab, name: b}", "described twice"},
		{"lab name", "{kind: lab, name: a.b}", `laboratory "a.b"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := plan(t.Context(), "/r", "", "", parse(t, onePort+c.vm))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q in it", err, c.want)
			}
		})
	}
	if _, err := plan(t.Context(), "/r", "", "", parse(t, "{kind: bridge, name: b}")); err == nil || !strings.Contains(err.Error(), "no host") {
		t.Errorf("without a host: %v", err)
	}
}
