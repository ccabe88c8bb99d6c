// SPDX-License-Identifier: Apache-2.0
//
// Profile cgroup-network: load balancing at the socket. A connection or datagram to a service's
// address goes to one of its backends, and what comes back seems to come from the service.
#include <linux/bpf.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

struct endpoint {
    __u32 ip[4];
    __u32 port;
};

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __type(key, struct endpoint);
    __type(value, struct endpoint);
    __uint(max_entries, 64);
} backends SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_LRU_HASH);
    __type(key, __u64);  // The socket's cookie.
    __type(value, struct endpoint);
    __uint(max_entries, 1024);
} services SEC(".maps");

__u64 translated;  // .bss

static __always_inline void endpoint4(struct bpf_sock_addr *ctx, struct endpoint *end)
{
    end->ip[0] = ctx->user_ip4;
    end->port = ctx->user_port;
}

static __always_inline void endpoint6(struct bpf_sock_addr *ctx, struct endpoint *end)
{
    end->ip[0] = ctx->user_ip6[0];
    end->ip[1] = ctx->user_ip6[1];
    end->ip[2] = ctx->user_ip6[2];
    end->ip[3] = ctx->user_ip6[3];
    end->port = ctx->user_port;
}

static __always_inline void set4(struct bpf_sock_addr *ctx, const struct endpoint *end)
{
    ctx->user_ip4 = end->ip[0];
    ctx->user_port = end->port;
}

static __always_inline void set6(struct bpf_sock_addr *ctx, const struct endpoint *end)
{
    ctx->user_ip6[0] = end->ip[0];
    ctx->user_ip6[1] = end->ip[1];
    ctx->user_ip6[2] = end->ip[2];
    ctx->user_ip6[3] = end->ip[3];
    ctx->user_port = end->port;
}

static __always_inline struct endpoint *backend(void *ctx, const struct endpoint *service)
{
    struct endpoint *found = bpf_map_lookup_elem(&backends, service);
    __u64 cookie = bpf_get_socket_cookie(ctx);

    if (found) {
        bpf_map_update_elem(&services, &cookie, service, BPF_ANY);
        __sync_fetch_and_add(&translated, 1);
    }
    return found;
}

static __always_inline struct endpoint *service(void *ctx)
{
    __u64 cookie = bpf_get_socket_cookie(ctx);

    return bpf_map_lookup_elem(&services, &cookie);
}

#define TO_BACKEND(hook, family)                    \
    SEC("cgroup/" #hook #family)                    \
    int hook##family(struct bpf_sock_addr *ctx)     \
    {                                               \
        struct endpoint end = {}, *to;              \
                                                    \
        endpoint##family(ctx, &end);                \
        to = backend(ctx, &end);                    \
        if (to)                                     \
            set##family(ctx, to);                   \
        return 1;                                   \
    }

#define FROM_SERVICE(hook, family)                  \
    SEC("cgroup/" #hook #family)                    \
    int hook##family(struct bpf_sock_addr *ctx)     \
    {                                               \
        struct endpoint *from = service(ctx);       \
                                                    \
        if (from)                                   \
            set##family(ctx, from);                 \
        return 1;                                   \
    }

// A server's bind goes to its own address, whatever it asks for.
#define TO_OWN(family)                              \
    SEC("cgroup/bind" #family)                      \
    int bind##family(struct bpf_sock_addr *ctx)     \
    {                                               \
        struct endpoint end = {}, *to;              \
                                                    \
        endpoint##family(ctx, &end);                \
        to = bpf_map_lookup_elem(&backends, &end);  \
        if (to)                                     \
            set##family(ctx, to);                   \
        return 1;                                   \
    }

TO_OWN(4)
TO_OWN(6)
TO_BACKEND(connect, 4)
TO_BACKEND(connect, 6)
TO_BACKEND(sendmsg, 4)
TO_BACKEND(sendmsg, 6)
FROM_SERVICE(recvmsg, 4)
FROM_SERVICE(recvmsg, 6)
FROM_SERVICE(getpeername, 4)
FROM_SERVICE(getpeername, 6)

char _license[] SEC("license") = "GPL";
