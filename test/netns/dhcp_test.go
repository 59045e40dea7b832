package netns

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/viaduct-net/viaduct/internal/agent/debug"
	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/base/packet"
	"github.com/viaduct-net/viaduct/internal/lab"
	"github.com/viaduct-net/viaduct/internal/lab/examples"
	"github.com/viaduct-net/viaduct/internal/lab/ns"
)

// What a client makes of an answer: it writes down what it was told, and configures no more than what the
// tests need, because the machine's own resolver is not to be touched.
const clientScript = `#!/bin/sh
log=$(dirname "$0")/log
what=${reason:-$1}
echo "$what $(env | grep -E '^(new_|ip=|serverid|mtu|router|staticroutes|search|ntp)' | sort | tr '\n' ';')" >>"$log"
case $what in
BOUND|RENEW|REBIND|REBOOT) ip address replace "$new_ip_address/24" dev eth0; ip link set eth0 mtu "$new_interface_mtu";;
BOUND6|RENEW6|REBIND6) ip -6 address replace "$new_ip6_address/128" dev eth0;;
EXPIRE|FAIL|RELEASE|STOP) ip address flush dev eth0 scope global;;
esac
`

// dhcpClient is one with a directory of its own.
type dhcpClient struct {
	dir   string
	space ns.Space
}

func newClient(t *testing.T, s ns.Space) dhcpClient {
	t.Helper()
	c := dhcpClient{t.TempDir(), s}
	if err := os.WriteFile(c.file("script"), []byte(clientScript), 0o755); err != nil {
		t.Fatal(err)
	}
	return c
}

func (c dhcpClient) file(name string) string { return filepath.Join(c.dir, name) }

// log is what the client was told so far, a line each time.
func (c dhcpClient) log() string {
	b, _ := os.ReadFile(c.file("log"))
	return string(b)
}

// dhclient runs Debian's client until the test ends.
func (c dhcpClient) dhclient(t *testing.T, more ...string) {
	t.Helper()
	args := append([]string{"-d", "-sf", c.file("script"), "-lf", c.file("leases"), "-pf", c.file("pid"), "-cf", "/dev/null"}, more...)
	out, err := os.Create(c.file("out"))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("dhclient", append(args, "eth0")...)
	cmd.Stdout, cmd.Stderr = out, out
	if err := c.space.Start(cmd); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(unix.SIGTERM)
		_ = cmd.Wait()
		out.Close()
		if b, err := os.ReadFile(c.file("out")); t.Failed() {
			t.Logf("dhclient said (%v):\n%s\nand was told:\n%s", err, b, c.log())
		}
	})
}

// await waits until the client was told something.
func (c dhcpClient) await(t *testing.T, want string) {
	t.Helper()
	eventually(t, "the client is told "+want, func(context.Context) error {
		if log := c.log(); !strings.Contains(log, want) {
			return fmt.Errorf("only:\n%s", log)
		}
		return nil
	})
}

// reaches pings until it works: what the client was told its script may still be configuring.
func reaches(t *testing.T, s ns.Space, address string) {
	t.Helper()
	eventually(t, "ping "+address, func(context.Context) error {
		out, err := command(s, "ping", "-n", "-c", "1", "-W", "1", address)
		if err != nil {
			return fmt.Errorf("%w\n%s", err, out)
		}
		return nil
	})
}

func needs(t *testing.T, tools ...string) {
	t.Helper()
	for _, x := range tools {
		if _, err := exec.LookPath(x); err != nil {
			t.Fatalf("%v: make setup installs it", err)
		}
	}
}

