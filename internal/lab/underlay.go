package lab

import (
	"crypto/x509/pkix"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/viaduct-net/viaduct/internal/api/document"
	"github.com/viaduct-net/viaduct/internal/lab/ns"
	"github.com/viaduct-net/viaduct/internal/lab/plug"
	"github.com/viaduct-net/viaduct/internal/pki"
	"github.com/viaduct-net/viaduct/internal/topo/model"
)

// The underlay is a switch in a namespace of its own, with a cable to each host, and one to the server, where agents reach the store.
const (
	underlayZone = "underlay" // of hosts that the file puts in none
	underlayNIC  = "underlay" // a host's interface
	// OverlayMTU is what a VM's packets may be long: the underlay's 1500 less VXLAN over IPv6.
	OverlayMTU = 1430
)

// addUnderlay puts hosts that the file has in no tunnel zone into one, when there are several.
func addUnderlay(set *document.Set) {
	var hosts []*document.Host
	for _, d := range set.Docs {
		if h, ok := d.Value.(*document.Host); ok {
			if len(h.Tunnels) > 0 {
				return // the file says how hosts reach each other
			}
			hosts = append(hosts, h)
		}
	}
	if len(hosts) < 2 {
		return
	}
	set.Add(&document.TunnelZone{Name: underlayZone}, document.Pos{})
	address := netip.MustParseAddr("192.168.255.0")
	for _, h := range hosts {
		address = address.Next()
		h.Tunnels = []document.TunnelEnd{{Zone: underlayZone, Address: address.String()}}
	}
}

// underlayAddresses are a host's own, each on a link that all hosts share.
func underlayAddresses(h *model.Host) (list []netip.Prefix) {
	for _, t := range h.Tunnels {
		bits := 64
		if t.Address.Is4() {
			bits = 24
		}
		list = append(list, netip.PrefixFrom(t.Address, bits))
	}
	return list
}

// Store names the server where hosts are named: on the underlay, and in faults.
const Store = "store"

// storeNet is where hosts reach the store, on the same links as each other.
var storeNet = netip.MustParsePrefix("169.254.0.0/16")

// connectStore gives the server and every host an address of storeNet.
func (l *Lab) connectStore() {
	if l.Underlay == "" {
		return
	}
	address := storeNet.Addr().Next()
	l.Server.Address = netip.PrefixFrom(address, storeNet.Bits())
	l.Server.Etcd = "https://" + netip.AddrPortFrom(address, 2379).String()
	for i := range l.Hosts {
		address = address.Next()
		l.Hosts[i].Addresses = append(l.Hosts[i].Addresses, netip.PrefixFrom(address, storeNet.Bits()))
	}
}

// wire lays the cables between the hosts and the server.
func (l *Lab) wire() error {
	if l.Underlay == "" {
		return nil
	}
	if err := plug.Switch(l.Underlay, underlayNIC); err != nil {
		return fmt.Errorf("underlay: %w", err)
	}
	cable := func(name string, space ns.Space, addresses ...netip.Prefix) error {
		err := plug.Cable(l.Underlay, underlayNIC, l.cable(name), space, plug.NIC{Name: underlayNIC, Addresses: addresses})
		if err != nil {
			return fmt.Errorf("underlay: %s: %w", name, err)
		}
		return nil
	}
	for _, h := range l.Hosts {
		if err := cable(h.Name, h.Space, h.Addresses...); err != nil {
			return err
		}
	}
	return cable(Store, l.Server.Space, l.Server.Address)
}

// cable is the switch's port towards a host or the store.
func (l *Lab) cable(name string) string {
	i := slices.IndexFunc(l.Hosts, func(h Host) bool { return h.Name == name })
	if i < 0 {
		return Store
	}
	return fmt.Sprintf("host%d", i)
}

// certify makes the certificates without which the store is served to nobody beyond its own machine.
func (l *Lab) certify() error {
	if !l.Server.Address.IsValid() {
		return nil
	}
	const valid = 365 * 24 * time.Hour
	d := l.certificates()
	_, err := d.CreateAuthority(valid)
	if err != nil {
		return err
	}
	_, err = d.Issue(Store, pki.Request{Subject: pkix.Name{CommonName: Store}, Names: []string{l.Server.Address.Addr().String()}, Server: true, Valid: valid})
	for _, h := range l.Hosts {
		if err == nil {
			_, err = d.Issue(h.Name, pki.Request{Subject: pkix.Name{CommonName: h.Name}, Valid: valid})
		}
	}
	return err
}

// storeFlags are what the server, or the agent of a host, is told of its certificate for the store.
func (l *Lab) storeFlags(name string) []string {
	if !l.Server.Address.IsValid() {
		return nil
	}
	f := l.certificates().Files(name)
	return []string{"--etcd-cacert", f.CA, "--etcd-cert", f.Cert, "--etcd-key", f.Key}
}
