/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Token cells, which package htb fills. */
#pragma once

#include <linux/types.h>
#include <bpf/bpf_helpers.h>

/* A cell below this is closed (htb.Closed): user space does not know the port yet. A race between takers brings an open one below
 * zero, but no further than there are CPUs. */
#define CLOSED (-(1LL << 32))

static __always_inline int closed(__s64 *cell)
{
	return cell && *(volatile __s64 *)cell < CLOSED;
}

/* Takes one token. Returns the cell, to give it back; 0 when there is none. */
static __always_inline __s64 *take(__s64 *cell)
{
	/* The plain read keeps a flood from fighting over the cache line. */
	if (!cell || *(volatile __s64 *)cell <= 0)
		return 0;
	if (__sync_fetch_and_add(cell, -1) > 0)
		return cell;
	__sync_fetch_and_add(cell, 1);
	return 0;
}
