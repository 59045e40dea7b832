package view

import (
	"encoding/binary"
	"math"
	"time"

	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/topo/model"
)

// LoadBalancer spreads the connections to an address of a router.
type LoadBalancer struct {
	ID        uuid.UUID
	Name      string
	Router    uuid.UUID
	AdminUp   bool
	Address   match.Addr
	Listeners []Listener
}

// Listener is a protocol and port of a load balancer, with the members that serve it.
type Listener struct {
	Proto uint8
	Port  uint16
	*Pool
}

// Pool is a set of members as one load balancer sees it. Immutable.
type Pool struct {
	ID         uuid.UUID
	Name       string
	Persistent time.Duration // a client comes back to its member for so long; 0: it does not
	Members    []Member      // ordered by id
	Monitor    *model.HealthMonitor
}

// Member is a server.
type Member struct {
	ID          uuid.UUID
	Name        string
	Address     match.Addr
	Port        uint16
	Weight      int    // 0, too, when it is administratively down: no new connections
	Down        bool   // its health checks fail
	MonitorPort uint16 // where it is checked; 0: it is not
	key         uint64
}

// NewMember makes a Member, which is then no longer changed.
func NewMember(m Member) Member {
	m.key = splitmix(binary.BigEndian.Uint64(m.ID[:8]) ^ splitmix(binary.BigEndian.Uint64(m.ID[8:])))
	return m
}

// Label is how people call the member: its name, or else its id.
func (m *Member) Label() string {
	if m.Name != "" {
		return m.Name
	}
	return m.ID.String()
}

// Available reports whether the member gets new connections.
func (m *Member) Available() bool { return m.Weight > 0 && !m.Down }

// Listener finds what listens to a port; nil: nothing does.
func (l *LoadBalancer) Listener(proto uint8, port uint16) *Listener {
	for i := range l.Listeners {
		if x := &l.Listeners[i]; x.Proto == proto && x.Port == port {
			return x
		}
	}
	return nil
}

// Find is the member with an address and a port; nil: there is none.
func (p *Pool) Find(a match.Addr, port uint16) *Member {
	for i := range p.Members {
		if m := &p.Members[i]; m.Port == port && m.Address == a {
			return m
		}
	}
	return nil
}

// Choose is the n-th choice (from 0) among the available members for connections with a hash; nil: there is none left.
// It is weighted rendezvous hashing: each gets connections in proportion to its weight, and when one comes, goes or gets another weight,
// only the connections move that it gains or loses.
func (p *Pool) Choose(hash uint64, n int) *Member {
	above := math.Inf(1) // the score of the choice before
	var best *Member
	for range n + 1 {
		best = nil
		most := math.Inf(-1)
		for i := range p.Members {
			m := &p.Members[i]
			if !m.Available() {
				continue
			}
			if s := score(m, hash); s > most && s < above {
				best, most = m, s
			}
		}
		above = most
	}
	return best
}

// score is weight / -ln(u) for a uniform u that belongs to the pair: the highest of several wins with a probability in proportion
// to its weight.
func score(m *Member, hash uint64) float64 {
	u := (float64(splitmix(m.key^hash)>>11) + 0.5) / (1 << 53)
	return float64(m.Weight) / -math.Log(u)
}

// splitmix is the finalizer of splitmix64.
func splitmix(z uint64) uint64 {
	z += 0x9e3779b97f4a7c15
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// TupleHash spreads connections over members: the same on every host.
func TupleHash(t *match.Tuple) uint64 {
	return splitmix(AddrHash(t.Src, uint64(t.SrcPort)<<32|uint64(t.DstPort)<<8|uint64(t.Proto)) ^ AddrHash(t.Dst, 0))
}

// AddrHash is of one address, and of what else counts.
func AddrHash(a match.Addr, more uint64) uint64 {
	return splitmix(binary.BigEndian.Uint64(a[:8]) ^ splitmix(binary.BigEndian.Uint64(a[8:])^splitmix(more)))
}
