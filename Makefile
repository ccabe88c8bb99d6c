# demo and test set up whatever they need on a Debian 12 machine, as root, and may be
# run again and again.  Nothing here uses the name of this directory, which may be any.

PREFIX = /usr
DESTDIR =
# Where deb and rpm put what they have made.
OUTPUT = build

ENGINES = python3 podman crun runc conmon catatonit busybox-static uidmap gcc libc6-dev
TOOLS = $(ENGINES) ca-certificates git python3-venv python3-yaml python3-jsonschema python3-pyelftools \
	python3-rich linux-libc-dev libbpf-dev clang gcc-bpf libbpf-tools xdp-tools libxdp1 libxdp-dev \
	logrotate strace util-linux libcap2-bin shellcheck systemd man-db mandoc zsh fish \
	bubblewrap firejail bpftool iproute2 musl-tools \
	chromium fonts-dejavu-core $(PACKAGERS) lintian rpm $(MACHINES)
# What make check runs beside Python's packages.
CHECKERS = python3-venv shellcheck man-db mandoc zsh fish
# Virtual machines, and Debian's kernels for them.
MACHINES = qemu-system-x86 lz4 xz-utils zstd debian-archive-keyring
# What compiles the guard, and the shim.
COMPILER = clang libbpf-dev linux-libc-dev
SHIM = clang lld
PACKAGERS = python3 build-essential dpkg-dev debhelper dh-python $(COMPILER) $(SHIM)

.PHONY: help guard shim demo demo-rootless check test bench pictures install uninstall deb rpm clean

help:
	@echo 'make guard      the guard of confined tokens, compiled, for make install'
	@echo 'make shim       the library that makes tokens for programs, compiled, for make install'
	@echo 'make demo       a container with a BPF token, on crun and on runc'
	@echo 'make demo-rootless  the same for a user without any privilege, through the broker'
	@echo 'make check      the linters, and the tests that need nothing but Python: under a minute'
	@echo 'make test       every test'
	@echo 'make bench      the benchmark: a table, JSON and a plot'
	@echo 'make pictures   the pictures of the documentation'
	@echo 'make install    into PREFIX ($(PREFIX)), below DESTDIR'
	@echo 'make uninstall  and out again'
	@echo 'make deb        a Debian package, in $(OUTPUT)'
	@echo 'make rpm        an RPM package, in $(OUTPUT)'

guard:
	@! command -v dpkg-query >/dev/null || .ci/packages $(COMPILER)
	@contrib/build-guard

shim:
	@! command -v dpkg-query >/dev/null || .ci/packages $(SHIM)
	@contrib/build-shim

demo:
	@.ci/packages $(ENGINES)
	@/usr/bin/python3 -m tests.demo

demo-rootless:
	@.ci/packages $(ENGINES) util-linux python3-yaml python3-jsonschema
	@/usr/bin/python3 -m tests.demo_rootless

check:
	@.ci/packages $(CHECKERS)
	@$(MAKE) --no-print-directory .venv/made
	.ci/test --pure

test:
	@.ci/packages $(TOOLS)
	@$(MAKE) --no-print-directory guard shim .venv/made
	.ci/test

bench:
	@.ci/packages $(TOOLS)
	@$(MAKE) --no-print-directory .venv/made
	.venv/bin/python -m pip install --quiet --disable-pip-version-check -r tests/bench/requirements.txt
	.venv/bin/python -m tests.bench

pictures:
	@.ci/packages $(TOOLS)
	@$(MAKE) --no-print-directory .venv/made
	.venv/bin/python -m tests.screenshots

.venv/made: tests/requirements.txt tests/requirements-nodeps.txt .ci/venv
	.ci/venv tests/requirements.txt tests/requirements-nodeps.txt

install:
	/usr/bin/python3 -m oci_bpf_hook install --prefix '$(PREFIX)' --destdir '$(DESTDIR)'

uninstall:
	/usr/bin/python3 -m oci_bpf_hook uninstall --prefix '$(PREFIX)' --destdir '$(DESTDIR)'

deb:
	@.ci/packages $(PACKAGERS)
	@contrib/debian/build '$(OUTPUT)'

rpm:
	@command -v rpmbuild >/dev/null || .ci/packages python3 rpm
	@contrib/rpm/build '$(OUTPUT)'

clean:
	rm -rf .venv build oci_bpf_hook/guard/lsm/guard.*.o oci_bpf_hook/shim/*.so *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +
