package model

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/google/uuid"
)

// LoadBalancer spreads the connections to an address over the members of pools. It is part of a router, which takes the
// address for its own: what comes to it for a listener's port is sent on to a member, everything else is as for the
// router's other addresses.
type LoadBalancer struct {
	Meta
	RouterID     uuid.UUID
	AdminStateUp bool
	Address      netip.Addr // the virtual IP; it may be one of the router's own
	Listeners    []Listener
	// TunnelKey is that of the port by which its health checks go out; chosen and kept as Port.TunnelKey.
	TunnelKey uint32
}

// Listener is a protocol and port of a load balancer, and the pool that serves it.
type Listener struct {
	Protocol uint8 // TCP or UDP
	Port     uint16
	PoolID   uuid.UUID
}

// Persistence is what of a client decides that its connections go to the same member.
type Persistence string

// Kinds of session persistence, in Octavia's terms.
const (
	PersistenceNone     Persistence = ""          // nothing: each connection has its own choice
	PersistenceSourceIP Persistence = "source_ip" // its address
)

// Pool is a set of members that serve alike. Load balancers' listeners name it.
type Pool struct {
	Meta
	SessionPersistence Persistence
	// PersistenceTimeout is for how many seconds after its last connection a client comes back to the same member.
	PersistenceTimeout int
	Monitor            *HealthMonitor // nil: members are taken to be well
}

// MonitorType is how members are checked, in Octavia's terms.
type MonitorType string

// Types of health checks.
const (
	MonitorTCP  MonitorType = "TCP"         // a connection can be made
	MonitorHTTP MonitorType = "HTTP"        // a GET is answered with an expected status
	MonitorUDP  MonitorType = "UDP-CONNECT" // a datagram is not answered with an ICMP error
	MonitorPing MonitorType = "PING"        // an ICMP echo request is answered
)

// HealthMonitor is how the members of a pool are checked. Times are in seconds.
type HealthMonitor struct {
	Type           MonitorType
	Delay          int // between two checks of a member
	Timeout        int // of one check
	MaxRetries     int // successes in a row that bring a member up
	MaxRetriesDown int // failures in a row that bring it down
	URLPath        string
	ExpectedCodes  string // HTTP: "200", "200,202" or "200-204"
}

// PoolMember is a server of a pool.
type PoolMember struct {
	Meta
	PoolID       uuid.UUID
	AdminStateUp bool // one that is down gets no new connections; those it has go on
	Address      netip.Addr
	Port         uint16
	Weight       int // its share among the members; 0: as if it were down
	// MonitorPort is where it is checked; 0: at Port.
	MonitorPort uint16
}

// Limits and defaults of load balancers.
const (
	MaxListeners = 64
	MaxMembers   = 256 // of one pool
	MaxWeight    = 256

	DefaultPersistenceTimeout = 10800 // three hours, as in Kubernetes
	MaxPersistenceTimeout     = 86400

	DefaultDelay      = 5
	DefaultTimeout    = 5
	DefaultMaxRetries = 3
	DefaultURLPath    = "/"
	DefaultCodes      = "200"
)

// Kind implements Object.
func (*LoadBalancer) Kind() Kind { return KindLoadBalancer }

// Kind implements Object.
func (*Pool) Kind() Kind { return KindPool }

// Kind implements Object.
func (*PoolMember) Kind() Kind { return KindPoolMember }

func (p *Pool) clone() Pool {
	c := *p
	if p.Monitor != nil {
		m := *p.Monitor
		c.Monitor = &m
	}
	return c
}

func (p *Pool) normalize() {
	setDefault := func(n *int, d int) {
		if *n == 0 {
			*n = d
		}
	}
	if p.SessionPersistence != PersistenceNone {
		setDefault(&p.PersistenceTimeout, DefaultPersistenceTimeout)
	}
	m := p.Monitor
	if m == nil {
		return
	}
	setDefault(&m.Delay, DefaultDelay)
	setDefault(&m.Timeout, min(DefaultTimeout, m.Delay))
	setDefault(&m.MaxRetries, DefaultMaxRetries)
	setDefault(&m.MaxRetriesDown, DefaultMaxRetries)
	if m.Type == MonitorHTTP {
		if m.URLPath == "" {
			m.URLPath = DefaultURLPath
		}
		if m.ExpectedCodes == "" {
			m.ExpectedCodes = DefaultCodes
		}
	}
}

