/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The maps. Sizes marked "set by user space" are placeholders. */
#pragma once

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "viaduct.h"

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct settings);
} config SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1024); /* set by user space */
	__type(key, struct flow_key);
	__type(value, struct flow);
} flows SEC(".maps");

/* number -> step; those of one flow have consecutive numbers, which are not used again */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1024); /* set by user space */
	__type(key, __u64);
	__type(value, struct wide_step);
} wide_steps SEC(".maps");

/* ifindex -> port number */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024); /* set by user space */
	__type(key, __u32);
	__type(value, __u32);
} interfaces SEC(".maps");

/* slot (port number modulo the number of slots) -> port */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1024); /* set by user space */
	__type(key, __u32);
	__type(value, struct port);
} ports SEC(".maps");

/* slot -> tokens; slot 0 is the root's cell. User space maps it into its memory. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1024); /* set by user space */
	__type(key, __u32);
	__type(value, __s64);
} credits SEC(".maps");

/* slot -> counters; slot 0: frames from interfaces that are no ports */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1024); /* set by user space */
	__type(key, __u32);
	__type(value, struct port_stats);
} stats SEC(".maps");

/* slot * RATES + direction -> its limit */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 2048); /* set by user space */
	__type(key, __u32);
	__type(value, struct rate);
} rates SEC(".maps");

struct ring {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 20);
};

#define MAX_WORKERS 64

/* worker -> its ring; user space makes the rings */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, MAX_WORKERS);
	__type(key, __u32);
	__array(values, struct ring);
} rings SEC(".maps");

/* tunnel key -> number of the port that packets with it are for; the tunnel's own: they miss */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024); /* set by user space */
	__type(key, __u32);
	__type(value, __u32);
} tunnel_keys SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, EXEC_TUNNELS);
	__type(key, __u32);
	__type(value, struct exec_tunnel);
} exec_tunnels SEC(".maps");

/* Number of slots less 1. */
const volatile __u32 slot_mask = 1023;

static __always_inline void *slot_of(void *map, __u32 no)
{
	__u32 slot = no & slot_mask;

	return bpf_map_lookup_elem(map, &slot);
}

static __always_inline void count_drop(__u32 no, enum drop_reason why)
{
	struct port_stats *st = slot_of(&stats, no);

	if (st && why < DROP_REASONS)
		st->drops[why]++;
}
