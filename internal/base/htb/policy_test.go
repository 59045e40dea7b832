package htb

import (
	"fmt"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"pgregory.net/rapid"
)

func config(global, tunnel, vtep, vm int64) Config {
	c := DefaultConfig()
	c.Global, c.Tunnel, c.VTEP, c.VM = global, tunnel, vtep, vm
	return c
}

// link adds a leaf for a port of a number of its own.
func link(p *Policy, name string, class Class, cell *int64) *Leaf {
	return p.Link(name, class, uint32(1+len(*p.ports.Load())), cell)
}

// owner is whose token it is that a port has got.
func owner(l *Leaf, lent bool) uint32 {
	if lent {
		return 0
	}
	return l.no
}

// back returns tokens, as of the root.
func back(p *Policy, n int) { p.Return(make([]uint32, n)) }

// drain takes all that a leaf can get.
func drain(p *Policy, l *Leaf) (n int) {
	for p.TryTake(l) {
		n++
	}
	return n
}

func TestLink(t *testing.T) { // P1, P2, P3
	p := New(config(1, 8, 1, 1), nil)
	ls := []*Leaf{link(p, "gre", Tunnel, nil), link(p, "vxlan", Tunnel, nil), link(p, "vtep", VTEP, nil), link(p, "vm1", VM, nil), link(p, "vm2", VM, nil)}
	names := []string{"root/infra/tunnel/gre", "root/infra/tunnel/vxlan", "root/infra/vtep/vtep", "root/vms/vm1", "root/vms/vm2"}
	for i, want := range []int64{8, 8, 1, 1, 1} {
		if ls[i].Name() != names[i] || ls[i].Tokens() != want {
			t.Errorf("%s holds %d, want %s with %d", ls[i].Name(), ls[i].Tokens(), names[i], want)
		}
	}
	if p.Total() != 19 {
		t.Errorf("total %d", p.Total())
	}
	if !p.TryTake(ls[3]) || !p.TryTake(ls[4]) || p.TryTake(ls[4]) {
		t.Error("each VM has one token, though global is 1")
	}
}

func TestUnlink(t *testing.T) { // P4, P5, D13
	p := New(config(2, 0, 0, 3), nil)
	a, b := link(p, "a", VM, nil), link(p, "b", VM, nil)
	if p.Total() != 6 {
		t.Fatalf("total %d", p.Total())
	}
	p.Unlink(a)
	p.Unlink(a)
	if acc := p.Account(); a.Tokens() != 0 || p.TryTake(a) || acc.Total != 3 || acc.Held != 3 || acc.Debt != 0 {
		t.Fatalf("%d tokens, %+v", a.Tokens(), acc)
	}
	if n := drain(p, b); n != 3 {
		t.Fatalf("b got %d", n)
	}
	p.Unlink(b) // all in flight: two shall remain, one is owed
	if acc := p.Account(); acc.Total != 2 || acc.Debt != 1 || acc.InFlight != 3 {
		t.Fatalf("%+v", acc)
	}
	back(p, 1)
	if acc := p.Account(); acc.Debt != 0 || acc.Held != 0 || acc.InFlight != 2 {
		t.Fatalf("%+v", acc)
	}
	back(p, 2)
	if acc := p.Account(); acc.Held != 2 || acc.InFlight != 0 || acc.Returned != 3 {
		t.Fatalf("%+v", acc)
	}
}

// A link cancels a debt: nothing is taken from those in flight.
func TestLinkAfterUnlink(t *testing.T) {
	p := New(config(1, 0, 0, 4), nil)
	a := link(p, "a", VM, nil)
	drain(p, a)
	p.Unlink(a)
	b := link(p, "b", VM, nil)
	if acc := p.Account(); acc.Total != 4 || acc.Debt != 0 || acc.InFlight != 4 || b.Tokens() != 0 {
		t.Fatalf("%+v", acc)
	}
	back(p, 4)
	if b.Tokens() != 4 {
		t.Fatalf("b holds %d", b.Tokens())
	}
}

