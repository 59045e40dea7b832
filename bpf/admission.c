// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Admission in front of a socket: the filter of the netlink socket that a port of Open vSwitch's module sends its misses to.
 * A message without a token is thrown away before it is queued, and wakes nobody. */
#include <linux/bpf.h>

#include "credit.h"

struct cell {
	__s64 tokens;
	__u64 refused;
};

/* slot -> cell; slot 0 is the root's. User space maps it into its memory. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1024); /* set by user space */
	__type(key, __u32);
	__type(value, struct cell);
} cells SEC(".maps");

/* The port's; each has a program of its own. */
const volatile __u32 slot;

SEC("socket")
int admit(struct __sk_buff *skb)
{
	__u32 own = slot, top = 0;
	struct cell *port = bpf_map_lookup_elem(&cells, &own);
	struct cell *root = bpf_map_lookup_elem(&cells, &top);

	if (!port || !root)
		return 0;
	if (!closed(&port->tokens) && (take(&port->tokens) || take(&root->tokens)))
		return -1; /* all of it */
	__sync_fetch_and_add(&port->refused, 1);
	return 0;
}

char _license[] SEC("license") = "Dual BSD/GPL";
