/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* From an Ethernet frame to addresses and ports. Every loop is bounded and every read follows a check against the
 * frame's end, as the verifier demands. A frame that does not parse is passed: the kernel drops it with a counter. */
#pragma once

#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>

#include "maps.h"

enum {
	MAX_TAGS = 2,
	MAX_EXTENSIONS = 8,
	NEXT_HOP_BY_HOP = 0,
	NEXT_ROUTING = 43,
	NEXT_FRAGMENT = 44,
	NEXT_AUTHENTICATION = 51,
	NEXT_DESTINATION = 60,
	NEXT_ICMPV6 = 58,
	FRAGMENT_OFFSET_V4 = 0x1fff,
	FRAGMENT_OFFSET_V6 = 0xfff8,
	WALK_LATER_FRAGMENT = 1 << 24,
	MAX_OFFSET = 0x3fff, /* of a header in the frame, in bytes; a mask for the verifier */
};

enum outcome { PARSED, NOT_IP, MALFORMED };

struct vlan {
	__be16 tag;
	__be16 type;
};

struct extension {
	__u8 next;
	__u8 length; /* in 8 octets after the first 8; AH: in 4 octets less 2 */
	__be16 offset; /* of a fragment header: 13 bits of offset, 2 reserved, M */
};

struct ports_of {
	__be16 source;
	__be16 destination;
};

struct packet {
	struct address source;
	struct address destination;
	void *payload;
	struct ports_of port;
	__u8 protocol;
	__u8 version;
	__u8 later_fragment;
};

static ALWAYS_INLINE void map_v4(struct address *to, __be32 address)
{
	to->word[0] = 0;
	to->word[1] = 0;
	to->word[2] = (__u32)NET16(0xffff) << 16;
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
	to->word[2] = 0xffff;
#endif
	to->word[3] = address;
}

/* An IPv6 address in the form in which the maps hold IPv4 ones. None is valid on the wire (RFC 6890). */
static ALWAYS_INLINE int is_mapped(struct address *address)
{
	struct address v4;

	map_v4(&v4, 0);
	return address->word[0] == v4.word[0] && address->word[1] == v4.word[1] && address->word[2] == v4.word[2];
}

static ALWAYS_INLINE enum outcome parse_v4(void *at, void *end, struct packet *packet)
{
	struct iphdr *ip = at;

	if ((void *)(ip + 1) > end || ip->version != 4 || ip->ihl < 5)
		return MALFORMED;
	map_v4(&packet->source, ip->saddr);
	map_v4(&packet->destination, ip->daddr);
	packet->version = 4;
	packet->protocol = ip->protocol;
	packet->later_fragment = (ip->frag_off & NET16(FRAGMENT_OFFSET_V4)) != 0;
	packet->payload = at + ip->ihl * 4;
	return PARSED;
}

/* RFC 8200 section 4: walks to the transport header; a later fragment ends the walk, for what follows is data. Gives
 * WALK_LATER_FRAGMENT, the header's type in 8 bits and its offset in the frame in 16, or -1.
 *
 * A global function of numbers only, so that the verifier checks it once, for all callers, and the packet pointers of
 * its iterations do not multiply the states of everything after it. */
__attribute__((noinline)) int walk_extensions(struct xdp_md *ctx, __u32 offset, __u32 next)
{
	void *data = (void *)(long)ctx->data;
	void *end = (void *)(long)ctx->data_end;

	for (int i = 0; i <= MAX_EXTENSIONS; i++) {
		struct extension *header;

		if (offset > MAX_OFFSET)
			return -1;
		if (next != NEXT_HOP_BY_HOP && next != NEXT_ROUTING && next != NEXT_FRAGMENT &&
		    next != NEXT_AUTHENTICATION && next != NEXT_DESTINATION)
			return next << 16 | offset;
		header = data + offset;
		if ((void *)(header + 1) > end)
			return -1;
		if (next == NEXT_FRAGMENT) {
			offset += 8;
			if (header->offset & NET16(FRAGMENT_OFFSET_V6))
				return WALK_LATER_FRAGMENT | header->next << 16 | offset;
		} else if (next == NEXT_AUTHENTICATION) {
			offset += ((__u32)header->length + 2) * 4;
		} else {
			offset += ((__u32)header->length + 1) * 8;
		}
		next = header->next;
	}
	return -1;
}

static ALWAYS_INLINE enum outcome parse_v6(struct xdp_md *ctx, void *at, void *end, struct packet *packet)
{
	void *data = (void *)(long)ctx->data;
	struct ipv6hdr *ip = at;
	int walked;

	if ((void *)(ip + 1) > end || ip->version != 6)
		return MALFORMED;
	__builtin_memcpy(&packet->source, &ip->saddr, sizeof(packet->source));
	__builtin_memcpy(&packet->destination, &ip->daddr, sizeof(packet->destination));
	if (is_mapped(&packet->source) || is_mapped(&packet->destination))
		return MALFORMED;
	packet->version = 6;
	walked = walk_extensions(ctx, at - data + sizeof(*ip), ip->nexthdr);
	if (walked < 0)
		return MALFORMED;
	packet->protocol = walked >> 16 & 0xff;
	packet->later_fragment = (walked & WALK_LATER_FRAGMENT) != 0;
	packet->payload = data + (walked & MAX_OFFSET);
	return PARSED;
}

/* The IP packet at `at`, and its ports where it is TCP, UDP or SCTP and has them. */
static ALWAYS_INLINE enum outcome parse_ip(struct xdp_md *ctx, void *at, void *end, __be16 type, struct packet *packet)
{
	enum outcome outcome;
	struct ports_of *ports;

	if (type == NET16(ETH_P_IP))
		outcome = parse_v4(at, end, packet);
	else if (type == NET16(ETH_P_IPV6))
		outcome = parse_v6(ctx, at, end, packet);
	else
		return NOT_IP;
	if (outcome != PARSED)
		return outcome;
	packet->port.source = 0;
	packet->port.destination = 0;
	if (packet->later_fragment || (packet->protocol != IPPROTO_TCP && packet->protocol != IPPROTO_UDP &&
				       packet->protocol != IPPROTO_SCTP))
		return PARSED;
	ports = packet->payload;
	if ((void *)(ports + 1) > end)
		return MALFORMED;
	packet->port = *ports;
	return PARSED;
}

/* The first header after the Ethernet header and up to two VLAN tags (802.1Q, 802.1ad); its type in `type`. */
static ALWAYS_INLINE void *skip_tags(struct ethhdr *ethernet, void *end, __be16 *type)
{
	void *at = ethernet + 1;

	*type = ethernet->h_proto;
	for (int i = 0; i < MAX_TAGS; i++) {
		struct vlan *vlan = at;

		if (*type != NET16(ETH_P_8021Q) && *type != NET16(ETH_P_8021AD))
			break;
		if ((void *)(vlan + 1) > end)
			return 0;
		*type = vlan->type;
		at = vlan + 1;
	}
	return at;
}
