package sim

import (
	"time"

	"github.com/viaduct-net/viaduct/internal/path/datapath/fake"
)

// links are the ways between hosts.
type links struct {
	cut     map[[2]*host]bool
	loss    int // one in so many is lost; 0: none
	reorder bool
	last    map[[2]*host]int64 // when what was sent last arrives
}

// carry takes a frame through the tunnel to another host.
func (s *Sim) carry(from *host, f fake.Sent) {
	for _, to := range s.hosts {
		if to.tunnel != f.Peer {
			continue
		}
		l, way := &s.links, [2]*host{from, to}
		lost := l.cut[way] || l.loss > 0 && chance(s.rnd, l.loss)
		at := s.now() + int64(s.between(20*time.Microsecond, 300*time.Microsecond))
		if !l.reorder {
			at = max(at, l.last[way])
		}
		if lost {
			s.logf("%s -> %s: lost: %s", from.name, to.name, describe(f.Frame))
			return
		}
		l.last[way] = at
		s.after(time.Duration(at-s.now()), func() {
			s.logf("%s -> %s key %d: %s", from.name, to.name, f.Key, describe(f.Frame))
			to.inject(tunnelDevice, f.Frame, f.Key)
		})
		return
	}
}
