package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/viaduct-net/viaduct/internal/lab/attacks"
	"github.com/viaduct-net/viaduct/internal/lab/ns"
	"github.com/viaduct-net/viaduct/internal/lab/plug"
)

// switchNice is the niceness of what decides and switches.
const switchNice = -10

// ovnNet is the network of the suite on OVN, with Open vSwitch's user-space datapath: its daemons in a namespace, with
// directories of their own.
type ovnNet struct {
	dir     string
	plain   bool // without groups, translation and what forges its source
	host    ns.Space
	vms     map[string]ns.Space
	daemons []*exec.Cmd
	pids    []int // of those that decide and switch
}

func ovnArena(ctx context.Context, _ *bench, rogues int) (arena, error) {
	o, err := ovnOf(ctx, attacks.VMs(rogues), false)
	if err != nil {
		return nil, err
	}
	if err := deafen(o, rogues); err != nil {
		return nil, errors.Join(err, o.close())
	}
	return o, nil
}

// ovnPlain is the network of examples.TwoSubnets: victims, carol and one rogue between two bridges and a router, and nothing that looks at connections.
func ovnPlain(ctx context.Context, _ *bench) (arena, error) {
	var list []attacks.VM
	for _, v := range attacks.VMs(1) {
		if v.Group == "" {
			continue
		}
		if v.Group = ""; v.Name == attacks.Rogue(0, false) {
			v.Name = "mallory"
		}
		list = append(list, v)
	}
	return ovnOf(ctx, list, true)
}

// ovnExact is ovnPlain without wildcards in Open vSwitch's flows, so that each new flow is an upcall and a flow of the datapath.
func ovnExact(ctx context.Context, b *bench) (arena, error) {
	a, err := ovnPlain(ctx, b)
	if err != nil {
		return nil, err
	}
	o := a.(*ovnNet)
	if err := o.run(ctx, "ovs-appctl", "-t", o.path("vswitchd.ctl"), "upcall/disable-megaflows"); err != nil {
		return nil, errors.Join(err, a.close())
	}
	return a, nil
}

func ovnOf(ctx context.Context, list []attacks.VM, plain bool) (_ arena, err error) {
	for _, program := range []string{"ovs-vswitchd", "ovsdb-server", "ovn-northd", "ovn-controller", "ovn-nbctl"} {
		if _, err := exec.LookPath(program); err != nil {
			return nil, fmt.Errorf("%w: install openvswitch-switch, ovn-central and ovn-host", err)
		}
	}
	o := &ovnNet{plain: plain, host: ns.Space(fmt.Sprintf("bench%d.ovn", os.Getpid())), vms: map[string]ns.Space{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, o.close())
		}
	}()
	if o.dir, err = os.MkdirTemp("", "viaduct-ovn-"); err != nil {
		return nil, err
	}
	if err := o.host.Create(); err != nil {
		return nil, err
	}
	if err := plug.Host(o.host); err != nil {
		return nil, err
	}
	if err := o.start(ctx); err != nil {
		return nil, err
	}
	if err := o.ctl(ctx, "ovn-nbctl", o.topology(list)); err != nil {
		return nil, err
	}
	for _, v := range list {
		if err := o.plug(ctx, v); err != nil {
			return nil, fmt.Errorf("VM %s: %w", v.Name, err)
		}
	}
	wait, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	return o, o.run(wait, "ovn-nbctl", "--wait=hv", "sync")
}

// start makes the databases and starts the daemons.
func (o *ovnNet) start(ctx context.Context) error {
	for file, schema := range map[string]string{
		"conf.db": "/usr/share/openvswitch/vswitch.ovsschema", "nb.db": "/usr/share/ovn/ovn-nb.ovsschema", "sb.db": "/usr/share/ovn/ovn-sb.ovsschema",
	} {
		if err := o.run(ctx, "ovsdb-tool", "create", o.path(file), schema); err != nil {
			return err
		}
	}
	for _, db := range []string{"conf", "nb", "sb"} {
		if err := o.daemon(false, "ovsdb-server", o.path(db+".db"), "--remote=punix:"+o.path(db+".sock"), "--unixctl="+o.path("ovsdb-"+db+".ctl")); err != nil {
			return err
		}
		if err := o.await(ctx, db+".sock"); err != nil {
			return err
		}
	}
	for _, c := range [][]string{
		{"ovs-vsctl", "--no-wait", "init"},
		{"ovs-vsctl", "--no-wait", "set", "open", ".", "external-ids:system-id=h1", "external-ids:ovn-remote=unix:" + o.path("sb.sock"),
			"external-ids:ovn-encap-type=geneve", "external-ids:ovn-encap-ip=127.0.0.1", "external-ids:ovn-bridge-datapath-type=netdev"},
		{"ovn-nbctl", "init"}, {"ovn-sbctl", "init"},
	} {
		if err := o.run(ctx, c...); err != nil {
			return err
		}
	}
	if err := o.daemon(false, "ovn-northd", "--ovnnb-db=unix:"+o.path("nb.sock"), "--ovnsb-db=unix:"+o.path("sb.sock"), "--unixctl="+o.path("northd.ctl")); err != nil {
		return err
	}
	if err := o.daemon(true, "ovs-vswitchd", "unix:"+o.path("conf.sock"), "--unixctl="+o.path("vswitchd.ctl")); err != nil {
		return err
	}
	if err := o.daemon(true, "ovn-controller", "unix:"+o.path("conf.sock")); err != nil {
		return err
	}
	return o.run(ctx, "ovs-vsctl", "--timeout=20", "--may-exist", "add-br", "br-int", "--", "set", "bridge", "br-int", "datapath_type=netdev", "fail-mode=secure")
}

