package datapathtest

import (
	"errors"
	"slices"

	"github.com/viaduct-net/viaduct/internal/path/datapath"
)

func portsIdempotent(b *bench) {
	p := b.port()
	if p.No == 0 || p.Credit == nil || p.MTU <= 0 || p.Class != datapath.VM {
		b.Fatalf("%+v", p)
	}
	again, err := b.dp.AddPort(p.Interface, datapath.VM)
	b.must(err)
	if again.No != p.No || again.IfIndex != p.IfIndex {
		b.Errorf("added again: %+v, was %+v", again, p)
	}
	if q := b.port(); q.No == p.No {
		b.Errorf("two ports have number %d", q.No)
	}
}

func portsListAndDelete(b *bench) {
	ps := b.ports(3)
	nos := func() (nos []uint32) {
		list, err := b.dp.Ports()
		b.must(err)
		for _, p := range list {
			nos = append(nos, p.No)
			for _, q := range ps {
				if p.No == q.No && (p.Interface != q.Interface || p.IfIndex != q.IfIndex) {
					b.Errorf("listed as %+v, added as %+v", p, q)
				}
			}
		}
		slices.Sort(nos)
		return nos
	}
	if got := nos(); !slices.Equal(got, []uint32{ps[0].No, ps[1].No, ps[2].No}) {
		b.Errorf("three ports: %v", got)
	}
	b.must(b.dp.DelPort(ps[1].No))
	if got := nos(); !slices.Equal(got, []uint32{ps[0].No, ps[2].No}) {
		b.Errorf("after deletion: %v", got)
	}
	grant(ps[0], 1)
	b.send(ps[1], udp4(1, 2)) // does not reach the datapath any more
	b.noMiss(ps[0])
}

func portsNumbers(b *bench) {
	seen := map[uint32]bool{}
	name := b.rig.NewPort(b)
	for range 20 {
		p, err := b.dp.AddPort(name, datapath.VM)
		b.must(err)
		if seen[p.No] {
			b.Fatalf("number %d was reused", p.No)
		}
		seen[p.No] = true
		b.must(b.dp.DelPort(p.No))
	}
}

func portsNoInterface(b *bench) {
	if _, err := b.dp.AddPort("no-such-if", datapath.VM); !errors.Is(err, datapath.ErrNoInterface) {
		b.Errorf("AddPort: %v", err)
	}
	if ps, err := b.dp.Ports(); err != nil || len(ps) != 0 {
		b.Errorf("it left something behind: %v %v", ps, err)
	}
}

func portsNoSuchPort(b *bench) {
	p := b.port()
	b.must(b.dp.DelPort(p.No))
	for _, no := range []uint32{0, p.No, p.No + 1} {
		if err := b.dp.DelPort(no); !errors.Is(err, datapath.ErrNoPort) {
			b.Errorf("DelPort(%d): %v", no, err)
		}
		if _, err := b.dp.Stats(no); !errors.Is(err, datapath.ErrNoPort) {
			b.Errorf("Stats(%d): %v", no, err)
		}
	}
}
