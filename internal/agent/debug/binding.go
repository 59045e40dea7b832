package debug

import (
	"context"
	"encoding/json"
	"net/http"
	"net/netip"
	"net/url"
	"time"
)

// Bindings is what the socket can change: which interfaces of the host the virtual ports are on.
type Bindings interface {
	// Bind attaches a port, by id, to an interface, which may come later. Idempotent.
	Bind(ctx context.Context, port, iface string) error
	// Unbind takes it off; what this host does not have stays as it is, and done is false.
	Unbind(ctx context.Context, port string) (done bool, err error)
	// AddContainer finds or makes the port of that name, with addresses, and attaches it to an interface that exists. It
	// returns when the interface is a datapath port. Idempotent.
	AddContainer(ctx context.Context, name string, r ContainerRequest) (Container, error)
	// RemoveContainer deletes the port of that name if this host has it. Idempotent.
	RemoveContainer(ctx context.Context, name string) error
	// Containers lists this host's ports whose names begin so: their addresses are of full length, and what subnets say is left out.
	Containers(ctx context.Context, prefix string) ([]Container, error)
}

// ContainerRequest asks for a container's port.
type ContainerRequest struct {
	Bridge       string   `json:"bridge"`            // name or id
	Subnets      []string `json:"subnets,omitempty"` // names or ids; none: the bridge's first of each family
	Interface    string   `json:"interface"`         // of the host
	PortSecurity bool     `json:"port_security"`
}

// Container is the port of a container, and what the container is told.
type Container struct {
	Name      string    `json:"name"`
	Port      string    `json:"port"` // id
	MAC       string    `json:"mac"`
	Interface string    `json:"interface"`
	Status    string    `json:"status"`
	Addresses []Address `json:"addresses"`
	MTU       int       `json:"mtu,omitempty"` // bytes of an IP packet; 0: no subnet says
	Routes    []Route   `json:"routes,omitempty"`
	DNS       []string  `json:"dns,omitempty"`
	Domain    string    `json:"domain,omitempty"`
}

// Address is an address with its subnet's length, and the subnet's gateway if it has one.
type Address struct {
	Address netip.Prefix `json:"address"`
	Gateway netip.Addr   `json:"gateway,omitzero"`
}

// Route is a route that a subnet's hosts install.
type Route struct {
	To  netip.Prefix `json:"to"`
	Via netip.Addr   `json:"via"`
}

// unbound is the answer to an Unbind.
type unbound struct {
	Done bool `json:"done"`
}

type bindRequest struct {
	Interface string `json:"interface"`
}

// changeTimeout bounds a change, so that a store that is away is said to be.
const changeTimeout = 10 * time.Second

func registerBindings(mux *http.ServeMux, a Bindings) {
	mux.HandleFunc("PUT /v1/bindings/{port}", change(func(ctx context.Context, r *http.Request, in bindRequest) (struct{}, error) {
		return struct{}{}, a.Bind(ctx, r.PathValue("port"), in.Interface)
	}))
	mux.HandleFunc("DELETE /v1/bindings/{port}", change(func(ctx context.Context, r *http.Request, _ any) (unbound, error) {
		done, err := a.Unbind(ctx, r.PathValue("port"))
		return unbound{done}, err
	}))
	mux.HandleFunc("PUT /v1/containers/{name}", change(func(ctx context.Context, r *http.Request, in ContainerRequest) (Container, error) {
		return a.AddContainer(ctx, r.PathValue("name"), in)
	}))
	mux.HandleFunc("DELETE /v1/containers/{name}", change(func(ctx context.Context, r *http.Request, _ any) (struct{}, error) {
		return struct{}{}, a.RemoveContainer(ctx, r.PathValue("name"))
	}))
	mux.HandleFunc("GET /v1/containers", func(w http.ResponseWriter, r *http.Request) {
		answer[[]Container](w)(a.Containers(r.Context(), r.FormValue("prefix")))
	})
}

func change[In, Out any](do func(context.Context, *http.Request, In) (Out, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var in In
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<20)).Decode(&in); err != nil {
			problem(w, http.StatusBadRequest, err)
			return
		}
		ctx, cancel := context.WithTimeout(r.Context(), changeTimeout)
		defer cancel()
		answer[Out](w)(do(ctx, r, in))
	}
}

// Bind attaches a port, by id, to an interface of the host.
func (c *Client) Bind(ctx context.Context, port, iface string) error {
	return c.do(ctx, "PUT", "/v1/bindings/"+url.PathEscape(port), bindRequest{iface}, nil)
}

// Unbind takes the port off its interface; done is false when this host did not have it.
func (c *Client) Unbind(ctx context.Context, port string) (done bool, err error) {
	var u unbound
	err = c.do(ctx, "DELETE", "/v1/bindings/"+url.PathEscape(port), nil, &u)
	return u.Done, err
}

// AddContainer finds or makes a container's port.
func (c *Client) AddContainer(ctx context.Context, name string, r ContainerRequest) (x Container, err error) {
	return x, c.do(ctx, "PUT", "/v1/containers/"+url.PathEscape(name), r, &x)
}

// RemoveContainer deletes a container's port.
func (c *Client) RemoveContainer(ctx context.Context, name string) error {
	return c.do(ctx, "DELETE", "/v1/containers/"+url.PathEscape(name), nil, nil)
}

// Containers lists the containers' ports of this host whose names begin so.
func (c *Client) Containers(ctx context.Context, prefix string) (xs []Container, err error) {
	return xs, c.do(ctx, "GET", "/v1/containers?"+url.Values{"prefix": {prefix}}.Encode(), nil, &xs)
}
