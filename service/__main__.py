"""`python -m service`: run the server, or one of its roles, with settings from the environment.

With arguments it is the command line of `service.commands`.
"""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import socket
import sys
from pathlib import Path

from pydantic import ValidationError

from service import logs
from service.addresses import is_loopback
from service.protocol import LISTEN_FD_VARIABLE, LOCK_FD_VARIABLE, PARENT_PID_VARIABLE
from service.settings import Settings, explain
from service.storage import DataDirInUseError, Storage
from service.supervisor import WRONG_SETTING, Supervisor
from service.tracing import TracingUnavailableError

_PR_SET_PDEATHSIG = 1

_REFUSAL = """\
HOST is {host}, which others can reach, and there are no API keys. Either
  * make one first, with the same DATA_DIR and DATABASE_URL: python -m service keys create NAME
  * or bind to this machine alone: HOST=127.0.0.1
  * or, where something else keeps strangers away: ALLOW_UNAUTHENTICATED=true"""

log = logging.getLogger("service")


def main() -> None:
    """Run until SIGTERM or SIGINT; exits with status 2 when a setting is wrong."""
    if len(sys.argv) > 1:
        from service.commands import app

        app(prog_name=f"{Path(sys.executable).name} -m service")
    try:
        settings = Settings()
    except ValidationError as error:
        print(*explain(error), sep="\n", file=sys.stderr)
        sys.exit(WRONG_SETTING)
    logs.configure(settings.log_level, settings.log_format)
    _die_with_supervisor()
    if settings.role != "worker" and LISTEN_FD_VARIABLE not in os.environ:
        _check_exposure(settings)
    try:
        if settings.role == "all":
            _supervise(settings)
        elif settings.role == "api":
            _serve(settings)
        else:
            _work(settings)
    except (DataDirInUseError, TracingUnavailableError) as error:
        print(error, file=sys.stderr)
        sys.exit(WRONG_SETTING)


def _supervise(settings: Settings) -> None:
    if settings.database.startswith("sqlite:"):
        log.info("jobs are kept in %s", settings.database.removeprefix("sqlite:///"))
    try:
        supervisor = Supervisor(settings)
    except OSError as error:
        print(f"Cannot listen on {settings.host}:{settings.port}: {error}.", file=sys.stderr)
        sys.exit(WRONG_SETTING)
    sys.exit(supervisor.run())


def _serve(settings: Settings) -> None:
    import uvicorn

    from service.app import create_app
    from service.connections import Connection
    from service.server import ApiServer

    storage = _storage(settings)
    app = create_app(settings, storage)
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=False,
        http=Connection,
        ws="none",
        timeout_graceful_shutdown=max(1, round(settings.shutdown_grace_s)),
        server_header=False,
    )
    lent = os.environ.get(LISTEN_FD_VARIABLE)
    sockets = None if lent is None else [socket.socket(fileno=int(lent))]
    ApiServer(config, app).run(sockets)


def _work(settings: Settings) -> None:
    _stay_on(settings.cores)
    from service.worker import Worker

    storage = _storage(settings)
    storage.open()
    Worker(settings, storage).run()


def _stay_on(cores: set[int] | None) -> None:
    """Run on these cores from now on, with every thread and child: there are no others yet.

    Ends here, with status 2, where the machine does not have them.
    """
    if cores is None:
        return
    try:
        os.sched_setaffinity(0, cores)
        found = os.sched_getaffinity(0)
    except (OSError, OverflowError, ValueError):
        found = set()
    if found != cores:  # the kernel leaves out those that there are not
        missing = ", ".join(map(str, sorted(cores - found)))
        print(f"Setting WORKER_CORES: this machine has no core {missing}.", file=sys.stderr)
        sys.exit(WRONG_SETTING)


def _storage(settings: Settings) -> Storage:
    """The data folder, locked by this process unless its supervisor has done so."""
    from service.objects import open_objects

    objects = open_objects(settings.storage_url)
    storage = Storage(settings.data_dir, settings.min_free_disk_bytes, objects)
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


def _check_exposure(settings: Settings) -> None:
    """End here when strangers could use the server, unless they are allowed to."""
    import sqlalchemy as sa

    from service.database import Database
    from service.keys import KeyStore

    database = Database(settings.database)
    try:
        database.create()
        has_keys = KeyStore(database).any()
    except sa.exc.OperationalError as error:
        print(f"The database does not answer: {error.orig}.", file=sys.stderr)
        sys.exit(1)
    finally:
        database.close()
    if has_keys:
        log.info("an API key is needed")
    elif is_loopback(settings.host):
        log.warning("there are no API keys: everyone on this machine can use the server")
    elif settings.allow_unauthenticated:
        log.warning("there are no API keys: everyone who reaches %s can use it", settings.host)
    else:
        print(_REFUSAL.format(host=settings.host), file=sys.stderr)
        sys.exit(WRONG_SETTING)


if __name__ == "__main__":
    main()
