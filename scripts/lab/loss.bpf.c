/* Drops one frame of a hundred, as a bad line does. The lab's test compiles it. */
#define SEC(name) __attribute__((section(name), used))

static unsigned int (*const random32)(void) = (void *)7; /* bpf_get_prandom_u32 */

SEC("xdp") int loss(void *context)
{
	return random32() % 100 == 0 ? 1 /* XDP_DROP */ : 2 /* XDP_PASS */;
}

char _license[] SEC("license") = "Dual MIT/GPL";
