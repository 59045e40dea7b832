package main

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/topo/model"
	"github.com/viaduct-net/viaduct/internal/topo/store"
	"github.com/viaduct-net/viaduct/internal/topo/view"
)

// change is one call of the API, whom it concerns, and what tells that a host has it.
type change struct {
	ops   []store.Op
	hosts map[int]bool
	made  func(*view.Snapshot) bool
}

// sort is a sort of change. Each i is another one, and leaves as much as there was before.
type sort struct {
	name string
	make func(c *cloud, i int) change
}

var sorts = []sort{
	{"policy", policyChange},
	{"group", groupChange},
	{"port", portChange},
	{"address", addressChange},
	{"route", routeChange},
}

// policyChange changes the chain that all routers have: each host is concerned.
func policyChange(c *cloud, i int) change {
	all := make(map[int]bool, c.hosts)
	for h := range c.hosts {
		all[h] = true
	}
	r := platformRule(i + 1)
	return change{
		ops:   []store.Op{{Verb: store.Delete, Object: platformRule(i)}, {Verb: store.Create, Object: r}},
		hosts: all,
		made: func(s *view.Snapshot) bool {
			x := s.Chain(c.platform)
			return x != nil && slices.ContainsFunc(x.Rules, func(y view.Rule) bool { return y.ID == r.ID })
		},
	}
}

// concerned are the hosts of a set that the last one is not in: its agent does not run yet.
func (c *cloud) concerned(hosts map[int]bool) map[int]bool {
	n := make(map[int]bool, len(hosts))
	for h := range hosts {
		if h != c.hosts {
			n[h] = true
		}
	}
	return n
}

// groupChange changes what the VMs of one network may receive.
func groupChange(c *cloud, i int) change {
	n, round := i%len(c.networks), i/len(c.networks)
	x, r := &c.networks[n], c.groupRule(n, round+1)
	return change{
		ops:   []store.Op{{Verb: store.Delete, Object: c.groupRule(n, round)}, {Verb: store.Create, Object: r}},
		hosts: c.concerned(x.hosts),
		made: func(s *view.Snapshot) bool {
			g := s.SecurityGroup(x.group)
			return g != nil && slices.ContainsFunc(g.Ingress.Rules, func(y view.Rule) bool { return y.ID == r.ID })
		},
	}
}

// some is a VM of the hosts of many.
func (c *cloud) some(i int) *vm { return &c.vms[i*7919%c.ports] }

// portChange adds a VM beside another, on its host.
func portChange(c *cloud, i int) change {
	v := *c.some(i)
	x := &c.networks[v.network]
	v.id, v.iface = id(idVM, v.network, 1<<20+i), fmt.Sprintf("new%d", i)
	v.mac[1], v.mac[4], v.mac[5] = 3, byte(i>>8), byte(i)
	v.addr = netip.AddrFrom4([4]byte{10, byte(v.bridge), 128 + byte(i>>8), byte(i)})
	return change{
		ops:   []store.Op{{Verb: store.Create, Object: c.port(v)}, {Verb: store.Create, Object: c.binding(v)}},
		hosts: c.concerned(x.onto[v.bridge]),
		made:  c.answers(v),
	}
}

// addressChange gives a VM another address.
func addressChange(c *cloud, i int) change {
	v := *c.some(i)
	x := &c.networks[v.network]
	v.addr = netip.AddrFrom4([4]byte{10, byte(v.bridge), 64 + byte(i>>8), byte(i)})
	p := c.port(v)
	return change{
		ops:   []store.Op{{Verb: store.Replace, Object: p}},
		hosts: c.concerned(x.onto[v.bridge]),
		made:  c.answers(v),
	}
}

// answers tells that a host answers for a VM on its bridge: of the port itself its own host alone knows until packets go there.
func (c *cloud) answers(v vm) func(*view.Snapshot) bool {
	bridge, addr := c.networks[v.network].bridges[v.bridge], view.LinkAddr{Addr: match.AddrFrom(v.addr)}
	return func(s *view.Snapshot) bool {
		b := s.Bridge(bridge)
		return b != nil && b.Neighbours[addr] == v.mac
	}
}

