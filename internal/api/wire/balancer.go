package wire

import (
	"strconv"
	"time"

	"github.com/viaduct-net/viaduct/internal/topo/model"
)

// LoadBalancer is model.LoadBalancer on the wire.
type LoadBalancer struct {
	Meta
	RouterID     string     `json:"router_id" format:"uuid" doc:"Router that the load balancer is part of."`
	AdminStateUp *bool      `json:"admin_state_up,omitempty" default:"true" doc:"One that is down answers that it is prohibited."`
	Address      string     `json:"address" example:"10.0.1.80" doc:"Virtual IP: an address that the router answers for, or one of its own."`
	Listeners    []Listener `json:"listeners,omitempty" maxItems:"64" doc:"What is listened to, and who serves it."`
	TunnelKey    uint32     `json:"tunnel_key,omitempty" maximum:"16777214" doc:"VXLAN network identifier for answers to health checks. Chosen by the server; it cannot change."`
}

// Listener is model.Listener on the wire.
type Listener struct {
	Protocol string `json:"protocol" enum:"tcp,udp" doc:"tcp or udp."`
	Port     int    `json:"port" minimum:"1" maximum:"65535" doc:"Port that clients connect to."`
	PoolID   string `json:"pool_id" format:"uuid" doc:"Pool that serves it."`
}

// Pool is model.Pool on the wire.
type Pool struct {
	Meta
	SessionPersistence string         `json:"session_persistence,omitempty" enum:"source_ip" doc:"source_ip: a client's connections go to the same member. When absent, each connection has its own choice."`
	PersistenceTimeout *int           `json:"persistence_timeout,omitempty" minimum:"1" maximum:"86400" doc:"For how many seconds after its last connection a client comes back to its member; only with session_persistence. Default 10800."`
	HealthMonitor      *HealthMonitor `json:"health_monitor,omitempty" doc:"How members are checked; without it they are taken to be well."`
}

// HealthMonitor is model.HealthMonitor on the wire and in documents.
type HealthMonitor struct {
	Type           string `json:"type" yaml:"type,required" enum:"TCP,HTTP,UDP-CONNECT,PING" doc:"TCP: a connection can be made. HTTP: a GET is answered with an expected status. UDP-CONNECT: a datagram is not answered with an ICMP error. PING: an ICMP echo request is answered."`
	Delay          int    `json:"delay,omitempty" yaml:"delay" default:"5" minimum:"0" maximum:"3600" doc:"Seconds between two checks of a member."`
	Timeout        int    `json:"timeout,omitempty" yaml:"timeout" minimum:"0" maximum:"3600" doc:"Seconds that a check may take, at most the delay; default 5, or the delay if that is less."`
	MaxRetries     int    `json:"max_retries,omitempty" yaml:"max_retries" default:"3" minimum:"0" maximum:"10" doc:"Successes in a row that bring a member up."`
	MaxRetriesDown int    `json:"max_retries_down,omitempty" yaml:"max_retries_down" default:"3" minimum:"0" maximum:"10" doc:"Failures in a row that bring a member down."`
	URLPath        string `json:"url_path,omitempty" yaml:"url_path" example:"/healthy" doc:"HTTP: the path; default /."`
	ExpectedCodes  string `json:"expected_codes,omitempty" yaml:"expected_codes" example:"200-204" doc:"HTTP: status codes that mean well; default 200. Lists and ranges."`
}

// PoolMember is model.PoolMember on the wire.
type PoolMember struct {
	Meta
	PoolID       string `json:"pool_id" format:"uuid" doc:"Pool that the member is of."`
	AdminStateUp *bool  `json:"admin_state_up,omitempty" default:"true" doc:"One that is down gets no new connections; those that it has go on."`
	Address      string `json:"address" example:"10.0.1.10" doc:"Address of the server."`
	Port         int    `json:"port" minimum:"1" maximum:"65535" doc:"Port of the server."`
	Weight       *int   `json:"weight,omitempty" default:"1" minimum:"0" maximum:"256" doc:"Share of new connections, in proportion to the others; 0: none."`
	MonitorPort  int    `json:"monitor_port,omitempty" minimum:"0" maximum:"65535" doc:"Port at which it is checked; default port."`
}

// MemberStatus is what is known of a member behind a load balancer. A member of a pool that none uses has one without it.
type MemberStatus struct {
	ID             string     `json:"id" format:"uuid" doc:"The pool member."`
	LoadBalancerID string     `json:"load_balancer_id,omitempty" format:"uuid" doc:"The load balancer; absent when no listener uses the pool."`
	State          string     `json:"state" enum:"up,down,unknown,unchecked,disabled" doc:"up, down: as checks have found. unknown: nothing has been found yet, it is taken to be well. unchecked: the pool has no health monitor, or no load balancer. disabled: administratively down."`
	Reason         string     `json:"reason,omitempty" doc:"Why it is down."`
	Since          *time.Time `json:"since,omitempty" doc:"When the host that checks found it so first."`
	HostID         string     `json:"host_id,omitempty" format:"uuid" doc:"The host that checks."`
}

