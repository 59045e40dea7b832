/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Frame -> flow key. The rules are those of packet.Parse (internal/base/packet/parse.go), case by
 * case; a differential test holds the two together.
 *
 * Headers are copied to the stack with bpf_skb_load_bytes: it works whether or not they are in the linear part of
 * the skb, and the verifier has no packet pointers to follow. */
#pragma once

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/in6.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "viaduct.h"

#define MAX_EXT_HEADERS 8

#define barrier() asm volatile("" ::: "memory")

/* A packet on its way: where its headers are, and what they hold now. */
struct pkt {
	__u8 eth[12]; /* destination and source MAC */
	__u16 eth_type;
	__u16 sport; /* be16: as in the header; ICMP: type and code */
	__u16 dport; /* be16: ICMP echo: identifier */
	__u16 pad;
	__u32 l3;	 /* offset of the IP header; 0: not IP */
	__u32 l4;	 /* offset of a transport header with ports or an echo id; 0: none */
	__u32 l3_end;	 /* where the IP packet ends */
	__u32 csum;	 /* offset of the transport checksum; 0: none */
	__u8 proto;
	__u8 ttl;
	__u8 tcp_flags;
	__u8 l4_len; /* of the transport header */
	__u32 ip[10]; /* IP header without options */
};

static __always_inline int is_vlan(__u16 eth_type)
{
	return eth_type == ETH_P_8021Q || eth_type == ETH_P_8021AD;
}

/* be16 field at byte off of a header on the stack */
static __always_inline __u16 get16(const void *h, int off)
{
	return bpf_ntohs(*(__u16 *)(h + off));
}

/* Of SCTP's segments, which are of several lengths; linux/skbuff.h. */
#define GSO_BY_FRAGS 0xffff

/* Bytes of the IP packet on the wire; of one that stands for several segments, those of a full one (packet.View.WireLen). */
static __always_inline __u32 wire_len(struct __sk_buff *skb, const struct pkt *p)
{
	__u32 len = p->l3_end - p->l3, size = skb->gso_size;

	if (!size)
		return len;
	if (size == GSO_BY_FRAGS)
		return 0;
	if (p->l4)
		size += p->l4 + p->l4_len - p->l3;
	return size < len ? size : len;
}

static __always_inline int is_echo(__u8 proto, __u8 type)
{
	return proto == IPPROTO_ICMP ? type == 8 || type == 0 : type == 128 || type == 129;
}

static __always_inline int parse_l4(struct __sk_buff *skb, struct flow_key *k, struct pkt *p, __u32 off)
{
	__u16 h[10] = {};
	__u32 min;

	switch (k->proto) {
	case IPPROTO_TCP:
		min = 20;
		p->csum = off + 16;
		break;
	case IPPROTO_UDP:
		min = 8;
		p->csum = off + 6;
		break;
	case IPPROTO_SCTP:
		min = 12;
		break;
	case IPPROTO_ICMP:
	case IPPROTO_ICMPV6:
		if ((k->proto == IPPROTO_ICMP) != (k->eth_type == ETH_P_IP))
			return 0;
		min = 8;
		p->csum = off + 2;
		break;
	default:
		return 0;
	}
	if (off + min > p->l3_end)
		return -1;
	if (bpf_skb_load_bytes(skb, off, h, k->proto == IPPROTO_TCP ? 20 : 8))
		return -1;
	p->l4_len = min;
	k->src_port = bpf_ntohs(h[0]);
	p->sport = h[0];
	p->dport = h[1];
	if (k->proto == IPPROTO_ICMP || k->proto == IPPROTO_ICMPV6) {
		if (!is_echo(k->proto, k->src_port >> 8))
			return 0;
		/* Not an address chosen between h[1] and h[2], which the verifier could not follow. */
		barrier();
		p->dport = h[2];
	}
	p->l4 = off;
	k->dst_port = bpf_ntohs(p->dport);
	if (k->proto == IPPROTO_TCP) {
		p->tcp_flags = bpf_ntohs(h[6]);
		p->l4_len = bpf_ntohs(h[6]) >> 12 << 2;
	}
	return 0;
}

static __always_inline int parse_ipv4(struct __sk_buff *skb, struct flow_key *k, struct pkt *p, __u32 off)
{
	const __u8 *h = (const __u8 *)p->ip;
	__u32 hlen, total;
	__u16 frag;

	if (bpf_skb_load_bytes(skb, off, p->ip, 20) || h[0] >> 4 != 4)
		return -1;
	hlen = (h[0] & 15) * 4;
	total = get16(h, 2);
	if (hlen < 20 || total < hlen || off + total > skb->len)
		return -1;
	p->l3 = off;
	p->l3_end = off + total;
	p->ttl = h[8];
	p->proto = k->proto = h[9];
	k->tos = h[1];
	k->src[2] = k->dst[2] = bpf_htonl(0xffff);
	k->src[3] = p->ip[3];
	k->dst[3] = p->ip[4];
	frag = get16(h, 6);
	if (frag & 0x1fff) {
		k->frag = FRAG_LATER;
		return 0;
	}
	if (frag & 0x2000)
		k->frag = FRAG_FIRST;
	return parse_l4(skb, k, p, off + hlen);
}

