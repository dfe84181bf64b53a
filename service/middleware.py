"""What happens around every request: an id, a count, safe headers, and a drained body.

The last one: a server that answers while the client still sends, and then closes, makes the
kernel reset the connection, and the client may lose the answer. So what is left of a refused body
is read and thrown away first, up to a bound.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.headers import secure
from service.logs import REQUEST_ID
from service.metrics import Metrics
from service.tracing import TRACEPARENT, valid_traceparent

_DRAIN_BYTES = 64 * 2**20
_DRAIN_SECONDS = 5.0

log = logging.getLogger("service.requests")
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"})


class RequestMiddleware:
    """Pure ASGI middleware; bodies and responses pass through unbuffered."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope["request_id"] = secrets.token_hex(8)
        REQUEST_ID.set(scope["request_id"])
        TRACEPARENT.set(valid_traceparent(Headers(scope=scope).get("traceparent")))
        body = _Body(scope, receive)
        started = time.monotonic()
        status = 500

        async def send_on(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.body":
                self._metrics.count_download(len(message.get("body", b"")))
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["X-Request-Id"] = scope["request_id"]
                secure(headers, scope["scheme"] == "https")
                if status >= 400 and status != 408:  # after 408 nothing more will come
                    await body.drain()
            await send(message)

        try:
            await self._app(scope, body.receive, send_on)
        finally:
            method = scope["method"] if scope["method"] in _METHODS else "other"
            route = getattr(scope.get("route"), "path", "unmatched")
            seconds = time.monotonic() - started
            self._metrics.count_request(method, route, status, seconds)
            caller = scope.get("caller")
            fields = {
                "method": method,
                "route": route,
                "status": status,
                "duration_ms": round(seconds * 1000, 1),
                "key_id": caller.key_id if caller else None,
            }
            log.info("%s %s %d", method, route, status, extra=fields)


class _Body:
    """A request's body on its way in."""

    def __init__(self, scope: Scope, receive: Receive) -> None:
        headers = Headers(scope=scope)
        self._receive = receive
        # A client that waits for permission (100 Continue) sends nothing until it is read from.
        self._is_on_its_way = headers.get("expect", "").lower() != "100-continue"
        has_body = headers.get("content-length", "0") != "0" or "transfer-encoding" in headers
        self._is_over = not has_body

    async def receive(self) -> Message:
        self._is_on_its_way = True
        message = await self._receive()
        if message["type"] == "http.disconnect" or not message.get("more_body", False):
            self._is_over = True
        return message

    async def drain(self) -> None:
        """Throw away what is left, within bounds."""
        drained = 0
        try:
            async with asyncio.timeout(_DRAIN_SECONDS):
                while self._is_on_its_way and not self._is_over and drained < _DRAIN_BYTES:
                    message = await self.receive()
                    drained += len(message.get("body", b""))
        except TimeoutError:
            return
