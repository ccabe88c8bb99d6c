# demo and test set up whatever they need on a Debian 12 machine, as root, and may be
# run again and again.  Nothing here uses the name of this directory, which may be any.

PREFIX = /usr
DESTDIR =
libexec = $(DESTDIR)$(PREFIX)/libexec/oci-bpf-hook
hooksd = $(DESTDIR)$(PREFIX)/share/containers/oci/hooks.d

ENGINES = python3 podman crun runc conmon catatonit busybox-static uidmap gcc libc6-dev
TOOLS = $(ENGINES) ca-certificates python3-venv python3-yaml python3-jsonschema linux-libc-dev \
	libbpf-dev clang logrotate strace util-linux libcap2-bin shellcheck systemd python3-rich man-db \
	mandoc zsh fish

.PHONY: help demo demo-rootless test bench install uninstall clean

help:
	@echo 'make demo       a container with a BPF token, on crun and on runc'
	@echo 'make demo-rootless  the same for a user without any privilege, through the broker'
	@echo 'make test       every test'
	@echo 'make bench      the benchmark: a table, JSON and a plot'
	@echo 'make install    into PREFIX ($(PREFIX)), below DESTDIR'
	@echo 'make uninstall  and out again'

demo:
	@.ci/packages $(ENGINES)
	@/usr/bin/python3 -m tests.demo

demo-rootless:
	@.ci/packages $(ENGINES) util-linux python3-yaml python3-jsonschema
	@/usr/bin/python3 -m tests.demo_rootless

test:
	@.ci/packages $(TOOLS)
	@$(MAKE) --no-print-directory .venv/made
	.venv/bin/python -m pytest

bench:
	@.ci/packages $(TOOLS)
	@$(MAKE) --no-print-directory .venv/made
	.venv/bin/python -m pip install --quiet --disable-pip-version-check -r tests/bench/requirements.txt
	.venv/bin/python -m tests.bench

.venv/made: tests/requirements.txt tests/requirements-nodeps.txt .ci/venv
	.ci/venv tests/requirements.txt tests/requirements-nodeps.txt

# An engine skips a hook whose program is missing, and so the program comes first.
install:
	install -d '$(libexec)/oci_bpf_hook/schema' '$(hooksd)'
	find oci_bpf_hook '(' -name '*.py' -o -name '*.json' -o -name '*.yaml' ')' \
		-exec install -D -m 644 '{}' '$(libexec)/{}' ';'
	install -m 644 schema/*.json '$(libexec)/oci_bpf_hook/schema/'
	/usr/bin/python3 -m compileall -q -d '$(PREFIX)/libexec/oci-bpf-hook/oci_bpf_hook' '$(libexec)/oci_bpf_hook'
	install -m 755 hooks.d/oci-bpf-hook '$(libexec)/'
	sed 's|/usr/libexec/|$(PREFIX)/libexec/|' hooks.d/oci-bpf-hook.json > '$(hooksd)/.oci-bpf-hook.new'
	chmod 644 '$(hooksd)/.oci-bpf-hook.new'
	mv '$(hooksd)/.oci-bpf-hook.new' '$(hooksd)/oci-bpf-hook.json'

uninstall:
	rm -f '$(hooksd)/oci-bpf-hook.json'
	rm -rf '$(libexec)'

clean:
	rm -rf .venv build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +
