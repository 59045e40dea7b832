package netns

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"

	"github.com/viaduct-net/viaduct/internal/agent/debug"
	"github.com/viaduct-net/viaduct/internal/lab"
	"github.com/viaduct-net/viaduct/internal/lab/ns"
)

// containers is a bridge with two subnets behind a router, and nobody on it yet.
const containers = `kind: host
name: h1
---
kind: bridge
name: pods
---
kind: bridge
name: outside
---
kind: router
name: gw
---
kind: port
name: gw-pods
router: gw
addresses: [10.0.1.1/24, "fd00:1::1/64"]
peer: pods-up
---
kind: port
name: pods-up
bridge: pods
---
kind: subnet
name: pods4
bridge: pods
cidr: 10.0.1.0/24
gateway: 10.0.1.1
mtu: 1400
dns_servers: [9.9.9.9]
domain: pods.example.org
host_routes: [{destination: 192.0.2.0/24, next_hop: 10.0.1.1}]
---
kind: subnet
name: pods6
bridge: pods
cidr: fd00:1::/64
gateway: fd00:1::1
mtu: 1400
`

// runtime calls the plugin as a container runtime does.
type runtime struct {
	*testing.T
	host    ns.Space
	agent   *debug.Client
	plugins string // directory
	tool    string // cnitool
	conf    *libcni.NetworkConfigList
	netconf string // directory
	cni     *libcni.CNIConfig
}