func (g *Graph) validateLoadBalancer(l *LoadBalancer) error {
	if err := g.exists(l, "router", KindRouter, l.RouterID); err != nil {
		return err
	}
	if reason := badVirtual(l.Address); reason != "" {
		return fieldErr(l, "address", reason)
	}
	for p := range g.ReferrersOf(Key{KindRouter, l.RouterID}, KindPort) {
		for f := range g.ReferrersOf(KeyOf(p), KindFloatingIP) {
			if f.(*FloatingIP).Address == l.Address {
				return fieldErr(l, "address", fmt.Sprintf("%s is already that of %s at the same router", l.Address, RefTo(f)))
			}
		}
	}
	if len(l.Listeners) > MaxListeners {
		return fieldErr(l, "listeners", fmt.Sprintf("%d are more than %d", len(l.Listeners), MaxListeners))
	}
	for i, x := range l.Listeners {
		at := fmt.Sprintf("listeners[%d]", i)
		if x.Protocol != 6 && x.Protocol != 17 {
			return fieldErr(l, at+".protocol", "is neither tcp nor udp")
		}
		if x.Port == 0 {
			return fieldErr(l, at+".port", "is not within 1 and 65535")
		}
		same := func(o Listener) bool { return o.Protocol == x.Protocol && o.Port == x.Port }
		if slices.IndexFunc(l.Listeners, same) < i {
			return fieldErr(l, at+".port", fmt.Sprintf("%d is there twice with this protocol", x.Port))
		}
		if err := g.exists(l, at+".pool", KindPool, x.PoolID); err != nil {
			return err
		}
		for o := range g.ReferrersOf(Key{KindPool, x.PoolID}, KindPoolMember) {
			if m := o.(*PoolMember); m.PoolID == x.PoolID {
				if reason := badMember(m, l); reason != "" {
					return fieldErr(l, at+".pool", fmt.Sprintf("%s: %s", RefTo(m), reason))
				}
			}
		}
	}
	return nil
}

func badVirtual(a netip.Addr) string {
	reason := badUnicast(a)
	if reason == "" && a.IsLinkLocalUnicast() {
		reason = fmt.Sprintf("%s is a link-local address", a)
	}
	return reason
}

// badMember says why a member cannot serve a load balancer; "" when it can.
func badMember(m *PoolMember, l *LoadBalancer) string {
	switch {
	case m.Address.Is4() != l.Address.Is4():
		return fmt.Sprintf("%s is not of the family of %s, the address of %s", m.Address, l.Address, RefTo(l))
	case m.Address == l.Address:
		return fmt.Sprintf("%s is the address of %s itself", m.Address, RefTo(l))
	}
	return ""
}

func (g *Graph) validatePoolMember(m *PoolMember) error {
	if err := g.exists(m, "pool", KindPool, m.PoolID); err != nil {
		return err
	}
	if reason := badVirtual(m.Address); reason != "" {
		return fieldErr(m, "address", reason)
	}
	if m.Port == 0 {
		return fieldErr(m, "port", "is not within 1 and 65535")
	}
	if m.Weight < 0 || m.Weight > MaxWeight {
		return fieldErr(m, "weight", fmt.Sprintf("%d is not within 0 and %d", m.Weight, MaxWeight))
	}
	n := 0
	for o := range g.ReferrersOf(Key{KindPool, m.PoolID}, KindPoolMember) {
		if o.(*PoolMember).ID != m.ID {
			n++
		}
	}
	if n >= MaxMembers {
		return fieldErr(m, "pool", fmt.Sprintf("has %d members already", MaxMembers))
	}
	for o := range g.ReferrersOf(Key{KindPool, m.PoolID}, KindLoadBalancer) {
		if reason := badMember(m, o.(*LoadBalancer)); reason != "" {
			return fieldErr(m, "address", reason)
		}
	}
	return nil
}

