// SPDX-License-Identifier: Apache-2.0
//
// A map alone, of the type TYPE: compiled once for each there is.
#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

struct prefix {
    __u32 length, address;
};

struct frames {
    __u64 address[127];
};

struct {
    __uint(type, TYPE);
    __uint(max_entries, ENTRIES);
#ifdef FLAGS
    __uint(map_flags, FLAGS);
#endif
#ifdef KEY
    __type(key, KEY);
#endif
#ifdef VALUE
    __type(value, VALUE);
#endif
#ifdef INNER
    __array(values, struct {
        __uint(type, INNER);
        __uint(max_entries, 4096);
#ifdef INNER_KEY
        __type(key, INNER_KEY);
        __type(value, __u64);
#endif
    });
#endif
} map SEC(".maps");

char _license[] SEC("license") = "GPL";
