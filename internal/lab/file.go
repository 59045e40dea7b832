package lab

import (
	"errors"
	"net/netip"
	"os"

	"github.com/viaduct-net/viaduct/internal/api/document"
)

// labDoc is `kind: lab`.
type labDoc struct {
	Name string `yaml:"name"`
}

// vmDoc is `kind: vm`: what is absent comes from the port.
type vmDoc struct {
	Name      string         `yaml:"name,required"`
	Port      string         `yaml:"port,required"` // whose binding says the host and the interface
	Host      string         `yaml:"host"`
	Device    Device         `yaml:"device"` // default veth
	MAC       string         `yaml:"mac"`
	Addresses []netip.Prefix `yaml:"addresses"`
	Gateways  []netip.Addr   `yaml:"gateways"`
	MTU       int            `yaml:"mtu"` // bytes, default 1500; OverlayMTU when there are several hosts
	Routes    []routeDoc     `yaml:"routes"`
	Plugged   *bool          `yaml:"plugged"` // default true; `viaduct lab plug` does it later
}

type routeDoc struct {
	To  netip.Prefix `yaml:"to,required"`
	Via netip.Addr   `yaml:"via,required"`
}

// ReadFile reads a laboratory's file: the documents that `viaduct apply` takes, and VMs.
func ReadFile(name string) (*document.Set, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return document.Parse(f, name)
}

// fileName is the name that the file gives the laboratory, or "".
func fileName(set *document.Set) (string, error) {
	name := ""
	for _, o := range set.Others {
		if o.Kind != "lab" {
			continue
		}
		var d labDoc
		if err := o.Decode(&d); err != nil {
			return "", err
		}
		if name != "" {
			return "", &document.Error{Pos: o.Pos, Path: "lab", Err: errors.New("is described twice")}
		}
		name = d.Name
	}
	return name, nil
}

// addHosts describes the hosts that bindings name and the file does not.
func addHosts(set *document.Set) {
	known := map[string]bool{}
	for _, d := range set.Docs {
		if h, ok := d.Value.(*document.Host); ok {
			known[h.Name] = true
			known[h.ID] = true
		}
	}
	need := func(host string, pos document.Pos) {
		if host != "" && !known[host] {
			known[host] = true
			set.Add(&document.Host{Name: host}, pos)
		}
	}
	for _, d := range set.Docs {
		switch v := d.Value.(type) {
		case *document.Port:
			if v.Binding != nil {
				need(v.Binding.Host, d.Pos)
			}
		case *document.Binding:
			need(v.Host, d.Pos)
		}
	}
}

// readVMs decodes the VMs and completes them from the virtual network.
func readVMs(set *document.Set, n *network) ([]VM, error) {
	var (
		vms  []VM
		errs []error
		seen = map[string]bool{}
	)
	for _, o := range set.Others {
		if o.Kind != "vm" {
			continue
		}
		var d vmDoc
		if err := o.Decode(&d); err != nil {
			errs = append(errs, err)
			continue
		}
		vm, err := n.complete(d)
		if err == nil && seen[vm.Name] {
			err = errors.New("is described twice")
		}
		if err != nil {
			errs = append(errs, &document.Error{Pos: o.Pos, Path: "vm " + d.Name, Err: err})
			continue
		}
		seen[vm.Name] = true
		vms = append(vms, vm)
	}
	return vms, errors.Join(errs...)
}
