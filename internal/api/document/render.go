package document

import (
	"github.com/goccy/go-yaml"
	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/api/ref"
	"github.com/viaduct-net/viaduct/internal/api/wire"
	"github.com/viaduct-net/viaduct/internal/topo/model"
)

// Render writes an object as the document that Apply would leave unchanged. x gives
// the names of what it refers to.
func Render(o model.Object, x *ref.Index) ([]byte, error) {
	var doc yaml.MapSlice
	add := func(key string, value any) { doc = append(doc, yaml.MapItem{Key: key, Value: value}) }
	text := func(key, value string) {
		if value != "" {
			add(key, value)
		}
	}
	link := func(key string, kind model.Kind, id uuid.UUID) {
		if id != uuid.Nil {
			add(key, x.Label(kind, id))
		}
	}
	m := o.GetMeta()
	add("kind", string(o.Kind()))
	text("name", m.Name)
	if o.Kind() != model.KindBinding {
		add("id", m.ID.String())
	}
	switch o := o.(type) {
	case *model.Bridge:
		add("admin_state_up", o.AdminStateUp)
	case *model.Router:
		add("admin_state_up", o.AdminStateUp)
	case *model.Port:
		w := wire.FromModel(o).(*wire.Port)
		link("bridge", model.KindBridge, o.BridgeID)
		link("router", model.KindRouter, o.RouterID)
		link("peer", model.KindPort, o.PeerID)
		add("admin_state_up", o.AdminStateUp)
		text("mac", w.MAC)
		if len(w.Addresses) > 0 {
			add("addresses", w.Addresses)
		}
		if o.Masquerade {
			add("masquerade", true)
		}
	case *model.Route:
		w := wire.FromModel(o).(*wire.Route)
		link("router", model.KindRouter, o.RouterID)
		text("destination", w.Destination)
		text("source", w.Source)
		text("next_hop", w.NextHop)
		link("port", model.KindPort, o.PortID)
		text("gateway", w.Gateway)
		add("weight", o.Weight)
	case *model.Binding:
		link("port", model.KindPort, o.PortID)
		link("host", model.KindHost, o.HostID)
		text("interface", o.Interface)
	case *model.FloatingIP:
		link("port", model.KindPort, o.PortID)
		text("address", o.Address.String())
		text("fixed_address", o.FixedAddress.String())
	}
	return yaml.Marshal(doc)
}