func (o *ovnNet) path(name string) string { return filepath.Join(o.dir, name) }

func (o *ovnNet) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Env = append(os.Environ(), "OVS_RUNDIR="+o.dir, "OVS_LOGDIR="+o.dir, "OVS_DBDIR="+o.dir, "OVS_SYSCONFDIR="+o.dir,
		"OVN_RUNDIR="+o.dir, "OVN_LOGDIR="+o.dir, "OVN_DBDIR="+o.dir, "OVN_SYSCONFDIR="+o.dir,
		"OVN_NB_DB=unix:"+o.path("nb.sock"), "OVN_SB_DB=unix:"+o.path("sb.sock"))
	return cmd
}

func (o *ovnNet) run(ctx context.Context, args ...string) error {
	if args[0] == "ovs-vsctl" {
		args = append([]string{args[0], "--db=unix:" + o.path("conf.sock")}, args[1:]...)
	}
	_, err := o.output(ctx, args...)
	return err
}

func (o *ovnNet) output(ctx context.Context, args ...string) (string, error) {
	out, err := o.command(ctx, args...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, out)
	}
	return string(out), nil
}

// ctl runs many commands in one go.
func (o *ovnNet) ctl(ctx context.Context, program string, commands [][]string) error {
	args := []string{program}
	for i, c := range commands {
		if i > 0 {
			args = append(args, "--")
		}
		args = append(args, c...)
	}
	return o.run(ctx, args...)
}