func TestReconfigure(t *testing.T) { // D14
	p := New(config(1, 0, 0, 5), nil)
	a := link(p, "a", VM, nil)
	p.Reconfigure(config(1, 0, 0, 2))
	if acc := p.Account(); a.Tokens() != 2 || acc.Total != 2 || acc.Held != 2 {
		t.Fatalf("%d, %+v", a.Tokens(), acc)
	}
	p.Reconfigure(config(10, 0, 0, 0)) // protection off
	if n := drain(p, a); n != 10 {
		t.Fatalf("drew %d from the root", n)
	}
	p.Reconfigure(config(4, 0, 0, 4))
	back(p, 10)
	if acc := p.Account(); acc.Held != 4 || acc.InFlight != 0 || a.Tokens() != 4 {
		t.Fatalf("%+v", acc)
	}
}

func TestProtectionOff(t *testing.T) {
	p := New(config(16, 0, 0, 0), nil)
	a, b, c := link(p, "a", VM, nil), link(p, "b", Tunnel, nil), link(p, "c", VTEP, nil)
	if n := drain(p, a); n != 16 {
		t.Fatalf("a drew %d", n)
	}
	back(p, 9)
	for i := range 9 {
		if l := []*Leaf{b, c}[i%2]; !p.TryTake(l) {
			t.Fatalf("token %d: everybody draws from the root", i)
		}
	}
	if p.TryTake(b) {
		t.Fatal("the root is empty")
	}
}

func TestLeftoversOfAnEarlierPolicy(t *testing.T) {
	root, cell := int64(77), int64(99)
	p := New(config(8, 0, 0, 4), &root)
	link(p, "a", VM, &cell)
	if root != 4 || cell != 4 {
		t.Fatalf("root %d, leaf %d", root, cell)
	}
}

func TestSurplusIsNotMinted(t *testing.T) {
	p := New(config(8, 0, 0, 4), nil)
	l := link(p, "a", VM, nil)
	p.TryTake(l)
	p.Return([]uint32{l.no, l.no, l.no})
	back(p, 0)
	if a := p.Account(); a.Surplus != 2 || a.Held != 8 || a.InFlight != 0 {
		t.Fatalf("%+v", a)
	}
}

func TestReturnedIsDistributed(t *testing.T) { // T6, T7
	p := New(config(1, 0, 0, 100), nil)
	l := link(p, "a", VM, nil)
	drain(p, l)
	for _, n := range []int{3, 2} {
		back(p, n)
		if got := drain(p, l); got != n {
			t.Fatalf("%d returned, %d taken", n, got)
		}
	}
}

func TestSnapshot(t *testing.T) {
	p := New(config(16, 4, 2, 3), nil)
	link(p, "tun", Tunnel, nil)
	link(p, "vm", VM, nil)
	want := []Bucket{
		{Name: "root", Depth: 0, Capacity: 16, Tokens: 9, Share: 1},
		{Name: "root/infra", Depth: 1, Share: 2},
		{Name: "root/infra/tunnel", Depth: 2, Share: 1},
		{Name: "root/infra/tunnel/tun", Depth: 3, Capacity: 4, Tokens: 4, Share: 1, Leaf: true, Class: Tunnel},
		{Name: "root/infra/vtep", Depth: 2, Share: 1},
		{Name: "root/vms", Depth: 1, Share: 2},
		{Name: "root/vms/vm", Depth: 2, Capacity: 3, Tokens: 3, Share: 1, Leaf: true, Class: VM},
	}
	if got := p.Snapshot(); !slices.Equal(got, want) {
		t.Fatalf("got %+v", got)
	}
}

func TestValidate(t *testing.T) {
	if err := DefaultConfig().Validate(); err != nil {
		t.Error(err)
	}
	for name, c := range map[string]Config{
		"global 0":    config(0, 1, 1, 1),
		"too big":     config(1, MaxTokens+1, 1, 1),
		"negative":    config(1, 1, -1, 1),
		"vm negative": config(1, 1, 1, -1),
		"no share":    {Global: 1, TunnelShare: 1, VMShare: 1},
	} {
		if c.Validate() == nil {
			t.Errorf("%s is valid", name)
		}
	}
}

