/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The kernel datapath: exact-match flows on the tc ingress of every port.
 *
 *   1 port      which datapath port is this interface
 *   2 parse     headers -> key
 *   3 lookup    key -> flow; from a tunnel: tunnel key -> port, and no flow is needed
 *   4 upcall    no flow, its TTL would run out, or it is too long for it: to user space, if the port has a token
 *   5 rewrite   the flow's step, or each of its wide ones
 *   6 output    redirect to the egress port
 *
 * Needs kernel 6.1 and nothing newer. */
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_helpers.h>

#include "maps.h"
#include "parse.h"
#include "rate.h"
#include "rewrite.h"
#include "tunnel.h"
#include "upcall.h"

/* Sends the packet, or a copy of it, out of a port. */
static __always_inline int output(struct __sk_buff *skb, __u32 no, struct pkt *p, __u32 in_port, __u32 packets,
				  __u32 bytes, int copy)
{
	struct port *out = slot_of(&ports, no);
	struct port_stats *st;

	if (!out || !out->no || out->no != no) {
		count_drop(in_port, DROP_OUTPUT_GONE);
		return TC_ACT_SHOT;
	}
	if (out->flags & PORT_INGRESS_LIMIT && exceeds(no, RATE_INGRESS, bytes)) {
		count_drop(no, DROP_INGRESS_LIMIT);
		return TC_ACT_SHOT;
	}
	st = slot_of(&stats, no);
	if (st) {
		st->tx_packets += packets;
		st->tx_bytes += bytes;
	}
	if (copy)
		return bpf_clone_redirect(skb, out->ifindex, 0);
	/* To the peer's ingress at once, without its backlog queue. The receiver then sees the packet type that we
	 * give it, so only what is addressed to it goes this way. */
	if (out->flags & PORT_PEER && *(__u32 *)p->eth == *(__u32 *)out->peer_mac &&
	    *(__u16 *)(p->eth + 4) == *(__u16 *)(out->peer_mac + 4)) {
		bpf_skb_change_type(skb, 0 /* PACKET_HOST */);
		return bpf_redirect_peer(out->ifindex, 0);
	}
	return bpf_redirect(out->ifindex, 0);
}

static __always_inline int run_step(struct __sk_buff *skb, const struct step *s, struct pkt *p, __u32 in_port,
				    __u32 packets, __u32 bytes)
{
	const __u32 *a = s->addr;
	struct rewrites to = { .src4 = a + ADDR_SRC, .dst4 = a + ADDR_DST, .src6 = a, .dst6 = a, .vlan = a + ADDR_VLAN };

	if (rewrite(skb, s, &to, p))
		goto fail;
	if (s->flags & STEP_TUNNEL) {
		skb->mark = 0;
		if (s->flags & STEP_PEER6 ? set_tunnel6(skb, s->tun_key, a) : set_tunnel4(skb, s->tun_key, a[ADDR_PEER]))
			goto fail;
	}
	return output(skb, s->port, p, in_port, packets, bytes, 0);
fail:
	count_drop(in_port, DROP_REWRITE);
	return TC_ACT_SHOT;
}

/* What run_wide hands to each of its steps. */
struct wide_run {
	struct pkt p;
	__u32 in_port;
	__u32 packets;
	__u32 bytes;
	__u32 copy;
};

/* A global function, so that the verifier looks at it once and not once per step. */
__noinline int run_wide_step(struct __sk_buff *skb, const struct wide_step *w, struct wide_run *r)
{
	if (!w || !r)
		return TC_ACT_SHOT;
	struct rewrites to = { .src4 = w->src + 3, .dst4 = w->dst + 3, .src6 = w->src, .dst6 = w->dst, .vlan = &w->vlan };

	if (rewrite(skb, &w->step, &to, &r->p))
		goto fail;
	if (w->step.flags & STEP_TUNNEL) {
		skb->mark = 0;
		if (set_tunnel(skb, w->step.tun_key, w->peer))
			goto fail;
	}
	return output(skb, w->step.port, &r->p, r->in_port, r->packets, r->bytes, r->copy);
fail:
	count_drop(r->in_port, DROP_REWRITE);
	return TC_ACT_SHOT;
}

static __always_inline int run_wide(struct __sk_buff *skb, const struct flow *f, const struct pkt *p, __u32 in_port,
				    __u32 packets, __u32 bytes)
{
	struct wide_run r = { .p = *p, .in_port = in_port, .packets = packets, .bytes = bytes };
	__u64 no = (__u64)f->step.addr[1] << 32 | f->step.addr[0];
	__u32 steps = f->steps;
	int verdict = TC_ACT_SHOT;

	for (__u32 i = 0; i < MAX_STEPS && i < steps; i++, no++) {
		struct wide_step *w = bpf_map_lookup_elem(&wide_steps, &no);

		if (!w) { /* replaced or deleted meanwhile */
			count_drop(in_port, DROP_OUTPUT_GONE);
			return TC_ACT_SHOT;
		}
		r.copy = i + 1 < steps;
		verdict = run_wide_step(skb, w, &r);
	}
	return verdict == TC_ACT_REDIRECT ? verdict : TC_ACT_SHOT;
}