// daemon starts one in the foreground of its own session; those that decide and switch are in the host's namespace.
func (o *ovnNet) daemon(switches bool, args ...string) error {
	name := filepath.Base(args[0])
	if switches { // as the packages' units start them, and as Viaduct's agent runs
		args = append([]string{"nice", "-n", fmt.Sprint(switchNice)}, args...)
	}
	cmd := o.command(context.Background(), append(args, "--log-file="+o.path(name+fmt.Sprint(len(o.daemons))+".log"), "-vconsole:off")...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}
	if err := o.host.Start(cmd); err != nil {
		return err
	}
	o.daemons = append(o.daemons, cmd)
	if !switches {
		return nil
	}
	o.pids = append(o.pids, cmd.Process.Pid)
	// It leads a session, within which alone niceness counts where the kernel groups processes by session.
	err := os.WriteFile(fmt.Sprintf("/proc/%d/autogroup", cmd.Process.Pid), []byte(fmt.Sprint(switchNice)), 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

func (o *ovnNet) await(ctx context.Context, file string) error {
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat(o.path(file)); err == nil {
			return nil
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if time.Now().After(end) {
			return fmt.Errorf("%s does not appear", file)
		}
	}
}

// topology is attacks.Document in OVN's words, or what ovnPlain says.
func (o *ovnNet) topology(list []attacks.VM) (cs [][]string) {
	add := func(c ...string) { cs = append(cs, c) }
	add("lr-add", "tenant")
	for _, l := range attacks.Legs {
		if o.plain && l.Bridge == "outside" {
			continue
		}
		add("ls-add", l.Bridge)
		lrp := []string{"lrp-add", "tenant", "tenant-" + l.Bridge, l.MAC}
		for _, p := range l.Addresses {
			lrp = append(lrp, p.String())
		}
		add(lrp...)
		port := l.Bridge + "-uplink"
		add("lsp-add", l.Bridge, port)
		add("lsp-set-type", port, "router")
		add("lsp-set-addresses", port, "router")
		add("lsp-set-options", port, "router-port=tenant-"+l.Bridge)
	}
	if !o.plain {
		add("lrp-set-gateway-chassis", "tenant-outside", "h1")
		add("lr-nat-add", "tenant", "snat", "203.0.113.1", "10.0.1.0/24")
	}
	add("lr-route-add", "tenant", "10.128.0.0/9", "10.0.2.66", "tenant-red")
	members := map[string][]string{}
	for _, v := range list {
		addresses := v.MAC
		for _, a := range v.Claims {
			addresses += " " + a.String()
		}
		add("lsp-add", v.Bridge, v.Name)
		add("lsp-set-addresses", v.Name, addresses)
		if v.Group != "" {
			add("lsp-set-port-security", v.Name, addresses)
			members[v.Group] = append(members[v.Group], v.Name)
		} else if v.Bridge == "blue" && !o.plain {
			add("lsp-set-addresses", v.Name, addresses, "unknown") // it may forge its source
		}
	}
	if o.plain {
		return cs
	}
	for _, group := range []string{"victim", "sink", "rogue"} {
		add(append([]string{"pg-add", group}, members[group]...)...)
		add("acl-add", group, "from-lport", "1002", "inport == @"+group+" && ip", "allow-related")
		add("acl-add", group, "to-lport", "1000", "outport == @"+group+" && ip", "drop")
	}
	add("acl-add", "sink", "to-lport", "1002", "outport == @sink && ip4", "allow-related")
	add("acl-add", "victim", "to-lport", "1002", "outport == @victim && ip4 && udp.dst == 7", "allow-related")
	add("acl-add", "victim", "to-lport", "1001", "outport == @victim && ip4 && tcp.dst == 5001", "allow-related")
	return cs
}

// plug connects a VM, as a hypervisor does.
func (o *ovnNet) plug(ctx context.Context, v attacks.VM) error {
	s := ns.Space(fmt.Sprintf("%s.%s", o.host, v.Name))
	if err := s.Create(); err != nil {
		return err
	}
	o.vms[v.Name] = s
	if err := plug.VM(s); err != nil {
		return err
	}
	nic := plug.NIC{Name: "eth0", MAC: v.MAC, Addresses: v.Addresses}
	if v.Gateway.IsValid() && len(v.Addresses) > 0 {
		nic.Gateways = append(nic.Gateways, v.Gateway)
	}
	tap := "tap-" + v.Name
	if err := plug.Veth(o.host, tap, s, nic); err != nil {
		return err
	}
	// What the kernel leaves for hardware to do, a packet socket of the switch would never see done.
	for _, x := range []struct {
		space ns.Space
		nic   string
	}{{o.host, tap}, {s, "eth0"}} {
		cmd := exec.CommandContext(ctx, "ethtool", "-K", x.nic, "tx", "off", "tso", "off", "gso", "off", "gro", "off")
		if err := x.space.Start(cmd); err != nil {
			return err
		}
		if err := cmd.Wait(); err != nil {
			return fmt.Errorf("ethtool: %w", err)
		}
	}
	return o.run(ctx, "ovs-vsctl", "--timeout=20", "add-port", "br-int", tap, "--", "set", "interface", tap, "external-ids:iface-id="+v.Name)
}

func (o *ovnNet) space(vm string) (ns.Space, error) {
	s, ok := o.vms[vm]
	if !ok {
		return "", fmt.Errorf("no VM %s", vm)
	}
	return s, nil
}

func (o *ovnNet) processes() []int { return o.pids }

func (o *ovnNet) inject(ctx context.Context) error {
	var cs [][]string
	for i, r := range attacks.Policy() {
		cs = append(cs, []string{"acl-add", "rogue", "from-lport", fmt.Sprint(2000 + i),
			fmt.Sprintf("inport == @rogue && ip4.dst == %s && udp && udp.dst >= %d && udp.dst <= %d", r.Prefix, r.Min, r.Max), "allow-related"})
	}
	return o.ctl(ctx, "ovn-nbctl", cs)
}

func (o *ovnNet) balanced(context.Context) error { return nil } // it says nothing of the kind

// close ends the daemons that it has started, and removes all else.
func (o *ovnNet) close() (err error) {
	for i := len(o.daemons) - 1; i >= 0; i-- {
		c := o.daemons[i]
		_ = c.Process.Signal(syscall.SIGTERM) // it may have ended: Wait tells
		done := time.AfterFunc(5*time.Second, func() { _ = c.Process.Kill() })
		if e := c.Wait(); e != nil && !strings.Contains(e.Error(), "signal") {
			err = errors.Join(err, fmt.Errorf("%s: %w", strings.Join(c.Args, " "), e))
		}
		done.Stop()
	}
	for _, s := range o.vms {
		err = errors.Join(err, s.Kill(5*time.Second), s.Delete())
	}
	err = errors.Join(err, o.host.Kill(5*time.Second), o.host.Delete())
	if o.dir != "" {
		err = errors.Join(err, os.RemoveAll(o.dir))
	}
	return err
}
