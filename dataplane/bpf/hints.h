/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* What saves look-ups: one in a hash map costs some 20 ns, these a load each. They say that a map need not be asked, or
 * hold what it would answer. Control writes them (src/steer/hints.rs has the same layout) after it added entries and
 * before it removes any, so that they never claim more than the maps. */
#pragma once

#include "maps.h"

/* Bits of maps that have entries, in the order of Table in src/steer/plan.rs; USED_MACS where some are in the map only. */
enum used {
	USED_OWN,
	USED_MACS,
	USED_SERVICES,
	USED_ADDRESSES,
	USED_REPLIES,
	USED_REPLY_SOURCES,
	USED_FRAGMENT_DESTINATIONS,
	USED_FRAGMENT_SOURCES,
	USED_TUNNELS,
	USED_PREFIXES,
	USED_LOCALS,
};

/* Which of the lowest ten bits of a port, or of an address, any entry of a map has. */
struct sieve {
	__u64 bits[16];
};

/* An interface that the program is on, and its value in the map `ports`. */
struct door {
	__u32 interface;
	__u32 base;
};

enum { NEAR_MACS = 8, NEAR_ENDPOINTS = 256, DOORS = 64 };

/* Entries of a map of endpoints, each at its place or nowhere; unused: zeroes. */
struct near {
	struct endpoint at[NEAR_ENDPOINTS];
};

struct {
	__u32 used; /* one bit for each of enum used */
	__u32 zero;
	__u64 macs[NEAR_MACS]; /* as a frame begins with them, then two bytes of zero; unused: all ones */
	struct sieve service_ports;
	struct sieve reply_ports;
	struct sieve own_addresses;
	struct near services;
	struct near replies;
	struct door doors[DOORS]; /* at its index modulo their number, or nowhere */
} hints;

static ALWAYS_INLINE int is_used(enum used map)
{
	return hints.used >> map & 1;
}

static ALWAYS_INLINE int may_have(struct sieve *sieve, __be16 key)
{
	__u16 host = NET16(key);

	return sieve->bits[host >> 6 & 15] >> (host & 63) & 1;
}

/* Whether an endpoint is one of these; if not, its map may have it. */
static ALWAYS_INLINE int is_near(struct near *near, struct endpoint *key)
{
	__u32 *b = (__u32 *)key;
	/* What differs most, spread by the golden ratio; the upper bits are the best. */
	__u32 place = (b[0] ^ b[3] ^ b[4]) * 0x9e3779b1 >> 24;
	__u32 *a = (__u32 *)&near->at[place % NEAR_ENDPOINTS];

	return ((a[0] ^ b[0]) | (a[1] ^ b[1]) | (a[2] ^ b[2]) | (a[3] ^ b[3]) | (a[4] ^ b[4])) == 0;
}

/* Whether an address may be the director's own: by its last bits. */
static ALWAYS_INLINE int may_be_own(struct address *address)
{
	return may_have(&hints.own_addresses, ((__be16 *)address)[7]);
}

/* Whether a frame's destination is a MAC of the director's. In 16 bits each: a frame is aligned to no more. */
static ALWAYS_INLINE int is_ours(struct ethhdr *ethernet)
{
	struct mac mac = {};
	__u64 whole;

	for (int i = 0; i < 3; i++)
		((__u16 *)&mac)[i] = ((__u16 *)ethernet)[i];
	__builtin_memcpy(&whole, &mac, sizeof(whole));
#pragma unroll
	for (int i = 0; i < NEAR_MACS; i++) {
		if (hints.macs[i] == whole)
			return 1;
	}
	return is_used(USED_MACS) && bpf_map_lookup_elem(&macs, &mac);
}

/* The interface's value in the map `ports`, or a null pointer. */
static ALWAYS_INLINE __u32 *base_of(__u32 interface)
{
	struct door *door = &hints.doors[interface % DOORS];

	return door->interface == interface ? &door->base : bpf_map_lookup_elem(&ports, &interface);
}
