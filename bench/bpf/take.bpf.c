/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* The least that AF_XDP needs: frames of an interface to the socket of their queue. Steering's look-ups are not here
 * on purpose, so that a wire shows the limit and a sink slows the sender of a veth pair as little as can be.
 *
 * take_bare is all that libxdp's own program does; nobody attaches it, `sluice-bench steer` compares with it.
 * take_all takes every frame. take_ports takes TCP and UDP to a range of ports; the rest (ARP, ND, ping) stays with the
 * kernel. What is taken and has no socket is dropped and counted. */
#include "bpf.h"
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>

/* The ports that take_ports takes, in host order, both ends included. Written before the program is loaded. */
volatile const struct {
	__u16 first;
	__u16 last;
} taken_ports = { 0, 65535 };

struct {
	ATTRIBUTE(type, BPF_MAP_TYPE_XSKMAP);
	ATTRIBUTE(max_entries, 64);
	TYPE(key, __u32);
	TYPE(value, __u32);
} xsks SEC(".maps");

/* In the order of Taken in src/pktgen/link/take.rs. */
enum outcome { PASSED, TAKEN, NO_SOCKET, OUTCOMES };

struct {
	ATTRIBUTE(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	ATTRIBUTE(max_entries, OUTCOMES);
	TYPE(key, __u32);
	TYPE(value, __u64);
} outcomes SEC(".maps");

static ALWAYS_INLINE void count(enum outcome outcome)
{
	__u32 key = outcome;
	__u64 *counter = bpf_map_lookup_elem(&outcomes, &key);

	if (counter)
		*counter += 1;
}

static ALWAYS_INLINE int take(struct xdp_md *ctx)
{
	__u32 queue = ctx->rx_queue_index;

	if (!bpf_map_lookup_elem(&xsks, &queue)) {
		count(NO_SOCKET);
		return XDP_DROP;
	}
	count(TAKEN);
	return bpf_redirect_map(&xsks, queue, XDP_DROP);
}

/* Where the transport header begins; 0 for what has none that we look at: fragments, extension headers, tags. */
static ALWAYS_INLINE void *transport(struct ethhdr *ethernet, void *end)
{
	void *at = ethernet + 1;
	struct iphdr *v4 = at;
	struct ipv6hdr *v6 = at;

	if (at > end)
		return 0;
	if (ethernet->h_proto == NET16(ETH_P_IP)) {
		if ((void *)(v4 + 1) > end || (v4->frag_off & NET16(0x1fff)))
			return 0;
		return v4->protocol == IPPROTO_TCP || v4->protocol == IPPROTO_UDP ? at + v4->ihl * 4 : 0;
	}
	if (ethernet->h_proto != NET16(ETH_P_IPV6) || (void *)(v6 + 1) > end)
		return 0;
	return v6->nexthdr == IPPROTO_TCP || v6->nexthdr == IPPROTO_UDP ? (void *)(v6 + 1) : 0;
}

SEC("xdp") int take_bare(struct xdp_md *ctx)
{
	return bpf_redirect_map(&xsks, ctx->rx_queue_index, XDP_PASS);
}

SEC("xdp") int take_all(struct xdp_md *ctx)
{
	return take(ctx);
}

SEC("xdp") int take_ports(struct xdp_md *ctx)
{
	void *end = (void *)(long)ctx->data_end;
	__u16 *ports = transport((void *)(long)ctx->data, end);
	__u16 destination;

	if (!ports || (void *)(ports + 2) > end) {
		count(PASSED);
		return XDP_PASS;
	}
	destination = NET16(ports[1]);
	if (destination < taken_ports.first || destination > taken_ports.last) {
		count(PASSED);
		return XDP_PASS;
	}
	return take(ctx);
}

/* The kernel takes either licence; the XDP helpers used need no GPL, later ones may. */
char LICENSE[] SEC("license") = "Dual MIT/GPL";
