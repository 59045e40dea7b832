package netns

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"

	"github.com/viaduct-net/viaduct/internal/lab/examples"
	"github.com/viaduct-net/viaduct/internal/lab/ns"
)

// TestVLANs: a trunk reaches each VLAN through an interface of its own, access ports none but their own, with
// the same addresses in both.
func TestVLANs(t *testing.T) {
	t.Parallel()
	l := laboratory(t, examples.VLAN)
	trunk, red, red2, blue, azure := space(t, l, "trunk"), space(t, l, "red"), space(t, l, "red2"), space(t, l, "blue"), space(t, l, "azure")
	run := func(args ...string) {
		t.Helper()
		if out, err := command(trunk, args...); err != nil {
			t.Fatal(args, err, out)
		}
	}
	run("ip", "addr", "add", "10.9.0.1/24", "dev", "eth0")
	run("ip", "addr", "add", "fd00:9::1/64", "dev", "eth0", "nodad")
	// The trunk is in one VLAN after the other: the addresses of both are the same.
	for _, v := range []struct {
		id        int32
		mac, name string
	}{{10, "02:00:00:00:09:11", "red"}, {20, "02:00:00:00:09:21", "blue"}} {
		t.Run(v.name, func(t *testing.T) {
			inVLAN(t, trunk, "eth0", v.id)
			run("ip", "neigh", "flush", "dev", "eth0")
			ping(t, trunk, "10.9.0.11")
			ping(t, trunk, "fd00:9::11")
			if out, err := command(trunk, "ip", "neigh", "show", "10.9.0.11"); err != nil || !strings.Contains(out, v.mac) {
				t.Errorf("10.9.0.11 is another: %v %s", err, out)
			}
			stream(t, trunk, space(t, l, v.name), "10.9.0.11:5001")
			stream(t, space(t, l, v.name), trunk, "10.9.0.1:5001")
		})
	}
	t.Run("within a VLAN", func(t *testing.T) {
		ping(t, red2, "10.9.0.11")
		stream(t, red2, red, "10.9.0.11:5001")
	})
	t.Run("through the other bridge", func(t *testing.T) {
		ping(t, blue, "10.9.0.22")
		ping(t, azure, "10.9.0.11")
		stream(t, azure, blue, "10.9.0.11:5001")
	})
	t.Run("not across VLANs", func(t *testing.T) {
		for _, x := range []struct {
			from, address string
		}{{"red", "10.9.0.22"}, {"blue", "10.9.0.12"}, {"azure", "10.9.0.12"}} {
			if out, err := command(space(t, l, x.from), "ping", "-n", "-c", "2", "-i", "0.2", "-W", "1", x.address); err == nil {
				t.Errorf("%s reaches %s:\n%s", x.from, x.address, out)
			}
		}
	})
}