func newRuntime(t *testing.T, l *lab.Lab, bridge string) *runtime {
	t.Helper()
	r := &runtime{T: t, host: space(t, l, "h1"), agent: debug.NewClient(l.Hosts[0].Socket()), plugins: t.TempDir(), netconf: t.TempDir()}
	r.tool = filepath.Join(t.TempDir(), "cnitool")
	for out, pkg := range map[string]string{filepath.Join(r.plugins, "viaduct-cni"): "../../cmd/viaduct-cni", r.tool: "github.com/containernetworking/cni/cnitool"} {
		if text, err := exec.Command("go", "build", "-o", out, pkg).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
	}
	text := fmt.Sprintf(`{"cniVersion": "1.1.0", "name": "pods", "plugins": [{"type": "viaduct-cni", "bridge": %q, "socket": %q}]}`, bridge, l.Hosts[0].Socket())
	if err := os.WriteFile(filepath.Join(r.netconf, "10-pods.conflist"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	var err error
	if r.conf, err = libcni.ConfListFromBytes([]byte(text)); err != nil {
		t.Fatal(err)
	}
	r.cni = libcni.NewCNIConfigWithCacheDir([]string{r.plugins}, t.TempDir(), nil)
	return r
}

// container makes a network namespace that ends with the test.
func (r *runtime) container(name string) ns.Space {
	r.Helper()
	s := ns.Space(labName() + "-" + name)
	if err := s.Create(); err != nil {
		r.Fatal(err)
	}
	r.Cleanup(func() {
		if err := s.Delete(); err != nil {
			r.Error(err)
		}
	})
	return s
}

// cnitool runs it on the host, and returns what it printed.
func (r *runtime) cnitool(verb string, s ns.Space) (string, error) {
	cmd := exec.Command(r.tool, verb, "pods", s.Path())
	cmd.Env = append(os.Environ(), "CNI_PATH="+r.plugins, "NETCONFPATH="+r.netconf, "CNI_IFNAME=eth0")
	var out, complaints strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &complaints
	if err := r.host.Start(cmd); err != nil {
		return "", err
	}
	if err := cmd.Wait(); err != nil {
		return "", fmt.Errorf("cnitool %s: %w: %s%s", verb, err, out.String(), complaints.String())
	}
	return out.String(), nil
}

func (r *runtime) must(verb string, s ns.Space) *current.Result {
	r.Helper()
	out, err := r.cnitool(verb, s)
	if err != nil {
		r.Fatal(err)
	}
	if verb != "add" {
		return nil
	}
	res := new(current.Result)
	if err := json.Unmarshal([]byte(out), res); err != nil {
		r.Fatalf("%v: %s", err, out)
	}
	return res
}

func (r *runtime) ports() int {
	r.Helper()
	ps, err := r.agent.Containers(r.Context(), "cni:pods:")
	if err != nil {
		r.Fatal(err)
	}
	return len(ps)
}

func (r *runtime) hostLinks() (n int) {
	r.Helper()
	h, err := r.host.Netlink()
	if err != nil {
		r.Fatal(err)
	}
	defer h.Close()
	links, err := h.LinkList()
	if err != nil {
		r.Fatal(err)
	}
	for _, l := range links {
		if strings.HasPrefix(l.Attrs().Name, "vdt") {
			n++
		}
	}
	return n
}

// cniCacheUsed is held by the test that uses the machine's only one.
var cniCacheUsed sync.Mutex

// cniCache is where cnitool keeps what ADD has answered.
func cniCache(t *testing.T) {
	t.Helper()
	cniCacheUsed.Lock()
	t.Cleanup(cniCacheUsed.Unlock)
	const dir = "/var/lib/cni"
	if _, err := os.Stat(dir); err == nil {
		t.Fatalf("%s is there: this test would mix with a container runtime's", dir)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
}

func TestCNI(t *testing.T) {
	t.Parallel()
	cniCache(t)
	l := laboratory(t, containers)
	r := newRuntime(t, l, "pods")
	a, b := r.container("a"), r.container("b")
	r.must("status", a)
	ra, rb := r.must("add", a), r.must("add", b)

	if len(ra.IPs) != 2 || ra.IPs[0].Gateway.String() != "10.0.1.1" || ra.IPs[1].Gateway.String() != "fd00:1::1" || ra.CNIVersion != "1.1.0" ||
		ra.Interfaces[1].Mtu != 1400 || len(ra.Routes) != 3 || ra.DNS.Domain != "pods.example.org" || ra.DNS.Nameservers[0] != "9.9.9.9" {
		t.Errorf("%+v", ra)
	}
	for i := range ra.IPs {
		if ra.IPs[i].Address.IP.Equal(rb.IPs[i].Address.IP) {
			t.Errorf("%s is given out twice", ra.IPs[i].Address.IP)
		}
	}
	// At once, each other and the gateway, over IPv4 and IPv6.
	for i, gateway := range []string{"10.0.1.1", "fd00:1::1"} {
		ping(t, a, rb.IPs[i].Address.IP.String())
		ping(t, b, ra.IPs[i].Address.IP.String())
		ping(t, a, gateway)
	}
	if out, err := command(a, "ip", "route", "get", "192.0.2.1"); err != nil || !strings.Contains(out, "via 10.0.1.1") {
		t.Errorf("the subnet's route: %v %s", err, out)
	}
	r.must("check", a)
	if _, err := r.cnitool("add", a); err == nil || !strings.Contains(err.Error(), "an interface eth0 already") {
		t.Errorf("added twice: %v", err)
	}
	r.must("check", a)

	// CHECK sees each thing that is not as it was.
	for _, c := range []struct{ meddle, repair, want string }{
		{"ip addr del " + ra.IPs[0].Address.String() + " dev eth0", "ip addr add " + ra.IPs[0].Address.String() + " dev eth0", "has no address"},
		{"ip route del default", "ip route add default via 10.0.1.1", "no route to 0.0.0.0/0"},
		{"ip link set eth0 mtu 1300", "ip link set eth0 mtu 1400", "MTU 1300"},
		{"ip link set eth0 address 02:00:00:00:00:99", "ip link set eth0 address " + ra.Interfaces[1].Mac, "has MAC"},
	} {
		if out, err := command(a, strings.Fields(c.meddle)...); err != nil {
			t.Fatal(err, out)
		}
		if _, err := r.cnitool("check", a); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("after %s: %v, want %q", c.meddle, err, c.want)
		}
		for _, again := range []string{c.repair, "ip route replace default via 10.0.1.1", "ip route replace 192.0.2.0/24 via 10.0.1.1", "ip -6 route replace default via fd00:1::1"} {
			if out, err := command(a, strings.Fields(again)...); err != nil && again != c.repair {
				t.Fatal(err, out)
			}
		}
		r.must("check", a)
	}

	for range 2 {
		r.must("del", a)
	}
	eventually(t, "a is gone", func(context.Context) error {
		if n, m := r.ports(), r.hostLinks(); n != 1 || m != 1 {
			return fmt.Errorf("%d ports, %d interfaces", n, m)
		}
		return nil
	})
	ping(t, b, "10.0.1.1")
	r.must("del", b)
}

// What containers leave whose end the runtime has missed, GC removes, and nothing else.
func TestCNIGarbage(t *testing.T) {
	t.Parallel()
	l := laboratory(t, containers)
	r := newRuntime(t, l, "pods")
	spaces := []ns.Space{r.container("a"), r.container("b"), r.container("c")}
	for i, s := range spaces {
		rt := &libcni.RuntimeConf{ContainerID: fmt.Sprintf("c%d", i), NetNS: s.Path(), IfName: "eth0"}
		if err := r.host.Do(func() error { _, err := r.cni.AddNetworkList(t.Context(), r.conf, rt); return err }); err != nil {
			t.Fatal(err)
		}
	}
	// The first one's namespace is gone, and its interface with it; the second one's is still there.
	if out, err := command(spaces[0], "ip", "link", "del", "eth0"); err != nil {
		t.Fatal(err, out)
	}
	// A runtime that remembers the third alone.
	fresh := libcni.NewCNIConfigWithCacheDir([]string{r.plugins}, t.TempDir(), nil)
	err := r.host.Do(func() error {
		return fresh.GCNetworkList(t.Context(), r.conf, &libcni.GCArgs{ValidAttachments: []types.GCAttachment{{ContainerID: "c2", IfName: "eth0"}}})
	})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "one is left", func(context.Context) error {
		if n, m := r.ports(), r.hostLinks(); n != 1 || m != 1 {
			return fmt.Errorf("%d ports, %d interfaces", n, m)
		}
		return nil
	})
	ping(t, spaces[2], "10.0.1.1")
}

// A failed ADD leaves nothing, and says what is to be done.
func TestCNIFails(t *testing.T) {
	t.Parallel()
	cniCache(t)
	l := laboratory(t, containers)
	for bridge, want := range map[string]string{"nowhere": `bridge "nowhere"`, "outside": "bridge outside has no subnet"} {
		r := newRuntime(t, l, bridge)
		if _, err := r.cnitool("add", r.container(bridge)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
		if n, m := r.ports(), r.hostLinks(); n != 0 || m != 0 {
			t.Errorf("%d ports and %d interfaces are left", n, m)
		}
	}
	r := newRuntime(t, l, "pods")
	s := r.container("late")
	kill(t, &l.Hosts[0])
	for verb, want := range map[string]string{"status": "not ready", "add": "is it running?"} {
		if _, err := r.cnitool(verb, s); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s without an agent: %v", verb, err)
		}
	}
	if r.hostLinks() != 0 {
		t.Error("an interface is left")
	}
	if err := l.StartAgent(t.Context(), &l.Hosts[0]); err != nil {
		t.Fatal(err)
	}
	r.must("add", s)
	r.must("del", s)
}
