// Package internal holds the import law of the tree: who may know whom, and why
// not. Arrows point one way, cmd -> agent|server|ctl|lab -> path -> state|topo -> base.
package internal

import (
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/viaduct-net/viaduct/"

// edge forbids that packages under from import packages under to. Paths of ours
// are relative to the module; "x" stands for x and everything below it, "=x" for x alone.
type edge struct {
	from, to []string
	except   []string // importers that may
	allow    []string // imported that may be
	why      string
}

var (
	top   = []string{"internal/agent", "internal/server", "internal/ctl", "internal/lab", "internal/api", "internal/conf", "internal/service", "internal/cni", "cmd"}
	wires = []string{"encoding/json", "encoding/xml", "net/http", "github.com/danielgtaylor/huma", "github.com/goccy/go-yaml", "sigs.k8s.io/yaml"}
	edges = []string{"internal/api", "internal/conf", "internal/ctl", "internal/lab", "internal/agent", "internal/server", "internal/cni", "cmd", "internal/topo/store/wire"}
)

var law = []edge{
	{from: []string{"internal/base"}, to: []string{"internal"}, allow: []string{"internal/base"},
		why: "base is the vocabulary of all others: it can be read, tested and reused without them"},
	{from: []string{"internal/topo"}, to: append([]string{"internal/state", "internal/path"}, top...),
		why: "what the virtual network is does not depend on what flows have learnt or what happens to packets"},
	{from: []string{"internal/state"}, to: append([]string{"internal/path"}, top...),
		why: "learnt state is data; what packets do with it is decided in path"},
	{from: []string{"internal/path"}, to: top,
		why: "the path of a packet runs in an agent, a laboratory or a test alike"},

	{from: []string{"internal/path/sim"}, to: []string{"=net", "os", "time", "log", "syscall", "golang.org/x/sys", "internal/path/datapath", "internal/topo/store", "internal/base/clock"},
		why: "a simulation is a function of (snapshot, state, packet): no I/O, clock or log"},
	{from: []string{"internal/path/sim"}, to: []string{"sync"},
		why: "the simulator takes no locks"},
	{from: []string{"internal/path/flow", "internal/path/upcall", "internal/path/worker", "internal/path/datapath"},
		to: []string{"internal/topo/model"}, why: "flows and misses know nothing of bridges"},
	{from: []string{"internal/path/flow"}, to: []string{"internal/path"}, allow: []string{"internal/path/flow", "=internal/path/datapath"},
		why: "only worker knows all stages"},
	{from: []string{"internal/path/upcall"}, to: []string{"internal/path"}, allow: []string{"internal/path/upcall", "=internal/path/datapath"},
		why: "only worker knows all stages"},
	{from: []string{"internal/path/prep"}, to: []string{"internal/path"}, allow: []string{"internal/path/prep", "=internal/path/datapath"},
		why: "only worker knows all stages"},
	{from: []string{"internal/path/sim"}, to: []string{"internal/path"}, allow: []string{"internal/path/sim"},
		why: "only worker knows all stages"},
	{from: []string{"internal/path/xlate"}, to: []string{"internal/path"}, allow: []string{"internal/path/xlate"},
		why: "only worker knows all stages"},
	{from: []string{"internal/path/datapath"}, to: []string{"internal/path"}, allow: []string{"internal/path/datapath"},
		why: "a datapath switches packets for whoever installs flows"},

	{from: []string{"internal", "cmd"}, to: []string{"github.com/cilium/ebpf"}, except: []string{"internal/path/datapath/ebpf"},
		why: "one datapath of several: the rest must work with any"},
	{from: []string{"internal", "cmd"}, to: []string{"go.etcd.io/etcd"}, except: []string{"internal/topo/store/etcd", "internal/server"},
		why: "one store of several: the rest must work with any (the server embeds one)"},
	{from: []string{"internal", "cmd"}, to: []string{"github.com/containernetworking"}, except: []string{"internal/cni"},
		why: "one way of attaching containers: the agent knows interfaces and ports"},
	{from: []string{"internal/cni"}, to: []string{"internal"}, allow: []string{"internal/cni", "=internal/agent/debug"},
		why: "the plugin is started for each container: it is small, and asks the agent"},
	{from: []string{"internal", "cmd"}, to: []string{"github.com/insomniacslk/dhcp"}, except: []string{"internal/base/dhcp/dhcp4", "internal/base/dhcp/dhcp6"},
		why: "DHCP's wire format: its types are those of net and its replies allocate, so it is for DHCP messages alone"},
	{from: []string{"internal/base/dhcp"}, to: []string{"github.com/insomniacslk/dhcp"},
		allow: []string{"=github.com/insomniacslk/dhcp/dhcpv4", "=github.com/insomniacslk/dhcp/dhcpv6", "=github.com/insomniacslk/dhcp/iana"},
		why:   "the codec, not the clients and servers, which open sockets"},
	{from: []string{"internal", "cmd"}, to: wires, except: edges,
		why: "native types in the core, wire formats at the edge"},
	{from: []string{"internal/topo/model"}, to: []string{"=net", "os", "io", "encoding", "net/http", "internal/topo/store", "internal/topo/view"},
		why: "the model is plain Go"},
	{from: []string{"internal", "cmd"}, to: []string{"internal/path/datapath/fake", "internal/topo/store/mem", "internal/path/pathtest"},
		except: []string{"internal/lab", "internal/path/pathtest", "internal/path/datapath/datapathtest", "internal/topo/store/storetest", "internal/path/datapath/fake", "internal/topo/store/mem"},
		why:    "stand-ins are for tests, the laboratory and scale runs"},
	{from: []string{"internal/base", "internal/topo", "internal/state", "internal/path", "internal/agent", "internal/server"}, to: []string{"github.com/spf13/cobra", "github.com/jedib0t/go-pretty"},
		why: "flags and tables belong to the command line"},
}

func under(pkg, prefix string) bool {
	if p, ok := strings.CutPrefix(prefix, "="); ok {
		return pkg == p
	}
	return pkg == prefix || strings.HasPrefix(pkg, prefix+"/")
}

func underAny(pkg string, prefixes []string) bool {
	for _, p := range prefixes {
		if under(pkg, p) {
			return true
		}
	}
	return false
}

// broken is why pkg may not import imp; "" when it may.
func broken(pkg, imp string) string {
	imp = strings.TrimPrefix(imp, module)
	for _, e := range law {
		if underAny(pkg, e.from) && underAny(imp, e.to) && !underAny(pkg, e.except) && !underAny(imp, e.allow) {
			return e.why
		}
	}
	return ""
}

// Every direct import of every package, whatever its build constraints. Test
// files are free: they may hold fakes, and compare rooms with each other.
func TestImportLaw(t *testing.T) {
	files := 0
	for _, root := range []string{"../internal", "../cmd"} {
		err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
			if err != nil {
				if root == "../cmd" && name == root {
					return nil
				}
				return err
			}
			if d.IsDir() && d.Name() == "testdata" {
				return filepath.SkipDir
			}
			if d.IsDir() || !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
				return nil
			}
			f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ImportsOnly)
			if err != nil {
				return err
			}
			files++
			pkg := path.Dir(filepath.ToSlash(strings.TrimPrefix(name, "../")))
			for _, spec := range f.Imports {
				imp, err := strconv.Unquote(spec.Path.Value)
				if err != nil {
					return err
				}
				if why := broken(pkg, imp); why != "" {
					t.Errorf("%s imports %s: %s", strings.TrimPrefix(name, "../"), imp, why)
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if files == 0 {
		t.Fatal("no source files found")
	}
}

// The law itself: it forbids what it is there to forbid, and no more.
func TestLaw(t *testing.T) {
	const ours = module + "internal/"
	for _, c := range []struct {
		pkg, imp string
		ok       bool
	}{
		{"internal/base/packet", ours + "base/match", true},
		{"internal/base/packet", ours + "topo/model", false},
		{"internal/base/packet", ours + "path", false},
		{"internal/topo/mirror", ours + "topo/store", true},
		{"internal/topo/mirror", ours + "state/table", false},
		{"internal/topo/binding", ours + "agent", false},
		{"internal/state/conntrack", ours + "path/flow", false},
		{"internal/path/sim", "net/netip", true},
		{"internal/path/sim", "net", false},
		{"internal/path/sim", "time", false},
		{"internal/path/sim", "log/slog", false},
		{"internal/path/sim/dhcp", "os", false},
		{"internal/path/sim", ours + "topo/model", true},
		{"internal/path/sim", ours + "path/datapath", false},
		{"internal/path/flow", ours + "path/datapath", true},
		{"internal/path/flow", ours + "path/datapath/fake", false},
		{"internal/path/flow", ours + "path/sim", false},
		{"internal/path/flow", ours + "topo/model", false},
		{"internal/path/worker", ours + "path/sim", true},
		{"internal/path/worker", ours + "conf", false},
		{"internal/path/datapath/ebpf", "github.com/cilium/ebpf/link", true},
		{"internal/agent", "github.com/cilium/ebpf", false},
		{"internal/topo/store/etcd", "go.etcd.io/etcd/client/v3", true},
		{"internal/agent", "go.etcd.io/etcd/client/v3", false},
		{"internal/api/native", "encoding/json", true},
		{"internal/state/replicate", "encoding/json", false},
		{"internal/path/worker", "net/http", false},
		{"internal/topo/model", "net", false},
		{"internal/topo/model", "net/netip", true},
		{"internal/topo/model", "encoding/json", false},
		{"internal/agent", ours + "path/datapath/fake", false},
		{"internal/lab", ours + "path/datapath/fake", true},
		{"internal/agent", ours + "path/worker", true},
		{"internal/agent", "github.com/spf13/cobra", false},
		{"internal/path/sim", ours + "base/dhcp/dhcp4", true},
		{"internal/path/sim", "github.com/insomniacslk/dhcp/dhcpv4", false},
		{"internal/base/dhcp/dhcp4", "github.com/insomniacslk/dhcp/dhcpv4", true},
		{"internal/base/dhcp/dhcp4", "github.com/insomniacslk/dhcp/dhcpv4/client4", false},
		{"cmd/viaduct", "github.com/spf13/cobra", true},
	} {
		if why := broken(c.pkg, c.imp); (why == "") != c.ok {
			t.Errorf("%s -> %s: allowed %v (%s), want %v", c.pkg, c.imp, why == "", why, c.ok)
		}
	}
}
