/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* The three helpers and four macros that steer.bpf.c needs, so that clang and the kernel's own headers suffice to
 * build it: no libbpf headers, no vmlinux.h. Helper numbers are those of enum bpf_func_id in linux/bpf.h. */
#pragma once

#include <linux/bpf.h>

#define SEC(name) __attribute__((section(name), used))
#define ALWAYS_INLINE inline __attribute__((always_inline))

/* Map attributes as libbpf reads them from BTF: a number is an array's length, a type is a pointer's target. */
#define ATTRIBUTE(name, value) int(*name)[value]
#define TYPE(name, type) type *name

static void *(*const bpf_map_lookup_elem)(void *map, const void *key) = (void *)BPF_FUNC_map_lookup_elem;
static long (*const bpf_redirect_map)(void *map, __u64 key, __u64 flags) = (void *)BPF_FUNC_redirect_map;

#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define NET16(x) ((__u16)__builtin_bswap16((__u16)(x)))
#else
#define NET16(x) ((__u16)(x))
#endif
