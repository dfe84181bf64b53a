"""`ROLE=all`: starts the API and a worker, and keeps them running.

The two are processes of their own: a worker that is killed takes no request with it, an API that
is killed takes no job with it, and either is started again. The supervisor holds what must not
change hands meanwhile: the lock of the data folder and the listening socket, so that clients who
connect while the API starts again are kept waiting and not refused. If it is killed itself, both
go with it.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from types import FrameType

from service.protocol import LISTEN_FD_VARIABLE, LOCK_FD_VARIABLE, PARENT_PID_VARIABLE
from service.settings import Settings
from service.storage import Storage

WRONG_SETTING = 2
"""Exit status of a role that another start would not help."""

_BACKLOG = 2048
_POLL_S = 0.05
_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 10.0
# A role that has lived so long was started well; its next start is not held back.
_HEALTHY_S = 10.0
_STOP_EXTRA_S = 15.0

log = logging.getLogger("service.supervisor")


@dataclass
class _Role:
    name: str
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    start_at: float = 0.0
    pause_s: float = field(default=_FIRST_PAUSE_S)


class Supervisor:
    """Both roles on one machine.

    Raises:
        DataDirInUseError: another server uses the data folder.
        OSError: the address cannot be bound.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock_fd = Storage(settings.data_dir).lock(exclusively=True)
        self._socket = _listen(settings.host, settings.port)
        self._roles = [_Role("worker"), _Role("api")]
        self._stop = threading.Event()

    def run(self) -> int:
        """Run until SIGTERM or SIGINT; the exit status."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        log.info("running on %s", _url(self._socket))
        status = 0
        while not self._stop.wait(_POLL_S):
            for role in self._roles:
                ended = self._watch(role)
                if ended == WRONG_SETTING:
                    status = ended
                    self._stop.set()
        self._end()
        return status

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._stop.set()

    def _watch(self, role: _Role) -> int | None:
        """Start a role that is not running; its exit status when it has just ended."""
        at = time.monotonic()
        if role.process is None:
            if at >= role.start_at:
                role.process, role.started_at = self._start(role.name), at
            return None
        status = role.process.poll()
        if status is None:
            return None
        is_healthy = at - role.started_at >= _HEALTHY_S
        role.pause_s = _FIRST_PAUSE_S if is_healthy else min(role.pause_s * 2, _LONGEST_PAUSE_S)
        role.process, role.start_at = None, at + role.pause_s
        log.error("the %s ended with status %d; it is started again", role.name, status)
        return status

    def _start(self, name: str) -> subprocess.Popen[bytes]:
        environment = {
            **os.environ,
            "ROLE": name,
            PARENT_PID_VARIABLE: str(os.getpid()),
            LOCK_FD_VARIABLE: str(self._lock_fd),
        }
        lent = [self._lock_fd]
        if name == "api":
            environment[LISTEN_FD_VARIABLE] = str(self._socket.fileno())
            lent.append(self._socket.fileno())
        return subprocess.Popen(
            [sys.executable, "-m", "service"],
            env=environment,
            pass_fds=lent,
            stdin=subprocess.DEVNULL,
            # Ctrl-C in a terminal is for the supervisor, which then tells the roles.
            start_new_session=True,
        )

    def _end(self) -> None:
        """Tell both roles to stop, and wait until they have."""
        processes = [role.process for role in self._roles if role.process is not None]
        for process in processes:
            process.terminate()
        end = time.monotonic() + self._settings.shutdown_grace_s + _STOP_EXTRA_S
        for process in processes:
            try:
                process.wait(max(0.1, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                log.error("process %d did not stop in time", process.pid)
                process.kill()
                process.wait()
        self._socket.close()


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((host, port))
    listener.listen(_BACKLOG)
    return listener


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
