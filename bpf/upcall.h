/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* A miss: admission first, then one copy of the frame onto the worker's ring. */
#pragma once

#include <linux/pkt_cls.h>

#include "credit.h"
#include "maps.h"
#include "parse.h"

/* Takes one token of the port, or of what has accumulated at the root. Returns the cell, to give it back. */
static __always_inline __s64 *admit(__u32 port, __u8 *lent)
{
	__s64 *own = slot_of(&credits, port), *cell;

	if (closed(own)) {
		count_drop(port, DROP_NOT_READY);
		return 0;
	}
	cell = take(own);
	*lent = !cell;
	if (!cell)
		cell = take(slot_of(&credits, 0));
	if (!cell)
		count_drop(port, DROP_NO_CREDIT);
	return cell;
}

/* The same for both directions of a connection. Fragments hash by what all of a datagram have: not by ports. */
static __always_inline __u32 connection_hash(const struct flow_key *k)
{
	__u32 h = 0;

	if (k->eth_type != ETH_P_IP && k->eth_type != ETH_P_IPV6 && k->eth_type != ETH_P_ARP) {
		const __u16 *m = (const __u16 *)k->eth_dst;

		h = (m[0] ^ m[3]) + ((m[1] ^ m[4]) << 8) + ((m[2] ^ m[5]) << 16);
		return h * 0x9e3779b1 >> 16;
	}
	for (int i = 0; i < 4; i++)
		h ^= k->src[i] ^ k->dst[i];
	if (k->eth_type != ETH_P_ARP) {
		h += k->proto;
		if (k->proto == IPPROTO_ICMP || k->proto == IPPROTO_ICMPV6)
			h ^= k->dst_port;
		else if (k->frag == FRAG_NONE)
			h ^= k->src_port ^ k->dst_port;
	}
	/* Fibonacci hashing; the high half is the well mixed one. */
	return h * 0x9e3779b1 >> 16;
}

static __always_inline __u16 gso_segs(struct __sk_buff *skb, const struct pkt *p)
{
	__u32 size = skb->gso_size, hlen = p->l4 + p->l4_len;

	if (!size || skb->len <= hlen)
		return 0;
	/* gso_segs is 0 on frames from a tap: counted here always. */
	return (skb->len - hlen + size - 1) / size;
}

/* Two comparisons of v stay two: Linux 6.1's verifier cannot follow their merging into one on v - min. */
#define keep(v) asm volatile("" : "+r"(v))

/* A record of each size class: the ring reserves constants only. */
#define DEFINE_SUBMIT(name, size)									\
	static __noinline int name(struct __sk_buff *skb, void *ring, struct miss *m)			\
	{												\
		struct {										\
			struct miss m;									\
			__u8 frame[size - sizeof(struct miss)];						\
		} *rec = bpf_ringbuf_reserve(ring, size, 0);						\
		__u32 len = skb->len;									\
													\
		if (!rec)										\
			return DROP_RING_FULL;								\
		rec->m = *m;										\
		if (len < 14)										\
			goto discard;									\
		keep(len);										\
		if (len > sizeof(rec->frame))								\
			goto discard;									\
		if (bpf_skb_load_bytes(skb, 0, rec->frame, len))					\
			goto discard;									\
		rec->m.len = len;									\
		bpf_ringbuf_submit(rec, 0);								\
		return DROP_NONE;									\
	discard:											\
		bpf_ringbuf_discard(rec, 0);								\
		return DROP_TOO_BIG;									\
	}

#define MISS_SMALL 320
#define MISS_MEDIUM 2048
#define MISS_LARGE 16384
#define MISS_MAX 67584

DEFINE_SUBMIT(submit_small, MISS_SMALL)
DEFINE_SUBMIT(submit_medium, MISS_MEDIUM)
DEFINE_SUBMIT(submit_large, MISS_LARGE)
DEFINE_SUBMIT(submit_max, MISS_MAX)

static __always_inline enum drop_reason submit(struct __sk_buff *skb, struct miss *m)
{
	__u32 zero = 0, worker, len = skb->len + sizeof(*m);
	struct settings *c = bpf_map_lookup_elem(&config, &zero);
	void *ring;

	if (!c || !c->workers)
		return DROP_RING_FULL;
	worker = connection_hash(&m->key) % c->workers;
	ring = bpf_map_lookup_elem(&rings, &worker);
	if (!ring)
		return DROP_RING_FULL;
	if (len <= MISS_SMALL)
		return submit_small(skb, ring, m);
	if (len <= MISS_MEDIUM)
		return submit_medium(skb, ring, m);
	if (len <= MISS_LARGE)
		return submit_large(skb, ring, m);
	return submit_max(skb, ring, m);
}

/* Returns TC_ACT_SHOT: whatever comes of it, the packet goes no further here. Global, as parse is. */
__noinline int upcall(struct __sk_buff *skb, const struct flow_key *k, const struct pkt *p, __u32 reason)
{
	struct miss m = { .reason = reason };
	struct port_stats *st;
	enum drop_reason why;
	__s64 *cell;

	if (!k || !p)
		return TC_ACT_SHOT;
	m.key = *k;
	if (skb->len + sizeof(m) > MISS_MAX) {
		count_drop(k->in_port, DROP_TOO_BIG);
		return TC_ACT_SHOT;
	}
	cell = admit(k->in_port, &m.lent);
	if (!cell)
		return TC_ACT_SHOT;
	m.time = bpf_ktime_get_ns();
	m.gso_size = skb->gso_size;
	m.gso_segs = gso_segs(skb, p);
	if (skb->vlan_present) {
		m.vlan_tci = skb->vlan_tci;
		m.vlan_tpid = skb->vlan_proto;
	}
	why = submit(skb, &m);
	if (why != DROP_NONE) {
		__sync_fetch_and_add(cell, 1);
		count_drop(k->in_port, why);
		return TC_ACT_SHOT;
	}
	st = slot_of(&stats, k->in_port);
	if (st)
		st->admitted++;
	return TC_ACT_SHOT;
}
