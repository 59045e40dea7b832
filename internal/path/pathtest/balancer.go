package pathtest

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/topo/view"
)

// balancing reads the statements about load balancers. Named things must exist, pools excepted.
func (t *Topology) balancing(f []string) error {
	switch f[0] {
	case "pool":
		p := t.Pool(f[1])
		if len(f) > 2 {
			p.Persistent = time.Duration(number(f[2])) * time.Second
		}
	case "server":
		m := view.Member{ID: t.name(f[2]), Name: f[2], Address: addr(f[3]), Port: uint16(number(f[4])), Weight: 1}
		for _, word := range f[5:] {
			if word == "failed" {
				m.Down = true
			} else {
				m.Weight = number(word)
			}
		}
		p := t.Pool(f[1])
		p.Members = append(p.Members, view.NewMember(m))
		slices.SortFunc(p.Members, func(a, b view.Member) int { return cmp.Compare(a.ID.String(), b.ID.String()) })
		t.backends()
	case "balancer":
		r := t.Routers[ID(f[2])]
		l := &view.LoadBalancer{ID: t.name(f[1]), Name: f[1], Router: r.ID, AdminUp: f[len(f)-1] != "down", Address: addr(f[3])}
		t.Balancers[l.ID] = l
		if r.VIPs == nil {
			r.VIPs = map[match.Addr]uuid.UUID{}
		}
		r.VIPs[l.Address] = l.ID
		for _, id := range r.Ports {
			for _, x := range t.Ports[id].Addrs {
				if x.Contains(l.Address.Netip()) {
					t.Ports[id].VIPs = append(t.Ports[id].VIPs, l.Address)
				}
			}
		}
	case "checked":
		p := t.add(f[2], f[1])
		p.Host, p.Interface, p.Health = ID("host"), "vh-"+f[1], true
		r := t.Routers[p.Router]
		r.Ports, r.Health = r.Ports[:len(r.Ports)-1], p.ID // it is none of the router's own
		t.address(p, match.MAC{0xae, p.ID[0], p.ID[1], p.ID[2], p.ID[3], p.ID[4]}, nil)
	case "listen":
		l := t.Balancers[ID(f[1])]
		proto, ok := map[string]uint8{"tcp": 6, "udp": 17}[f[2]]
		if !ok {
			return fmt.Errorf("protocol %s is neither tcp nor udp", f[2])
		}
		l.Listeners = append(l.Listeners, view.Listener{Proto: proto, Port: uint16(number(f[3])), Pool: t.Pool(f[4])})
		t.backends()
	}
	return nil
}

// Pool is the pool with a name. Tests may change it.
func (t *Topology) Pool(name string) *view.Pool {
	p := t.pools[name]
	if p == nil {
		p = &view.Pool{ID: t.name(name), Name: name}
		t.pools[name] = p
	}
	return p
}

// backends tells routers of the members that they have.
func (t *Topology) backends() {
	for _, r := range t.Routers {
		r.Backends = nil
	}
	for _, l := range t.Balancers {
		r := t.Routers[l.Router]
		if r.Backends == nil {
			r.Backends = map[match.Addr]struct{}{}
		}
		for i := range l.Listeners {
			for _, m := range l.Listeners[i].Members {
				r.Backends[m.Address] = struct{}{}
			}
		}
	}
}

// Become changes the weight and health of a member.
func (t *Topology) Become(pool, member string, weight int, down bool) {
	p := t.Pool(pool)
	i := slices.IndexFunc(p.Members, func(m view.Member) bool { return m.Name == member })
	if i < 0 {
		panic("no member " + strconv.Quote(member))
	}
	p.Members[i].Weight, p.Members[i].Down = weight, down
}
