/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* Which frames are the dataplane's. A frame to one of the director's MACs that belongs to a virtual service, or answers
 * for one, goes to the AF_XDP socket of its queue; everything else passes to the kernel untouched.
 *
 * A hit with no socket behind it is dropped and counted, never passed: the kernel owns the virtual address and would
 * reset a stranger's connection. One program instance with one set of maps serves all interfaces of a director. */
#include "parse.h"
#include "hints.h"

static ALWAYS_INLINE void count(struct counters *counters, __u32 verdict)
{
	/* The compiler knows its bounds and would leave out the mask, by which the verifier does. */
	asm volatile("" : "+r"(verdict));
	counters->of[verdict & 15] += 1;
}

static ALWAYS_INLINE __u32 transport_bit(__u8 protocol)
{
	if (protocol == IPPROTO_TCP)
		return TRANSPORT_TCP;
	if (protocol == IPPROTO_UDP)
		return TRANSPORT_UDP;
	return protocol == IPPROTO_SCTP ? TRANSPORT_SCTP : 0;
}

/* Whether a map of whole addresses has this one for this transport. */
static ALWAYS_INLINE int has_address(void *map, struct address *address, __u8 protocol)
{
	__u32 *transports = bpf_map_lookup_elem(map, address);

	return transports && (*transports & transport_bit(protocol));
}

static ALWAYS_INLINE int is_service_port(struct address *address, __be16 port, __u8 protocol)
{
	struct endpoint key = { .address = *address, .port = port, .protocol = protocol };

	return is_near(&hints.services, &key) ||
	       (may_have(&hints.service_ports, port) && bpf_map_lookup_elem(&services, &key));
}

static ALWAYS_INLINE int is_reply_port(struct address *address, __be16 port, __u8 protocol)
{
	struct endpoint key = { .address = *address, .port = port, .protocol = protocol };

	return is_near(&hints.replies, &key) ||
	       (may_have(&hints.reply_ports, port) && bpf_map_lookup_elem(&replies, &key));
}

static ALWAYS_INLINE int is_tunnel(struct packet *about)
{
	struct endpoint key = {
		.address = about->destination, .port = about->port.destination, .protocol = about->protocol
	};

	return bpf_map_lookup_elem(&tunnels, &key) != 0;
}

enum { WHOLE_PREFIX = 32 + 128 };

/* Whether a prefix holds this address and port. A later fragment has no port: the address suffices. */
static ALWAYS_INLINE int has_prefix(struct address *address, __be16 port, struct packet *packet)
{
	struct prefix key = { .length = WHOLE_PREFIX, .protocol = packet->protocol, .address = *address };
	__u32 *ports = is_used(USED_PREFIXES) ? bpf_map_lookup_elem(&prefixes, &key) : 0;
	__u16 host = NET16(port);

	return ports && (packet->later_fragment || (host >= *ports >> 16 && host <= (*ports & 0xffff)));
}

static ALWAYS_INLINE int is_service(struct address *address, __be16 port, struct packet *packet)
{
	if (packet->later_fragment)
		return has_address(&fragment_destinations, address, packet->protocol) ||
		       has_prefix(address, port, packet);
	return is_service_port(address, port, packet->protocol) ||
	       (is_used(USED_ADDRESSES) && has_address(&addresses, address, packet->protocol)) ||
	       has_prefix(address, port, packet);
}

static ALWAYS_INLINE int is_real_server(struct address *address, __be16 port, struct packet *packet)
{
	if (packet->later_fragment)
		return has_address(&fragment_sources, address, packet->protocol);
	return is_reply_port(address, port, packet->protocol) ||
	       (is_used(USED_REPLY_SOURCES) && has_address(&reply_sources, address, packet->protocol));
}

/* A later fragment has no port: it goes where the first would. */
static ALWAYS_INLINE int is_local(struct address *address, __be16 port, struct packet *packet)
{
	__u32 *range = is_used(USED_LOCALS) ? bpf_map_lookup_elem(&locals, address) : 0;

	if (!range)
		return 0;
	return packet->later_fragment || (NET16(port) >= *range >> 16 && NET16(port) <= (*range & 0xffff));
}

static ALWAYS_INLINE int is_own(struct address *address)
{
	return may_be_own(address) && bpf_map_lookup_elem(&own, address);
}

static ALWAYS_INLINE int same_address(struct address *a, struct address *b)
{
	return a->word[0] == b->word[0] && a->word[1] == b->word[1] && a->word[2] == b->word[2] &&
	       a->word[3] == b->word[3];
}