// Two promises: half for VMs and half for tunnels, and everybody within a class alike, whichever
// of the classes are saturated. Idle classes' share goes to their sibling, then to all.
func TestShareUnderContention(t *testing.T) {
	tests := []struct {
		tunnels, vteps, vms int // saturated ports
		wantInfra           float64
	}{
		{1, 0, 1, .5}, {1, 0, 3, .5}, {2, 0, 5, .5}, {0, 1, 1, .5}, {0, 2, 4, .5},
		{1, 1, 1, .5}, {1, 1, 40, .5}, {4, 1, 3, .5}, {3, 2, 7, .5},
		{1, 0, 0, 1}, {0, 1, 0, 1}, {2, 1, 0, 1}, {0, 0, 1, 0}, {0, 0, 5, 0},
	}
	for _, tt := range tests {
		for _, batch := range []int{1, 7, 32} {
			t.Run(fmt.Sprintf("%d tunnels %d vteps %d vms batch %d", tt.tunnels, tt.vteps, tt.vms, batch), func(t *testing.T) {
				p := New(DefaultConfig(), nil)
				// Idle ports of every class are there too.
				idle := []*Leaf{link(p, "idle", Tunnel, nil), link(p, "idle", VTEP, nil), link(p, "idle", VM, nil)}
				var busy []*Leaf
				for class, n := range map[Class]int{Tunnel: tt.tunnels, VTEP: tt.vteps, VM: tt.vms} {
					for range n {
						busy = append(busy, link(p, "busy", class, nil))
					}
				}
				got := make(map[*Leaf]float64)
				var flight []*Leaf         // in order of arrival
				warm := 2 * int(p.Total()) // the first bursts are as large as the leaves
				done, served := 0, 0
				for done < warm+10*int(p.Total()) {
					for _, l := range busy { // the map's order is random: so is who comes first
						for p.TryTake(l) {
							flight = append(flight, l)
						}
					}
					n := min(batch, len(flight))
					if done >= warm {
						for _, l := range flight[:n] {
							got[l]++
						}
						served += n
					}
					done += n
					numbers := make([]uint32, n)
					for i, l := range flight[:n] {
						numbers[i] = l.no
					}
					flight = flight[n:]
					p.Return(numbers)
				}
				var class [3]float64
				for _, l := range busy {
					got[l] /= float64(served)
					class[l.class] += got[l]
				}
				near := func(what string, got, want float64) {
					if math.Abs(got-want) > .02 {
						t.Errorf("%s: share %.3f, want %.3f", what, got, want)
					}
				}
				near("infra", class[Tunnel]+class[VTEP], tt.wantInfra)
				near("vms", class[VM], 1-tt.wantInfra)
				if tt.tunnels > 0 && tt.vteps > 0 {
					near("tunnel and vtep", class[Tunnel]-class[VTEP], 0)
				}
				ports := map[Class]int{Tunnel: tt.tunnels, VTEP: tt.vteps, VM: tt.vms}
				for _, l := range busy {
					near(l.class.String(), got[l], class[l.class]/float64(ports[l.class]))
				}
				for _, l := range idle { // and the idle ones' credit is untouched
					if l.Tokens() != l.b.capacity {
						t.Errorf("idle %s holds %d of %d", l.class, l.Tokens(), l.b.capacity)
					}
				}
			})
		}
	}
}

