// SPDX-License-Identifier: Apache-2.0
//
// A program alone, in the section SECTION: compiled once for each row of libbpf's table.
#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

SEC(SECTION)
int program(void *ctx)
{
    return RESULT;
}

char _license[] SEC("license") = "GPL";
