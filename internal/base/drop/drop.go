// Package drop lists every reason for which a packet may end. Each has a name, the
// stage that gives it and one line of meaning; each is counted by its own counter.
package drop

// Reason says why a packet was dropped. Kernel reasons have the same numbers in
// bpf/viaduct.h; they come first and must not be renumbered.
type Reason uint8

const (
	None Reason = iota

	// Given in the kernel.
	NoCredit     // admission: the port has no token left
	Malformed    // parser: a header is truncated or contradicts itself
	TooBig       // the frame is longer than a miss record can carry
	FlowDrop     // a drop flow matched
	RingFull     // no room in the miss ring; must never happen
	NoPort       // the frame came in on an interface that is no port
	OutputGone   // the action's output port does not exist any more
	RewriteErr   // a header could not be rewritten
	EgressLimit  // the VM sends more than its bandwidth limit
	IngressLimit // the VM is sent more than its bandwidth limit
	NotReady     // admission: the agent does not know the port yet
	TunnelKey    // from a tunnel: no port of this host has the key
	kernelEnd

	// Given in user space.
	NotBound      // prep: the ingress datapath port has no virtual port
	HeldOverflow  // prep: too many duplicates held back
	HeldDiscarded // prep: the packet it duplicates was consumed or dropped
	ParkOverflow  // prep: too many packets parked for the port
	ParkTimeout   // prep: what the packet waited for did not come
	AdminDown     // sim: port or device is administratively down
	MulticastSrc  // sim: bridge: the source MAC is a group address
	Hairpin       // sim: bridge: the destination is behind the ingress port
	NoReceiver    // sim: bridge: nobody to flood to
	NotInVLAN     // sim: bridge: the port does not carry the frame's VLAN
	DoubleTagged  // sim: bridge: a second tag behind the one to be taken off or replaced
	NotForUs      // sim: router: the frame is not for the port's MAC
	Tagged        // sim: router: a VLAN-tagged frame
	NotIP         // sim: router: neither IP nor ARP
	BadHeader     // sim: a field contradicts the protocol
	NoRoute       // sim: router: no route to the destination
	Blackhole     // sim: router: blackhole route
	Prohibited    // sim: router: reject route
	TTLExpired    // sim: router: TTL or hop limit exceeded
	NoNeighbour   // sim: router: the next hop does not answer
	LocalNotTaken // sim: router: for the router itself, but no such service
	ArpIgnored    // sim: router: ARP or ND not meant for this port
	ExceedsMTU    // sim: router: longer than the egress port's MTU
	NatExhausted  // sim: NAT: every port is taken for this destination
	NatConflict   // sim: NAT: another connection has the translated addresses and ports
	NatFragment   // sim: NAT: a fragment of SCTP
	NatProtocol   // sim: NAT: a protocol without ports or identifier
	NoMember      // sim: load balancer: no member takes new connections
	TooManyConns  // sim: the port has as many connections as it may
	TooManyMACs   // worker: the port has taught as many MAC addresses as it may
	TooManyNeighs // worker: the port has taught as many neighbours as it may
	TooManyWaits  // worker: the port waits for as many neighbours as it may
	ReplyOverflow // worker: bridges and routers have answered the port as often as they may
	Loop          // sim: too many devices traversed
	FilterDrop    // sim: a rule of a filter chain drops
	FilterReject  // sim: a rule of a filter chain rejects
	FilterTooLong // sim: a filter's chains have too many rules
	GroupDrop     // sim: no rule of the port's security groups allows it
	ConnRevoked   // sim: of a connection that the security groups do not allow any more
	ConnInvalid   // sim: of no connection, and nothing that begins one
	SpoofedMAC    // sim: secured port: not from its MAC addresses
	SpoofedIP     // sim: secured port: not from its IP addresses
	SpoofedARP    // sim: secured port: ARP that claims another's address
	SpoofedND     // sim: secured port: neighbour discovery that claims another's address
	SpoofedDHCP   // sim: secured port: what only a DHCP server sends
	SpoofedRA     // sim: secured port: what only a router sends
	SpoofedType   // sim: secured port: neither IP nor ARP
	Unplugged     // sim: egress port is neither bound nor linked
	DHCPSpoofed   // sim: bridge: a DHCP server's message from a VM
	RASpoofed     // sim: bridge: a router advertisement from a VM
	DHCPMalformed // sim: bridge: a DHCP message that cannot be read
	DHCPIgnored   // sim: bridge: a DHCP message that is not ours to answer
	TooManyOutput // xlate: more outputs than a flow can hold
	Inactive      // xlate: the egress port's host or interface is down
	BadMessage    // worker: from a tunnel, a message about connections that nobody here understands
	ExecuteErr    // datapath: the packet could not be sent
	Internal      // a fault in the agent itself
	NumReasons
)

