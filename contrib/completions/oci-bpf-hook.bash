# Made by contrib/generate-docs from the table of commands.
_oci_bpf_hook_words() {
    mapfile -t COMPREPLY < <(compgen -W "$1" -- "$cur")
}
_oci_bpf_hook_paths() {
    compopt -o filenames 2>/dev/null
    mapfile -t COMPREPLY < <(compgen "$1" -- "$cur")
}
_oci_bpf_hook_keys() {
    compopt -o nospace 2>/dev/null
    _oci_bpf_hook_words "$1"
}
_oci_bpf_hook() {
    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]}
    local at=1 path='' word
    COMPREPLY=()
    # The command has two words if the first one has subcommands.
    while [ "$at" -lt "$COMP_CWORD" ]; do
        word=${COMP_WORDS[at]}
        at=$((at + 1))
        case $word in -*) continue ;; esac
        path=${path:+$path }$word
        case $path in ''|'cdi'|'guard'|'policy') ;; *) break ;; esac
    done
    case $path in
    'ps') path='inspect' ;;
    esac
    # The value of an option; for bash = and : are words of their own.
    case "$path $prev" in
    'advise --format') _oci_bpf_hook_words 'text annotations json policy quadlet kubernetes incus systemd'; return ;;
    'advise --loader') _oci_bpf_hook_words 'libbpf cilium aya'; return ;;
    'advise --libbpf') _oci_bpf_hook_words '1.4 1.5 1.6 1.7 1.8'; return ;;
    'advise --only') :; return ;;
    'advise --skip') :; return ;;
    'advise --btf') _oci_bpf_hook_paths -f; return ;;
    'advise --with') _oci_bpf_hook_paths -f; return ;;
    'advise --name') :; return ;;
    'broker --socket') _oci_bpf_hook_paths -f; return ;;
    'broker --mode') :; return ;;
    'broker --group') :; return ;;
    'broker --idle') :; return ;;
    'broker --workers') :; return ;;
    'broker --rate') :; return ;;
    'broker --header') _oci_bpf_hook_paths -f; return ;;
    'cdi generate --profile') :; return ;;
    'cdi generate --output') _oci_bpf_hook_paths -d; return ;;
    'cdi generate --path') _oci_bpf_hook_paths -d; return ;;
    'cdi generate --hook') _oci_bpf_hook_paths -f; return ;;
    'cdi generate --engine') _oci_bpf_hook_words 'cri-o containerd podman docker'; return ;;
    'cdi generate --policy') _oci_bpf_hook_paths -f; return ;;
    'cdi list --policy') _oci_bpf_hook_paths -f; return ;;
    'cdi check --policy') _oci_bpf_hook_paths -f; return ;;
    'cdi remove --hook') _oci_bpf_hook_paths -f; return ;;
    'check --annotation') _oci_bpf_hook_keys 'io.bpffs.delegate_cmds= io.bpffs.delegate_maps= io.bpffs.delegate_progs= io.bpffs.delegate_attachs= io.bpffs.profile= io.bpffs.record= io.bpffs.shim= io.bpffs.path= io.bpffs.mode= io.bpffs.on_unknown='; return ;;
    'check --state') _oci_bpf_hook_paths -f; return ;;
    'check --file') _oci_bpf_hook_paths -f; return ;;
    'check --kernel') :; return ;;
    'check --header') _oci_bpf_hook_paths -f; return ;;
    'check --btf') _oci_bpf_hook_paths -f; return ;;
    'check --policy') _oci_bpf_hook_paths -f; return ;;
    'check --engine') _oci_bpf_hook_words 'cri-o containerd podman docker'; return ;;
    'check --attr') :; return ;;
    'convert --from') _oci_bpf_hook_words 'annotations incus kubernetes lxd podman quadlet systemd'; return ;;
    'convert --to') _oci_bpf_hook_words 'annotations incus kubernetes lxd podman quadlet systemd'; return ;;
    'delegate --container') :; return ;;
    'delegate --pid') :; return ;;
    'delegate --profile') :; return ;;
    'delegate --cmds') :; return ;;
    'delegate --maps') :; return ;;
    'delegate --progs') :; return ;;
    'delegate --attachs') :; return ;;
    'delegate --path') _oci_bpf_hook_paths -f; return ;;
    'doctor --container') :; return ;;
    'doctor --pid') :; return ;;
    'doctor --object') _oci_bpf_hook_paths -f; return ;;
    'explain --annotation') _oci_bpf_hook_keys 'io.bpffs.delegate_cmds= io.bpffs.delegate_maps= io.bpffs.delegate_progs= io.bpffs.delegate_attachs= io.bpffs.profile= io.bpffs.record= io.bpffs.shim= io.bpffs.path= io.bpffs.mode= io.bpffs.on_unknown='; return ;;
    'explain --state') _oci_bpf_hook_paths -f; return ;;
    'explain --file') _oci_bpf_hook_paths -f; return ;;
    'explain --kernel') :; return ;;
    'explain --header') _oci_bpf_hook_paths -f; return ;;
    'explain --btf') _oci_bpf_hook_paths -f; return ;;
    'explain --policy') _oci_bpf_hook_paths -f; return ;;
    'explain --engine') _oci_bpf_hook_words 'cri-o containerd podman docker'; return ;;
    'explain --attr') :; return ;;
    'explain --config') _oci_bpf_hook_paths -f; return ;;
    'hook --header') _oci_bpf_hook_paths -f; return ;;
    'hook --engine') _oci_bpf_hook_words 'cri-o containerd podman docker'; return ;;
    'hook --profile') :; return ;;
    'hook --path') _oci_bpf_hook_paths -d; return ;;
    'inject --annotation') _oci_bpf_hook_keys 'io.bpffs.delegate_cmds= io.bpffs.delegate_maps= io.bpffs.delegate_progs= io.bpffs.delegate_attachs= io.bpffs.profile= io.bpffs.record= io.bpffs.shim= io.bpffs.path= io.bpffs.mode= io.bpffs.on_unknown='; return ;;
    'inject --hook') _oci_bpf_hook_paths -f; return ;;
    'inspect --watch') :; return ;;
    'inspect --html') _oci_bpf_hook_paths -f; return ;;
    'install --prefix') _oci_bpf_hook_paths -d; return ;;
    'install --destdir') _oci_bpf_hook_paths -d; return ;;
    'install --stage') _oci_bpf_hook_words 'createRuntime createContainer'; return ;;
    'install --engine') _oci_bpf_hook_words 'podman cri-o containerd'; return ;;
    'kernel --kernel') :; return ;;
    'kernel --header') _oci_bpf_hook_paths -f; return ;;
    'kernel --btf') _oci_bpf_hook_paths -f; return ;;
    'kernel --diff') _oci_bpf_hook_paths -f; return ;;
    'lint --annotation') _oci_bpf_hook_keys 'io.bpffs.delegate_cmds= io.bpffs.delegate_maps= io.bpffs.delegate_progs= io.bpffs.delegate_attachs= io.bpffs.profile= io.bpffs.record= io.bpffs.shim= io.bpffs.path= io.bpffs.mode= io.bpffs.on_unknown='; return ;;
    'lint --state') _oci_bpf_hook_paths -f; return ;;
    'lint --file') _oci_bpf_hook_paths -f; return ;;
    'lint --engine') _oci_bpf_hook_words 'cri-o containerd podman docker'; return ;;
    'nri --socket') _oci_bpf_hook_paths -f; return ;;
    'nri --name') :; return ;;
    'nri --idx') :; return ;;
    'nri --header') _oci_bpf_hook_paths -f; return ;;
    'policy test --annotation') _oci_bpf_hook_keys 'io.bpffs.delegate_cmds= io.bpffs.delegate_maps= io.bpffs.delegate_progs= io.bpffs.delegate_attachs= io.bpffs.profile= io.bpffs.record= io.bpffs.shim= io.bpffs.path= io.bpffs.mode= io.bpffs.on_unknown='; return ;;
    'policy test --state') _oci_bpf_hook_paths -f; return ;;
    'policy test --policy') _oci_bpf_hook_paths -f; return ;;
    'policy test --engine') _oci_bpf_hook_words 'cri-o containerd podman docker'; return ;;
    'policy test --attr') :; return ;;
    'record --listen') :; return ;;
    'record --from') _oci_bpf_hook_paths -f; return ;;
    'record --from-strace') _oci_bpf_hook_paths -f; return ;;
    'record --diff') _oci_bpf_hook_paths -f; return ;;
    'record --format') _oci_bpf_hook_words 'text annotations json policy quadlet kubernetes incus systemd'; return ;;
    'record --name') :; return ;;
    'record --save') _oci_bpf_hook_paths -f; return ;;
    'record --output') _oci_bpf_hook_paths -f; return ;;
    'record --path') _oci_bpf_hook_paths -d; return ;;
    'record --seccomp') _oci_bpf_hook_paths -f; return ;;
    'seccomp --base') _oci_bpf_hook_paths -f; return ;;
    'seccomp --output') _oci_bpf_hook_paths -f; return ;;
    'uninstall --prefix') _oci_bpf_hook_paths -d; return ;;
    'uninstall --destdir') _oci_bpf_hook_paths -d; return ;;
    esac
    case $path in
    '') _oci_bpf_hook_words 'advise broker cdi check convert delegate doctor explain guard help hook inject inspect ps install kernel lint nri policy record seccomp uninstall --help --version' ;;
    'cdi') _oci_bpf_hook_words 'generate list check remove' ;;
    'guard') _oci_bpf_hook_words 'on off status audit' ;;
    'policy') _oci_bpf_hook_words 'check show test' ;;
    'advise') case $cur in -*) _oci_bpf_hook_words '--format --json --loader --libbpf --exact --only --skip --btf --with --name --help' ;; *) _oci_bpf_hook_paths -f ;; esac ;;
    'broker') _oci_bpf_hook_words '--socket --mode --group --idle --workers --rate --header --help' ;;
    'cdi generate') _oci_bpf_hook_words '--profile --output --path --shim --hook --engine --policy --help' ;;
    'cdi list') case $cur in -*) _oci_bpf_hook_words '--policy --json --help' ;; *) _oci_bpf_hook_paths -f ;; esac ;;
    'cdi check') case $cur in -*) _oci_bpf_hook_words '--policy --json --help' ;; *) _oci_bpf_hook_paths -f ;; esac ;;
    'cdi remove') _oci_bpf_hook_words '--hook --help' ;;
    'check') _oci_bpf_hook_words '--annotation --state --file --kernel --header --btf --policy --engine --attr --strict --json --help' ;;
    'convert') case $cur in -*) _oci_bpf_hook_words '--from --to --json --help' ;; *) _oci_bpf_hook_paths -f ;; esac ;;
    'delegate') _oci_bpf_hook_words '--container --pid --profile --cmds --maps --progs --attachs --path --dry-run --revoke --json --help' ;;
    'doctor') _oci_bpf_hook_words '--container --pid --object --quiet --json --help' ;;
    'explain') _oci_bpf_hook_words '--annotation --state --file --kernel --header --btf --policy --engine --attr --config --json --help' ;;
    'guard on') _oci_bpf_hook_words '--json --help' ;;
    'guard off') _oci_bpf_hook_words '--force --dry-run --json --help' ;;
    'guard status') _oci_bpf_hook_words '--json --help' ;;
    'guard audit') _oci_bpf_hook_words '--json --help' ;;
    'help') case $cur in -*) _oci_bpf_hook_words '--help' ;; *) _oci_bpf_hook_words 'advise broker cdi check convert delegate doctor explain guard help hook inject inspect ps install kernel lint nri policy record seccomp uninstall' ;; esac ;;
    'hook') _oci_bpf_hook_words '--header --engine --profile --path --help' ;;
    'inject') _oci_bpf_hook_words '--annotation --capabilities --seccomp --hook --undo --help' ;;
    'inspect') _oci_bpf_hook_words '--watch --html --json --help' ;;
    'install') _oci_bpf_hook_words '--prefix --destdir --dry-run --stage --engine --precreate --json --help' ;;
    'kernel') _oci_bpf_hook_words '--kernel --header --btf --table --diff --json --help' ;;
    'lint') _oci_bpf_hook_words '--annotation --state --file --engine --strict --json --help' ;;
    'nri') _oci_bpf_hook_words '--socket --name --idx --header --help' ;;
    'policy check') case $cur in -*) _oci_bpf_hook_words '--json --help' ;; *) _oci_bpf_hook_paths -f ;; esac ;;
    'policy show') _oci_bpf_hook_words '--json --help' ;;
    'policy test') _oci_bpf_hook_words '--annotation --state --policy --engine --attr --json --help' ;;
    'record') _oci_bpf_hook_words '--container --listen --from --from-strace --diff --verify --exact --format --json --name --save --output --path --private-network --seccomp --help' ;;
    'seccomp') _oci_bpf_hook_words '--base --output --help' ;;
    'uninstall') _oci_bpf_hook_words '--prefix --destdir --dry-run --force --json --help' ;;
    esac
}
complete -F _oci_bpf_hook oci-bpf-hook
