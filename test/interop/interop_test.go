package interop

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/viaduct-net/viaduct/internal/base/drop"
)

// pair is one packet in one network, as both sides have decided it.
type pair struct {
	net          *network
	p            *pkt
	ours, theirs verdict
	traced       string // ours
}

// dropped reports whether ours has dropped a copy of it, or of what devices made of it, for that reason.
func (x *pair) dropped(why drop.Reason) bool {
	return strings.Contains(x.traced, "drop: "+why.String()+":")
}

const (
	networksAtOnce = 20 // that OVN holds
	packetsEach    = 40
)

// setting reads an environment variable.
func setting(t *testing.T, name string, otherwise uint64) uint64 {
	s := os.Getenv(name)
	if s == "" {
		return otherwise
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

// TestOVN compares INTEROP_PAIRS pairs (400), made from INTEROP_SEED (1).
func TestOVN(t *testing.T) {
	if _, err := exec.LookPath("ovn-northd"); err != nil {
		if os.Getenv("INTEROP_REQUIRED") != "" {
			t.Fatal("OVN is missing: apt-get install ovn-central")
		}
		t.Skip("OVN is missing: apt-get install ovn-central, or make interop, which does so")
	}
	pairs, seed := int(setting(t, "INTEROP_PAIRS", 400)), setting(t, "INTEROP_SEED", 1)
	g := newGenerator(seed)
	o := startOVN(t)
	s := newScore()
	for at := 0; s.pairs < pairs && s.failed < 20; {
		var nets []*network
		for range min(networksAtOnce, (pairs-s.pairs+packetsEach-1)/packetsEach) {
			nets = append(nets, g.network(fmt.Sprintf("n%d", at)))
			at++
		}
		o.load(nets)
		for _, n := range nets {
			s.network(t, g, o, n)
		}
	}
	t.Logf("seed %d:\n%s", seed, s)
	if s.delivered < s.pairs/4 || s.answered < s.pairs/20 {
		t.Errorf("of %d pairs only %d were delivered, %d answered: the generator is no good", s.pairs, s.delivered, s.answered)
	}
}

// network compares packets in one network, and what follows from those that got through.
func (s *score) network(t *testing.T, g *generator, o *ovn, n *network) {
	v := newViaduct(t, n)
	for range packetsEach / 2 {
		v.forget()
		p := g.packet(n)
		x := s.compare(t, o, v, p)
		for _, q := range g.followers(n, x) {
			s.compare(t, o, v, q)
		}
	}
}

func (s *score) compare(t *testing.T, o *ovn, v *viaduct, p *pkt) *pair {
	x := &pair{net: v.net, p: p}
	ours, ourText := v.decide(p)
	theirs, theirText := o.decide(p)
	// A port to a router is no end; ovn-trace says so where the router takes nothing.
	theirs = slices.DeleteFunc(theirs, func(x out) bool { return v.net.vmOf(x.port) == nil })
	x.ours, x.theirs, x.traced = ours, theirs, ourText
	if !s.judge(x) {
		t.Errorf("packet %s\nViaduct:\n%s%s\nOVN:\n%s%s\nnetwork:\novn-nbctl%s", p, ours, ourText, theirs, theirText,
			strings.ReplaceAll(fmt.Sprintf("%q", commands(v.net)), `"--"`, "\n --"))
	}
	return x
}
