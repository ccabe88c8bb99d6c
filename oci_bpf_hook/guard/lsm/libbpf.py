"""Calls libbpf, as far as the guard needs it: to load an object, attach its programs, and pin.

It is used through ctypes and not by `bpftool prog loadall ... autoattach`: between loading and
pinning, the maps have to be filled and frozen and the programs tried, and bpftool prints only a
part of what fails.  The names and their meaning are libbpf 1.0's, which is soname 1.
"""

import ctypes
import os
from errno import EPERM
from typing import Any, Self

from ...errors import KERNEL_CANNOT, HookError, Problem

_SONAME = "libbpf.so.1"
_WARN = 0
# How many of libbpf's last lines are shown; the verifier's log says at its end what is wrong.
_WORDS = 8
_LONGEST = 1 << 17
# What an error means if root has all capabilities.
_WHY = {
    EPERM: ", though root asks: this kernel, or something that watches bpf(2) on it (an LSM, "
    "lockdown, a seccomp filter, a hypervisor), lets nobody load programs for LSM hooks",
}

_PRINT = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)


class Libbpf:
    """The library libbpf.  Making one raises HookError (KERNEL_CANNOT) if it isn't installed."""

    def __init__(self) -> None:
        try:
            self._library = ctypes.CDLL(_SONAME, use_errno=True)
        except OSError:
            raise HookError(
                KERNEL_CANNOT,
                Problem(
                    f"the guard is loaded by libbpf, and {_SONAME} is missing",
                    hint="install libbpf1 (Debian, Ubuntu) or libbpf (Fedora)",
                ),
            ) from None
        self._said: list[str] = []
        # Held here, because libbpf calls it as long as it is set.
        self._print = _PRINT(self._hear)
        self._declare("libbpf_set_print", ctypes.c_void_p, _PRINT)(self._print)
        pointer, number, text = ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p
        self.open_file = self._declare("bpf_object__open_file", pointer, text, pointer)
        self.load = self._declare("bpf_object__load", number, pointer)
        self.close = self._declare("bpf_object__close", None, pointer)
        self.find_map = self._declare("bpf_object__find_map_by_name", pointer, pointer, text)
        self.reuse_fd = self._declare("bpf_map__reuse_fd", number, pointer, number)
        self.map_fd = self._declare("bpf_map__fd", number, pointer)
        self.map_type = self._declare("bpf_map__type", number, pointer)
        self.key_size = self._declare("bpf_map__key_size", ctypes.c_uint32, pointer)
        self.value_size = self._declare("bpf_map__value_size", ctypes.c_uint32, pointer)
        self.map_freeze = self._declare("bpf_map_freeze", number, number)
        self.find_program = self._declare(
            "bpf_object__find_program_by_name", pointer, pointer, text
        )
        self.program_fd = self._declare("bpf_program__fd", number, pointer)
        self.attach = self._declare("bpf_program__attach", pointer, pointer)
        self.link_fd = self._declare("bpf_link__fd", number, pointer)
        self.link_destroy = self._declare("bpf_link__destroy", number, pointer)
        self.obj_pin = self._declare("bpf_obj_pin", number, number, text)

    def _declare(self, name: str, result: type | None, *arguments: type) -> Any:
        function = getattr(self._library, name)
        function.restype, function.argtypes = result, arguments
        return function

    def _hear(self, level: int, form: bytes, arguments: int) -> int:
        """Note what libbpf says; libbpf calls this as its printing function (libbpf_print_fn_t)."""
        if level == _WARN:
            # A va_list is passed by reference on the machines that we run on, and is passed on so.
            buffer = ctypes.create_string_buffer(_LONGEST)
            ctypes.CDLL(None).vsnprintf(
                buffer, ctypes.c_size_t(_LONGEST), form, ctypes.c_void_p(arguments)
            )
            self._said += buffer.value.decode("utf-8", "backslashreplace").splitlines()
        return 0

    def failed(self, what: str) -> HookError:
        """The error to raise after `what` has failed, with errno's text and libbpf's last lines."""
        number = ctypes.get_errno()
        lines = (line.strip().removeprefix("libbpf: ") for line in self._said)
        # libbpf warns of the limit of locked memory each time; kernels with tokens don't count
        # that.
        words = [line for line in lines if line and "ulimit" not in line][-_WORDS:]
        self._said.clear()
        said = f"; libbpf says: {'; '.join(words)}" if words else ""
        why = _WHY.get(number, "")
        return HookError(
            KERNEL_CANNOT, f"the guard can't be loaded, {what}: {os.strerror(number)}{why}{said}"
        )


class Object:
    """An object file, opened and then loaded, to be used in a `with`; it owns its fds."""

    def __init__(self, library: Libbpf, path: str) -> None:
        """Open the file at `path`.  This and all other methods raise HookError (KERNEL_CANNOT)."""
        self._library = library
        self._links: list[int] = []
        self._object = library.open_file(os.fsencode(path), None)
        if not self._object:
            raise library.failed(f"open {path}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Close it; what is pinned stays as it is, and everything else ends."""
        for link in self._links:
            self._library.link_destroy(link)
        self._library.close(self._object)

    def form(self, name: str) -> tuple[int, int, int]:
        """The type of the map `name`, and its keys' and values' size in bytes, by the file."""
        found = self._map(name)
        library = self._library
        return library.map_type(found), library.key_size(found), library.value_size(found)

    def reuse(self, name: str, fd: int) -> None:
        """Use the map of `fd`, which has the same form, as the map `name` instead of a new one."""
        if self._library.reuse_fd(self._map(name), fd):
            raise self._library.failed(f"reuse {name}")

    def load(self) -> None:
        """Load the maps and the programs into the kernel."""
        if self._library.load(self._object):
            raise self._library.failed("load")

    def map(self, name: str) -> int:
        """The fd of a map, after loading."""
        fd: int = self._library.map_fd(self._map(name))
        return fd

    def program(self, name: str) -> int:
        """The fd of a program, after loading."""
        fd: int = self._library.program_fd(self._program(name))
        return fd

    def freeze(self, name: str) -> None:
        """From now on no system call may write to the map."""
        if self._library.map_freeze(self.map(name)):
            raise self._library.failed(f"freeze {name}")

    def attach(self, name: str) -> int:
        """Attach the program `name` to the hook that its section names; the fd of the link."""
        link = self._library.attach(self._program(name))
        if not link:
            raise self._library.failed(f"attach {name}")
        self._links.append(link)
        fd: int = self._library.link_fd(link)
        return fd

    def pin(self, fd: int, path: str) -> None:
        """Pin the map or the link with this `fd` at `path`."""
        if self._library.obj_pin(fd, os.fsencode(path)):
            raise self._library.failed(f"pin {path}")

    def _program(self, name: str) -> int:
        found: int | None = self._library.find_program(self._object, name.encode())
        if not found:
            raise self._library.failed(f"find {name}")
        return found

    def _map(self, name: str) -> int:
        found: int | None = self._library.find_map(self._object, name.encode())
        if not found:
            raise self._library.failed(f"find {name}")
        return found
