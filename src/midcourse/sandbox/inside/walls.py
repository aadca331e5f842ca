"""The walls of a sandbox, by Linux's own calls: no network, no files, no processes but its own.

A program within namespaces sees Python and its library, read-only, an empty ``/tmp`` in memory, and
nothing else of the file system. It is a user without privilege or capability, whoever started it.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

_NEW_MOUNTS, _NEW_UTS, _NEW_IPC, _NEW_USER, _NEW_PIDS, _NEW_NET = (
    0x20000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000,
)  # fmt: skip
_APART = _NEW_MOUNTS | _NEW_UTS | _NEW_IPC | _NEW_PIDS | _NEW_NET
_READ_ONLY, _NO_SUID, _NO_DEVICES, _NO_EXEC = 1, 2, 4, 8
_BIND, _RECURSIVE, _PRIVATE, _DETACH = 4096, 16384, 1 << 18, 2
_AT_CWD, _AT_RECURSIVE = -100, 0x8000
_SET_DEATH_SIGNAL, _SET_DUMPABLE, _SET_SUBREAPER, _NO_NEW_PRIVILEGES = 1, 4, 36, 38
_MOUNT_SETATTR = 442
_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41, "arm64": 41, "riscv64": 41, "ppc64le": 203}
_CAPABILITY_VERSION = 0x20080522
#: User ids that no account has: systemd hands them out likewise.
_FIRST_FREE_USER, _FREE_USERS = 61184, 4336
_DEVICES = ("null", "zero", "random", "urandom")
_LIBRARIES = ("/usr", "/lib", "/lib64", "/lib32", "/bin", "/etc/ld.so.cache", "/etc/localtime")


class Refused(Exception):
    """The system does not allow the walls."""


def libc() -> ctypes.CDLL:
    """Return the C library, which keeps the error of its last call."""
    return ctypes.CDLL(None, use_errno=True)


def _must(result: int, what: str) -> None:
    if result < 0:
        raise Refused(f"{what}: {os.strerror(ctypes.get_errno())}")


def die_with_parent() -> None:
    """Have the kernel end this process when its parent ends, where it can."""
    if sys.platform == "linux":
        libc().prctl(_SET_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)


def hide() -> None:
    """Keep other processes of the same user out of this one's memory; adopt what it leaves."""
    if sys.platform == "linux":
        calls = libc()
        calls.prctl(_SET_DUMPABLE, 0, 0, 0, 0)
        calls.prctl(_SET_SUBREAPER, 1, 0, 0, 0)
        calls.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0)


def enclose(folder: str, memory_mib: int, work: Callable[[], None]) -> None:
    """Do `work` in a process behind walls, and wait for its end; `folder` becomes their root.

    Raises Refused.
    """
    if sys.platform != "linux" or os.uname().machine not in _PIVOT_ROOT:
        raise Refused("namespaces are Linux's")
    calls, user, group = libc(), os.geteuid(), os.getegid()
    is_root = user == 0 and calls.unshare(_APART) == 0
    if not is_root:
        _must(calls.unshare(_APART | _NEW_USER), "unshare")
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"1000 {user} 1")
        Path("/proc/self/gid_map").write_text(f"1000 {group} 1")
    failed, says = os.pipe()
    pid = os.fork()
    if not pid:
        os.close(failed)
        die_with_parent()
        try:
            _build(calls, folder, memory_mib)
            _drop(calls, _FIRST_FREE_USER + os.getppid() % _FREE_USERS if is_root else None)
            die_with_parent()  # another user is another process to the kernel
            os.close(says)
        except (Refused, OSError) as error:
            os.write(says, str(error).encode()[:300])
            os._exit(1)
        work()
        os._exit(0)
    os.close(says)
    os.waitpid(pid, 0)
    if why := os.read(failed, 300):
        raise Refused(why.decode(errors="replace"))


def _build(calls: ctypes.CDLL, root: str, memory_mib: int) -> None:
    """Make a root that holds Python's library alone, and move into it."""
    mount = _mounts(calls)
    mount("none", "/", "", _RECURSIVE | _PRIVATE)
    mount("tmpfs", root, "tmpfs", _NO_SUID | _NO_DEVICES, f"size={memory_mib}m,mode=755")
    for path in library_paths():
        _show(calls, mount, Path(path), Path(root + path), writable=False)
    for name in ("dev", "proc", "tmp", "old"):
        Path(root, name).mkdir(exist_ok=True)
    for device in _DEVICES:
        _show(calls, mount, Path("/dev", device), Path(root, "dev", device), writable=True)
    Path(root, "tmp").chmod(0o777)
    with contextlib.suppress(Refused):  # some containers do not allow it: nothing depends on it
        mount("proc", f"{root}/proc", "proc", _NO_SUID | _NO_DEVICES | _NO_EXEC)
    call = _PIVOT_ROOT[os.uname().machine]
    _must(calls.syscall(call, root.encode(), f"{root}/old".encode()), "pivot_root")
    os.chdir("/")
    _must(calls.umount2(b"/old", _DETACH), "umount")
    Path("/old").rmdir()
    os.chdir("/tmp")


def _mounts(calls: ctypes.CDLL) -> Callable[..., None]:
    def mount(source: str, target: str, kind: str, flags: int, data: str = "") -> None:
        told = (source.encode(), target.encode(), kind.encode() or None, ctypes.c_ulong(flags))
        _must(calls.mount(*told, data.encode() or None), f"mount {target}")

    return mount


def library_paths() -> Iterator[str]:
    """Yield what of the file system a program needs: Python, its library and the system's."""
    found = [path for path in _LIBRARIES if Path(path).exists()]
    for path in sorted({str(Path(p).resolve()) for p in (sys.base_prefix, os.__file__ + "/..")}):
        # What lies within another one comes with it.
        if not any(path.startswith(f"{other}/") for other in found):
            found.append(path)
    yield from found


def _show(
    calls: ctypes.CDLL, mount: Callable[..., None], path: Path, target: Path, *, writable: bool
) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if path.is_symlink():
        target.symlink_to(path.readlink())
        return
    if path.is_dir():
        target.mkdir(exist_ok=True)
    else:
        target.touch()
    mount(str(path), str(target), "", _BIND | _RECURSIVE)
    attributes = _NO_SUID | (0 if writable else _READ_ONLY | _NO_DEVICES)
    told = (ctypes.c_uint64 * 4)(attributes, 0, 0, 0)
    at = (_AT_CWD, bytes(target), _AT_RECURSIVE, ctypes.byref(told), ctypes.sizeof(told))
    _must(calls.syscall(_MOUNT_SETATTR, *at), f"mount_setattr {target}")


def _drop(calls: ctypes.CDLL, user: int | None) -> None:
    """Become a user without a name, and give up every capability."""
    if user is not None:
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION, 0)
    none = (ctypes.c_uint32 * 6)()
    _must(calls.capset(ctypes.byref(header), ctypes.byref(none)), "capset")


def end_descendants() -> None:
    """Kill every process that comes from this one; within namespaces its end does so by itself."""
    while sys.platform == "linux" and (pids := _children(os.getpid())):
        for pid in pids:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass


def _children(parent: int) -> list[int]:
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            if int(entry.read_text().rpartition(")")[2].split()[1]) == parent:
                found.append(int(entry.parent.name))
    return found
