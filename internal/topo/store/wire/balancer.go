package wire

import (
	"encoding/json"
	"net/netip"

	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/topo/model"
)

type wireLoadBalancer struct {
	ID           uuid.UUID      `json:"id"`
	Name         string         `json:"name,omitempty"`
	Router       uuid.UUID      `json:"router"`
	AdminStateUp bool           `json:"admin_state_up"`
	Address      netip.Addr     `json:"address"`
	Listeners    []wireListener `json:"listeners,omitempty"`
	TunnelKey    uint32         `json:"tunnel_key"`
}

type wireListener struct {
	Protocol uint8     `json:"protocol"`
	Port     uint16    `json:"port"`
	Pool     uuid.UUID `json:"pool"`
}

type wirePool struct {
	ID          uuid.UUID         `json:"id"`
	Name        string            `json:"name,omitempty"`
	Persistence model.Persistence `json:"session_persistence,omitempty"`
	Timeout     int               `json:"persistence_timeout,omitempty"`
	Monitor     *wireMonitor      `json:"health_monitor,omitempty"`
}

type wireMonitor struct {
	Type           model.MonitorType `json:"type"`
	Delay          int               `json:"delay"`
	Timeout        int               `json:"timeout"`
	MaxRetries     int               `json:"max_retries"`
	MaxRetriesDown int               `json:"max_retries_down"`
	URLPath        string            `json:"url_path,omitempty"`
	ExpectedCodes  string            `json:"expected_codes,omitempty"`
}

type wirePoolMember struct {
	ID           uuid.UUID  `json:"id"`
	Name         string     `json:"name,omitempty"`
	Pool         uuid.UUID  `json:"pool"`
	AdminStateUp bool       `json:"admin_state_up"`
	Address      netip.Addr `json:"address"`
	Port         uint16     `json:"port"`
	Weight       int        `json:"weight"`
	MonitorPort  uint16     `json:"monitor_port,omitempty"`
}

func encodeBalancer(o model.Object) ([]byte, error) {
	switch o := o.(type) {
	case *model.LoadBalancer:
		w := wireLoadBalancer{ID: o.ID, Name: o.Name, Router: o.RouterID, AdminStateUp: o.AdminStateUp, Address: o.Address, TunnelKey: o.TunnelKey}
		for _, l := range o.Listeners {
			w.Listeners = append(w.Listeners, wireListener{l.Protocol, l.Port, l.PoolID})
		}
		return json.Marshal(w)
	case *model.Pool:
		return json.Marshal(wirePool{o.ID, o.Name, o.SessionPersistence, o.PersistenceTimeout, (*wireMonitor)(o.Monitor)})
	case *model.PoolMember:
		return json.Marshal(wirePoolMember{o.ID, o.Name, o.PoolID, o.AdminStateUp, o.Address, o.Port, o.Weight, o.MonitorPort})
	}
	return encodePolicy(o)
}

func decodeBalancer(kind model.Kind, data []byte) (model.Object, error) {
	meta := func(id uuid.UUID, name string) model.Meta { return model.Meta{ID: id, Name: name} }
	switch kind {
	case model.KindLoadBalancer:
		w, err := read[wireLoadBalancer](data)
		o := &model.LoadBalancer{Meta: meta(w.ID, w.Name), RouterID: w.Router, AdminStateUp: w.AdminStateUp, Address: w.Address, TunnelKey: w.TunnelKey}
		for _, l := range w.Listeners {
			o.Listeners = append(o.Listeners, model.Listener{Protocol: l.Protocol, Port: l.Port, PoolID: l.Pool})
		}
		return o, err
	case model.KindPool:
		w, err := read[wirePool](data)
		return &model.Pool{Meta: meta(w.ID, w.Name), SessionPersistence: w.Persistence, PersistenceTimeout: w.Timeout,
			Monitor: (*model.HealthMonitor)(w.Monitor)}, err
	case model.KindPoolMember:
		w, err := read[wirePoolMember](data)
		return &model.PoolMember{Meta: meta(w.ID, w.Name), PoolID: w.Pool, AdminStateUp: w.AdminStateUp, Address: w.Address, Port: w.Port,
			Weight: w.Weight, MonitorPort: w.MonitorPort}, err
	}
	return decodePolicy(kind, data)
}
