// Package native is Viaduct's own HTTP API: one resource per kind of object, transactions
// over many, and a watch. Its OpenAPI 3.1 document, at /openapi.json, is made from the
// types in package wire.
package native

import (
	"context"
	"log/slog"
	"net/http"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/viaduct-net/viaduct/internal/api/access"
	"github.com/viaduct-net/viaduct/internal/api/wire"
	"github.com/viaduct-net/viaduct/internal/topo/model"
	"github.com/viaduct-net/viaduct/internal/topo/store"
)

// Config is what an API is built from.
type Config struct {
	// Context ends watches when it ends, so that a server can shut down while other requests finish.
	Context context.Context
	Store   store.Store
	Keys    store.Keys // of the configuration
	Version string
	Log     *slog.Logger
	// Auth tells who makes a request; nil: whoever can connect may do everything.
	Auth *access.Authenticator
	// Metrics gets the API's metrics and is served at /metrics.
	Metrics *prometheus.Registry
}

// New builds the API. It is safe for concurrent use.
func New(c Config) http.Handler {
	mux := http.NewServeMux()
	trusting := c.Auth == nil
	if trusting {
		c.Auth = new(access.Authenticator)
	}
	door := newDoorkeeper(c)
	c.Store = access.Guard(c.Store, door.told)
	newAPI(mux, c)
	h := door.admit(newMetrics(c.Metrics).measure(c.Log, mux))
	if trusting {
		inner := h
		h = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			inner.ServeHTTP(w, r.WithContext(access.Trust(r.Context())))
		})
	}
	return guard(h)
}

func newAPI(mux *http.ServeMux, c Config) huma.API {
	api := humago.New(mux, config(c.Version))
	registerKind[wire.Bridge](api, c.Store)
	registerKind[wire.Subnet](api, c.Store)
	registerKind[wire.Router](api, c.Store)
	registerKind[wire.TunnelZone](api, c.Store)
	registerKind[wire.Host](api, c.Store)
	registerKind[wire.Port](api, c.Store)
	registerKind[wire.Route](api, c.Store)
	registerKind[wire.Binding](api, c.Store)
	registerKind[wire.FloatingIP](api, c.Store)
	registerKind[wire.Chain](api, c.Store)
	registerKind[wire.Rule](api, c.Store)
	registerKind[wire.PortGroup](api, c.Store)
	registerKind[wire.AddressGroup](api, c.Store)
	registerKind[wire.QoSPolicy](api, c.Store)
	registerKind[wire.Mirror](api, c.Store)
	registerKind[wire.SecurityGroup](api, c.Store)
	registerKind[wire.SecurityGroupRule](api, c.Store)
	registerKind[wire.LoadBalancer](api, c.Store)
	registerKind[wire.Pool](api, c.Store)
	registerKind[wire.PoolMember](api, c.Store)
	registerMemberStatus(api, c)
	registerTransactions(api, c.Store)
	registerApplied(api, c)
	registerConf(api, c)
	registerWhoami(api)
	registerWatch(api, c)
	registerHealth(api, mux, c)
	return api
}

func config(version string) huma.Config {
	c := huma.DefaultConfig("Viaduct", version)
	c.Info.Description = "The virtual network: bridges, subnets, routers, ports, routes, floating IPs, hosts, bindings of ports to hosts' interfaces, security groups, chains of rules, groups, QoS policies, and mirrors."
	c.DocsPath = ""     // the viewer would be loaded from a public site
	c.SchemasPath = ""  // the OpenAPI document has them
	c.CreateHooks = nil // no "$schema" in answers
	c.RejectUnknownQueryParameters = true
	for _, k := range model.Kinds {
		c.Tags = append(c.Tags, &huma.Tag{Name: wire.Plural(k), Description: kindText[k]})
	}
	c.Tags = append(c.Tags,
		&huma.Tag{Name: "changes", Description: "Several changes at once, and what changed."},
		&huma.Tag{Name: "configuration", Description: "What operators set for hosts: a schema of keys, and layers of values."},
		&huma.Tag{Name: "access", Description: "Who may do what."},
		&huma.Tag{Name: "health", Description: "The state of the server."})
	return c
}

// kindText says in the OpenAPI document what each kind is.
var kindText = map[model.Kind]string{
	model.KindSubnet:  "Ranges of addresses on bridges, and what DHCP and router advertisements tell the hosts there.",
	model.KindBridge:  "Virtual switches.",
	model.KindRouter:  "Virtual routers.",
	model.KindZone:    "Sets of hosts that reach each other over VXLAN.",
	model.KindHost:    "Machines with an agent, and where they are reached in each tunnel zone.",
	model.KindPort:    "Ports of bridges and routers.",
	model.KindRoute:   "Explicit routes. Those to a port's own addresses and their subnets exist by themselves.",
	model.KindBinding: "Attachments of ports to interfaces of hosts. A binding's id is its port's.",

	model.KindFloatingIP:   "Addresses on a router port's link that stand for fixed ones behind the router.",
	model.KindChain:        "Lists of rules that filter packets, where ports, bridges and routers name them.",
	model.KindRule:         "Rules of chains.",
	model.KindPortGroup:    "Sets of ports, which rules can ask for. A port says which it is in.",
	model.KindAddressGroup: "Sets of addresses and subnets, which rules can ask for.",

	model.KindQoSPolicy: "What ports that name them may use of the network.",
	model.KindMirror:    "Copies of the traffic of a port, bridge or router for another port.",

	model.KindSecurityGroup:     "Sets of ports with what these may send and receive. A port says which it is in.",
	model.KindSecurityGroupRule: "What security groups allow.",

	model.KindLoadBalancer: "Addresses of routers whose connections are spread over the members of pools.",
	model.KindPool:         "Sets of servers, and how they are checked.",
	model.KindPoolMember:   "Servers of pools.",
}