static ALWAYS_INLINE enum verdict steer_transport(struct packet *packet)
{
	if (!transport_bit(packet->protocol))
		return PASSED_MISS;
	if (is_service(&packet->destination, packet->port.destination, packet))
		return packet->later_fragment ? HIT_FRAGMENT : HIT_SERVICE;
	if (is_local(&packet->destination, packet->port.destination, packet))
		return packet->later_fragment ? HIT_FRAGMENT : HIT_REPLY;
	if (!is_real_server(&packet->source, packet->port.source, packet))
		return PASSED_MISS;
	if (is_own(&packet->destination))
		return PASSED_OWN;
	return packet->later_fragment ? HIT_FRAGMENT : HIT_REPLY;
}

/* Errors only (RFC 792, RFC 4443 section 2.1): unreachable, quench, time exceeded, parameter problem; too big. */
static ALWAYS_INLINE int is_error(__u8 version, __u8 type)
{
	if (version == 6)
		return type >= 1 && type <= 4;
	return type == 3 || type == 4 || type == 11 || type == 12;
}

/* An ICMP error goes to whom the packet in it came from. That packet is either a reply that a service sent (its source
 * is the virtual service: NAT's rewritten reply, or the real server's own under DR and TUN), or a request on its way
 * to a NAT real server (its destination is the real server, its source the client, whom only the director can tell
 * what happened) or to one of FULLNAT (its source is a local address). An error to one of the director's own addresses
 * about a real server concerns a health check, unless it is about an outer packet to a tunnel's end. */
static ALWAYS_INLINE enum verdict steer_icmp(struct xdp_md *ctx, struct packet *packet)
{
	__be16 type = packet->version == 6 ? NET16(ETH_P_IPV6) : NET16(ETH_P_IP);
	__u8 *icmp = packet->payload;
	void *end = (void *)(long)ctx->data_end;
	struct packet about;

	if ((void *)(icmp + 8) > end)
		return PASSED_MALFORMED;
	if (!is_error(packet->version, icmp[0]))
		return PASSED_MISS;
	if (parse_ip(ctx, icmp + 8, end, type, &about) != PARSED)
		return PASSED_MALFORMED;
	if (!same_address(&packet->destination, &about.source))
		return PASSED_MISS;
	if (is_tunnel(&about))
		return HIT_ICMP_ERROR;
	if (!transport_bit(about.protocol))
		return PASSED_MISS;
	if (is_service(&about.source, about.port.source, &about) || is_local(&about.source, about.port.source, &about))
		return HIT_ICMP_ERROR;
	if (!is_real_server(&about.destination, about.port.destination, &about))
		return PASSED_MISS;
	return is_own(&packet->destination) ? PASSED_OWN : HIT_ICMP_ERROR;
}

static ALWAYS_INLINE enum verdict steer(struct xdp_md *ctx)
{
	void *end = (void *)(long)ctx->data_end;
	struct ethhdr *ethernet = (void *)(long)ctx->data;
	struct packet packet;
	enum outcome outcome;
	__be16 type;
	void *at;

	if ((void *)(ethernet + 1) > end)
		return PASSED_MALFORMED;
	if (!is_ours(ethernet))
		return PASSED_NOT_OURS;
	at = skip_tags(ethernet, end, &type);
	if (!at)
		return PASSED_MALFORMED;
	outcome = parse_ip(ctx, at, end, type, &packet);
	if (outcome != PARSED)
		return outcome == NOT_IP ? PASSED_NOT_IP : PASSED_MALFORMED;
	if (packet.protocol == (packet.version == 6 ? NEXT_ICMPV6 : IPPROTO_ICMP) && !packet.later_fragment)
		return steer_icmp(ctx, &packet);
	return steer_transport(&packet);
}

/* To the socket of the frame's queue. What the redirection returns says whether there is one. */
static ALWAYS_INLINE int redirect(struct xdp_md *ctx, struct counters *counters)
{
	__u32 *base = base_of(ctx->ingress_ifindex);
	long action;

	if (base && (*base & PORT_STANDBY)) {
		count(counters, STANDBY);
		return XDP_DROP;
	}
	action = base ? bpf_redirect_map(&xsks, *base + ctx->rx_queue_index, XDP_DROP) : XDP_DROP;
	count(counters, action == XDP_REDIRECT ? REDIRECTED : NO_SOCKET);
	return action;
}

SEC("xdp") int sluice_steer(struct xdp_md *ctx)
{
	enum verdict verdict = steer(ctx);
	__u32 all = 0;
	struct counters *counters = bpf_map_lookup_elem(&counted, &all);

	if (!counters) /* never: the map has one entry */
		return XDP_ABORTED;
	count(counters, verdict);
	return verdict < HIT_SERVICE ? XDP_PASS : redirect(ctx, counters);
}

/* The kernel takes either licence; the XDP helpers used need no GPL, later ones may. */
char LICENSE[] SEC("license") = "Dual MIT/GPL";
