package sim

import (
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/base/action"
	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/base/packet"
	"github.com/viaduct-net/viaduct/internal/path/datapath"
	"github.com/viaduct-net/viaduct/internal/topo/model"
)

// Script tells what becomes of a small cloud to which things are done one after the other. Each command is echoed with all that has come
// of it; what must hold at every moment is judged as in a run from a seed. # begins a comment.
//
//	host NAME...
//	bridge NAME
//	router NAME BRIDGE=PREFIX[,masquerade]...
//	vm NAME BRIDGE HOST ADDR [GATEWAY] [unseeded|asks|serves]   the last two are secured: it may begin connections, or answer them
//	floating ADDR VM ROUTER:BRIDGE
//	balancer ADDR ROUTER PORT VM...
//	start                               the agents of all hosts
//	udp|tcp|ping FROM TO [PORT]         TO is a VM or an address; and the answer
//	trace udp|tcp|ping FROM TO [PORT]   likewise, with what each worker makes of it
//	more | push                         the last question's connection goes on: another question, or something that only the other end says
//	move VM HOST                        its port is bound there, and its interface comes with it
//	partition A B | loss N | reorder    between hosts
//	away HOST | store down              its link to the store, or the store
//	kill HOST | restart HOST            its agent
//	heal                                all of these
//	wait DURATION
//	flows HOST | connections HOST
func Script(text string) (out string, err error) {
	dir, err := os.MkdirTemp("", "viaduct-script-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(dir)
	x := &script{n: &network{}, groups: map[string]bool{}}
	x.s = newSim(1, dir, x.line)
	x.s.headless = true
	x.n.add(&model.TunnelZone{Meta: meta("zone")})
	for i, line := range strings.Split(text, "\n") {
		line, _, _ = strings.Cut(line, "#")
		if f := strings.Fields(line); len(f) > 0 {
			fmt.Fprintf(&x.out, "> %s\n", strings.Join(f, " "))
			if err := x.do(f); err != nil {
				return "", fmt.Errorf("line %d: %s: %w", i+1, line, err)
			}
		}
	}
	x.s.Log = nil // the story is over
	for _, h := range x.s.hosts {
		h.kill()
	}
	if len(x.s.failures) > 0 {
		return x.out.String(), fmt.Errorf("%v", x.s.failures)
	}
	return x.out.String(), nil
}

type script struct {
	s      *Sim
	n      *network
	out    strings.Builder
	trace  bool
	groups map[string]bool // security groups that there are
}

// line is one of the simulation's: without its time, which says more than a reader can judge.
func (x *script) line(line string) {
	isTrace := strings.Contains(line, ": packet")
	if isTrace && !x.trace || strings.Contains(line, "store: host/") || strings.Contains(line, " begins") {
		return
	}
	if !isTrace {
		line = line[13:]
	}
	for i := range strings.Lines(line) {
		x.out.WriteString("  " + strings.TrimPrefix(i, "             "))
	}
	x.out.WriteString("\n")
}

func (x *script) do(f []string) (err error) {
	defer func() { // a word that is missing or means nothing
		if r := recover(); r != nil {
			err = fmt.Errorf("%v", r)
		}
	}()
	s := x.s
	switch f[0] {
	case "host":
		for _, name := range f[1:] {
			x.n.hosts = append(x.n.hosts, name)
			x.n.add(&model.Host{Meta: meta(name), Tunnels: []model.TunnelEnd{{ZoneID: id("zone"), Address: netip.AddrFrom4([4]byte{192, 0, 2, byte(len(x.n.hosts))})}}})
		}
	case "bridge":
		x.n.add(&model.Bridge{Meta: meta(f[1]), AdminStateUp: true})
	case "router":
		x.n.add(&model.Router{Meta: meta(f[1]), AdminStateUp: true})
		for _, leg := range f[2:] {
			bridge, addr, _ := strings.Cut(leg, "=")
			addr, masquerade := strings.CutSuffix(addr, ",masquerade")
			x.n.link(f[1]+":"+bridge, bridge, f[1], netip.MustParsePrefix(addr), masquerade)
		}
	case "vm":
		x.vm(f[1:])
	case "balancer":
		n, err := strconv.ParseUint(f[3], 10, 16)
		if err != nil {
			return err
		}
		x.n.add(&model.Pool{Meta: meta(f[1] + "-pool")}, &model.LoadBalancer{Meta: meta(f[1]), RouterID: id(f[2]), AdminStateUp: true, Address: netip.MustParseAddr(f[1]),
			Listeners: []model.Listener{{Protocol: packet.ProtoTCP, Port: uint16(n), PoolID: id(f[1] + "-pool")}}})
		for _, vm := range f[4:] {
			x.n.add(&model.PoolMember{Meta: meta(f[1] + vm), PoolID: id(f[1] + "-pool"), AdminStateUp: true, Address: x.planned(vm).addr, Port: uint16(n), Weight: 1})
		}
	case "floating":
		x.n.add(&model.FloatingIP{Meta: meta(f[1]), PortID: id(f[3]), Address: netip.MustParseAddr(f[1]), FixedAddress: x.planned(f[2]).addr})
	case "start":
		s.build(x.n, settings(1))
		s.runFor(beginning)
		x.out.WriteString("  ...\n")
	case "trace":
		x.trace = true
		err = x.do(f[1:])
		x.trace = false
	case "udp", "tcp", "ping":
		x.send(f[0], f[1:])
	case "more", "push":
		x.goOn(f[0] == "push")
	case "move":
		v, h := x.named(f[1]), s.host(f[2])
		b := model.Clone(s.store.graph.Get(model.KindBinding, v.port)).(*model.Binding)
		b.HostID = h.id
		if len(f) > 3 { // its interface comes so much later
			var late time.Duration
			if late, err = time.ParseDuration(f[3]); err != nil {
				return err
			}
			v.place(nil)
			s.commit(fmt.Sprintf("port %s is bound at %s", v.name, h.name), replace(b))
			s.after(late, func() { s.settle(v) })
			s.runFor(late / 8)
			break
		}
		s.commit(fmt.Sprintf("port %s is bound at %s", v.name, h.name), replace(b))
		s.settle(v)
		s.runFor(time.Second)
	case "partition":
		a, b := s.host(f[1]), s.host(f[2])
		s.links.cut[[2]*host{a, b}], s.links.cut[[2]*host{b, a}] = true, true
	case "loss":
		s.links.loss, err = strconv.Atoi(f[1])
	case "reorder":
		s.links.reorder = true
	case "away":
		s.host(f[1]).client.cut(true)
	case "store":
		s.storeDown(f[1] == "down")
	case "kill":
		s.host(f[1]).kill()
	case "restart":
		s.host(f[1]).kill()
		s.host(f[1]).start()
		s.runFor(2 * time.Second)
	case "heal":
		s.heal()
		s.quiet = false
		s.runFor(2 * time.Second)
	case "wait":
		var d time.Duration
		d, err = time.ParseDuration(f[1])
		s.runFor(d)
	case "flows":
		err = s.host(f[1]).dp.DumpFlows(func(i *datapath.FlowInfo) bool {
			fmt.Fprintf(&x.out, "  %s -> %s\n", i.Key.Text(match.All), actions(i.Actions))
			return true
		})
	case "connections":
		fmt.Fprintf(&x.out, "  %d\n", s.host(f[1]).agent.Tables().Stats().Connections)
	default:
		return fmt.Errorf("unknown command %s", f[0])
	}
	return err
}

func actions(as action.Physical) string { return as.String() }

func (x *script) vm(f []string) {
	addr := netip.MustParseAddr(f[3])
	a := addr.As4()
	p := vmPlan{name: f[0], bridge: f[1], host: f[2], mac: match.MAC{2, 0, a[0], a[1], a[2], a[3]}, addr: addr, prefix: netip.PrefixFrom(addr, 24)}
	port := &model.Port{Meta: meta(p.name), BridgeID: id(p.bridge), AdminStateUp: true, MAC: p.mac, Addresses: []netip.Prefix{single(addr)}}
	for _, word := range f[4:] {
		switch word {
		case "unseeded":
			port.MAC, port.Addresses = match.MAC{}, nil
		case "asks", "serves":
			port.PortSecurity, port.SecurityGroups = true, []uuid.UUID{x.group(word)}
		default:
			p.gateway = netip.MustParseAddr(word)
		}
	}
	x.n.vms = append(x.n.vms, p)
	x.n.add(port, &model.Binding{Meta: model.Meta{ID: port.ID}, PortID: port.ID, HostID: id(p.host), Interface: "tap-" + p.name})
}

// group is the security group of those who ask, or of those who serve.
func (x *script) group(name string) uuid.UUID {
	if x.groups[name] {
		return id(name)
	}
	way := model.Egress
	if name == "serves" {
		way = model.Ingress
	}
	x.groups[name] = true
	x.n.add(&model.SecurityGroup{Meta: meta(name), Stateful: true},
		&model.SecurityGroupRule{Meta: meta(name + "-rule"), GroupID: id(name), Direction: way, EtherType: model.IPv4})
	return id(name)
}

func (x *script) planned(name string) vmPlan {
	for _, p := range x.n.vms {
		if p.name == name {
			return p
		}
	}
	panic("no VM " + name)
}

func (x *script) named(name string) *vm {
	for _, v := range x.s.vms {
		if v.name == name {
			return v
		}
	}
	panic("no VM " + name)
}

// send has a VM ask, and waits for what comes of it.
func (x *script) send(kind string, f []string) {
	t := &talk{from: x.named(f[0]), left: 1, dport: 80, sport: uint16(4000 + len(x.s.judge.talks)),
		proto: map[string]uint8{"udp": packet.ProtoUDP, "tcp": packet.ProtoTCP, "ping": packet.ProtoICMP}[kind]}
	if a, err := netip.ParseAddr(f[1]); err == nil {
		t.to = match.AddrFrom(a)
	} else {
		t.to = x.named(f[1]).addr
	}
	if len(f) > 2 {
		n, err := strconv.ParseUint(f[2], 10, 16)
		if err != nil {
			panic(err)
		}
		t.dport = uint16(n)
	}
	x.s.begin(t)
	x.heard(t)
}

// goOn has the last talk go on.
func (x *script) goOn(push bool) {
	t := x.s.judge.talks[len(x.s.judge.talks)-1]
	if !push {
		t.left = 1
		t.next()
	} else {
		x.s.push(t)
	}
	x.heard(t)
}

// heard waits, and says whether the last that was said in answer has come.
func (x *script) heard(t *talk) {
	x.s.runFor(900 * time.Millisecond)
	if p := x.s.judge.packets[t.n<<16|t.sent<<1|1]; p != nil && p.arrivals[t.from] > 0 {
		x.out.WriteString("  answered\n")
	} else {
		x.out.WriteString("  no answer\n")
	}
}
