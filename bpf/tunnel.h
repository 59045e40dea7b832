/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* VXLAN devices in collect-metadata mode: the peer and the VNI are metadata of the skb. */
#pragma once

#include "maps.h"

static __always_inline int set_tunnel4(struct __sk_buff *skb, __u32 key, __u32 peer)
{
	struct bpf_tunnel_key tk = { .tunnel_id = key, .tunnel_ttl = 64, .remote_ipv4 = bpf_ntohl(peer) };

	/* RFC 7348 section 5: the outer UDP checksum should be 0. IPv6 receivers refuse that by default. */
	return bpf_skb_set_tunnel_key(skb, &tk, sizeof(tk), BPF_F_ZERO_CSUM_TX);
}

static __always_inline int set_tunnel6(struct __sk_buff *skb, __u32 key, const __u32 *peer)
{
	struct bpf_tunnel_key tk = { .tunnel_id = key, .tunnel_ttl = 64 };

	__builtin_memcpy(tk.remote_ipv6, peer, 16);
	return bpf_skb_set_tunnel_key(skb, &tk, sizeof(tk), BPF_F_TUNINFO_IPV6);
}

static __always_inline int set_tunnel(struct __sk_buff *skb, __u32 key, const __u32 *peer)
{
	if (!peer[0] && !peer[1] && peer[2] == bpf_htonl(0xffff))
		return set_tunnel4(skb, key, peer[3]);
	return set_tunnel6(skb, key, peer);
}

static __always_inline __u32 tunnel_key(struct __sk_buff *skb)
{
	struct bpf_tunnel_key tk = {};

	if (bpf_skb_get_tunnel_key(skb, &tk, sizeof(tk), 0) &&
	    bpf_skb_get_tunnel_key(skb, &tk, sizeof(tk), BPF_F_TUNINFO_IPV6))
		return 0;
	return tk.tunnel_id;
}
