package sim_test

import (
	"strings"
	"testing"

	"github.com/viaduct-net/viaduct/internal/base/drop"
	"github.com/viaduct-net/viaduct/internal/path/pathtest"
	"github.com/viaduct-net/viaduct/internal/path/sim"
)

const conditions = `
bridge a
router r
vm va a 02:00:00:00:00:0a 10.0.1.5 fd01::5
vm vb a 02:00:00:00:00:0b 10.0.1.6 fd01::6
link a r=10.0.1.1/24
group nets 10.0.1.0/25 10.9.9.9 fd01::5
member left va
member right vb
`

// TestEachCondition holds a packet against each field, plain and inverted, at the outbound filter of vb: a packet that fits is dropped.
func TestEachCondition(t *testing.T) {
	const (
		tcp    = "va tcp eth=va>vb ip=10.0.1.5>10.0.1.6 ports=1000>80 tos=8"
		tcp6   = "va tcp eth=va>vb ip=fd01::5>fd01::6 ports=1000>80"
		echo   = "va echo eth=va>vb ip=10.0.1.5>10.0.1.6 id=80"
		icmp   = "va icmp eth=va>vb ip=10.0.1.5>10.0.1.6 type=3 code=13"
		fail   = "va error eth=va>vb ip=10.0.1.5>10.0.1.6"
		arp    = "va arp op=reply eth=va>vb ip=10.0.1.5>10.0.1.6"
		tagged = "va tcp eth=va>vb ip=10.0.1.5>10.0.1.6 ports=1000>80 vlan=7"
		other  = "va other eth=va>vb type=35020"
	)
	for _, c := range []struct {
		field   string // the last word; those before are not inverted
		fits    []string
		differs []string
	}{
		{"in_ports=va,a:r", []string{tcp, arp, other}, nil},
		{"in_ports=vb", nil, []string{tcp}},
		{"out_ports=vb,va", []string{tcp}, nil},
		{"out_ports=va", nil, []string{tcp}},
		{"in_port_group=left", []string{tcp}, nil},
		{"in_port_group=right", nil, []string{tcp}},
		{"out_port_group=right", []string{tcp}, nil},
		{"out_port_group=left", nil, []string{tcp}},
		{"port_group=left", []string{tcp}, nil},
		{"port_group=right", nil, []string{tcp}},
		{"traversed=a", []string{tcp}, nil},
		{"traversed=r", nil, []string{tcp}},
		{"eth_type=0x0800", []string{tcp, tagged}, []string{tcp6, arp, other}},
		{"eth_src=va", []string{tcp, other}, nil},
		{"eth_src=vb", nil, []string{tcp}},
		{"eth_src=02:00:00:00:00:0c/ff:ff:ff:ff:ff:fe", nil, []string{other}},
		{"eth_src=02:00:00:00:00:0a/ff:ff:ff:ff:ff:fe", []string{tcp}, nil},
		{"eth_dst=vb", []string{tcp}, nil},
		{"eth_dst=00:00:00:00:00:00/01:00:00:00:00:00", []string{tcp}, nil},
		{"eth_dst=va", nil, []string{tcp}},
		{"vlan=7", []string{tagged}, []string{tcp}},
		{"vlan=8", nil, []string{tagged, tcp}},
		{"tos=8", []string{tcp}, []string{tcp6, arp, other}},
		{"proto=6", []string{tcp, tcp6, tagged}, []string{echo, arp, other}},
		{"proto=2", nil, []string{arp}}, // its opcode is no protocol
		{"src=10.0.1.0/24", []string{tcp, echo, arp}, []string{tcp6, other}},
		{"src=fd01::5", []string{tcp6}, []string{tcp}},
		{"src=::/0", []string{tcp6}, []string{tcp, arp, other}},
		{"src=0.0.0.0/0", []string{tcp, arp}, []string{tcp6, other}},
		{"dst=10.0.1.6", []string{tcp, arp}, []string{tcp6}},
		{"dst=10.0.1.7", nil, []string{tcp}},
		{"src_group=nets", []string{tcp, tcp6, arp}, []string{other}},
		{"dst_group=nets", []string{tcp}, []string{tcp6}},
		{"proto=6 src_ports=1-1000", []string{tcp, tcp6}, nil},
		{"proto=6 src_ports=1001-65535", nil, []string{tcp}},
		{"proto=6 dst_ports=80", []string{tcp, tcp6}, nil},
		{"proto=6 dst_ports=81-90", nil, []string{tcp}},
		{"proto=1 icmp_types=3", []string{icmp}, []string{echo}},
		{"proto=1 icmp_codes=13", []string{icmp}, []string{echo}},
		{"proto=1 icmp_types=11 quoted_src=10.0.1.6", []string{fail}, nil},
		{"proto=1 quoted_src=10.0.1.5", nil, []string{fail, echo}},
		{"proto=1 quoted_dst=10.0.1.5", []string{fail}, []string{echo}},
	} {
		words := strings.Fields(c.field)
		last := len(words) - 1
		inverted := append(append([]string{}, words[:last]...), "!"+words[last])
		whole := append(append([]string{}, words...), "invert")
		for _, packet := range c.fits {
			expect(t, words, packet, true)
			expect(t, inverted, packet, false)
			expect(t, whole, packet, false)
		}
		for _, packet := range c.differs {
			expect(t, words, packet, false)
			expect(t, inverted, packet, true)
			expect(t, whole, packet, true)
		}
	}
	expect(t, []string{"no_vlan"}, tcp, true)
	expect(t, []string{"no_vlan"}, tagged, false)
	expect(t, []string{"no_vlan", "invert"}, tagged, true)
	expect(t, nil, other, true)
	expect(t, []string{"invert"}, other, false)
}

// expect filters a packet at vb by one rule. Where a protocol that the packet does not have comes first, the inversion of
// the last word does not show.
func expect(t *testing.T, words []string, packet string, fits bool) {
	t.Helper()
	topo, err := pathtest.Parse(conditions + "filter vb out x\nrule x drop " + strings.Join(words, " ") + "\n")
	if err != nil {
		t.Fatal(err)
	}
	in := topo.MustInject(packet)
	var c sim.Context
	topo.Simulate(&c, &in)
	if got := c.Reason == drop.FilterDrop; got != fits || !got && c.Result != sim.ResultForward {
		t.Errorf("%v: %s: %s %s, want fits %t", words, packet, c.Result, c.Reason, fits)
	}
}

// TestFragmentPolicies holds each kind of piece against each policy.
func TestFragmentPolicies(t *testing.T) {
	for _, c := range []struct {
		policy string
		fits   [3]bool // whole, first, later
	}{
		{"any", [3]bool{true, true, true}},
		{"follow", [3]bool{true, true, true}},
		{"header", [3]bool{true, true, false}},
		{"nonheader", [3]bool{false, false, true}},
		{"unfragmented", [3]bool{true, false, false}},
	} {
		for _, words := range []string{"proto=17", "proto=6 invert"} { // the policy is not inverted
			topo := pathtest.MustParse(conditions + "filter va in x\nrule x drop fragment=" + c.policy + " " + words + "\n")
			for frag, want := range c.fits {
				in := topo.MustInject("va udp eth=va>vb ip=10.0.1.5>10.0.1.6 ports=1>2")
				in.View.Key.Frag = uint8(frag)
				var x sim.Context
				topo.Simulate(&x, &in)
				if got := x.Reason == drop.FilterDrop; got != want {
					t.Errorf("%s, %s, piece %d: fits %t", c.policy, words, frag, got)
				}
			}
		}
	}
}