func TestDHCPv4(t *testing.T) {
	t.Parallel()
	needs(t, "dhclient", "udhcpc")
	l := up(t, examples.DHCP)
	alice := space(t, l, "alice")
	t.Run("udhcpc", func(t *testing.T) {
		c := newClient(t, alice)
		out, err := command(alice, "udhcpc", "-f", "-n", "-q", "-t", "5", "-T", "1", "-i", "eth0", "-s", c.file("script"), "-O", "mtu", "-O", "staticroutes", "-O", "search", "-O", "ntpsrv")
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		for _, want := range []string{"ip=10.0.1.10;", "mtu=1400", "router=10.0.1.1;", "serverid=10.0.1.1;", "ntpsrv=10.0.1.3",
			"staticroutes=10.9.0.0/16 10.0.1.254 0.0.0.0/0 10.0.1.1", "search=a.example.org b.example.org"} {
			if !strings.Contains(c.log(), want) {
				t.Errorf("not told %q:\n%s", want, c.log())
			}
		}
	})
	t.Run("dhclient renews", func(t *testing.T) {
		c := newClient(t, alice)
		c.dhclient(t, "-4")
		c.await(t, "BOUND ")
		reaches(t, alice, "10.0.1.1")
		c.await(t, "RENEW ") // unicast, to the router's own MAC
		reaches(t, alice, "10.0.1.66")
	})
	t.Run("dhclient recovers from a wrong address", func(t *testing.T) {
		c := newClient(t, alice)
		lease := "lease {\n  interface \"eth0\";\n  fixed-address 10.0.1.99;\n  option dhcp-lease-time 86400;\n  option dhcp-server-identifier 10.0.1.1;\n" +
			"  renew 4 2037/01/01 00:00:00;\n  rebind 4 2037/01/01 00:00:00;\n  expire 4 2037/01/01 00:00:00;\n}\n"
		if err := os.WriteFile(c.file("leases"), []byte(lease), 0o644); err != nil {
			t.Fatal(err)
		}
		c.dhclient(t, "-4")
		c.await(t, "new_ip_address=10.0.1.10;")
		if b, _ := os.ReadFile(c.file("out")); !strings.Contains(string(b), "DHCPNAK") {
			t.Errorf("the wrong address was not refused:\n%s", b)
		}
		reaches(t, alice, "10.0.1.1")
	})
	t.Run("a server on the wire", func(t *testing.T) {
		before := dropped(t, l, "dhcp_spoofed")
		eth := packet.Ether{Src: [6]byte{2, 0, 0, 0, 1, 0x66}, Dst: [6]byte{2, 0, 0, 0, 1, 0x10}}
		ip := packet.IP{Src: packet.Addr4([]byte{10, 0, 1, 1}), Dst: packet.Addr4([]byte{10, 0, 1, 10})}
		inject(t, space(t, l, "mallory"), [][]byte{packet.BuildUDP(nil, eth, ip, 67, 68, make([]byte, 300))})
		eventually(t, "the spoofed answer is counted", func(context.Context) error {
			if n := dropped(t, l, "dhcp_spoofed"); n != before+1 {
				return fmt.Errorf("%d, before %d", n, before)
			}
			return nil
		})
	})
}

// dropped is how often the agent has dropped for a reason.
func dropped(t *testing.T, l *lab.Lab, reason string) uint64 {
	t.Helper()
	s, err := debug.NewClient(l.Hosts[0].Socket()).Stats(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return s.Dropped[reason]
}

// The VM asks for routers, learns the prefix and that addresses come from DHCPv6, obtains its own and renews it.
func TestDHCPv6(t *testing.T) {
	t.Parallel()
	needs(t, "dhclient", "rdisc6")
	l := up(t, examples.DHCP)
	alice := space(t, l, "alice")
	t.Run("router discovery", func(t *testing.T) {
		out, err := command(alice, "rdisc6", "-1", "eth0")
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		for _, want := range []string{"Stateful address conf.    :          Yes", "Stateful other conf.      :          Yes", "fd00:1::/64",
			"1400 bytes", "Recursive DNS server     : 2620:fe::9", "from fe80::ff:fe00:101", "Source link-layer address: 02:00:00:00:01:01"} {
			if !strings.Contains(out, want) {
				t.Errorf("the advertisement lacks %q:\n%s", want, out)
			}
		}
	})
	t.Run("the kernel takes the route", func(t *testing.T) {
		// The laboratory's VMs do not listen to routers unless told so.
		if err := alice.Sysctl("net/ipv6/conf/eth0/accept_ra", "2"); err != nil {
			t.Fatal(err)
		}
		eventually(t, "there is a default route", func(context.Context) error {
			if out, err := command(alice, "rdisc6", "-1", "-q", "eth0"); err != nil {
				return fmt.Errorf("%w\n%s", err, out)
			}
			out, err := command(alice, "ip", "-6", "route", "show", "default")
			if err != nil || !strings.Contains(out, "via fe80::ff:fe00:101") {
				return fmt.Errorf("%v %s", err, out)
			}
			return nil
		})
	})
	t.Run("dhclient renews", func(t *testing.T) {
		c := newClient(t, alice)
		c.dhclient(t, "-6")
		c.await(t, "new_ip6_address=fd00:1::10;")
		c.await(t, "new_dhcp6_name_servers=2620:fe::9;")
		c.await(t, "RENEW6 ")
		ping(t, alice, "fd00:1::1")
		ping(t, alice, "fd00:1::66")
	})
	t.Run("a router on the wire", func(t *testing.T) {
		before := dropped(t, l, "ra_spoofed")
		mallory := [6]byte{2, 0, 0, 0, 1, 0x66}
		src := match.AddrFrom(netip.MustParseAddr("fe80::ff:fe00:166"))
		ra := packet.BuildRouterAdvert(nil, packet.Ether{Src: mallory}, src, match.Addr{}, packet.RouterAdvert{MAC: mallory, Lifetime: 1800})
		inject(t, space(t, l, "mallory"), [][]byte{ra})
		eventually(t, "the spoofed advertisement is counted", func(context.Context) error {
			if n := dropped(t, l, "ra_spoofed"); n != before+1 {
				return fmt.Errorf("%d, before %d", n, before)
			}
			return nil
		})
	})
}
