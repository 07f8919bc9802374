"""A box for one process: from `shut` on it can write to no file, start no program and, where Linux's Landlock
reaches, change no folder and open no connection. What it has open already stays open: that is its output.

Limits of the process (any POSIX system):
    RLIMIT_FSIZE 0     no byte goes into any file; a pipe is none
    RLIMIT_NPROC 0     no further process or thread (does not bind root)
    RLIMIT_CORE 0, RLIMIT_CPU, RLIMIT_AS     no core file, bounded time and memory
Landlock (Linux 5.13 and later, where it is enabled): no file is made, opened for writing, cut, renamed or removed, no
program is executed; from 6.7 on no TCP connection, from 6.12 on no signal to others. Where it is missing, files could
still be removed or made empty, and `shut` says so.
"""

import ctypes
import os
import pathlib
import platform

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096
_CREATE_RULESET, _RESTRICT_SELF = 444, 446  # the same numbers on every Linux architecture but alpha
_VERSION_WANTED = 1
_PR_SET_NO_NEW_PRIVS = 38
# Rights by the version of Landlock that knows them first; reading files and folders (1 << 2, 1 << 3) stays allowed.
_FILE_RIGHTS = {1: 0b1_1111_1111_0011, 2: 1 << 13, 3: 1 << 14, 5: 1 << 15}
_NETWORK_RIGHTS = {4: 0b11}  # bind, connect
_SCOPES = {6: 0b11}  # abstract sockets, signals


class _Ruleset(ctypes.Structure):
    _fields_ = [("file", ctypes.c_uint64), ("network", ctypes.c_uint64), ("scoped", ctypes.c_uint64)]


def shut(seconds: int, num_bytes: int) -> int:
    """Shuts this process in. seconds: of processor time; num_bytes: of memory beyond what it has now.

    Returns the version of Landlock that holds it, 0 where there is none. Raises OSError where the limits cannot be
    set; there is no way back.
    """
    import resource  # POSIX alone has it

    limits = {"CPU": seconds, "FSIZE": 0, "CORE": 0, "NPROC": 0}
    if in_use := _address_space():
        limits["AS"] = in_use + num_bytes
    for name, limit in limits.items():
        if hasattr(resource, f"RLIMIT_{name}"):
            resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (limit, limit))
    return _landlock()


def landlock_version() -> int:
    """The version of Landlock that this kernel has, 0 where there is none."""
    if platform.system() != "Linux":
        return 0
    return max(0, ctypes.CDLL(None, use_errno=True).syscall(_CREATE_RULESET, None, 0, _VERSION_WANTED))


def _landlock() -> int:
    version = landlock_version()
    if not version:
        return 0
    libc = ctypes.CDLL(None, use_errno=True)
    rights = [sum(bits for since, bits in table.items() if since <= version) for table in
              (_FILE_RIGHTS, _NETWORK_RIGHTS, _SCOPES)]  # fmt: skip
    ruleset = _Ruleset(*rights)
    # An older kernel takes the larger structure as long as what it does not know is 0. No rule allows anything back.
    descriptor = libc.syscall(_CREATE_RULESET, ctypes.byref(ruleset), ctypes.sizeof(ruleset), 0)
    if descriptor < 0 or libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.syscall(_RESTRICT_SELF, descriptor, 0):
        error = ctypes.get_errno()
        raise OSError(error, f"Landlock {version} does not shut: {os.strerror(error)}")
    os.close(descriptor)
    return version


def _address_space() -> int:
    """Bytes of address space in use, 0 where the system does not tell."""
    try:
        return int(pathlib.Path("/proc/self/statm").read_text().split()[0]) * _PAGE_BYTES
    except OSError:
        return 0
