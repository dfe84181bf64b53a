"""`python -m service`: run the server, or one of its roles, with settings from the environment."""

from __future__ import annotations

import ctypes
import ipaddress
import logging
import os
import signal
import socket
import sys

from pydantic import ValidationError

from service.protocol import LISTEN_FD_VARIABLE, LOCK_FD_VARIABLE, PARENT_PID_VARIABLE
from service.settings import Settings
from service.storage import DataDirInUseError, Storage
from service.supervisor import WRONG_SETTING, Supervisor

_PR_SET_PDEATHSIG = 1

log = logging.getLogger("service")


def main() -> None:
    """Run until SIGTERM or SIGINT; exits with status 2 when a setting is wrong."""
    try:
        settings = Settings()
    except ValidationError as error:
        for problem in error.errors():
            name = "_".join(str(part) for part in problem["loc"]).upper()
            print(f"Setting {name}: {problem['msg']}.", file=sys.stderr)
        sys.exit(WRONG_SETTING)
    logging.basicConfig(
        level=settings.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s %(message)s"
    )
    _die_with_supervisor()
    try:
        if settings.role == "all":
            _supervise(settings)
        elif settings.role == "api":
            _serve(settings)
        else:
            _work(settings)
    except DataDirInUseError as error:
        print(error, file=sys.stderr)
        sys.exit(WRONG_SETTING)


def _supervise(settings: Settings) -> None:
    if settings.database.startswith("sqlite:"):
        log.info("jobs are kept in %s", settings.database.removeprefix("sqlite:///"))
    if not _is_loopback(settings.host):
        log.warning("listening on %s: anyone who can reach it can use it", settings.host)
    try:
        supervisor = Supervisor(settings)
    except OSError as error:
        print(f"Cannot listen on {settings.host}:{settings.port}: {error}.", file=sys.stderr)
        sys.exit(WRONG_SETTING)
    sys.exit(supervisor.run())


def _serve(settings: Settings) -> None:
    import uvicorn

    from service.app import create_app
    from service.server import ApiServer

    storage = _storage(settings)
    app = create_app(settings, storage)
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        log_level=settings.log_level,
        timeout_graceful_shutdown=max(1, round(settings.shutdown_grace_s)),
        server_header=False,
    )
    lent = os.environ.get(LISTEN_FD_VARIABLE)
    if lent is None and not _is_loopback(settings.host):
        log.warning("listening on %s: anyone who can reach it can use it", settings.host)
    sockets = None if lent is None else [socket.socket(fileno=int(lent))]
    ApiServer(config, app).run(sockets)


def _work(settings: Settings) -> None:
    from service.worker import Worker

    storage = _storage(settings)
    storage.open()
    Worker(settings, storage).run()


def _storage(settings: Settings) -> Storage:
    """The data folder, locked by this process unless its supervisor has done so."""
    storage = Storage(settings.data_dir, settings.min_free_disk_bytes)
    if LOCK_FD_VARIABLE not in os.environ:
        storage.lock(exclusively=False)
    return storage


def _die_with_supervisor() -> None:
    """End when the supervisor does, however it does."""
    parent = os.environ.pop(PARENT_PID_VARIABLE, None)
    if parent is None:
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != int(parent):
        os._exit(1)  # it died before its death could be noticed


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


if __name__ == "__main__":
    main()