// Any sequence of operations: no token is lost or minted, no leaf exceeds its
// capacity, and once everything has come back all leaves are full.
func TestConservation(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.Int64Range(0, 12)
		draw := func() Config {
			return config(rapid.Int64Range(1, 30).Draw(t, "global"), size.Draw(t, "tunnel"), size.Draw(t, "vtep"), size.Draw(t, "vm"))
		}
		cfg := draw()
		p := New(cfg, nil)
		var leaves []*Leaf
		number := uint32(0)
		var taken, returned uint64
		var flight []uint32 // whose the tokens in flight are
		check := func() {
			sum := int64(0)
			for _, l := range leaves {
				sum += cfg.size(l.class)
				if l.Tokens() > l.b.capacity {
					t.Fatalf("%s holds %d of %d", l.Name(), l.Tokens(), l.b.capacity)
				}
			}
			a := p.Account()
			for _, l := range leaves {
				flying := int64(0)
				for _, no := range flight {
					if no == l.no {
						flying++
					}
				}
				if l.b.out != l.Tokens()+flying {
					t.Fatalf("%s has %d out, holds %d, %d in flight", l.Name(), l.b.out, l.Tokens(), flying)
				}
			}
			if a.Total != max(cfg.Global, sum) {
				t.Fatalf("total %d, want max(%d, %d)", a.Total, cfg.Global, sum)
			}
			if a.InFlight != int64(taken-returned) || a.Returned != returned || a.Surplus != 0 || a.Debt < 0 || a.Debt > max(a.InFlight, 0) {
				t.Fatalf("taken %d, returned %d: %+v", taken, returned, a)
			}
		}
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			switch op := rapid.IntRange(0, 9).Draw(t, "op"); {
			case op == 0:
				number++
				leaves = append(leaves, p.Link("l", Class(rapid.IntRange(0, 2).Draw(t, "class")), number, nil))
			case op == 1 && len(leaves) > 0:
				i := rapid.IntRange(0, len(leaves)-1).Draw(t, "leaf")
				p.Unlink(leaves[i])
				leaves = slices.Delete(leaves, i, i+1)
			case op == 2:
				cfg = draw()
				p.Reconfigure(cfg)
			case op < 6 && taken > returned:
				n := rapid.Uint64Range(1, taken-returned).Draw(t, "return")
				flight = rapid.Permutation(flight).Draw(t, "order")
				p.Return(flight[:n])
				flight = flight[n:]
				returned += n
			case len(leaves) > 0:
				l := leaves[rapid.IntRange(0, len(leaves)-1).Draw(t, "leaf")]
				for range rapid.IntRange(1, 20).Draw(t, "take") {
					if ok, lent := Take(l.b.cell, p.root.cell); ok {
						taken++
						flight = append(flight, owner(l, lent))
					}
				}
			}
			check()
		}
		p.Return(flight)
		flight, returned = nil, taken
		check()
		if a := p.Account(); a.Debt != 0 || a.Held != a.Total {
			t.Fatalf("not all came back: %+v", a)
		}
		for _, l := range leaves {
			if l.Tokens() != l.b.capacity {
				t.Fatalf("%s holds %d of %d", l.Name(), l.Tokens(), l.b.capacity)
			}
			if l.b.out != l.b.capacity {
				t.Fatalf("%s has %d out", l.Name(), l.b.out)
			}
		}
	})
}

// T8, P6: takers that stand in for the kernel, several workers that return,
// ports that come and go, and sizes and shares that change, all at once.
func TestConcurrent(t *testing.T) {
	cells := make([]int64, 8)
	var root int64
	last := config(32, 16, 8, 4)
	p := New(last, &root)
	fixed := []*Leaf{link(p, "t", Tunnel, &cells[0]), link(p, "v", VTEP, &cells[1]), link(p, "a", VM, &cells[2]), link(p, "b", VM, &cells[3])}
	const rounds = 5000
	var taken, returned atomic.Int64
	var wg sync.WaitGroup
	for i := range fixed {
		wg.Go(func() {
			var mine []uint32
			for j := range rounds {
				if ok, lent := Take(&cells[i], &root); ok {
					taken.Add(1)
					mine = append(mine, owner(fixed[i], lent))
				}
				if j%3 == 0 {
					p.Return(mine)
					returned.Add(int64(len(mine)))
					mine = mine[:0]
				}
			}
			p.Return(mine)
			returned.Add(int64(len(mine)))
		})
	}
	wg.Go(func() {
		for j := range rounds / 20 {
			l := link(p, "x", VM, &cells[4+j%4])
			if ok, lent := Take(l.b.cell, &root); ok {
				taken.Add(1)
				p.Unlink(l) // while its token is in flight
				p.Return([]uint32{owner(l, lent)})
				returned.Add(1)
			} else {
				p.Unlink(l)
			}
			p.Account()
		}
	})
	wg.Go(func() {
		for j := range int64(rounds / 20) {
			p.Reconfigure(Config{Global: 1 + j%40, Tunnel: j % 17, VTEP: j % 3 * 9, VM: j % 5, TunnelShare: 1 + j%3, VTEPShare: 1, VMShare: 1 + j%4})
		}
		p.Reconfigure(last)
	})
	wg.Wait()
	back(p, 0)
	a := p.Account()
	if taken.Load() != returned.Load() || a.Returned != uint64(returned.Load()) {
		t.Fatalf("taken %d, returned %d: %+v", taken.Load(), returned.Load(), a)
	}
	if a.InFlight != 0 || a.Debt != 0 || a.Surplus != 0 || a.Held != a.Total || a.Total != 32 {
		t.Fatalf("%+v", a)
	}
	for _, l := range fixed {
		if l.b.out != l.Tokens() {
			t.Errorf("%s has %d out, holds %d", l.Name(), l.b.out, l.Tokens())
		}
	}
	if taken.Load() == 0 {
		t.Fatal("nobody took anything")
	}
}

