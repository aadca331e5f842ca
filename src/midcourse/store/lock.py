"""One writer per run directory."""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import platform
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from midcourse.errors import ArtifactError
from midcourse.store.files import writing

#: Of file systems without locks, e.g. Lustre mounted without ``flock``.
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Owner:
    """Who holds a lock."""

    host: str
    pid: int
    born: str
    """The boot and the tick in which the process began; empty where the system hides it."""
    since: str

    @classmethod
    def me(cls) -> Owner:
        """Return this process, now."""
        now, pid = datetime.now(UTC), os.getpid()
        return cls(platform.node(), pid, _born(pid), now.isoformat(timespec="seconds"))

    @classmethod
    def of(cls, path: Path) -> Owner | None:
        """Return whom a lock file names; None if it is empty or damaged."""
        try:
            owner = cls(**json.loads(path.read_bytes()))
        except (OSError, ValueError, TypeError, RecursionError):
            return None
        given = asdict(owner)
        is_sound = all(isinstance(given[name], str) for name in ("host", "born", "since"))
        return owner if is_sound and type(owner.pid) is int and owner.pid > 0 else None

    @property
    def may_live(self) -> bool:
        """Whether it is on another host, where we cannot see, or a live process of this one."""
        if self.host != platform.node():
            return True
        return _is_alive(self.pid) and _born(self.pid) == self.born


class RunLock:
    """A lock that the system frees with the process that holds it, and a file that names the owner.

    The system decides, so of several processes that find the file of a dead one exactly one goes
    on. The file is removed by its holder alone, and whoever gets the lock makes sure that it is
    that of the file which is there. A file that names another host may be held by a process that
    the system cannot see, so it has to be deleted by hand. A directory that cannot be written
    needs no lock.
    """

    def __init__(self, directory: Path) -> None:
        self._path = directory / ".lock"
        self._handle: int | None = None

    def __enter__(self) -> RunLock:
        with writing(self._path):
            while not self._take():
                pass
        return self

    def __exit__(self, *exception: object) -> None:
        if self._handle is not None:
            with suppress(OSError):  # The directory may be gone.
                self._path.unlink()
            os.close(self._handle)
            self._handle = None

    def _take(self) -> bool:
        """Take the lock; False if its file was removed meanwhile."""
        try:
            handle = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError:
            if os.access(self._path.parent, os.W_OK) or not self._path.parent.is_dir():
                raise
            return True
        try:
            self._lock(handle)
            if not self._is_current(handle):
                os.close(handle)
                return False
            self._sign(handle)
        except BaseException:
            os.close(handle)
            raise
        self._handle = handle
        return True

    def _lock(self, handle: int) -> None:
        """Have the system lock a file. Raises ArtifactError if another process has."""
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if isinstance(error, BlockingIOError):
                raise self._refusal(Owner.of(self._path)) from error
            if error.errno not in _NO_LOCKS:
                raise
            _LOG.warning("%s: this file system has no locks; start one process only", self._path)

    def _is_current(self, handle: int) -> bool:
        try:
            return os.path.samestat(os.fstat(handle), self._path.stat())
        except FileNotFoundError:
            return False

    def _sign(self, handle: int) -> None:
        """Write down who holds the lock. Raises ArtifactError if the last owner may still live."""
        owner = Owner.of(self._path)
        if owner is not None and owner.may_live:
            raise self._refusal(owner)
        content = json.dumps(asdict(Owner.me())).encode()
        with writing(self._path, len(content)):
            try:
                os.ftruncate(handle, 0)
                os.pwrite(handle, content, 0)
            except OSError:
                self._path.unlink(missing_ok=True)
                raise

    def _refusal(self, owner: Owner | None) -> ArtifactError:
        who = f"process {owner.pid} on {owner.host} since {owner.since}" if owner else "a process"
        return ArtifactError(
            f"{self._path.parent} is in use by {who}: wait for it, or delete {self._path} if it is "
            "gone"
        )


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def _born(pid: int) -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text("utf-8").strip()
        stat = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace")
    except OSError:
        return ""
    return f"{boot}/{stat.rpartition(')')[2].split()[19]}"