// TestDHCPInVLANs: clients at access ports and one that sends tags get what the subnet of their VLAN says, in both families.
func TestDHCPInVLANs(t *testing.T) {
	t.Parallel()
	needs(t, "dhclient", "udhcpc", "rdisc6")
	l := laboratory(t, examples.VLAN)
	apply(t, l, `
{kind: router, name: r10}
---
{kind: port, name: r10-switch, router: r10, mac: 02:00:00:00:09:f1, addresses: [10.9.0.254/24, "fd00:9::fe/64"], peer: switch-r10}
---
{kind: port, name: switch-r10, bridge: switch, vlan: 10}
---
{kind: subnet, name: ten, bridge: switch, vlan: 10, cidr: 10.9.0.0/24, gateway: 10.9.0.254, mtu: 1400}
---
{kind: subnet, name: ten-six, bridge: switch, vlan: 10, cidr: "fd00:9::/64", gateway: "fd00:9::fe", ipv6_ra_mode: dhcpv6-stateful, ipv6_address_mode: dhcpv6-stateful}
---
{kind: subnet, name: twenty, bridge: switch, vlan: 20, cidr: 10.9.0.0/24, mtu: 1300}
---
{kind: subnet, name: thirty, bridge: switch, vlan: 30, cidr: 10.30.0.0/24, mtu: 1280}
---
{kind: port, name: trunk, bridge: switch, mac: 02:00:00:00:09:01, addresses: [10.30.0.7]}
`)
	told := func(s ns.Space, want ...string) {
		t.Helper()
		c := newClient(t, s)
		c.dhclient(t)
		eventually(t, "dhclient is told", func(context.Context) error {
			for _, w := range want {
				if log := c.log(); !strings.Contains(log, w) {
					return fmt.Errorf("want %q:\n%s", w, log)
				}
			}
			return nil
		})
	}
	red, blue, trunk := space(t, l, "red"), space(t, l, "blue"), space(t, l, "trunk")
	for _, s := range []ns.Space{red, blue} {
		if out, err := command(s, "ip", "addr", "flush", "dev", "eth0", "scope", "global"); err != nil {
			t.Fatal(err, out)
		}
	}
	told(red, "new_ip_address=10.9.0.11", "new_interface_mtu=1400", "new_routers=10.9.0.254")
	told(blue, "new_ip_address=10.9.0.11", "new_interface_mtu=1300")
	ping(t, red, "10.9.0.254")
	inVLAN(t, trunk, "eth0", 30)
	c := newClient(t, trunk) // dhclient does not take frames whose tag it sees
	if out, err := command(trunk, "udhcpc", "-f", "-n", "-q", "-t", "10", "-T", "1", "-i", "eth0", "-s", c.file("script"), "-O", "mtu"); err != nil {
		t.Error(err, out)
	}
	if log := c.log(); !strings.Contains(log, "ip=10.30.0.7;") || !strings.Contains(log, "mtu=1280") {
		t.Errorf("the trunk is told:\n%s", log)
	}
	t.Run("IPv6", func(t *testing.T) {
		eventually(t, "the router of the VLAN answers", func(context.Context) error {
			out, err := command(red, "rdisc6", "-1", "-q", "-w", "1000", "eth0")
			if err == nil && !strings.Contains(out, "fd00:9::/64") {
				err = errors.New(out)
			}
			return err
		})
		if out, err := command(blue, "rdisc6", "-1", "-q", "-r", "1", "-w", "1000", "eth0"); err == nil {
			t.Errorf("a router answers in the other VLAN: %s", out)
		}
		c := newClient(t, red)
		c.dhclient(t, "-6")
		eventually(t, "dhclient -6 is told", func(context.Context) error {
			if log := c.log(); !strings.Contains(log, "new_ip6_address=fd00:9::11") {
				return errors.New(log)
			}
			return nil
		})
	})
}

// inVLAN makes an interface one of a VLAN for the test: what is sent by it gets the tag, and only what has the tag
// comes in, without it. (Not every kernel that the tests run on has interfaces of type vlan.)
func inVLAN(t *testing.T, s ns.Space, iface string, id int32) {
	t.Helper()
	const (
		present, tci  = 20, 24 // in struct __sk_buff
		pass, discard = 0, 2
	)
	egress := asm.Instructions{
		asm.Mov.Imm(asm.R2, 0x0081), // 0x8100 in wire order
		asm.Mov.Imm(asm.R3, id),
		asm.FnSkbVlanPush.Call(),
		asm.Mov.Imm(asm.R0, pass),
		asm.Return(),
	}
	ingress := asm.Instructions{
		asm.LoadMem(asm.R2, asm.R1, present, asm.Word),
		asm.JEq.Imm(asm.R2, 0, "other"),
		asm.LoadMem(asm.R2, asm.R1, tci, asm.Word),
		asm.And.Imm(asm.R2, 0xfff),
		asm.JNE.Imm(asm.R2, id, "other"),
		asm.FnSkbVlanPop.Call(),
		asm.Mov.Imm(asm.R0, pass),
		asm.Return(),
		asm.Mov.Imm(asm.R0, discard).WithSymbol("other"),
		asm.Return(),
	}
	for _, x := range []struct {
		at   ebpf.AttachType
		code asm.Instructions
	}{{ebpf.AttachTCXEgress, egress}, {ebpf.AttachTCXIngress, ingress}} {
		p, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.SchedCLS, License: "GPL", Instructions: x.code})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { p.Close() })
		err = s.Do(func() error {
			index, err := ifindex(iface)
			if err != nil {
				return err
			}
			at, err := link.AttachTCX(link.TCXOptions{Interface: index, Program: p, Attach: x.at})
			if err == nil {
				t.Cleanup(func() { _ = s.Do(func() error { return errors.Join(at.Detach(), at.Close()) }) })
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}
