package ebpf

import (
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/viaduct-net/viaduct/internal/base/action"
	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/base/packet"
	"github.com/viaduct-net/viaduct/internal/path/datapath"
	"github.com/viaduct-net/viaduct/internal/path/datapath/ebpf/netnstest"
)

// pair is two hosts with real stacks on two ports. Host a knows host b also by an alias, which only the
// datapath's rewrites make true.
type pair struct {
	d      *Datapath
	a, b   *netnstest.Namespace
	pa, pb datapath.Port
	nat    bool         // what b sends from dport comes from the alias
	most   uint16       // length of IP packets that flows are for; 0: any
	gso    atomic.Int64 // misses that carried more than one segment
	long   atomic.Int64 // misses that were too long for a flow
	misses atomic.Int64
}

const (
	a4, a6        = "10.7.0.1", "fd07::1"
	b4, b6        = "10.7.0.2", "fd07::2"
	alias4        = "10.7.0.9"
	alias6        = "fd07::9"
	dport, atPort = 8080, 80 // b listens on dport, a dials atPort
)

func newPair(t testing.TB, d *Datapath) *pair {
	p := &pair{d: d, a: netnstest.New(t), b: netnstest.New(t)}
	n := serial.Add(1)
	name := func(s string) string { return fmt.Sprintf("%s%d", s, n) }
	p.a.Veth(t, name("vdpa"), "eth0")
	p.b.Veth(t, name("vdpb"), "eth0")
	macA := p.a.Address(t, "eth0", a4+"/24", a6+"/64")
	macB := p.b.Address(t, "eth0", b4+"/24", b6+"/64")
	for _, ip := range []string{b4, b6, alias4, alias6} {
		p.a.Neighbour(t, "eth0", ip, macB)
	}
	for _, ip := range []string{a4, a6} {
		p.b.Neighbour(t, "eth0", ip, macA)
	}
	var err error
	if p.pa, err = d.AddPort(name("vdpa"), datapath.VM); err != nil {
		t.Fatal(err)
	}
	if p.pb, err = d.AddPort(name("vdpb"), datapath.VM); err != nil {
		t.Fatal(err)
	}
	return p
}

// actions forwards to the other host, with the destination NAT of packets to the alias.
func (p *pair) actions(k *match.Key) action.Physical {
	ip := func(s string) match.Addr { return packet.Addr4(net.ParseIP(s).To4()) }
	if k.EthType == packet.EthTypeIPv6 {
		ip = func(s string) match.Addr { return match.Addr(net.ParseIP(s).To16()) }
	}
	real, alias := b4, alias4
	if k.EthType == packet.EthTypeIPv6 {
		real, alias = b6, alias6
	}
	switch {
	case k.InPort == p.pa.No && k.Dst == ip(alias) && k.DstPort == atPort:
		return action.Physical{{Op: action.DecTTL}, {Op: action.SetDst, Addr: ip(real)}, {Op: action.SetDstPort, Value: dport},
			{Op: action.Output, Port: p.pb.No}}
	case k.InPort == p.pb.No && p.nat && k.Src == ip(real) && k.SrcPort == dport:
		return action.Physical{{Op: action.DecTTL}, {Op: action.SetSrc, Addr: ip(alias)}, {Op: action.SetSrcPort, Value: atPort},
			{Op: action.Output, Port: p.pa.No}}
	case k.InPort == p.pa.No:
		return action.Physical{{Op: action.Output, Port: p.pb.No}}
	}
	return action.Physical{{Op: action.Output, Port: p.pa.No}}
}

// serve handles misses until the test ends, installing flows or not.
func (p *pair) serve(t testing.TB, flows bool) {
	atomic.StoreInt64(p.pa.Credit, 0)
	atomic.StoreInt64(p.pb.Credit, 0)
	atomic.StoreInt64(p.d.RootCredit(), 64)
	var stop atomic.Bool
	var wg sync.WaitGroup
	for w := range p.d.Workers() {
		wg.Go(func() {
			ms := make([]*datapath.Miss, 32)
			for i := range ms {
				ms[i] = new(datapath.Miss)
			}
			for !stop.Load() {
				n, err := p.d.ReadMisses(w, ms, 10*time.Millisecond)
				if err != nil {
					t.Error(err)
					return
				}
				for _, m := range ms[:n] {
					p.handle(t, m, flows)
				}
				atomic.AddInt64(p.d.RootCredit(), int64(n))
			}
		})
	}
	t.Cleanup(func() {
		stop.Store(true)
		wg.Wait()
	})
}

func (p *pair) handle(t testing.TB, m *datapath.Miss, flows bool) {
	p.misses.Add(1)
	if m.GSO.Segs > 1 {
		p.gso.Add(1)
	}
	if m.Reason == datapath.MissMTU {
		p.long.Add(1)
	}
	as := p.actions(&m.Key)
	if p.most != 0 && m.Key.Proto == packet.ProtoTCP {
		as = slices.Insert(as, 0, action.Action{Op: action.CheckLen, Value: p.most})
	}
	if flows {
		if _, err := p.d.PutFlows([]datapath.Flow{{Key: m.Key, Actions: as}}); err != nil {
			t.Error(err)
		}
	}
	es := []datapath.Exec{{Frame: m.Frame, GSO: m.GSO, InPort: m.Key.InPort, Actions: as}}
	if p.d.Execute(es); es[0].Err != nil {
		t.Errorf("execute %+v: %v", m.Key, es[0].Err)
	}
}

