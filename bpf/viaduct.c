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

/* A packet that steps are done to. */
struct run {
	struct pkt p;
	__u32 in_port;
	__u32 packets; /* on the wire */
	__u32 bytes;
	__u32 copy;    /* more outputs follow */
};

/* Sends the packet, or a copy of it, out of a port. */
static __always_inline int output(struct __sk_buff *skb, __u32 no, const struct run *r)
{
	struct port *out = slot_of(&ports, no);
	struct port_stats *st;

	if (!out || !out->no || out->no != no) {
		count_drop(r->in_port, DROP_OUTPUT_GONE);
		return TC_ACT_SHOT;
	}
	if (out->flags & PORT_INGRESS_LIMIT && exceeds(no, RATE_INGRESS, r->bytes)) {
		count_drop(no, DROP_INGRESS_LIMIT);
		return TC_ACT_SHOT;
	}
	st = slot_of(&stats, no);
	if (st) {
		st->tx_packets += r->packets;
		st->tx_bytes += r->bytes;
	}
	if (r->copy)
		return bpf_clone_redirect(skb, out->ifindex, 0);
	/* To the peer's ingress at once, without its backlog queue. The receiver then sees the packet type that we
	 * give it, so only what is addressed to it goes this way. */
	if (out->flags & PORT_PEER && *(__u32 *)r->p.eth == *(__u32 *)out->peer_mac &&
	    *(__u16 *)(r->p.eth + 4) == *(__u16 *)(out->peer_mac + 4)) {
		bpf_skb_change_type(skb, 0 /* PACKET_HOST */);
		return bpf_redirect_peer(out->ifindex, 0);
	}
	return bpf_redirect(out->ifindex, 0);
}

/* A flow's own step. */
static __always_inline int run_step(struct __sk_buff *skb, const struct step *s, struct run *r)
{
	const __u32 *a = s->addr;
	struct rewrites to = { .src4 = a + ADDR_SRC, .dst4 = a + ADDR_DST, .src6 = a, .dst6 = a, .vlan = a + ADDR_VLAN };

	if (rewrite(skb, s, &to, &r->p))
		goto fail;
	if (s->flags & STEP_TUNNEL) {
		skb->mark = 0;
		if (s->flags & STEP_PEER6 ? set_tunnel6(skb, s->tun_key, a) : set_tunnel4(skb, s->tun_key, a[ADDR_PEER]))
			goto fail;
	}
	return output(skb, s->port, r);
fail:
	count_drop(r->in_port, DROP_REWRITE);
	return TC_ACT_SHOT;
}

/* One of wide_steps. Global, as parse is. */
__noinline int run_wide_step(struct __sk_buff *skb, const struct wide_step *w, struct run *r)
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
	return output(skb, w->step.port, r);
fail:
	count_drop(r->in_port, DROP_REWRITE);
	return TC_ACT_SHOT;
}

/* All of them. */
__noinline int run_wide(struct __sk_buff *skb, const struct flow *f, struct run *r)
{
	int verdict = TC_ACT_SHOT;
	__u32 steps;
	__u64 no;

	if (!f || !r)
		return TC_ACT_SHOT;
	no = (__u64)f->step.addr[1] << 32 | f->step.addr[0];
	steps = f->steps;
	for (__u32 i = 0; i < MAX_STEPS && i < steps; i++, no++) {
		struct wide_step *w = bpf_map_lookup_elem(&wide_steps, &no);

		if (!w) { /* replaced or deleted meanwhile */
			count_drop(r->in_port, DROP_OUTPUT_GONE);
			return TC_ACT_SHOT;
		}
		r->copy = i + 1 < steps;
		verdict = run_wide_step(skb, w, r);
	}
	return verdict == TC_ACT_REDIRECT ? verdict : TC_ACT_SHOT;
}

SEC("tc")
int viaduct_ingress(struct __sk_buff *skb)
{
	__u32 ifindex = skb->ifindex, *no, in_port, tun_key = 0;
	struct run r = { .packets = 1, .bytes = skb->len };
	struct flow_key k = {};
	struct port_stats *st;
	struct port *in;
	struct flow *f;

	no = bpf_map_lookup_elem(&interfaces, &ifindex);
	if (!no) {
		count_drop(0, DROP_NO_PORT);
		return TC_ACT_SHOT;
	}
	r.in_port = k.in_port = in_port = *no;
	in = slot_of(&ports, in_port);
	st = slot_of(&stats, in_port);
	if (!in || !st) /* every number has its slot */
		return TC_ACT_SHOT;
	if (in->class == CLASS_TUNNEL)
		k.tun_key = tun_key = tunnel_key(skb);
	if (parse(skb, &k, &r.p)) {
		st->rx_packets++;
		st->rx_bytes += r.bytes;
		st->drops[DROP_MALFORMED]++;
		return TC_ACT_SHOT;
	}
	if (skb->gso_size) {
		__u32 segs = gso_segs(skb, &r.p);

		if (segs > 1) {
			r.packets = segs;
			r.bytes += (segs - 1) * (r.p.l4 + r.p.l4_len);
		}
	}
	st->rx_packets += r.packets;
	st->rx_bytes += r.bytes;

	if (in->flags & PORT_EGRESS_LIMIT && exceeds(in_port, RATE_EGRESS, r.bytes)) {
		st->drops[DROP_EGRESS_LIMIT]++;
		return TC_ACT_SHOT;
	}
	if (in->class == CLASS_TUNNEL && tun_key != TUNNEL_KEY_HOSTS) {
		no = bpf_map_lookup_elem(&tunnel_keys, &tun_key);
		if (!no) {
			/* No simulation could say more, and a miss would cost a token of all hosts' tunnels. */
			st->drops[DROP_TUNNEL_KEY]++;
			return TC_ACT_SHOT;
		}
		/* The tunnel's own number: the port is to come to this host soon, and user space keeps what is for it. */
		if (*no != in_port)
			return output(skb, *no, &r);
	}
	f = bpf_map_lookup_elem(&flows, &k);
	if (!f)
		return upcall(skb, &k, &r.p, MISS_NO_FLOW);
	if (r.p.l3 && f->step.dec_ttl && r.p.ttl <= f->step.dec_ttl)
		return upcall(skb, &k, &r.p, MISS_TTL);
	if (f->max_len && wire_len(skb, &r.p) > f->max_len)
		return upcall(skb, &k, &r.p, MISS_MTU);
	__sync_fetch_and_add(&f->packets, r.packets);
	__sync_fetch_and_add(&f->bytes, r.bytes);
	f->last_used = bpf_ktime_get_coarse_ns() >> TIME_SHIFT;
	if (r.p.tcp_flags & 5 & ~f->tcp_flags)
		f->tcp_flags |= r.p.tcp_flags & 5; /* either of the two tells that the connection ends: one may get lost */

	if (f->step.flags & STEP_WIDE)
		return run_wide(skb, f, &r);
	if (f->steps == 0) {
		st->drops[DROP_FLOW]++;
		return TC_ACT_SHOT;
	}
	return run_step(skb, &f->step, &r);
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
