"""Who is asking, and what they may do.

Where no API key was ever made everyone is the operator: the server is then bound to loopback (or
the operator has said that something else keeps strangers out). From the first key on, every
request but those for public pages needs one.

Access is denied by default: `authorize` is a dependency of the whole application. A route needs
the scope `read` for GET and HEAD and `submit` for other methods; a route that is open to
everyone says so in its OpenAPI operation: `openapi_extra=PUBLIC`.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Annotated, Any

import anyio.to_thread
from fastapi import Depends, Request

from service.addresses import is_loopback
from service.keys import ApiKey, KeyStore, Scope
from service.problems import Problem
from service.rates import RateLimiter
from service.settings import Settings

PUBLIC: dict[str, Any] = {"security": []}
"""Marks an operation that needs no key."""

SECURITY_SCHEME = {
    "type": "http",
    "scheme": "bearer",
    "description": "An API key; not needed where the server has none.",
}

_TRUSTED_S = 1.0
"""A key that was found good is not looked up again for so long: revoking takes that long."""

_MAX_CACHED = 1000
_READING = frozenset({"GET", "HEAD"})


@dataclass(frozen=True)
class Caller:
    """Who sent a request.

    Attributes:
        owner: Whose models, bundles and jobs they work on; empty where there are no keys.
        scope: What they may do.
        max_jobs: Unfinished jobs that their owner may have; None for no limit.
        key_id: The key; None where there are none.
    """

    owner: str
    scope: Scope
    max_jobs: int | None = None
    key_id: str | None = None

    @property
    def is_admin(self) -> bool:
        """Whether they see what belongs to others."""
        return self.scope is Scope.ADMIN

    def may_see(self, owner: str) -> bool:
        """Whether they see what belongs to this owner."""
        return self.is_admin or self.owner == owner


OPERATOR = Caller("", Scope.ADMIN)
"""Everyone, where there are no keys."""


class Gate:
    """Decides who gets in. Used on one event loop."""

    def __init__(self, settings: Settings, keys: KeyStore) -> None:
        self._settings = settings
        self._keys = keys
        self._rates = RateLimiter()
        self._known: dict[str, tuple[ApiKey, float]] = {}
        self._is_closed = False

    async def admit(self, request: Request) -> Caller:
        """Who sent a request, which they may send.

        Raises:
            Problem: `unauthenticated`, `forbidden`, `rate_limited`, `host_not_allowed`.
        """
        token = _bearer_token(request)
        if token is None:
            if await self._needs_key():
                raise _unauthenticated("This server needs an API key.")
            self._check_origin(request)
            return OPERATOR
        key = await self._find(token)
        if key is None:
            raise _unauthenticated("The API key is not known, or was revoked.", "invalid_token")
        self._check_rate(key)
        needed = Scope.READ if request.method in _READING else Scope.SUBMIT
        require(key.scope, needed)
        max_jobs = self._settings.max_jobs_per_key if key.max_jobs is None else key.max_jobs
        return Caller(key.owner, key.scope, max_jobs, key.id)

    async def _needs_key(self) -> bool:
        if not self._is_closed:
            self._is_closed = await anyio.to_thread.run_sync(self._keys.any)
        return self._is_closed

    async def _find(self, token: str) -> ApiKey | None:
        key, found_at = self._known.get(token, (None, 0.0))
        if key is not None and time.monotonic() - found_at < _TRUSTED_S:
            return key
        key = await anyio.to_thread.run_sync(self._keys.find, token)
        if len(self._known) >= _MAX_CACHED:
            self._known.clear()
        if key is None:
            self._known.pop(token, None)
        else:
            self._known[token] = (key, time.monotonic())
        return key

    def _check_rate(self, key: ApiKey) -> None:
        limit = key.max_requests_per_minute or self._settings.max_requests_per_minute
        wait_s = self._rates.take(key.id, limit) if limit else 0.0
        if wait_s:
            raise Problem(
                "rate_limited",
                f"The key {key.name} may send {limit} requests a minute.",
                headers={"Retry-After": str(round(wait_s))},
                limit=limit,
            )

    def _check_origin(self, request: Request) -> None:
        """Keep out web pages of other sites that a browser on this machine shows.

        Without keys, being able to connect is all it takes, and a browser can. A name that
        resolves to loopback (DNS rebinding) shows in Host, a form on another site in
        Sec-Fetch-Site.

        Raises:
            Problem: `host_not_allowed`.
        """
        if self._settings.allow_unauthenticated:
            return
        host = request.url.hostname or ""
        if not is_loopback(host):
            raise Problem(
                "host_not_allowed",
                f"Without API keys this server answers to localhost only, not to {host[:80]!r}.",
            )
        site = request.headers.get("sec-fetch-site", "none")
        if request.method not in _READING and site not in ("none", "same-origin"):
            raise Problem(
                "host_not_allowed",
                "Without API keys this server takes no requests from pages of other sites.",
            )


async def authorize(request: Request) -> Caller:
    """The caller of a request, for every route; the operator's own for public ones.

    Raises:
        Problem: they may not send it.
    """
    extra = getattr(request.scope.get("route"), "openapi_extra", None) or {}
    if extra.get("security") == []:
        return Caller("", Scope.READ)
    gate: Gate = request.app.state.services.gate
    caller = await gate.admit(request)
    request.scope["caller"] = caller
    return caller


CallerDep = Annotated[Caller, Depends(authorize)]


def require(scope: Scope, needed: Scope) -> None:
    """Check that a scope is enough.

    Raises:
        Problem: `forbidden`.
    """
    if not scope.includes(needed):
        raise Problem(
            "forbidden",
            f"The API key has the scope {scope}; this takes {needed}.",
            headers={
                "WWW-Authenticate": f'Bearer error="insufficient_scope", scope="{needed}"',
            },
            needed=str(needed),
        )


def _bearer_token(request: Request) -> str | None:
    """The token of a request; None where there is none.

    Raises:
        Problem: `unauthenticated` for other schemes.
    """
    header = request.headers.get("authorization")
    if header is None:
        return None
    scheme, _, token = header.partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise _unauthenticated(
            "Send the API key as a bearer token: Authorization: Bearer ofp_...", "invalid_request"
        )
    return token.strip()


def _unauthenticated(detail: str, error: str | None = None) -> Problem:
    challenge = 'Bearer realm="onnx-filter-pruner"' + (f', error="{error}"' if error else "")
    return Problem("unauthenticated", detail, headers={"WWW-Authenticate": challenge})
