"""The examples in the man pages; a test parses each, and runs those that change nothing."""

# By a command's or the program's name: a sentence for each example, and its lines, indented.
EXAMPLES = {
    "oci-bpf-hook": """
Start a container that may load XDP programs, if the policy allows it:

    podman run --userns=auto --cap-add BPF,NET_ADMIN --annotation io.bpffs.profile=xdp IMAGE

Ask what the hook would do with that request:

    oci-bpf-hook explain --annotation io.bpffs.profile=xdp

Find out why BPF doesn't work in a container:

    oci-bpf-hook doctor --container NAME
""",
    "advise": """
Say what a compiled object needs:

    oci-bpf-hook advise prog.bpf.o

Start a container with exactly that:

    podman run $(oci-bpf-hook advise --format annotations prog.bpf.o) --userns=auto IMAGE

Print a profile for the policy:

    oci-bpf-hook advise --format policy --name counters prog.bpf.o

Print a Kubernetes manifest for two objects that cilium/ebpf loads:

    oci-bpf-hook advise --loader cilium --format kubernetes a.o b.o
""",
    "broker": """
Have systemd start the broker when the first hook asks:

    systemctl enable --now oci-bpf-hook-broker.socket

Listen on another socket, for one group alone:

    oci-bpf-hook broker --socket /run/bpf.sock --mode 0660 --group bpf
""",
    "cdi": """
Make the devices, see what each one grants, and use one:

    oci-bpf-hook cdi generate
    oci-bpf-hook cdi list
    podman run --userns=auto --device bpffs.io/profile=xdp IMAGE
""",
    "check": """
Find a misspelt name:

    oci-bpf-hook check --annotation io.bpffs.delegate_cmds=prog_lod

Check a pod for Linux 6.12, as CRI-O would run it:

    oci-bpf-hook check --kernel 6.12 --engine cri-o --file pod.yaml

Check a request against a new policy before it is put in force:

    oci-bpf-hook check --policy policy.yaml --annotation io.bpffs.profile=xdp
""",
    "convert": """
Print the podman options for what an Incus instance is delegated:

    incus config show web | oci-bpf-hook convert --from incus --to podman

Print the drop-in for a systemd service with the same delegation as a pod:

    oci-bpf-hook convert --from kubernetes --to systemd pod.yaml
""",
    "delegate": """
Give a running container a profile of the policy:

    oci-bpf-hook delegate --container NAME --profile xdp

Show what a process's container would get:

    oci-bpf-hook delegate --pid 4242 --dry-run --cmds map_create --maps array

Let the container make no more tokens:

    oci-bpf-hook delegate --container NAME --revoke
""",
    "doctor": """
Check the host:

    oci-bpf-hook doctor

Check whether a container can load an object:

    oci-bpf-hook doctor --container NAME --object prog.bpf.o
""",
    "explain": """
Show what the hook would do:

    oci-bpf-hook explain --annotation io.bpffs.profile=xdp

Replay the state of a container whose bundle is gone:

    oci-bpf-hook explain --state state.json --config config.json
""",
    "guard": """
Load the guard now and at each boot:

    systemctl enable --now oci-bpf-hook-guard.service

See whether it is in force, and what it has refused:

    oci-bpf-hook guard status
""",
    "help": """
Show the help of a command:

    oci-bpf-hook help check

Show the help of a subcommand:

    oci-bpf-hook help policy test
""",
    "hook": """
Run the hook on a state that was saved, with CRI-O's rules:

    oci-bpf-hook hook --engine cri-o < state.json
""",
    "inject": """
Let the container of a bundle use XDP programs, and undo that:

    oci-bpf-hook inject --annotation io.bpffs.profile=xdp --capabilities --seccomp BUNDLE
    oci-bpf-hook inject --undo BUNDLE
""",
    "inspect": """
List all containers that have a delegation:

    oci-bpf-hook inspect

Show changes, looking every five seconds:

    oci-bpf-hook inspect --watch 5

Write a page for a security review:

    oci-bpf-hook inspect --html delegations.html
""",
    "install": """
Show each step, and do nothing:

    oci-bpf-hook install --dry-run

Register the hook for CRI-O's rules:

    oci-bpf-hook install --engine cri-o

Install into a directory that becomes a package:

    oci-bpf-hook install --destdir /tmp/package
""",
    "kernel": """
Show what this kernel can delegate:

    oci-bpf-hook kernel

Show the names that only this kernel or only 6.12 has:

    oci-bpf-hook kernel --diff 6.12

Show which names two releases don't share, on any host:

    oci-bpf-hook kernel --kernel 6.12 --diff 6.18
""",
    "lint": """
Find out why a request for kprobes is doubtful:

    oci-bpf-hook lint --annotation io.bpffs.delegate_progs=kprobe

Say also what the containers of a pod lack:

    oci-bpf-hook lint --file pod.yaml
""",
    "nri": """
Run the plugin by hand, to see its log:

    oci-bpf-hook nri

Run after all other plugins, and connect to another socket:

    oci-bpf-hook nri --idx 99 --socket /run/nri/nri.sock
""",
    "policy": """
Write a policy to begin with, and check it:

    oci-bpf-hook policy show > policy.yaml
    oci-bpf-hook policy check policy.yaml

Try a request of a container that shares the host's network:

    oci-bpf-hook policy test --annotation io.bpffs.profile=xdp --attr host_network=true
""",
    "record": """
Learn what a program needs, and verify each bit:

    oci-bpf-hook record --verify -- ./my-agent --once

Save a recording, and print it as a profile for the policy:

    oci-bpf-hook record --save run.json -- ./my-agent
    oci-bpf-hook record --from run.json --format policy

Record a container of podman's:

    oci-bpf-hook record --container -- --userns=auto --cap-add=BPF,NET_ADMIN IMAGE
""",
    "seccomp": """
Write the profile for one container:

    oci-bpf-hook seccomp --output bpf.json
    podman run --security-opt seccomp=bpf.json IMAGE

Make it the default of podman and CRI-O:

    oci-bpf-hook seccomp --output /etc/containers/seccomp.json
""",
    "uninstall": """
Show each step, and do nothing:

    oci-bpf-hook uninstall --dry-run
""",
}
POLICY = """\
version: 1
engine: cri-o
profiles:
  counters:
    delegate_cmds: [map_create, prog_load, btf_load]
    delegate_maps: [array, percpu_array]
    delegate_progs: [socket_filter, xdp]
    delegate_attachs: [cgroup_inet_ingress]
rules:
  - name: monitoring
    match: {namespace: monitoring, image: "registry.example/agent*"}
    allow: {profiles: [counters], paths: [/sys/fs/bpf]}
  - name: nobody-else
    deny: ask the platform team"""
