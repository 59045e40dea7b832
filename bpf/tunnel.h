/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* VXLAN devices in collect-metadata mode: the peer and the VNI are metadata of the skb. */
#pragma once

#include "maps.h"

static __always_inline int set_tunnel(struct __sk_buff *skb, __u32 key, const __u32 *peer)
{
	struct bpf_tunnel_key tk = { .tunnel_id = key, .tunnel_ttl = 64 };
	__u64 flags;

	if (!peer[0] && !peer[1] && peer[2] == bpf_htonl(0xffff)) {
		tk.remote_ipv4 = bpf_ntohl(peer[3]);
		/* RFC 7348 section 5: the outer UDP checksum should be 0. IPv6 receivers refuse that by default. */
		flags = BPF_F_ZERO_CSUM_TX;
	} else {
		__builtin_memcpy(tk.remote_ipv6, peer, 16);
		flags = BPF_F_TUNINFO_IPV6;
	}
	return bpf_skb_set_tunnel_key(skb, &tk, sizeof(tk), flags);
}

static __always_inline __u32 tunnel_key(struct __sk_buff *skb)
{
	struct bpf_tunnel_key tk = {};

	if (bpf_skb_get_tunnel_key(skb, &tk, sizeof(tk), 0) &&
	    bpf_skb_get_tunnel_key(skb, &tk, sizeof(tk), BPF_F_TUNINFO_IPV6))
		return 0;
	return tk.tunnel_id;
}
