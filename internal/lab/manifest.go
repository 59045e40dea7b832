package lab

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"

	"github.com/viaduct-net/viaduct/internal/lab/ns"
	"github.com/viaduct-net/viaduct/internal/lab/plug"
	"github.com/viaduct-net/viaduct/internal/pki"
)

// Root is where laboratories keep their state, a directory each.
const Root = "/run/viaduct/lab"

// DefaultName is the name of a laboratory that has none.
const DefaultName = "lab"

// Device is how a VM is attached to its host.
type Device string

// Devices.
const (
	Veth Device = "veth" // a cable: the VM's end is in its namespace
	Tap  Device = "tap"  // a tap with a process behind it, as with a hypervisor
)

// Manifest is all that a laboratory consists of. It is written before anything is made, and
// again as processes start.
type Manifest struct {
	Name   string `json:"name"`
	Binary string `json:"binary"` // path of viaduct
	Server Server `json:"server"`
	Hosts  []Host `json:"hosts"`
	// AgentArgs are further arguments of every agent, whenever it is started.
	AgentArgs []string `json:"agent_args,omitempty"`
	VMs       []VM     `json:"vms"`
	Faults    []Fault  `json:"faults,omitempty"` // that are not healed
	// Underlay is where the hosts' network is; empty when they have none.
	Underlay ns.Space `json:"underlay,omitempty"`
	Made     []string `json:"made"` // directories outside the laboratory's own that it made, outermost first
	// Mounted says that the laboratory mounted bpffs.
	Mounted bool `json:"mounted,omitempty"`
}

// Server is the laboratory's server process.
type Server struct {
	Space  ns.Space `json:"space"`
	PID    int      `json:"pid,omitempty"`
	Socket string   `json:"socket"` // of the native API
	Etcd   string   `json:"etcd"`   // client endpoint of the embedded store
	// Address in the underlay, over which agents reach the store; invalid where there is none: they use a socket of this machine.
	Address netip.Prefix `json:"address,omitzero"`
	Data    string       `json:"data"`
	Log     string       `json:"log"`
}

// Host is a namespace with an agent.
type Host struct {
	Name   string   `json:"name"`
	Space  ns.Space `json:"space"`
	PID    int      `json:"pid,omitempty"` // of the agent
	RunDir string   `json:"run_dir"`
	Pins   string   `json:"pins"` // directory in bpffs
	Log    string   `json:"log"`
	// Addresses of the underlay.
	Addresses []netip.Prefix `json:"addresses,omitempty"`
}

// VM is a namespace plugged into a host.
type VM struct {
	Name      string   `json:"name"`
	Space     ns.Space `json:"space"`
	Host      string   `json:"host"`
	Port      string   `json:"port"`      // name of the virtual port
	Interface string   `json:"interface"` // of the host's end
	Device    Device   `json:"device"`
	Plugged   bool     `json:"plugged"`
	PID       int      `json:"pid,omitempty"` // of the process behind a tap
	NIC       plug.NIC `json:"nic"`
}

const nameRule = "a name is up to 24 letters, digits and hyphens, and begins with a letter or digit"

var nameForm = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9-]{0,23}$`)

func validName(s string) bool { return nameForm.MatchString(s) }

// Socket is the agent's debug socket.
func (h *Host) Socket() string { return filepath.Join(h.RunDir, "agent.sock") }

// Lab is a laboratory that exists, whole or in part. Not safe for concurrent use; several processes may each have it open:
// whatever changes it begins with what the others have made of it.
type Lab struct {
	Manifest
	dir  string
	held bool // we have its lock
}

// noLab is that there is no laboratory of a name, or none at all.
type noLab string

func (name noLab) Error() string {
	if name == "" {
		return "there is no laboratory: start one with `viaduct lab up -f FILE`"
	}
	return fmt.Sprintf("no laboratory %s: `viaduct lab list` shows those there are", string(name))
}

// Is says that it is an fs.ErrNotExist.
func (noLab) Is(target error) bool { return target == fs.ErrNotExist }

// Open finds a laboratory by name; "" is the only one there is. fs.ErrNotExist: there is none.
func Open(name string) (*Lab, error) { return open(Root, name) }

func open(root, name string) (*Lab, error) {
	if name == "" {
		names, err := list(root)
		switch {
		case err != nil:
			return nil, err
		case len(names) == 0:
			return nil, noLab("")
		case len(names) > 1:
			return nil, fmt.Errorf("there are several laboratories, choose one with --name: %v", names)
		}
		name = names[0]
	}
	if !validName(name) {
		return nil, fmt.Errorf("laboratory %q: %s", name, nameRule)
	}
	l := &Lab{dir: filepath.Join(root, name)}
	if err := l.read(name); err != nil {
		return nil, err
	}
	return l, nil
}

// read reads the manifest.
func (l *Lab) read(name string) error {
	b, err := os.ReadFile(l.manifest())
	if errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Stat(l.dir); err != nil {
			return noLab(name)
		}
		l.Name = name // `up` ended between the directory and the manifest: there is nothing else
		return nil
	}
	if err != nil {
		return fmt.Errorf("laboratory %s: %w", name, err)
	}
	if err := json.Unmarshal(b, &l.Manifest); err != nil {
		return fmt.Errorf("laboratory %s: %s: %w", name, l.manifest(), err)
	}
	return nil
}

// List names the laboratories of this machine.
func List() ([]string, error) { return list(Root) }

func list(root string) ([]string, error) {
	entries, err := os.ReadDir(root)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var names []string
	for _, e := range entries {
		if e.IsDir() && validName(e.Name()) {
			names = append(names, e.Name())
		}
	}
	return names, err
}

// VM finds a VM by name.
func (l *Lab) VM(name string) (*VM, error) {
	for i := range l.VMs {
		if l.VMs[i].Name == name {
			return &l.VMs[i], nil
		}
	}
	return nil, fmt.Errorf("laboratory %s has no VM %q", l.Name, name)
}

// Host finds a host by name.
func (l *Lab) Host(name string) (*Host, error) {
	for i := range l.Hosts {
		if l.Hosts[i].Name == name {
			return &l.Hosts[i], nil
		}
	}
	return nil, fmt.Errorf("laboratory %s has no host %q", l.Name, name)
}

// Space finds the namespace of a VM or, failing that, of a host.
func (l *Lab) Space(name string) (ns.Space, error) {
	vm, err := l.VM(name)
	if err == nil {
		return vm.Space, nil
	}
	if h, e := l.Host(name); e == nil {
		return h.Space, nil
	}
	return "", err
}

// spaces are all namespaces; those whose processes need the others end first.
func (l *Lab) spaces() (list []ns.Space) {
	for _, vm := range l.VMs {
		list = append(list, vm.Space)
	}
	for _, h := range l.Hosts {
		list = append(list, h.Space)
	}
	if l.Underlay != "" {
		list = append(list, l.Underlay)
	}
	if l.Server.Space != "" {
		list = append(list, l.Server.Space)
	}
	return list
}

// certificates of the server and of the agents, when these reach the store over the underlay.
func (l *Lab) certificates() pki.Dir { return pki.Dir(filepath.Join(l.dir, "pki")) }

func (l *Lab) manifest() string { return filepath.Join(l.dir, "manifest.json") }

// save writes the manifest whole or not at all. It is called within a change.
func (l *Lab) save() error {
	b, err := json.MarshalIndent(&l.Manifest, "", "  ")
	if err != nil {
		return err
	}
	tmp := l.manifest() + ".new"
	if err := os.WriteFile(tmp, append(b, '\n'), 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, l.manifest())
}
