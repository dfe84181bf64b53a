"""uvicorn's server, told about requests that wait for jobs."""

from __future__ import annotations

import socket

import uvicorn
from fastapi import FastAPI


class ApiServer(uvicorn.Server):
    """Answers those who wait before it waits for open responses itself."""

    def __init__(self, config: uvicorn.Config, app: FastAPI) -> None:
        super().__init__(config)
        self._app = app

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop: waiting requests are answered, running ones get their time."""
        self._app.state.services.jobs.stop_waiting()
        await super().shutdown(sockets)
