package upcall

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/viaduct-net/viaduct/internal/base/htb"
)

// contest is an agent in small: a policy that admits and a queue that orders.
type contest struct {
	s      *script
	q      *Queue
	policy *htb.Policy
	root   int64
	ports  []*contender // port 1 is the first
	batch  []uint32     // whose tokens it holds
	first  int          // who takes tokens first, in turns
}

type contender struct {
	no     uint32
	tokens int64
	lent   []bool // of packets in flight, in order: whether the token is the root's
	cost   int64  // ns of a packet
	busy   float64
	served int
}

func newContest(cfg htb.Config) *contest {
	c := &contest{s: &script{}}
	c.policy = htb.New(cfg, &c.root)
	c.q = New(c.s, 0, Config{Now: c.s.clock.Now})
	return c
}

func (c *contest) link(class htb.Class, cost int64) *contender {
	p := &contender{no: uint32(len(c.ports) + 1), cost: cost}
	c.ports = append(c.ports, p)
	c.policy.Link(fmt.Sprint(p.no), class, p.no, &p.tokens)
	return p
}

// send has a port send most packets, or as many as are admitted.
func (c *contest) send(p *contender, most int) {
	for n := range most {
		ok, lent := htb.Take(&p.tokens, &c.root)
		if !ok {
			most = n
			break
		}
		p.lent = append(p.lent, lent)
	}
	c.s.add(p.no, most)
}

// serve has the agent process a batch, and then those send that always want to.
func (c *contest) serve(want ...*contender) {
	c.batch = c.batch[:0]
	for len(c.batch) < 8 { // as worker.Config.Batch
		m, _ := c.q.Next(0)
		if m == nil {
			break
		}
		p := c.ports[m.Key.InPort-1]
		owner := p.no
		if p.lent[0] {
			owner = 0
		}
		p.lent = p.lent[1:]
		c.batch = append(c.batch, owner)
		c.s.clock.Advance(time.Duration(p.cost))
		p.busy += float64(p.cost)
		p.served++
		c.q.Done(m, p.cost)
	}
	c.policy.Return(c.batch)
	c.q.Look()
	c.first++
	for i := range want {
		c.send(want[(c.first+i)%len(want)], 1<<20)
	}
}

func jain(ports []*contender) float64 {
	var sum, squares float64
	for _, p := range ports {
		sum += p.busy
		squares += p.busy * p.busy
	}
	return sum * sum / (float64(len(ports)) * squares)
}

// Ports that want more than they get have the same processing time, whatever their packets cost.
func TestSaturatedPortsShareTime(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		cfg := htb.DefaultConfig()
		cfg.Global, cfg.VM = rapid.Int64Range(1, 512).Draw(t, "global"), rapid.Int64Range(16, 64).Draw(t, "vm")
		c := newContest(cfg)
		for range rapid.IntRange(2, 12).Draw(t, "ports") {
			c.link(htb.VM, rapid.Int64Range(2_000, 20_000).Draw(t, "cost"))
		}
		want := c.ports
		for range rapid.IntRange(0, 4).Draw(t, "idle") {
			c.link(htb.VM, 1)
		}
		for c.s.clock.Now() < int64(20*time.Millisecond) {
			c.serve(want...)
		}
		if j := jain(want); j < 0.99 {
			for _, p := range want {
				t.Logf("%d ns: %d packets, %.1f ms", p.cost, p.served, p.busy/1e6)
			}
			t.Fatalf("index %.3f", j)
		}
	})
}

// A port that stops leaves its share to the others at once, and one that begins has its own at once.
func TestShareIsGivenBack(t *testing.T) {
	c := newContest(htb.DefaultConfig())
	a, b, d := c.link(htb.VM, 4_000), c.link(htb.VM, 16_000), c.link(htb.VM, 8_000)
	for _, want := range [][]*contender{{a, b, d}, {b, d}, {d}, {a, d}, {a, b, d}} {
		for end := c.s.clock.Now() + int64(10*time.Millisecond); c.s.clock.Now() < end; { // what was under way
			c.serve(want...)
		}
		for _, p := range c.ports {
			p.busy = 0
		}
		for end := c.s.clock.Now() + int64(50*time.Millisecond); c.s.clock.Now() < end; {
			c.serve(want...)
		}
		if jain(want) < 0.99 {
			t.Errorf("of %d: %.1f, %.1f, %.1f ms", len(want), a.busy/1e6, b.busy/1e6, d.busy/1e6)
		}
		for _, p := range c.ports {
			if !slices.Contains(want, p) && p.busy != 0 {
				t.Errorf("port %d is still served", p.no)
			}
		}
	}
}

// Where tunnels and VMs both want more than they get, each class has half of the packets, as tokens are dealt.
func TestSaturatedClassesShareTokens(t *testing.T) {
	for _, vms := range []int{1, 3, 20} {
		c := newContest(htb.DefaultConfig())
		tunnel := c.link(htb.Tunnel, 6_000)
		for i := range vms {
			c.link(htb.VM, int64(4_000+1_000*(i%3)))
		}
		c.link(htb.VM, 1) // idle
		for tunnel.served < 20_000 {
			c.serve(c.ports[:1+vms]...)
		}
		all := 0
		for _, p := range c.ports {
			all += p.served
		}
		if part := float64(tunnel.served) / float64(all); part < 0.48 || part > 0.52 {
			t.Errorf("beside %d VMs the tunnel has %.3f", vms, part)
		}
	}
}

// Whoever sends now and then is never refused, whatever others do.
func TestQuietPortIsAdmitted(t *testing.T) {
	c := newContest(htb.DefaultConfig())
	quiet := c.link(htb.VM, 4_000)
	for i := range 8 {
		c.link(htb.VM, int64(4_000+4_000*i))
	}
	for i := range 1000 {
		c.serve(c.ports[1:]...)
		if quiet.tokens == 0 {
			t.Fatalf("batch %d: no token left", i)
		}
		c.send(quiet, 1)
	}
	if quiet.served < 995 {
		t.Fatalf("%d of 1,000 are served", quiet.served)
	}
}