SEC("tc")
int viaduct_ingress(struct __sk_buff *skb)
{
	__u32 ifindex = skb->ifindex, *no, packets = 1, bytes = skb->len;
	struct flow_key k = {};
	struct pkt p = {};
	struct port_stats *st;
	struct port *in;
	struct flow *f;

	no = bpf_map_lookup_elem(&interfaces, &ifindex);
	if (!no) {
		count_drop(0, DROP_NO_PORT);
		return TC_ACT_SHOT;
	}
	k.in_port = *no;
	in = slot_of(&ports, k.in_port);
	if (in && in->class == CLASS_TUNNEL)
		k.tun_key = tunnel_key(skb);
	if (parse(skb, &k, &p)) {
		st = slot_of(&stats, k.in_port);
		if (st) {
			st->rx_packets++;
			st->rx_bytes += bytes;
			st->drops[DROP_MALFORMED]++;
		}
		return TC_ACT_SHOT;
	}
	if (skb->gso_size) {
		packets = gso_segs(skb, &p);
		if (packets > 1)
			bytes += (packets - 1) * (p.l4 + p.l4_len);
		else
			packets = 1;
	}
	st = slot_of(&stats, k.in_port);
	if (st) {
		st->rx_packets += packets;
		st->rx_bytes += bytes;
	}

	if (in && in->flags & PORT_EGRESS_LIMIT && exceeds(k.in_port, RATE_EGRESS, bytes)) {
		count_drop(k.in_port, DROP_EGRESS_LIMIT);
		return TC_ACT_SHOT;
	}
	if (in && in->class == CLASS_TUNNEL && k.tun_key != TUNNEL_KEY_HOSTS) {
		no = bpf_map_lookup_elem(&tunnel_keys, &k.tun_key);
		if (!no) {
			/* No simulation could say more, and a miss would cost a token of all hosts' tunnels. */
			count_drop(k.in_port, DROP_TUNNEL_KEY);
			return TC_ACT_SHOT;
		}
		/* The tunnel's own number: the port is to come to this host soon, and user space keeps what is for it. */
		if (*no != k.in_port)
			return output(skb, *no, &p, k.in_port, packets, bytes, 0);
	}
	f = bpf_map_lookup_elem(&flows, &k);
	if (!f) {
		upcall(skb, &k, &p, MISS_NO_FLOW);
		return TC_ACT_SHOT;
	}
	if (p.l3 && f->step.dec_ttl && p.ttl <= f->step.dec_ttl) {
		upcall(skb, &k, &p, MISS_TTL);
		return TC_ACT_SHOT;
	}
	if (f->max_len && wire_len(skb, &p) > f->max_len) {
		upcall(skb, &k, &p, MISS_MTU);
		return TC_ACT_SHOT;
	}
	__sync_fetch_and_add(&f->packets, packets);
	__sync_fetch_and_add(&f->bytes, bytes);
	f->last_used = bpf_ktime_get_coarse_ns() >> TIME_SHIFT;
	if (p.tcp_flags & 5 & ~f->tcp_flags)
		f->tcp_flags |= p.tcp_flags & 5; /* either of the two tells that the connection ends: one may get lost */

	if (f->step.flags & STEP_WIDE)
		return run_wide(skb, f, &p, k.in_port, packets, bytes);
	if (f->steps == 0) {
		count_drop(k.in_port, DROP_FLOW);
		return TC_ACT_SHOT;
	}
	return run_step(skb, &f->step, &p, k.in_port, packets, bytes);
}

/* On the egress of a tunnel device: a packet that user space sends there names its tunnel by the
 * packet's mark, since a packet socket has no other way to say it. */
SEC("tc")
int viaduct_tunnel_egress(struct __sk_buff *skb)
{
	__u32 slot = skb->mark & 0xffff;
	struct exec_tunnel *t;

	if ((skb->mark & 0xffff0000) != EXEC_MARK)
		return TC_ACT_UNSPEC;
	skb->mark = 0;
	t = bpf_map_lookup_elem(&exec_tunnels, &slot);
	if (!t || set_tunnel(skb, t->key, t->peer))
		return TC_ACT_SHOT;
	return TC_ACT_UNSPEC;
}

char _license[] SEC("license") = "Dual BSD/GPL";
