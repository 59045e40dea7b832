package lab

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/viaduct-net/viaduct/internal/api/document"
	"github.com/viaduct-net/viaduct/internal/lab/ns"
	"github.com/viaduct-net/viaduct/internal/topo/store/mem"
)

// pinRoot is where agents pin their programs and maps, a directory for each instance.
const pinRoot = "/sys/fs/bpf/viaduct"

// plan checks the file and decides everything that will be made.
func plan(ctx context.Context, root, name, binary string, set *document.Set) (*Lab, error) {
	if name == "" {
		var err error
		if name, err = fileName(set); err != nil {
			return nil, err
		}
	}
	if name == "" {
		name = DefaultName
	}
	if !validName(name) {
		return nil, fmt.Errorf("laboratory %q: %s", name, nameRule)
	}
	addHosts(set)
	addUnderlay(set)
	network, err := load(ctx, set, mem.New())
	if err != nil {
		return nil, err
	}
	vms, err := readVMs(set, network)
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(root, name)
	server := filepath.Join(dir, "server")
	l := &Lab{dir: dir, Manifest: Manifest{Name: name, Binary: binary, VMs: vms, Server: Server{
		Space: ns.Space(name + ".server"), Socket: filepath.Join(server, "api.sock"), Etcd: "unix://" + filepath.Join(server, "etcd.sock"),
		Data: filepath.Join(server, "data"), Log: filepath.Join(server, "log"),
	}}}
	for i := range l.VMs {
		l.VMs[i].Space = ns.Space(name + ".vm." + l.VMs[i].Name)
	}
	for _, h := range network.hosts {
		if !validName(h.Name) {
			return nil, fmt.Errorf("host %q: %s", h.Name, nameRule)
		}
		if h.Name == Store {
			return nil, fmt.Errorf("host %q: that is the server's name on the underlay", h.Name)
		}
		run := filepath.Join(dir, "hosts", h.Name)
		l.Hosts = append(l.Hosts, Host{Name: h.Name, Space: ns.Space(name + ".host." + h.Name), RunDir: run,
			Pins: filepath.Join(pinRoot, instance(name, h.Name)), Log: filepath.Join(run, "log"), Addresses: underlayAddresses(h)})
		if len(h.Tunnels) > 0 {
			l.Underlay = ns.Space(name + ".underlay")
		}
	}
	slices.SortFunc(l.Hosts, func(a, b Host) int { return strings.Compare(a.Name, b.Name) })
	l.connectStore()
	if len(l.Hosts) == 0 {
		return nil, errors.New("the file has no host: bind a port to an interface of one")
	}
	return l, nil
}

// instance names an agent among all of the machine's. bpffs takes no dots.
func instance(lab, host string) string { return lab + "_" + host }
