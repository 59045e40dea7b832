package datapathtest

import (
	"errors"

	"github.com/viaduct-net/viaduct/internal/base/drop"
	"github.com/viaduct-net/viaduct/internal/path/datapath"
)

// crawl lets a burst of n frames through, and then nothing for a long time.
func crawl(frame []byte, n int) datapath.Rate {
	return datapath.Rate{BitsPerSecond: 1000, BurstBits: uint64(8*len(frame)*n + 4*len(frame))}
}

func rates(b *bench) {
	ps := b.ports(2)
	f, back := udp4(1, 2), udp4(2, 1)
	if b.limits.NoRates {
		if err := b.dp.SetRates(ps[0].No, datapath.Rates{Egress: crawl(f, 1)}); !errors.Is(err, datapath.ErrRates) {
			b.Errorf("limits were set: %v", err)
		}
		b.must(b.dp.SetRates(ps[0].No, datapath.Rates{}))
		return
	}
	b.put(ps[0], f, output(ps[1]))
	b.put(ps[1], back, output(ps[0]))
	pass := func(from, to datapath.Port, frame []byte, sent, want int) {
		b.Helper()
		for range sent {
			b.send(from, frame)
		}
		for range want {
			b.expect(to, frame)
		}
		b.silent(to)
	}
	drops := func(p datapath.Port, egress, ingress uint64) {
		b.Helper()
		if s := b.stats(p); s.Drops[drop.EgressLimit] != egress || s.Drops[drop.IngressLimit] != ingress {
			b.Errorf("port %d has dropped %d of its egress, %d of its ingress, want %d and %d", p.No, s.Drops[drop.EgressLimit], s.Drops[drop.IngressLimit], egress, ingress)
		}
	}
	b.must(b.dp.SetRates(ps[0].No, datapath.Rates{Egress: crawl(f, 5)}))
	pass(ps[0], ps[1], f, 8, 5)
	drops(ps[0], 3, 0)
	pass(ps[1], ps[0], back, 8, 8) // the other direction is not limited
	grant(ps[0], 1)
	b.send(ps[0], udp4(7, 7)) // nor does a miss get by
	b.silent(ps[1])
	drops(ps[0], 4, 0)
	if n := b.stats(ps[0]).Admitted; n != 0 {
		b.Errorf("%d misses", n)
	}

	b.must(b.dp.SetRates(ps[0].No, datapath.Rates{Ingress: crawl(f, 2)}))
	pass(ps[0], ps[1], f, 3, 3)
	pass(ps[1], ps[0], back, 6, 2)
	drops(ps[0], 4, 4)
	drops(ps[1], 0, 0)

	b.must(b.dp.SetRates(ps[0].No, datapath.Rates{}))
	pass(ps[1], ps[0], back, 4, 4)
	if err := b.dp.SetRates(9999, datapath.Rates{}); err != nil && !errors.Is(err, datapath.ErrNoPort) {
		b.Error(err)
	}
}