func TestReturnAllocatesNothing(t *testing.T) {
	p := New(DefaultConfig(), nil)
	ls := []*Leaf{link(p, "t", Tunnel, nil), link(p, "a", VM, nil), link(p, "b", VM, nil)}
	ports := []uint32{ls[0].no, ls[1].no, ls[2].no}
	if n := testing.AllocsPerRun(100, func() {
		for _, l := range ls {
			p.TryTake(l)
		}
		p.Return(ports)
	}); n != 0 {
		t.Fatalf("%v allocations", n)
	}
}

func benchmarkReturn(b *testing.B, ports, busy, batch int) {
	cells := make([]int64, ports)
	p := New(DefaultConfig(), nil)
	ls := make([]*Leaf, ports)
	for i := range ls {
		ls[i] = link(p, fmt.Sprint(i), VM, &cells[i])
	}
	b.ReportAllocs()
	taken := make([]uint32, 0, batch)
	for i := 0; b.Loop(); i++ {
		taken = taken[:0]
		for j := range batch {
			if l := ls[(i+j)%busy]; p.TryTake(l) {
				taken = append(taken, l.no)
			}
		}
		p.Return(taken)
	}
}

func BenchmarkReturn(b *testing.B) {
	for _, ports := range []int{4, 256} {
		for _, batch := range []int{1, 32} {
			b.Run(fmt.Sprintf("ports=%d/batch=%d/one_busy", ports, batch), func(b *testing.B) { benchmarkReturn(b, ports, 1, batch) })
			b.Run(fmt.Sprintf("ports=%d/batch=%d/all_busy", ports, batch), func(b *testing.B) { benchmarkReturn(b, ports, ports, batch) })
		}
	}
}

// What an earlier policy has given out is neither lost nor given out again.
func TestInherit(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		cfg := Config{Global: rapid.Int64Range(1, 40).Draw(t, "global"), VM: rapid.Int64Range(0, 8).Draw(t, "vm"), VMShare: 1, TunnelShare: 1, VTEPShare: 1}
		cells := make([]int64, rapid.IntRange(1, 5).Draw(t, "ports"))
		flying := rapid.Int64Range(0, 20).Draw(t, "waiting") // misses on rings
		told := flying
		for i := range cells {
			if cells[i] = rapid.Int64Range(-1, 8).Draw(t, "cell"); cells[i] < 0 {
				cells[i] = Closed
			}
			told += max(cells[i], 0)
		}
		root := rapid.Int64Range(0, 60).Draw(t, "root")
		p := New(cfg, &root)
		p.Inherit(told)
		for i := range cells {
			if n := rapid.Int64Range(0, max(cells[i], 0)).Draw(t, "taken"); n > 0 { // meanwhile
				cells[i] -= n
				flying += n
			}
			if rapid.Bool().Draw(t, "linked") {
				link(p, "vm", VM, &cells[i])
			} else if p.Recall(&cells[i]); cells[i] != 0 {
				t.Fatalf("cell %d", cells[i])
			}
		}
		if a := p.Account(); a.InFlight != flying {
			t.Fatalf("%d in flight, want %d: %+v", a.InFlight, flying, a)
		}
		back(p, int(flying))
		if a := p.Account(); a.InFlight != 0 || a.Surplus != 0 || a.Held != a.Total || a.Debt != 0 {
			t.Fatalf("%+v", a)
		}
	})
}
