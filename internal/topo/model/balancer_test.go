package model

import (
	"errors"
	"net/netip"
	"testing"
)

// balanced is a router with a load balancer, its pool and a member.
func balanced() []Object {
	return []Object{
		&Router{Meta: Meta{ID: id(60)}},
		&Port{Meta: Meta{ID: id(65)}, RouterID: id(60), Addresses: []netip.Prefix{netip.MustParsePrefix("10.0.1.1/24")}},
		&FloatingIP{Meta: Meta{ID: id(66)}, PortID: id(65), Address: netip.MustParseAddr("10.0.1.20"), FixedAddress: netip.MustParseAddr("10.9.0.20")},
		&Pool{Meta: Meta{ID: id(61)}, Monitor: &HealthMonitor{Type: MonitorHTTP}},
		&PoolMember{Meta: Meta{ID: id(62)}, PoolID: id(61), Address: netip.MustParseAddr("10.0.1.5"), Port: 80},
		&LoadBalancer{Meta: Meta{ID: id(63)}, RouterID: id(60), Address: netip.MustParseAddr("10.0.1.80"),
			Listeners: []Listener{{6, 80, id(61)}, {17, 80, id(61)}}},
	}
}

func TestBalancerRules(t *testing.T) {
	a := netip.MustParseAddr
	lb := func(fn func(*LoadBalancer)) Object {
		l := &LoadBalancer{Meta: Meta{ID: id(64)}, RouterID: id(60), Address: a("10.0.1.81"), Listeners: []Listener{{6, 80, id(61)}}}
		fn(l)
		return l
	}
	member := func(fn func(*PoolMember)) Object {
		m := &PoolMember{Meta: Meta{ID: id(64)}, PoolID: id(61), Address: a("10.0.1.6"), Port: 80, Weight: 1}
		fn(m)
		return m
	}
	pool := func(fn func(*Pool)) Object {
		p := &Pool{Meta: Meta{ID: id(64)}, Monitor: &HealthMonitor{Type: MonitorTCP}}
		fn(p)
		return p
	}
	for _, c := range []struct {
		o     Object
		field string // "": valid
	}{
		{lb(func(*LoadBalancer) {}), ""},
		{lb(func(l *LoadBalancer) { l.RouterID = id(99) }), "router"},
		{lb(func(l *LoadBalancer) { l.Address = a("10.0.1.80") }), "address"},
		{lb(func(l *LoadBalancer) { l.Address = a("10.0.1.20") }), "address"},
		{lb(func(l *LoadBalancer) { l.Address = a("fe80::1") }), "address"},
		{lb(func(l *LoadBalancer) { l.Address = a("fd00::80") }), "listeners[0].pool"},
		{lb(func(l *LoadBalancer) { l.Address = a("10.0.1.5") }), "listeners[0].pool"},
		{lb(func(l *LoadBalancer) { l.Listeners[0].Protocol = 132 }), "listeners[0].protocol"},
		{lb(func(l *LoadBalancer) { l.Listeners[0].Port = 0 }), "listeners[0].port"},
		{lb(func(l *LoadBalancer) { l.Listeners = append(l.Listeners, l.Listeners[0]) }), "listeners[1].port"},
		{lb(func(l *LoadBalancer) { l.Listeners[0].PoolID = id(99) }), "listeners[0].pool"},
		{member(func(*PoolMember) {}), ""},
		{member(func(m *PoolMember) { m.Weight = 0 }), ""},
		{member(func(m *PoolMember) { m.Weight = 257 }), "weight"},
		{member(func(m *PoolMember) { m.Weight = -1 }), "weight"},
		{member(func(m *PoolMember) { m.Port = 0 }), "port"},
		{member(func(m *PoolMember) { m.Address = a("10.0.1.5") }), "address"},
		{member(func(m *PoolMember) { m.Address = a("10.0.1.5"); m.Port = 81 }), ""},
		{member(func(m *PoolMember) { m.Address = a("10.0.1.80") }), "address"},
		{member(func(m *PoolMember) { m.Address = a("fd00::5") }), "address"},
		{member(func(m *PoolMember) { m.Address = a("224.0.0.1") }), "address"},
		{pool(func(*Pool) {}), ""},
		{pool(func(p *Pool) { p.SessionPersistence = "cookie" }), "session_persistence"},
		{pool(func(p *Pool) { p.PersistenceTimeout = 9 }), "persistence_timeout"},
		{pool(func(p *Pool) { p.SessionPersistence = PersistenceSourceIP; p.PersistenceTimeout = 86401 }), "persistence_timeout"},
		{pool(func(p *Pool) { p.Monitor.Type = "HTTPS" }), "health_monitor.type"},
		{pool(func(p *Pool) { p.Monitor.Delay = -1 }), "health_monitor.delay"},
		{pool(func(p *Pool) { p.Monitor.Delay = 1; p.Monitor.Timeout = 2 }), "health_monitor.timeout"},
		{pool(func(p *Pool) { p.Monitor.MaxRetries = 11 }), "health_monitor.max_retries"},
		{pool(func(p *Pool) { p.Monitor.URLPath = "/" }), "health_monitor.url_path"},
		{pool(func(p *Pool) { p.Monitor.ExpectedCodes = "200" }), "health_monitor.expected_codes"},
		{pool(func(p *Pool) { p.Monitor.Type = MonitorHTTP; p.Monitor.URLPath = "healthy" }), "health_monitor.url_path"},
		{pool(func(p *Pool) { p.Monitor.Type = MonitorHTTP; p.Monitor.ExpectedCodes = "2xx" }), "health_monitor.expected_codes"},
	} {
		g := NewGraph()
		s, err := g.Stage(create(balanced()...)...)
		if err != nil {
			t.Fatal(err)
		}
		s.Commit(1)
		_, err = g.Stage(create(c.o)...)
		var bad *FieldError
		switch {
		case c.field == "" && err != nil:
			t.Errorf("%+v: %v", c.o, err)
		case c.field != "" && (!errors.As(err, &bad) || bad.Field != c.field):
			t.Errorf("%+v: %v, want a complaint about %s", c.o, err, c.field)
		}
	}
}

