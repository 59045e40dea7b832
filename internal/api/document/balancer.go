package document

import (
	"fmt"

	"github.com/goccy/go-yaml"
	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/api/ref"
	"github.com/viaduct-net/viaduct/internal/api/wire"
	"github.com/viaduct-net/viaduct/internal/topo/model"
)

// LoadBalancer spreads the connections to an address of a router over pools.
type LoadBalancer struct {
	Name         string     `yaml:"name"`
	ID           string     `yaml:"id"`
	Router       string     `yaml:"router,required"`
	AdminStateUp *bool      `yaml:"admin_state_up"`
	Address      string     `yaml:"address,required"`
	Listeners    []Listener `yaml:"listeners"`
}

// Listener is a LoadBalancer's.
type Listener struct {
	Protocol string `yaml:"protocol,required"`
	Port     int    `yaml:"port,required"`
	Pool     string `yaml:"pool,required"`
}

// Pool is a set of members, which are documents of their own.
type Pool struct {
	Name               string              `yaml:"name"`
	ID                 string              `yaml:"id"`
	SessionPersistence string              `yaml:"session_persistence"`
	PersistenceTimeout *int                `yaml:"persistence_timeout"`
	HealthMonitor      *wire.HealthMonitor `yaml:"health_monitor"`
}

// PoolMember is a server of a pool.
type PoolMember struct {
	Name         string `yaml:"name"`
	ID           string `yaml:"id"`
	Pool         string `yaml:"pool,required"`
	AdminStateUp *bool  `yaml:"admin_state_up"`
	Address      string `yaml:"address,required"`
	Port         int    `yaml:"port,required"`
	Weight       *int   `yaml:"weight"`
	MonitorPort  int    `yaml:"monitor_port"`
	Status       []any  `yaml:"status"` // of "viaduct get -o yaml": read, and left alone
}

// Kind implements Value.
func (*LoadBalancer) Kind() model.Kind { return model.KindLoadBalancer }

// Kind implements Value.
func (*Pool) Kind() model.Kind { return model.KindPool }

// Kind implements Value.
func (*PoolMember) Kind() model.Kind { return model.KindPoolMember }

func (v *LoadBalancer) identity() (name, id string) { return v.Name, v.ID }
func (v *Pool) identity() (name, id string)         { return v.Name, v.ID }
func (v *PoolMember) identity() (name, id string)   { return v.Name, v.ID }

func (p *planner) loadBalancer(d *Doc, v *LoadBalancer, id uuid.UUID) {
	w := &wire.LoadBalancer{Meta: meta(id, v.Name), RouterID: p.find(d, "router", model.KindRouter, v.Router), AdminStateUp: v.AdminStateUp, Address: v.Address}
	for i, l := range v.Listeners {
		w.Listeners = append(w.Listeners, wire.Listener{
			Protocol: l.Protocol, Port: l.Port, PoolID: p.find(d, fmt.Sprintf("listeners[%d].pool", i), model.KindPool, l.Pool)})
	}
	p.put(d, "", w)
}

func (p *planner) poolMember(d *Doc, v *PoolMember, id uuid.UUID) {
	p.put(d, "", &wire.PoolMember{
		Meta: meta(id, v.Name), PoolID: p.find(d, "pool", model.KindPool, v.Pool), AdminStateUp: v.AdminStateUp,
		Address: v.Address, Port: v.Port, Weight: v.Weight, MonitorPort: v.MonitorPort,
	})
}

// renderBalancer adds the fields to a document.
func renderBalancer(o model.Object, x *ref.Index, add func(string, any)) {
	switch o := o.(type) {
	case *model.LoadBalancer:
		add("router", x.Label(model.KindRouter, o.RouterID))
		add("admin_state_up", o.AdminStateUp)
		add("address", o.Address.String())
		var list []yaml.MapSlice
		for _, l := range o.Listeners {
			list = append(list, given(&Listener{wire.ListenerProtocol(l.Protocol), int(l.Port), x.Label(model.KindPool, l.PoolID)}))
		}
		if len(list) > 0 {
			add("listeners", list)
		}
	case *model.Pool:
		w := wire.FromModel(o).(*wire.Pool)
		if w.SessionPersistence != "" {
			add("session_persistence", w.SessionPersistence)
			add("persistence_timeout", o.PersistenceTimeout)
		}
		if w.HealthMonitor != nil {
			add("health_monitor", given(w.HealthMonitor))
		}
	case *model.PoolMember:
		add("pool", x.Label(model.KindPool, o.PoolID))
		add("admin_state_up", o.AdminStateUp)
		add("address", o.Address.String())
		add("port", int(o.Port))
		add("weight", o.Weight)
		if o.MonitorPort != 0 {
			add("monitor_port", int(o.MonitorPort))
		}
	}
}
