/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What the kernel and user space share: memory layouts, map names, drop reasons.
 * Integers are in host byte order unless they say be. No struct has implicit padding. */
#pragma once

#include <linux/types.h>

/* Changes with every incompatible change of a pinned map: datapath/ebpf/convert.go says what else is to be done then.
 * Tests of that compile the programs with another layout, too. */
#ifdef OTHER_LAYOUT
#define OTHER(field) field
enum layout { LAYOUT_VERSION = 5 }; /* the next */
#else
#define OTHER(field)
enum layout { LAYOUT_VERSION = 4 };
#endif

/* match.Key */
struct flow_key {
	__u32 in_port;
	__u32 tun_key;
	__u8 eth_dst[6];
	__u8 eth_src[6];
	__u16 eth_type;
	__u16 vlan;
	__u32 src[4]; /* wire order; IPv4 is mapped to ::ffff:a.b.c.d */
	__u32 dst[4];
	__u8 proto;
	__u8 tos;
	__u8 frag;
	__u8 zero;
	__u16 src_port;
	__u16 dst_port;
};

#define VLAN_PRESENT 0x1000

enum { FRAG_NONE, FRAG_FIRST, FRAG_LATER };

/* drop.Reason */
enum drop_reason {
	DROP_NONE,
	DROP_NO_CREDIT,
	DROP_MALFORMED,
	DROP_TOO_BIG,
	DROP_FLOW,
	DROP_RING_FULL,
	DROP_NO_PORT,
	DROP_OUTPUT_GONE,
	DROP_REWRITE,
	DROP_EGRESS_LIMIT,
	DROP_INGRESS_LIMIT,
	DROP_NOT_READY,
	DROP_TUNNEL_KEY,
	DROP_REASONS,
};

/* What step.flags says is to be done, in this order. */
enum {
	STEP_ETH_DST = 1 << 0,
	STEP_ETH_SRC = 1 << 1,
	STEP_SRC = 1 << 2,
	STEP_DST = 1 << 3,
	STEP_TOS = 1 << 4,
	STEP_SRC_PORT = 1 << 5,
	STEP_DST_PORT = 1 << 6,
	STEP_POP_VLAN = 1 << 7,
	STEP_PUSH_VLAN = 1 << 8,
	STEP_TUNNEL = 1 << 9,
	STEP_PEER6 = 1 << 10, /* of a flow's own step: the peer's address is IPv6 */
	STEP_WIDE = 1 << 11,  /* and that the steps are in wide_steps, from the number on that is in addr */
	STEP_ETH = STEP_ETH_DST | STEP_ETH_SRC,
	STEP_ADDR = STEP_SRC | STEP_DST,
	STEP_PORTS = STEP_SRC_PORT | STEP_DST_PORT,
	STEP_VLAN = STEP_POP_VLAN | STEP_PUSH_VLAN,
};

/* One output with the rewrites before it. */
struct step {
	OTHER(__u64 spare;)
	__u16 flags;
	__u8 dec_ttl; /* by how much; in a flow's own step, by all of its steps */
	__u8 tos;
	__u32 port; /* datapath port number of the output */
	__u32 tun_key;
	__u16 src_port; /* be16 */
	__u16 dst_port; /* be16 */
	__u8 eth_dst[6];
	__u8 eth_src[6];
	__u32 order; /* for user space: the action list's own order, a nibble each; the first eight */
	/* In wire order. IPv4: [0] source, [1] destination, [2] the tunnel's peer, [3] not an address but the VLAN tag to
	 * push. Or all of them are one IPv6 address, of whichever it is. Steps that need more are wide. */
	__u32 addr[4];
};

enum { ADDR_SRC, ADDR_DST, ADDR_PEER, ADDR_VLAN };

/* A step with room for everything; step.addr is not used. */
struct wide_step {
	struct step step;
	__u32 src[4]; /* wire order, as in the key */
	__u32 dst[4];
	__u32 peer[4];
	__u32 order; /* the next eight nibbles of step.order */
	__u32 vlan;  /* tag to push */
};

/* With the key and what the kernel's hash table adds, 184 bytes: a slab object of 192. */
struct flow {
	OTHER(__u64 spare;)
	__u64 packets; /* on the wire: a GSO frame counts as its segments */
	__u64 bytes;
	__u32 last_used; /* CLOCK_MONOTONIC, coarse, in units of 2^TIME_SHIFT ns */
	__u8 tcp_flags;	 /* FIN and RST seen */
	__u8 steps;	 /* 0: drop */
	__u16 max_len;	 /* of a longer IP packet nothing is known; 0: there is no bound */
	struct step step; /* the packet's TTL must be above its dec_ttl */
};

#define TIME_SHIFT 22
#define MAX_STEPS 32

/* Never another meaning for a bit: agents with other layouts read them. */
enum {
	PORT_PEER = 1 << 0,   /* a veth whose peer is in another namespace: bpf_redirect_peer */
	PORT_CLSACT = 1 << 1, /* for user space: the clsact qdisc is ours */
	PORT_TC = 1 << 2,     /* for user space: attached with clsact, not tcx */
	PORT_EGRESS_LIMIT = 1 << 3,  /* there is a rate for what comes in by the port: the VM's egress */
	PORT_INGRESS_LIMIT = 1 << 4, /* and for what goes out by it */
};

struct port {
	OTHER(__u32 spare;)
	__u32 no; /* 0: free slot */
	__u32 ifindex;
	__u8 class;
	__u8 flags;
	__u8 peer_mac[6];
};

/* A bandwidth limit: see rate.h. */
struct rate {
	__u64 ps_per_byte; /* 0: no limit */
	__u64 burst_ns;	   /* how long a full bucket lasts at that rate */
	__u64 full_at;	   /* CLOCK_MONOTONIC, ns: when the bucket is full again */
};

enum { RATE_EGRESS, RATE_INGRESS, RATES };

struct port_stats {
	OTHER(__u64 spare;)
	__u64 rx_packets;
	__u64 rx_bytes;
	__u64 tx_packets;
	__u64 tx_bytes;
	__u64 admitted;
	__u64 drops[DROP_REASONS];
};

struct settings {
	enum layout version; /* first, in every layout */
	__u32 workers;
	__u32 slots;   /* of ports, credits and stats; a power of two */
	__u32 next_no; /* for user space: the next port number */
};

enum { MISS_NO_FLOW, MISS_TTL, MISS_MTU };

/* What is in front of the frame on a ring. */
struct miss {
	struct flow_key key;
	__u64 time;
	__u32 len; /* of the frame, a tag in metadata not counted */
	__u16 gso_size;
	__u16 gso_segs;
	__u16 vlan_tci; /* of a tag that is not in the frame */
	__u16 vlan_tpid; /* be16; 0: there is none */
	__u8 reason;
	__u8 lent; /* the token is the root's */
	__u8 pad[2];
};

/* A tunnel to set on a packet that user space sends: see tunnel.h. */
struct exec_tunnel {
	__u32 key;
	__u32 peer[4];
	__u32 pad; /* the map is an array of multiples of 8 bytes */
};

#define EXEC_TUNNELS 4096
#define EXEC_MARK 0x56440000 /* + index into exec_tunnels */
#define CLASS_TUNNEL 1
/* replicate.Key: what hosts tell each other */
#define TUNNEL_KEY_HOSTS 0xffffff
