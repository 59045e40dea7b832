/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* One step's rewrites. All are incremental: a wrong checksum stays wrong, a partial one
 * (CHECKSUM_PARTIAL) stays partial, a received sum (CHECKSUM_COMPLETE) stays true. */
#pragma once

#include "parse.h"

/* The same bytes at the same even place: ~old + new (RFC 1624). */
static __always_inline __u16 csum_add_diff(__u16 check, __s64 diff)
{
	__u64 sum = (__u16)~check + (__u64)(__u32)diff;

	sum = (sum & 0xffff) + (sum >> 16 & 0xffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

/* A sum over the pseudo header has changed by diff. */
static __always_inline int fix_l4(struct __sk_buff *skb, struct pkt *p, __s64 diff)
{
	__u64 flags = BPF_F_PSEUDO_HDR;

	if (!p->csum || p->proto == IPPROTO_ICMP)
		return 0;
	if (p->proto == IPPROTO_UDP)
		flags |= BPF_F_MARK_MANGLED_0;
	return bpf_l4_csum_replace(skb, p->csum, 0, diff, flags);
}

/* Where the step at hand keeps what does not fit into every one. */
struct rewrites {
	const __u32 *src4, *dst4; /* a word */
	const __u32 *src6, *dst6; /* four */
	const __u32 *vlan;
};

static __always_inline int rewrite_ipv4(struct __sk_buff *skb, const struct step *s, const struct rewrites *to, struct pkt *p)
{
	__u32 old[5], *ip = p->ip;
	__u8 *h = (__u8 *)ip;
	__u16 *check = (__u16 *)h + 5;

	__builtin_memcpy(old, ip, 20);
	if (s->flags & STEP_TOS)
		h[1] = s->tos;
	if (s->dec_ttl)
		h[8] -= s->dec_ttl;
	if (s->flags & STEP_SRC)
		ip[3] = *to->src4;
	if (s->flags & STEP_DST)
		ip[4] = *to->dst4;
	*check = csum_add_diff(*check, bpf_csum_diff(old, 20, ip, 20, 0));
	if (bpf_skb_store_bytes(skb, p->l3, ip, 20, 0))
		return -1;
	if (!(s->flags & STEP_ADDR))
		return 0;
	return fix_l4(skb, p, bpf_csum_diff(&old[3], 8, &ip[3], 8, 0));
}

static __always_inline int rewrite_ipv6(struct __sk_buff *skb, const struct step *s, const struct rewrites *to, struct pkt *p)
{
	__u32 old[8], *ip = p->ip;
	__u8 *h = (__u8 *)ip;

	__builtin_memcpy(old, &ip[2], 32);
	if (s->flags & STEP_TOS) {
		h[0] = 0x60 | s->tos >> 4;
		h[1] = s->tos << 4 | (h[1] & 15);
	}
	if (s->dec_ttl)
		h[7] -= s->dec_ttl;
	if (s->flags & STEP_SRC)
		__builtin_memcpy(&ip[2], to->src6, 16);
	if (s->flags & STEP_DST)
		__builtin_memcpy(&ip[6], to->dst6, 16);
	/* Nothing in an IPv6 header makes up for what changes in it: a received sum has to be told. */
	if (bpf_skb_store_bytes(skb, p->l3, ip, 40, BPF_F_RECOMPUTE_CSUM))
		return -1;
	if (!(s->flags & STEP_ADDR))
		return 0;
	return fix_l4(skb, p, bpf_csum_diff(old, 32, &ip[2], 32, 0));
}

/* A be16 field of the transport header, and the checksum over it. */
static __always_inline int set_l4(struct __sk_buff *skb, struct pkt *p, __u32 off, __u16 old, __u16 new)
{
	__u64 flags = sizeof(__u16);

	if (old == new)
		return 0;
	if (p->proto == IPPROTO_UDP)
		flags |= BPF_F_MARK_MANGLED_0;
	if (p->csum && bpf_l4_csum_replace(skb, p->csum, old, new, flags))
		return -1;
	return bpf_skb_store_bytes(skb, off, &new, sizeof(new), 0);
}

static __always_inline int rewrite_l4(struct __sk_buff *skb, const struct step *s, struct pkt *p)
{
	int icmp = p->proto == IPPROTO_ICMP || p->proto == IPPROTO_ICMPV6;
	__u32 dport = p->l4 + (icmp ? 4 : 2);

	if (s->flags & STEP_SRC_PORT && !icmp) {
		if (set_l4(skb, p, p->l4, p->sport, s->src_port))
			return -1;
		p->sport = s->src_port;
	}
	if (s->flags & STEP_DST_PORT) {
		if (set_l4(skb, p, dport, p->dport, s->dst_port))
			return -1;
		p->dport = s->dst_port;
	}
	return 0;
}

/* Tags move between the frame and the skb's metadata as they are pushed and popped, and the
 * headers behind them move too. */
static __always_inline int rewrite_vlan(struct __sk_buff *skb, const struct step *s, const struct rewrites *to, struct pkt *p)
{
	__u32 l3 = 14;
	__u16 type;

	if (s->flags & STEP_POP_VLAN && bpf_skb_vlan_pop(skb))
		return -1;
	if (s->flags & STEP_PUSH_VLAN && bpf_skb_vlan_push(skb, bpf_htons(ETH_P_8021Q), *to->vlan))
		return -1;
	if (!p->l3)
		return 0;
	if (bpf_skb_load_bytes(skb, 12, &type, 2))
		return -1;
	/* More than one tag in the frame itself: there may be two after a second push. */
	for (int i = 0; i < 2 && is_vlan(bpf_ntohs(type)); i++) {
		l3 += 4;
		if (bpf_skb_load_bytes(skb, l3 - 2, &type, 2))
			return -1;
	}
	p->l4 = p->l4 ? p->l4 - p->l3 + l3 : 0;
	p->csum = p->csum ? p->csum - p->l3 + l3 : 0;
	p->l3 = l3;
	return 0;
}

static __always_inline int rewrite(struct __sk_buff *skb, const struct step *s, const struct rewrites *to, struct pkt *p)
{
	if (s->flags & STEP_ETH) {
		if (s->flags & STEP_ETH_DST)
			__builtin_memcpy(p->eth, s->eth_dst, 6);
		if (s->flags & STEP_ETH_SRC)
			__builtin_memcpy(p->eth + 6, s->eth_src, 6);
		if (bpf_skb_store_bytes(skb, 0, p->eth, 12, 0))
			return -1;
	}
	if (p->l3 && (s->flags & (STEP_ADDR | STEP_TOS) || s->dec_ttl)) {
		if (p->eth_type == ETH_P_IP ? rewrite_ipv4(skb, s, to, p) : rewrite_ipv6(skb, s, to, p))
			return -1;
	}
	if (p->l4 && s->flags & STEP_PORTS && rewrite_l4(skb, s, p))
		return -1;
	if (s->flags & STEP_VLAN && rewrite_vlan(skb, s, to, p))
		return -1;
	return 0;
}
