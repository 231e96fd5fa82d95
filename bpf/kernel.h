/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* What the program needs of the kernel's interface (include/uapi/linux/bpf.h), and nothing else: no header of the system is
 * needed to build it. */
#pragma once

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#define SECTION(name) __attribute__((section(name), used))
#define NOINLINE __attribute__((noinline))
#define INLINE static inline __attribute__((always_inline))

/* Maps are described by types (BTF). */
#define UINT(name, value) int (*name)[value]
#define TYPE(name, type) type *name

enum map_type {
	MAP_HASH = 1,
	MAP_ARRAY = 2,
	MAP_PERCPU_ARRAY = 6,
};

enum {
	/* Memory for an entry is taken when it comes. */
	MAP_NO_PREALLOC = 1,
};

/* Verdicts of a classifier, for tcx and for clsact. */
enum {
	/* Whoever comes behind us decides. */
	PASS = -1,
	DROP = 2,
};

enum {
	/* Offsets count from the header of IP, or of a VLAN's tag before it. */
	FROM_NETWORK_HEADER = 1,
};

enum packet_type {
	/* On its way to another host: it is seen because somebody listens to all, or the bridge knows no better. */
	PACKET_OTHERHOST = 3,
};

/* The beginning of struct __sk_buff; `other` is of no interest. */
struct packet {
	u32 len;
	u32 pkt_type;
	u32 mark;
	u32 queue_mapping;
	/* Of what the network header is one, in network byte order. */
	u32 protocol;
	u32 other[39];
	/* Of one part of what was put together, in bytes; zero if nothing was. */
	u32 gso_size;
};

_Static_assert(__builtin_offsetof(struct packet, gso_size) == 176, "as the kernel has it");

static void *(*const map_lookup)(const void *map, const void *key) = (void *)1;
static long (*const pull_data)(struct packet *packet, u32 len) = (void *)39;
static long (*const load_relative)(const struct packet *packet, u32 offset, void *to, u32 len, u32 from) = (void *)68;
/* Linux 5.8: nanoseconds since boot, with those asleep. */
static u64 (*const boot_clock)(void) = (void *)125;
/* Linux 5.17. */
static long (*const loop)(u32 count, void *step, void *context, u64 flags) = (void *)181;

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "words of text are compared as little-endian machines load them"
#endif

#define BIG_ENDIAN_16(x) ((u16)((((x)&0xff) << 8) | (((x) >> 8) & 0xff)))

/* The compiler knows no more of x than the kernel's verifier does. */
#define OPAQUE(x) asm volatile("" : "+r"(x))
