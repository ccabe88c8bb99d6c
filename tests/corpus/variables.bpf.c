// SPDX-License-Identifier: Apache-2.0
//
// Every kind of section with variables, one of which, for strings, no type describes.
#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

int data = 1;
int more_data SEC(".data.more") = 2;
const volatile int rodata = 3;
const volatile int more_rodata SEC(".rodata.more") = 4;
int bss;
int more_bss SEC(".bss.more");

SEC("socket")
int variables(struct __sk_buff *skb)
{
    char text[16] = "";

    bss += data + more_data + rodata + more_rodata;
    more_bss = skb->len;
    return bpf_strncmp(text, sizeof(text), "a string of its own") + bss;
}

char _license[] SEC("license") = "GPL";
