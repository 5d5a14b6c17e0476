/* Drops every frame: the end of a line that costs least. The interface counts them. */
#define SEC(name) __attribute__((section(name), used))

SEC("xdp") int drop(void *context)
{
	(void)context;
	return 1; /* XDP_DROP */
}

char _license[] SEC("license") = "Dual MIT/GPL";