// MemberStatuses is what is known of all members.
type MemberStatuses struct {
	Items []MemberStatus `json:"items" doc:"Ordered by member and load balancer."`
}

// Kind implements Object.
func (*LoadBalancer) Kind() model.Kind { return model.KindLoadBalancer }

// Kind implements Object.
func (*Pool) Kind() model.Kind { return model.KindPool }

// Kind implements Object.
func (*PoolMember) Kind() model.Kind { return model.KindPoolMember }

// Model implements Object.
func (w *LoadBalancer) Model() (model.Object, error) {
	var p parser
	o := &model.LoadBalancer{
		Meta: p.meta(w.Meta), RouterID: p.id("router_id", w.RouterID), AdminStateUp: orTrue(w.AdminStateUp), Address: p.ip("address", w.Address),
		TunnelKey: w.TunnelKey,
	}
	for i, l := range w.Listeners {
		at := index("listeners", i)
		o.Listeners = append(o.Listeners, model.Listener{
			Protocol: uint8(p.number(at+".protocol", l.Protocol, protos, 255)), Port: p.port(at+".port", l.Port), PoolID: p.id(at+".pool_id", l.PoolID)})
	}
	return p.done(o)
}

// port reads a port number; 0 is for the model to judge.
func (p *parser) port(path string, n int) uint16 {
	if n < 0 || n > 65535 {
		p.fail(path, strconv.Itoa(n), "is not within 1 and 65535")
	}
	return uint16(n)
}

// Model implements Object.
func (w *Pool) Model() (model.Object, error) {
	var p parser
	o := &model.Pool{Meta: p.meta(w.Meta), SessionPersistence: model.Persistence(w.SessionPersistence)}
	if n := w.PersistenceTimeout; n != nil {
		if o.PersistenceTimeout = *n; *n == 0 {
			p.fail("persistence_timeout", "0", "is less than 1")
		}
	}
	if h := w.HealthMonitor; h != nil {
		o.Monitor = &model.HealthMonitor{Type: model.MonitorType(h.Type), Delay: h.Delay, Timeout: h.Timeout, MaxRetries: h.MaxRetries,
			MaxRetriesDown: h.MaxRetriesDown, URLPath: h.URLPath, ExpectedCodes: h.ExpectedCodes}
	}
	return p.done(o)
}

// Model implements Object.
func (w *PoolMember) Model() (model.Object, error) {
	var p parser
	o := &model.PoolMember{
		Meta: p.meta(w.Meta), PoolID: p.id("pool_id", w.PoolID), AdminStateUp: orTrue(w.AdminStateUp), Address: p.ip("address", w.Address),
		Port: p.port("port", w.Port), Weight: 1, MonitorPort: p.port("monitor_port", w.MonitorPort),
	}
	if w.Weight != nil {
		o.Weight = *w.Weight
	}
	return p.done(o)
}

// ListenerProtocol is how a listener's protocol is called.
func ListenerProtocol(proto uint8) string { return protos.text(uint16(proto), "%d") }

func fromBalancer(o model.Object, meta Meta) Object {
	switch o := o.(type) {
	case *model.LoadBalancer:
		w := &LoadBalancer{Meta: meta, RouterID: idText(o.RouterID), AdminStateUp: &o.AdminStateUp, Address: o.Address.String(), TunnelKey: o.TunnelKey}
		for _, l := range o.Listeners {
			w.Listeners = append(w.Listeners, Listener{ListenerProtocol(l.Protocol), int(l.Port), idText(l.PoolID)})
		}
		return w
	case *model.Pool:
		w := &Pool{Meta: meta, SessionPersistence: string(o.SessionPersistence)}
		if o.PersistenceTimeout != 0 {
			w.PersistenceTimeout = &o.PersistenceTimeout
		}
		if h := o.Monitor; h != nil {
			w.HealthMonitor = &HealthMonitor{string(h.Type), h.Delay, h.Timeout, h.MaxRetries, h.MaxRetriesDown, h.URLPath, h.ExpectedCodes}
		}
		return w
	case *model.PoolMember:
		return &PoolMember{Meta: meta, PoolID: idText(o.PoolID), AdminStateUp: &o.AdminStateUp, Address: o.Address.String(), Port: int(o.Port),
			Weight: &o.Weight, MonitorPort: int(o.MonitorPort)}
	}
	panic("wire: unknown kind " + string(o.Kind()))
}