// routeChange adds a route to the router of a network.
func routeChange(c *cloud, i int) change {
	n := i % len(c.networks)
	x := &c.networks[n]
	r := &model.Route{Meta: c.meta(id(idRoute, n, i), n), RouterID: x.router, Destination: netip.PrefixFrom(netip.AddrFrom4([4]byte{172, 16, byte(i >> 8), byte(i)}), 32), NextHop: model.NextHopBlackhole}
	return change{
		ops:   []store.Op{{Verb: store.Create, Object: r}},
		hosts: c.concerned(x.hosts),
		made: func(s *view.Snapshot) bool {
			v := s.Router(x.router)
			if v == nil {
				return false
			}
			is, ok := v.Table.Lookup(r.Destination.Addr(), netip.IPv4Unspecified(), 0)
			return ok && is.ID == r.ID
		},
	}
}

// commits measures how long it takes from a call of the API until the last host that it concerns has what it changed. One
// change is made after the other.
func (o *options) commits(ctx context.Context, s *serverProcess, c *cloud, a *agents) error {
	stop, err := profile(o.profiles, "agents")
	if err != nil {
		return err
	}
	defer stop()
	idle, err := findDamon()
	if err != nil {
		return err
	}
	var all, calls, alone []float64
	for _, sort := range sorts {
		if o.sorts != "" && !slices.Contains(strings.Split(o.sorts, ","), sort.name) {
			continue
		}
		var took, call []float64
		hosts := 0
		before, err := cpuTimes(os.Getpid(), s.cmd.Process.Pid)
		if err != nil {
			return err
		}
		for i := range o.rounds {
			ch := sort.make(c, i)
			a.expect(ch.hosts, ch.made)
			before, err := idle.ran()
			if err != nil {
				return err
			}
			began := time.Now()
			if _, err := s.api.Txn(ctx, ch.ops...); err != nil {
				return fmt.Errorf("%s %d: %w", sort.name, i, err)
			}
			called := time.Since(began)
			last, err := a.await(ctx)
			if err != nil {
				return fmt.Errorf("%s %d: %w", sort.name, i, err)
			}
			if now, err := idle.ran(); err != nil {
				return err
			} else if now == before {
				alone = append(alone, milliseconds(last.Sub(began)))
			}
			took, call = append(took, milliseconds(last.Sub(began))), append(call, milliseconds(called))
			hosts += len(ch.hosts)
		}
		after, err := cpuTimes(os.Getpid(), s.cmd.Process.Pid)
		if err != nil {
			return err
		}
		o.emit("commit_"+sort.name+"_hosts", float64(hosts)/float64(o.rounds), "hosts")
		o.emit("commit_"+sort.name+"_p50_ms", quantile(took, 0.5), "ms")
		o.emit("commit_"+sort.name+"_p99_ms", quantile(took, 0.99), "ms")
		o.emit("commit_"+sort.name+"_call_p50_ms", quantile(call, 0.5), "ms")
		o.emit("commit_"+sort.name+"_agents_cpu_ms", milliseconds(after[0]-before[0])/float64(o.rounds), "ms")
		o.emit("commit_"+sort.name+"_server_cpu_ms", milliseconds(after[1]-before[1])/float64(o.rounds), "ms")
		all, calls = append(all, took...), append(calls, call...)
	}
	if len(all) == 0 {
		return fmt.Errorf("-sorts %s: no such sort", o.sorts)
	}
	o.emit("commit_p50_ms", quantile(all, 0.5), "ms")
	o.emit("commit_p99_ms", quantile(all, 0.99), "ms")
	if n := len(all) - len(alone); n > 0 && len(alone) > 0 {
		o.emit("commit_beside_damon", float64(n)/float64(len(all))*100, "%")
		o.emit("commit_without_damon_p99_ms", quantile(alone, 0.99), "ms")
	}
	o.emit("commit_call_p50_ms", quantile(calls, 0.5), "ms")
	o.emit("commit_call_p99_ms", quantile(calls, 0.99), "ms")
	return nil
}

func milliseconds(d time.Duration) float64 { return float64(d) / 1e6 }

// quantile is the least of vs that a share q of them do not exceed.
func quantile(vs []float64, q float64) float64 {
	vs = slices.Sorted(slices.Values(vs))
	i := int(q*float64(len(vs))+0.999999) - 1
	return vs[min(max(i, 0), len(vs)-1)]
}