static __always_inline int parse_ipv6(struct __sk_buff *skb, struct flow_key *k, struct pkt *p, __u32 off)
{
	const __u8 *h = (const __u8 *)p->ip;
	__u32 at = off + 40;
	__u8 next;

	if (bpf_skb_load_bytes(skb, off, p->ip, 40) || h[0] >> 4 != 6)
		return -1;
	p->l3 = off;
	p->l3_end = at + get16(h, 4);
	if (p->l3_end > skb->len)
		return -1;
	p->ttl = h[7];
	k->tos = h[0] << 4 | h[1] >> 4;
	__builtin_memcpy(k->src, &p->ip[2], 16);
	__builtin_memcpy(k->dst, &p->ip[6], 16);
	next = h[6];
	for (int n = 0; n <= MAX_EXT_HEADERS; n++) {
		__u32 size, frag = 0;
		__u16 e[4];

		switch (next) {
		case IPPROTO_HOPOPTS:
		case IPPROTO_ROUTING:
		case IPPROTO_DSTOPTS:
		case IPPROTO_AH:
		case IPPROTO_FRAGMENT:
			break;
		default:
			p->proto = k->proto = next;
			return parse_l4(skb, k, p, at);
		}
		if (n == MAX_EXT_HEADERS || at + 8 > p->l3_end || bpf_skb_load_bytes(skb, at, e, 8))
			return -1;
		size = bpf_ntohs(e[0]) & 0xff;
		if (next == IPPROTO_FRAGMENT) {
			size = 8;
			frag = bpf_ntohs(e[1]);
		} else if (next == IPPROTO_AH) {
			size = (size + 2) * 4;
		} else {
			size = (size + 1) * 8;
		}
		next = bpf_ntohs(e[0]) >> 8;
		if (frag & 0xfff8) {
			k->frag = FRAG_LATER;
			p->proto = k->proto = next;
			return 0;
		}
		if (frag & 1)
			k->frag = FRAG_FIRST;
		at += size;
		if (at > p->l3_end)
			return -1;
	}
	return -1;
}

static __always_inline int parse_arp(struct __sk_buff *skb, struct flow_key *k, __u32 off)
{
	__u16 a[14];

	if (bpf_skb_load_bytes(skb, off, a, 28))
		return -1;
	if (a[0] != bpf_htons(1) || a[1] != bpf_htons(ETH_P_IP) || a[2] != bpf_htons(0x0604) ||
	    bpf_ntohs(a[3]) > 255)
		return 0;
	k->proto = bpf_ntohs(a[3]);
	k->src[2] = k->dst[2] = bpf_htonl(0xffff);
	__builtin_memcpy(&k->src[3], &a[7], 4);
	__builtin_memcpy(&k->dst[3], &a[12], 4);
	return 0;
}

/* k and p must be zeroed; k->in_port and k->tun_key are the caller's.
 *
 * A global function: the verifier looks at it once, and at what follows as after any key. Were it inline, it would follow each of the ways
 * through it to the end of the program: 201,905 instructions and 14 s on an emulated Linux 6.1, in place of 10,071. */
__noinline int parse(struct __sk_buff *skb, struct flow_key *k, struct pkt *p)
{
	__u32 off = 14;
	__u16 h[7], tag[2];

	if (!k || !p || bpf_skb_load_bytes(skb, 0, h, 14))
		return -1;
	__builtin_memcpy(p->eth, h, 12);
	__builtin_memcpy(k->eth_dst, h, 12);
	k->eth_type = bpf_ntohs(h[6]);
	if (skb->vlan_present) {
		k->vlan = skb->vlan_tci | VLAN_PRESENT;
	} else if (is_vlan(k->eth_type)) {
		if (bpf_skb_load_bytes(skb, 14, tag, 4))
			return -1;
		k->vlan = bpf_ntohs(tag[0]) | VLAN_PRESENT;
		k->eth_type = bpf_ntohs(tag[1]);
		off = 18;
	}
	p->eth_type = k->eth_type;
	switch (k->eth_type) {
	case ETH_P_IP:
		return parse_ipv4(skb, k, p, off);
	case ETH_P_IPV6:
		return parse_ipv6(skb, k, p, off);
	case ETH_P_ARP:
		return parse_arp(skb, k, off);
	}
	return 0;
}
