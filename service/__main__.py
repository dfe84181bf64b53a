"""`python -m service`: run the server with settings from the environment."""

from __future__ import annotations

import ipaddress
import logging
import socket
import sys

import uvicorn
from fastapi import FastAPI
from pydantic import ValidationError

from service.app import create_app
from service.settings import Settings

log = logging.getLogger("service")


class _Server(uvicorn.Server):
    """Ends jobs before it waits for open responses: some of those wait for jobs."""

    def __init__(self, config: uvicorn.Config, app: FastAPI) -> None:
        super().__init__(config)
        self._app = app

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await self._app.state.services.jobs.stop()
        await super().shutdown(sockets)


def main() -> None:
    """Run until SIGTERM or SIGINT; exits with status 2 when a setting is wrong."""
    try:
        settings = Settings()
    except ValidationError as error:
        for problem in error.errors():
            name = "_".join(str(part) for part in problem["loc"]).upper()
            print(f"Setting {name}: {problem['msg']}.", file=sys.stderr)
        sys.exit(2)
    logging.basicConfig(
        level=settings.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s %(message)s"
    )
    if not _is_loopback(settings.host):
        log.warning("listening on %s: anyone who can reach it can use it", settings.host)
    app = create_app(settings)
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        log_level=settings.log_level,
        timeout_graceful_shutdown=max(1, round(settings.shutdown_grace_s)),
        server_header=False,
    )
    _Server(config, app).run()


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


if __name__ == "__main__":
    main()