func TestBalancerDefaults(t *testing.T) {
	g := NewGraph()
	s, err := g.Stage(create(balanced()...)...)
	if err != nil {
		t.Fatal(err)
	}
	s.Commit(1)
	if m := g.Get(KindPool, id(61)).(*Pool).Monitor; *m != (HealthMonitor{MonitorHTTP, 5, 5, 3, 3, "/", "200"}) {
		t.Errorf("%+v", m)
	}
	if l := g.Get(KindLoadBalancer, id(63)).(*LoadBalancer); l.TunnelKey == 0 {
		t.Error("no tunnel key")
	}
	// Neither a pool that is listened to nor one with members goes away.
	for _, o := range []Object{&Pool{Meta: Meta{ID: id(61)}}, &Router{Meta: Meta{ID: id(60)}}} {
		if _, err := g.Stage(Op{Verb: Delete, Object: o}); !errors.Is(err, ErrReferenced) {
			t.Errorf("%s: %v", o.Kind(), err)
		}
	}
	_, err = g.Stage(create(&FloatingIP{Meta: Meta{ID: id(67)}, PortID: id(65), Address: netip.MustParseAddr("10.0.1.80"), FixedAddress: netip.MustParseAddr("10.9.0.1")})...)
	var bad *FieldError
	if !errors.As(err, &bad) || bad.Field != "address" {
		t.Errorf("a floating IP of the load balancer's address: %v", err)
	}
}

func TestCodes(t *testing.T) {
	cs, err := ParseCodes("200,301-302")
	if err != nil || !cs.Has(200) || !cs.Has(302) || cs.Has(300) || cs.Has(201) {
		t.Error(cs, err)
	}
	for _, bad := range []string{"", "20", "2000", "x00", "302-301", "200,", "600", "099"} {
		if _, err := ParseCodes(bad); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}