// transfer sends size random bytes from a to b and compares what arrives.
func (p *pair) transfer(t testing.TB, listen, dial string, size int) {
	t.Helper()
	l := p.b.Listen(t, listen)
	sum := make(chan string, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			sum <- err.Error()
			return
		}
		defer c.Close()
		h := sha256.New()
		_, err = io.Copy(h, c)
		if err != nil {
			sum <- err.Error()
			return
		}
		sum <- fmt.Sprintf("%x", h.Sum(nil))
	}()
	data := make([]byte, size)
	rand.New(rand.NewSource(1)).Read(data)
	c := p.a.Dial(t, dial)
	if err := c.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write(data); err != nil {
		t.Fatal(err)
	}
	c.Close()
	select {
	case got := <-sum:
		if want := fmt.Sprintf("%x", sha256.Sum256(data)); got != want {
			t.Fatalf("received %s, sent %s", got, want)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("the transfer does not end")
	}
}

// TestTCPSegmentsAreMeasured: a flow that is for packets of the link's MTU takes offloaded ones of 64 KB; one that is for less has each of
// them come up, and carried out they arrive as well.
func TestTCPSegmentsAreMeasured(t *testing.T) {
	for _, c := range []struct {
		most uint16
		long bool
	}{{1500, false}, {1499, true}} {
		for _, host := range []string{b4, b6} {
			t.Run(fmt.Sprintf("%s/%d", host, c.most), func(t *testing.T) {
				p := newPair(t, openTest(t, testOptions(t)))
				p.most = c.most
				p.serve(t, true)
				p.transfer(t, net.JoinHostPort(host, "8080"), net.JoinHostPort(host, "8080"), 4<<20)
				if n := p.long.Load(); n > 0 != c.long {
					t.Errorf("%d of %d misses were too long", n, p.misses.Load())
				}
			})
		}
	}
}

func TestTCP(t *testing.T) {
	for _, c := range []struct {
		name   string
		flows  bool
		server string
		dial   string
	}{
		{"Misses4", false, b4, net.JoinHostPort(b4, "8080")},
		{"Misses6", false, b6, net.JoinHostPort(b6, "8080")},
		{"MissesNAT4", false, b4, net.JoinHostPort(alias4, "80")},
		{"MissesNAT6", false, b6, net.JoinHostPort(alias6, "80")},
		{"Flows4", true, b4, net.JoinHostPort(b4, "8080")},
		{"Flows6", true, b6, net.JoinHostPort(b6, "8080")},
		{"FlowsNAT4", true, b4, net.JoinHostPort(alias4, "80")},
		{"FlowsNAT6", true, b6, net.JoinHostPort(alias6, "80")},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newPair(t, openTest(t, testOptions(t)))
			p.nat = strings.Contains(c.name, "NAT")
			p.serve(t, c.flows)
			p.transfer(t, net.JoinHostPort(c.server, "8080"), c.dial, 4<<20)
			t.Logf("%d misses, %d of them GSO", p.misses.Load(), p.gso.Load())
			if !c.flows && p.gso.Load() == 0 {
				t.Error("no GSO frame came up")
			}
			if c.flows && p.misses.Load() > 200 {
				t.Errorf("%d misses with flows installed", p.misses.Load())
			}
		})
	}
}

// The receiver of a partial checksum between namespaces does not look at it. Here every checksum is
// completed, either before it enters the datapath or after it has left it, and so is looked at.
func TestTCPChecksums(t *testing.T) {
	for _, flows := range []bool{false, true} {
		for _, before := range []bool{false, true} {
			for _, dst := range [][3]string{{"IPv4", b4, alias4}, {"IPv6", b6, alias6}} {
				t.Run(fmt.Sprintf("%s/flows=%v/before=%v", dst[0], flows, before), func(t *testing.T) {
					p := newPair(t, openTest(t, testOptions(t)))
					p.nat = true
					for _, n := range []*netnstest.Namespace{p.a, p.b} {
						if before {
							n.Do(t, func() error { return netnstest.NoChecksumOffload("eth0") })
						}
					}
					for _, q := range []datapath.Port{p.pa, p.pb} {
						if before {
							break
						}
						if err := netnstest.NoChecksumOffload(q.Interface); err != nil {
							t.Fatal(err)
						}
						notPeer(t, p.d, q.No)
					}
					p.serve(t, flows)
					p.transfer(t, net.JoinHostPort(dst[1], "8080"), net.JoinHostPort(dst[2], "80"), 1<<20)
				})
			}
		}
	}
}

// notPeer makes the port's output take the way through its own interface; it must have been the short one.
func notPeer(t testing.TB, d *Datapath, no uint32) {
	t.Helper()
	var p bpfPort
	if err := d.maps.Ports.Lookup(d.slot(no), &p); err != nil {
		t.Fatal(err)
	}
	if p.Flags&portPeer == 0 {
		t.Fatal("the peer is in another namespace, but the port does not know")
	}
	p.Flags &^= portPeer
	if err := d.maps.Ports.Put(d.slot(no), &p); err != nil {
		t.Fatal(err)
	}
}
