/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Bandwidth limits: a token bucket kept as the time at which it is full again (the generic cell rate algorithm, ITU-T I.371), so that
 * one compare-and-swap takes the tokens, from any CPU. */
#pragma once

#include "maps.h"

/* Takes bytes from the bucket of a port and direction. Returns 1 when they are not there: the packet is to be dropped. Global, as parse
 * is: its loop is looked at once, and not for each caller. */
__noinline int exceeds(__u32 no, __u32 direction, __u32 bytes)
{
	__u32 i = (no & slot_mask) * RATES + direction;
	struct rate *r = bpf_map_lookup_elem(&rates, &i);
	__u64 now, was, full;

	if (!r || !r->ps_per_byte)
		return 0;
	now = bpf_ktime_get_ns();
	for (int tries = 0; tries < 8; tries++) {
		was = *(volatile __u64 *)&r->full_at;
		full = (was > now ? was : now) + bytes * r->ps_per_byte / 1000;
		if (full - now > r->burst_ns)
			return 1;
		if (__sync_val_compare_and_swap(&r->full_at, was, full) == was)
			return 0;
	}
	return 0; /* others are faster: what little goes uncounted is worth no drop */
}
