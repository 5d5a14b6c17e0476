/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* The maps of the steering program. Control fills them (src/steer/plan.rs holds the same layouts); capacities given
 * here are replaced at load. Hash maps take their elements as they come (NO_PREALLOC): a capacity costs nothing. */
#pragma once

#include "bpf.h"

/* IPv6, or IPv4 as ::ffff:a.b.c.d; network byte order. */
struct address {
	__u32 word[4];
};

struct endpoint {
	struct address address;
	__u16 port; /* network byte order */
	__u8 protocol;
	__u8 zero;
};

struct mac {
	__u8 octet[6];
	__u8 zero[2];
};

/* Bits of the values of maps whose key is a whole address. */
enum { TRANSPORT_TCP = 1, TRANSPORT_UDP = 2, TRANSPORT_SCTP = 4 };

#define HASH(map_name, key_type)                                  \
	struct {                                                  \
		ATTRIBUTE(type, BPF_MAP_TYPE_HASH);               \
		ATTRIBUTE(max_entries, 1024);                     \
		ATTRIBUTE(map_flags, BPF_F_NO_PREALLOC);          \
		TYPE(key, key_type);                              \
		TYPE(value, __u32);                               \
	} map_name SEC(".maps")

/* Destination MACs that are the director's. */
HASH(macs, struct mac);
/* The director's own addresses: what a real server sends there answers the director itself. */
HASH(own, struct address);
/* Virtual services by exact port, and those of every port (value: TRANSPORT_ bits). */
HASH(services, struct endpoint);
HASH(addresses, struct address);
/* Virtual services by prefix: of marks, whose rules name prefixes, and of ranges of addresses. The length counts the
 * transport's 32 bits. The value is the ports, the lowest in the upper half and the highest in the lower, of all entries
 * that hold this one. */
struct prefix {
	__u32 length;
	__u8 protocol;
	__u8 zero[3];
	struct address address;
};

struct {
	ATTRIBUTE(type, BPF_MAP_TYPE_LPM_TRIE);
	ATTRIBUTE(max_entries, 1024);
	ATTRIBUTE(map_flags, BPF_F_NO_PREALLOC);
	TYPE(key, struct prefix);
	TYPE(value, __u32);
} prefixes SEC(".maps");

/* NAT real servers by source port, and those of every port. */
HASH(replies, struct endpoint);
HASH(reply_sources, struct address);
/* Local addresses of FULLNAT: what comes to their ports (value: the lowest << 16 | the highest, host order) are replies. */
HASH(locals, struct address);
/* For fragments after the first, which have no ports: addresses of any service, of any NAT real server. */
HASH(fragment_destinations, struct address);
HASH(fragment_sources, struct address);
/* Ends of tunnels by the outer packet's protocol, and the UDP port of GUE; else port 0. */
HASH(tunnels, struct endpoint);
/* Interface index to the XSKMAP index of its queue 0; PORT_STANDBY where frames of services are dropped: a member of a
 * bond that waits gets copies of what another one has. */
enum { PORT_STANDBY = 1u << 31 };

HASH(ports, __u32);

struct {
	ATTRIBUTE(type, BPF_MAP_TYPE_XSKMAP);
	ATTRIBUTE(max_entries, 64);
	TYPE(key, __u32);
	TYPE(value, __u32);
} xsks SEC(".maps");

/* In the order of Verdict in src/steer/verdict.rs. */
enum verdict {
	PASSED_NOT_OURS,
	PASSED_NOT_IP,
	PASSED_MALFORMED,
	PASSED_OWN,
	PASSED_MISS,
	HIT_SERVICE,
	HIT_REPLY,
	HIT_FRAGMENT,
	HIT_ICMP_ERROR,
	REDIRECTED,
	NO_SOCKET,
	STANDBY,
	VERDICTS,
};

struct counters {
	__u64 of[16]; /* by verdict; a power of two, so that a mask bounds the index */
};

struct {
	ATTRIBUTE(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	ATTRIBUTE(max_entries, 1);
	TYPE(key, __u32);
	TYPE(value, struct counters);
} counted SEC(".maps");
