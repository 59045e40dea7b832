// Package conf is what an operator sets: the schema of all keys, the layers that values come from, how they are kept in the
// store, and how an agent follows them.
//
// A value is looked for in the layers of a host, strongest first: the host's own, those of the template that is assigned to
// the host, those of the template "default", the schema's default.
package conf

//go:generate go run ../ctl/gendocs ../../docs

import (
	"strings"
	"time"

	"github.com/viaduct-net/viaduct/internal/base/htb"
)

// Key describes one key.
type Key struct {
	Name    string
	Default string
	Unit    string // of an integer: what is counted
	Restart bool   // a change applies when the agent is started again; else at once
	Text    string

	value value
}

// Type is "integer", "duration" or "choice".
func (k *Key) Type() string { return k.value.typeName() }

// Range is which values it accepts, in words.
func (k *Key) Range() string { return k.value.limits() }

// Schema lists all keys, ordered by section.
func Schema() []Key { return keysOf(new(Settings)) }

const (
	second = time.Second
	hour   = time.Hour
	day    = 24 * hour
)

// MaxFlows bounds agent.datapath.max_flow_count.
const MaxFlows = 4 << 20

// keysOf is the schema: every key with the field of s that it sets. It sets s to the defaults.
func keysOf(s *Settings) []Key {
	t := &s.Tokens
	tokens := func(name string, p *int64, min int64, def, text string) Key {
		return Key{Name: "agent.datapath." + name, Default: def, Unit: "tokens", Text: text, value: intIn(p, min, htb.MaxTokens)}
	}
	share := func(name string, p *int64, def, text string) Key {
		return Key{Name: "agent.datapath." + name, Default: def, Text: text, value: intIn(p, 1, htb.MaxShare)}
	}
	count := func(name string, p *int, max int, def, unit, text string) Key {
		return Key{Name: "agent." + name, Default: def, Unit: unit, Text: text, value: intIn(p, 1, max)}
	}
	span := func(name string, p *time.Duration, min, max time.Duration, def, text string) Key {
		return Key{Name: "agent." + name, Default: def, Text: text, value: duration{p, min, max}}
	}
	keys := []Key{
		tokens("global_incoming_burst_capacity", &t.Global, 1, "256",
			"Least number of tokens in the system, and so of missed packets that are in flight between the kernel and the agent. There are "+
				"more when the buckets of all ports together hold more. Smaller values shorten the delay under load, larger ones help throughput. The rings between kernel and agent are sized for the value at the agent's "+
				"start; more packets than that fit as long as not all are of the greatest length."),
		tokens("tunnel_incoming_burst_capacity", &t.Tunnel, 0, "128",
			"Capacity of the bucket of each tunnel port: how many packets from other hosts may be in flight whatever the local ports do. 0: "+
				"tunnels draw on what has accumulated at the root."),
		tokens("vm_incoming_burst_capacity", &t.VM, 0, "32",
			"Capacity of the bucket of each VM's port: how many of its packets may be in flight whatever others do. 0 here, and for tunnel and "+
				"VTEP, switches protection off: all ports draw on what has accumulated at the root."),
		tokens("vtep_incoming_burst_capacity", &t.VTEP, 0, "128",
			"Capacity of the bucket of each hardware VTEP's port. 0: VTEPs draw on what has accumulated at the root. "+
				"There are no hardware VTEPs yet, and so no port that has such a bucket: the value has no effect."),
		share("tunnel_share", &t.TunnelShare, "1",
			"The tunnels' part in the agent's capacity under contention, relative to vtep_share and vm_share. With the defaults tunnels and VTEPs together "+
				"are guaranteed one half, VMs the other; what a class does not use goes to the others."),
		share("vtep_share", &t.VTEPShare, "1",
			"The hardware VTEPs' part in the agent's capacity under contention; see tunnel_share. There are no hardware VTEPs yet: their part goes to the tunnels first."),
		share("vm_share", &t.VMShare, "2", "The VMs' part in the agent's capacity under contention; see tunnel_share."),
		count("datapath.max_flow_count", &s.MaxFlowCount, MaxFlows, "200000", "flows",
			"Most flows in the datapath. At the bound the port that has the most gives one up for each new one. The kernel's table has room for at least "+
				"1048576; a value beyond its room applies when the agent is started again, which makes a larger one without losing a flow."),
		{Name: "agent.datapath.driver", Default: "auto", Restart: true, value: choice{&s.Driver, []string{"auto", "ebpf", "ovs"}},
			Text: "What switches the packets: ebpf, ovs (the kernel module of Open vSwitch), or auto: what is in use on the host, else ebpf, else ovs. " +
				"A host that has been served by the other one must be cleaned up first: viaduct agent --cleanup."},

		{Name: "agent.datapath.vxlan_overlay_udp_port", Default: "4789", Restart: true, value: intIn(&s.TunnelPort, 1, 65535),
			Text: "UDP port of VXLAN between hosts (RFC 7348), the same on all of them. To change it, the tunnel device of the host must be made again: viaduct agent --cleanup."},

		{Name: "agent.midolman.simulation_threads", Default: "0", Unit: "threads", Restart: true, value: intIn(&s.Workers, 0, 64),
			Text: "Packet workers. 0: half of the host's CPUs, at least 1."},
		{Name: "agent.midolman.pin_simulation_threads", Default: "off", Restart: true, value: choice{&s.Pin, []string{"off", "on", "auto"}},
			Text: "Each packet worker keeps to a CPU of its own, the highest ones that the agent may use, one of each core first. It is for hosts that keep these CPUs free of VMs: elsewhere " +
				"a worker that may not leave its CPU waits for whoever else has it. auto: on hosts with 8 CPUs or more."},
		{Name: "agent.midolman.polling", Default: "off", Restart: true, value: choice{&s.Polling, []string{"off", "on", "auto"}},
			Text: "Whether a packet worker that has nothing to do looks out for the next packet before it sleeps, as long as packets come so soon that sleeping does not pay. It takes CPU time that " +
				"VMs could have had, and gained nothing where it was measured, on hosts with 2 CPUs. auto: on hosts with 8 CPUs or more."},
		{Name: "agent.midolman.poll_time", Default: "50us", Restart: true, value: duration{&s.PollTime, 10 * time.Microsecond, time.Millisecond},
			Text: "For how long at most a packet worker looks out; see polling."},
		span("midolman.check_flow_expiration_interval", &s.FlowAudit, 100*time.Millisecond, 60*second, "5s",
			"How often the datapath's flow table is read back, to see which flows are in use and to repair what differs."),

		{Name: "agent.memory.limit", Default: "0", Unit: "MiB", value: intIn(&s.MemoryLimit, 0, 1<<24),
			Text: "Memory that the agent's garbage collector keeps it within; near it, collecting costs time rather than the agent its life. 0: nine tenths of " +
				"what the control group of the agent may have (MemoryMax of its service), and no limit where that has none. The variable GOMEMLIMIT, where it is set, counts instead."},

		count("flow.max_masks_per_port", &s.Flow.MaxMasksPerPort, 1024, "64", "masks",
			"Most different masks among the wildcard flows of one ingress port: further ones are remembered for single flows only, so that a tenant "+
				"cannot slow down lookups."),
		count("flow.max_expected_per_port", &s.Flow.MaxExpectedPerPort, 1<<20, "1024", "flows",
			"The flow of a new connection's answers is installed before they come. Most such flows that no answer is known of yet, by the ingress port of the first "+
				"packet; the answers of further connections are decided on when they come."),
		span("flow.idle_timeout", &s.Flow.IdleTimeout, second, hour, "60s",
			"A flow without a packet for so long is removed. Less than twice check_flow_expiration_interval counts as that: else busy flows would be taken for idle ones."),
		span("flow.error_timeout", &s.Flow.ErrorExpiry, 100*time.Millisecond, 10*time.Minute, "5s",
			"A flow that drops packets because something was wrong goes after so long, so that it is tried again."),

		count("prep.held_per_flow", &s.Prep.HeldPerFlow, 1<<16, "32", "packets",
			"Most packets that are held back because the same packet is being decided on; the oldest go."),
		count("prep.held_per_port", &s.Prep.HeldPerPort, 1<<16, "256", "packets", "As held_per_flow, for one ingress port in all."),
		count("prep.parked_per_port", &s.Prep.ParkedPerPort, 1<<16, "128", "packets",
			"Most packets of one ingress port that wait for an answer, such as a neighbour's MAC; further ones are dropped and counted."),
		span("prep.park_timeout", &s.Prep.ParkTimeout, 10*time.Millisecond, 60*second, "5s", "A packet that has waited for so long is dropped and counted."),

		count("replies.per_second", &s.Replies.PerSecond, 1<<20, "1000", "packets/s",
			"How often bridges and routers answer one port (ARP, DHCP, echo, ICMP errors), in each worker; further answers are dropped and counted."),
		count("replies.burst", &s.Replies.Burst, 1<<20, "1000", "packets", "How many answers a port that was quiet may have at once."),

		span("bridge.mac_port_mapping_expire", &s.Bridge.MACExpire, second, day, "15s",
			"A MAC that a bridge has learnt is forgotten so long after the last flow that used it has gone."),
		count("bridge.max_macs_per_port", &s.Bridge.MaxMACsPerPort, 1<<20, "1024", "MACs", "Most MACs that bridges learn from one port; packets from further ones are dropped and counted."),

		span("arptable.arp_retry_interval", &s.ARP.Retry, 100*time.Millisecond, 10*time.Minute, "10s",
			"Time between two requests for a neighbour's MAC; each time between 0.75 and 1.25 of it, so that hosts do not march in step."),
		span("arptable.arp_timeout", &s.ARP.GiveUp, second, hour, "60s", "A neighbour that has not answered for so long is given up."),
		span("arptable.arp_failed", &s.ARP.Failed, second, hour, "10s",
			"For so long after that, senders are told that the neighbour cannot be reached, and it is not asked for."),
		span("arptable.arp_stale", &s.ARP.Stale, second, day, "60s",
			"A neighbour's MAC that was last confirmed so long ago is still used, and asked for again while flows use it."),
		span("arptable.arp_expiration", &s.ARP.Expires, second, day, "90s", "A neighbour's MAC that was last confirmed so long ago is forgotten."),
		count("arptable.max_neighbours_per_port", &s.ARP.MaxPerPort, 1<<20, "1024", "neighbours",
			"Most neighbours that one port may have taught bridges and routers; half of it is for those that were asked for. Further ones are dropped and counted."),
		count("arptable.max_pending_per_port", &s.ARP.MaxPending, 1<<20, "256", "neighbours",
			"Most neighbours that packets of one port may be waiting for; packets for further ones are dropped and counted."),

		count("conntrack.max_per_port", &s.Conntrack.MaxPerPort, 1<<24, "32768", "connections",
			"Most tracked or translated connections that one port may have; further ones are refused and counted."),
		span("conntrack.tcp_new_timeout", &s.Conntrack.TCPNew, second, day, "2m", "A TCP connection that nobody has answered is forgotten so long after its last flow."),
		span("conntrack.tcp_timeout", &s.Conntrack.TCP, second, 30*day, "2h4m",
			"A TCP connection is forgotten so long after its last flow (RFC 5382 REQ-5: at least 2h4m)."),
		span("conntrack.tcp_closed_timeout", &s.Conntrack.TCPClosed, second, hour, "10s",
			"A TCP connection that both sides have ended, or one has reset, is forgotten after so long."),
		span("conntrack.fin_linger", &s.Conntrack.FINLinger, second, hour, "10s",
			"A flow that has seen FIN or RST must have been idle for so long until its connection counts as ended."),
		span("conntrack.udp_new_timeout", &s.Conntrack.UDPNew, second, day, "30s", "A UDP connection that nobody has answered is forgotten so long after its last flow."),
		span("conntrack.udp_timeout", &s.Conntrack.UDP, second, 30*day, "3m",
			"A UDP connection is forgotten so long after its last flow (RFC 4787 REQ-5: at least 2m)."),
		span("conntrack.other_timeout", &s.Conntrack.Other, second, 30*day, "60s",
			"A connection of another protocol is forgotten so long after its last flow (RFC 5508 REQ-1, for ICMP: at least 60s)."),

		span("nat.block_idle", &s.NAT.BlockIdle, second, day, "5m", "A leased block of ports that no connection has used for so long is given back."),
		span("nat.block_retry", &s.NAT.BlockRetry, 100*time.Millisecond, 10*time.Minute, "1s",
			"Time between attempts to lease ports of an address when all are taken."),

		span("topology.idle_timeout", &s.Topology.IdleTimeout, second, day, "10m",
			"An agent holds what its ports and their packets need of the network. What no flow has needed for so long is let go, and loaded again when a packet needs it."),
		span("topology.compare_interval", &s.Topology.CompareInterval, second, day, "5m",
			"Time between comparisons of what an agent holds of the network with the store. What differs, because the store's stream has left something out, is read anew."),
	}
	for i := range keys {
		if k := &keys[i]; strings.HasPrefix(k.Name, "agent.topology.") {
			k.Restart = true
		}
	}
	keys = append(keys, loggers(&s.Loggers)...)
	for i := range keys {
		k := &keys[i]
		if err := k.value.set(k.Default); err != nil {
			panic(k.Name + ": default: " + err.Error())
		}
		k.Default = k.value.String()
	}
	return keys
}

// loggers are the keys of the subsystems' log levels.
func loggers(l *Loggers) []Key {
	levels := []string{"off", "error", "warn", "info", "debug"}
	key := func(name string, p *string, text string) Key {
		return Key{Name: "agent.loggers." + name, Default: "inherit", value: choice{p, append(levels[:len(levels):len(levels)], "inherit")},
			Text: "Log level of " + text + ". inherit: that of agent.loggers.root."}
	}
	return []Key{
		{Name: "agent.loggers.root", Default: "info", value: choice{&l.Root, levels}, Text: "Log level of all subsystems that have none of their own."},
		key("config", &l.Config, "the configuration: what was changed, and what could not be applied"),
		key("datapath-control", &l.Datapath, "the datapath: its start, its ports"),
		key("flow-management", &l.Flows, "the flow table: adoption and audit"),
		key("nsdb.root", &l.Store, "the store's client"),
		key("devices.root", &l.Topology, "the copy of the virtual network"),
		key("devices.port", &l.Ports, "the attachment of interfaces to ports"),
	}
}