func validatePool(p *Pool) error {
	switch p.SessionPersistence {
	case PersistenceNone:
		if p.PersistenceTimeout != 0 {
			return fieldErr(p, "persistence_timeout", "has no meaning without session_persistence")
		}
	case PersistenceSourceIP:
		if p.PersistenceTimeout < 1 || p.PersistenceTimeout > MaxPersistenceTimeout {
			return fieldErr(p, "persistence_timeout", fmt.Sprintf("%d is not within 1 and %d", p.PersistenceTimeout, MaxPersistenceTimeout))
		}
	default:
		return fieldErr(p, "session_persistence", fmt.Sprintf("%q is not %s", p.SessionPersistence, PersistenceSourceIP))
	}
	if p.Monitor != nil {
		if field, reason := p.Monitor.bad(); reason != "" {
			return fieldErr(p, "health_monitor."+field, reason)
		}
	}
	return nil
}

func (m *HealthMonitor) bad() (field, reason string) {
	if !slices.Contains([]MonitorType{MonitorTCP, MonitorHTTP, MonitorUDP, MonitorPing}, m.Type) {
		return "type", fmt.Sprintf("%q is none of %s, %s, %s, %s", m.Type, MonitorTCP, MonitorHTTP, MonitorUDP, MonitorPing)
	}
	for _, x := range []struct {
		field   string
		n, most int
	}{{"delay", m.Delay, 3600}, {"timeout", m.Timeout, 3600}, {"max_retries", m.MaxRetries, 10}, {"max_retries_down", m.MaxRetriesDown, 10}} {
		if x.n < 1 || x.n > x.most {
			return x.field, fmt.Sprintf("%d is not within 1 and %d", x.n, x.most)
		}
	}
	if m.Timeout > m.Delay {
		return "timeout", fmt.Sprintf("%d is longer than the delay of %d between two checks", m.Timeout, m.Delay)
	}
	if m.Type != MonitorHTTP {
		switch {
		case m.URLPath != "":
			return "url_path", fmt.Sprintf("has no meaning with type %s", m.Type)
		case m.ExpectedCodes != "":
			return "expected_codes", fmt.Sprintf("has no meaning with type %s", m.Type)
		}
		return "", ""
	}
	if !strings.HasPrefix(m.URLPath, "/") || strings.ContainsFunc(m.URLPath, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
		return "url_path", fmt.Sprintf("%q is not a path such as /healthy", m.URLPath)
	}
	if _, err := ParseCodes(m.ExpectedCodes); err != nil {
		return "expected_codes", err.Error()
	}
	return "", ""
}

// Codes is a set of HTTP status codes.
type Codes []CodeRange

// CodeRange is the codes from From to To.
type CodeRange struct{ From, To int }

// Has reports whether the set has a code.
func (c Codes) Has(code int) bool {
	return slices.ContainsFunc(c, func(r CodeRange) bool { return r.From <= code && code <= r.To })
}

// ParseCodes reads "200", "200,202" or "200-204", and what these are combined to.
func ParseCodes(s string) (Codes, error) {
	var cs Codes
	for part := range strings.SplitSeq(s, ",") {
		from, to, isRange := strings.Cut(part, "-")
		if !isRange {
			to = from
		}
		var r CodeRange
		if !code(from, &r.From) || !code(to, &r.To) || r.From > r.To {
			return nil, fmt.Errorf("%q is not a list of status codes such as 200,301-302", s)
		}
		cs = append(cs, r)
	}
	return cs, nil
}

func code(s string, n *int) bool {
	s = strings.TrimSpace(s)
	if len(s) != 3 || s[0] < '1' || s[0] > '5' {
		return false
	}
	for _, c := range s {
		if c < '0' || c > '9' {
			return false
		}
		*n = *n*10 + int(c-'0')
	}
	return true
}
