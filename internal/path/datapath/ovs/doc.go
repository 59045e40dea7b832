// Package ovs is the datapath in the kernel module of Open vSwitch, driven over generic
// netlink: families ovs_datapath, ovs_vport, ovs_flow and ovs_packet (linux/openvswitch.h). Needs
// Linux 5.7 (the action DEC_TTL), openvswitch.ko and CAP_NET_ADMIN.
//
//	open.go     make or adopt the datapath; Close; Cleanup
//	ports.go    interfaces become vports, each with a socket for its misses
//	flows.go    put, delete, dump
//	key.go      flow key <-> OVS_KEY_ATTR_*         actions.go  action list <-> OVS_ACTION_ATTR_*
//	misses.go   one reader takes tokens and sorts misses to the workers      queue.go
//	execute.go  send packets
//	conn.go     netlink socket: batches, dumps      message.go  messages and attributes
//	uapi.go     the kernel's numbers
//
// The module forwards on while no agent runs, and the next Open adopts ports and flows. A socket's
// netlink port id follows from the datapath's name and the port's number, so that flows which name it work for
// the next agent too; the ids also say whose a datapath is, and that nobody else has it open.
//
// What this kernel cannot do is refused, and such packets stay with user space: keys that it does
// not tell apart (datapath.ErrKey: ICMP echo identifiers, 802.3 lengths, second VLAN tags, protocols of later IPv6
// fragments), and a TTL decremented after an output (datapath.ErrActions). It counts neither drop.FlowDrop nor
// drop.OutputGone. docs/adr/0008-ovs.md says what admission costs here.
package ovs