// Stage is where in the packet's path a reason is given.
func (r Reason) Stage() string { return info[r].stage }

// String is the reason's name: lower case with underscores, as in metrics.
func (r Reason) String() string {
	if r >= NumReasons || info[r].name == "" {
		return "unknown"
	}
	return info[r].name
}

// Meaning is one line for people.
func (r Reason) Meaning() string { return info[r].meaning }

// Parse finds a reason by its name.
func Parse(name string) (Reason, bool) {
	for r := range NumReasons {
		if info[r].name == name {
			return r, true
		}
	}
	return None, false
}

// KernelReasons is the number of reasons that the kernel counts, None included.
const KernelReasons = int(kernelEnd)

var info = [NumReasons + 1]struct{ name, stage, meaning string }{
	None:          {"none", "", "not dropped"},
	NoCredit:      {"no_credit", "datapath", "the port has no token left: it sends new flows faster than its share"},
	Malformed:     {"malformed", "datapath", "a header is truncated or contradicts itself"},
	TooBig:        {"too_big", "datapath", "the frame is longer than a miss record can carry"},
	FlowDrop:      {"flow_drop", "datapath", "a drop flow matched"},
	RingFull:      {"ring_full", "datapath", "no room in the miss ring"},
	NoPort:        {"no_port", "datapath", "the frame came in on an interface that is no port"},
	OutputGone:    {"output_gone", "datapath", "the output port does not exist any more"},
	RewriteErr:    {"rewrite_error", "datapath", "a header could not be rewritten"},
	EgressLimit:   {"egress_limit", "datapath", "the VM sends more than the bandwidth limit of its port"},
	IngressLimit:  {"ingress_limit", "datapath", "the VM is sent more than the bandwidth limit of its port"},
	NotReady:      {"not_ready", "datapath", "the agent does not know the port yet: it has only just been bound"},
	TunnelKey:     {"unknown_tunnel_key", "datapath", "it came through a tunnel for a port that this host does not have"},
	NotBound:      {"not_bound", "prep", "the ingress interface is not bound to a virtual port"},
	HeldOverflow:  {"held_overflow", "prep", "too many duplicates of a packet that is being simulated"},
	HeldDiscarded: {"held_discarded", "prep", "duplicate of a packet that was consumed or dropped"},
	ParkOverflow:  {"park_overflow", "prep", "too many packets of the port are waiting"},
	ParkTimeout:   {"park_timeout", "prep", "what the packet waited for did not come"},
	AdminDown:     {"admin_down", "sim", "the port or device is administratively down"},
	MulticastSrc:  {"multicast_source", "sim", "the source MAC is a group address"},
	Hairpin:       {"hairpin", "sim", "the destination is behind the port the frame came from"},
	NoReceiver:    {"no_receiver", "sim", "the bridge has nobody to flood the frame to"},
	NotInVLAN:     {"not_in_vlan", "sim", "the bridge's port does not carry the frame's VLAN"},
	DoubleTagged:  {"double_tagged", "sim", "a frame with two VLAN tags at an access port"},
	NotForUs:      {"not_for_us", "sim", "the frame is not addressed to the router port's MAC"},
	Tagged:        {"tagged", "sim", "a VLAN-tagged frame reached a router"},
	NotIP:         {"not_ip", "sim", "a router got neither IP nor ARP"},
	BadHeader:     {"bad_header", "sim", "a header field contradicts the protocol"},
	NoRoute:       {"no_route", "sim", "no route to the destination"},
	Blackhole:     {"blackhole", "sim", "a blackhole route matched"},
	Prohibited:    {"prohibited", "sim", "a reject route matched"},
	TTLExpired:    {"ttl_expired", "sim", "TTL or hop limit exceeded in transit"},
	NoNeighbour:   {"no_neighbour", "sim", "the next hop does not answer ARP or ND"},
	LocalNotTaken: {"local_not_taken", "sim", "addressed to the router itself, which offers no such service"},
	ArpIgnored:    {"arp_ignored", "sim", "ARP or ND that is not meant for this router port"},
	ExceedsMTU:    {"exceeds_mtu", "sim", "longer than the MTU of the router's egress port"},
	NatExhausted:  {"nat_exhausted", "sim", "every port of the translated address is taken for this destination"},
	NatConflict:   {"nat_conflict", "sim", "another connection has the translated addresses and ports"},
	NatFragment:   {"nat_fragment", "sim", "a fragment of SCTP cannot be translated: its checksum is over the whole packet"},
	NatProtocol:   {"nat_protocol", "sim", "a protocol without ports or identifier cannot be translated"},
	NoMember:      {"no_member", "sim", "no member of the load balancer's pool takes new connections"},
	TooManyConns:  {"too_many_connections", "sim", "the port has as many connections as it may"},
	TooManyMACs:   {"too_many_macs", "worker", "the port has taught as many MAC addresses as it may"},
	TooManyNeighs: {"too_many_neighbours", "worker", "the port has taught as many neighbours as it may"},
	TooManyWaits:  {"too_many_pending", "worker", "the port waits for as many neighbours as it may"},
	ReplyOverflow: {"too_many_replies", "worker", "bridges and routers have answered the port as often as they may"},
	Loop:          {"loop", "sim", "too many devices traversed: the topology has a loop"},
	FilterDrop:    {"filter_drop", "sim", "a rule of a filter chain drops it"},
	FilterReject:  {"filter_reject", "sim", "a rule of a filter chain rejects it"},
	FilterTooLong: {"filter_too_long", "sim", "a filter's chains have more rules than one packet may be held against"},
	GroupDrop:     {"group_drop", "sim", "no rule of the port's security groups allows it"},
	ConnRevoked:   {"connection_revoked", "sim", "of a connection that the port's security groups do not allow any more"},
	ConnInvalid:   {"connection_invalid", "sim", "of no known connection, and nothing that begins one: TCP without SYN or ACK, an ICMP error about nothing"},
	SpoofedMAC:    {"spoofed_mac", "sim", "a secured port sends from a MAC address that is not its own"},
	SpoofedIP:     {"spoofed_ip", "sim", "a secured port sends from an IP address that is not its own"},
	SpoofedARP:    {"spoofed_arp", "sim", "a secured port claims another's address by ARP"},
	SpoofedND:     {"spoofed_nd", "sim", "a secured port claims another's address by neighbour discovery"},
	SpoofedDHCP:   {"spoofed_dhcp", "sim", "a secured port answers as a DHCP server"},
	SpoofedRA:     {"spoofed_ra", "sim", "a secured port speaks as a router: an advertisement or a redirect"},
	SpoofedType:   {"spoofed_type", "sim", "a secured port sends neither IP nor ARP"},
	Unplugged:     {"unplugged", "sim", "the egress port is neither bound nor linked"},
	DHCPSpoofed:   {"dhcp_spoofed", "sim", "a DHCP server's message from a VM: the subnets of the bridge are served by Viaduct"},
	RASpoofed:     {"ra_spoofed", "sim", "a router advertisement from a VM: the subnets of the bridge have their own routers"},
	DHCPMalformed: {"dhcp_malformed", "sim", "a DHCP message that breaks the protocol"},
	DHCPIgnored:   {"dhcp_ignored", "sim", "a DHCP message of an unknown client, or for another server"},
	TooManyOutput: {"too_many_outputs", "xlate", "more outputs than a flow can hold"},
	Inactive:      {"inactive", "xlate", "the egress port's host or interface is down"},
	BadMessage:    {"bad_message", "worker", "a message of no host that is known here, or of another version"},
	ExecuteErr:    {"execute_error", "datapath", "the packet could not be sent"},
	Internal:      {"internal", "worker", "a fault in the agent itself"},
}
