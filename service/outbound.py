"""Requests that this service sends to other hosts, and to which it does not.

Users name URLs: of webhooks, of models and bundles. Whoever may name a URL may not thereby reach
what only this machine can reach. So a URL has to be `https`, of a host that the operator allows
(`OUTBOUND_HOSTS`), and every address that the host's name resolves to has to be public. The
connection then goes to the very address that was checked (a name that resolves to another one a
moment later gains nothing), with the host's name for TLS. Redirects are never followed blindly:
each one is a new URL. Proxies and credentials from the environment are not used.

`OUTBOUND_PRIVATE_HOSTS` names the exceptions, as `host:port`: they may be plain http and private.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import httpx

from service.settings import Settings

_DEFAULT_PORTS = {"https": 443, "http": 80}
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_MAX_REDIRECTS = 5


class UrlRefused(Exception):  # noqa: N818 - an outcome, not a bug
    """A URL that the service does not ask; the message says why."""


class OutboundGuard:
    """Checks URLs and the addresses behind them.

    Args:
        hosts: Host names that may be asked; `*.example.com` allows every name below.
        private_hosts: `host:port` pairs that may be private and plain http.
    """

    def __init__(self, hosts: Sequence[str], private_hosts: Sequence[str]) -> None:
        self._hosts = [host.lower() for host in hosts]
        self._private = frozenset(host.lower() for host in private_hosts)

    @classmethod
    def of(cls, settings: Settings) -> OutboundGuard:
        """The guard that the operator asks for."""
        return cls(_names(settings.outbound_hosts), _names(settings.outbound_private_hosts))

    def check(self, url: str) -> httpx.URL:
        """A URL that may be asked as far as can be said without DNS.

        Raises:
            UrlRefused: it may not.
        """
        try:
            parsed = httpx.URL(url)
        except (httpx.InvalidURL, ValueError):
            raise UrlRefused("It is not a URL.") from None
        host = parsed.host.lower()
        if parsed.scheme not in _DEFAULT_PORTS or not host:
            raise UrlRefused("It has to be an https URL.")
        if parsed.userinfo:
            raise UrlRefused("It must not hold a user name or a password.")
        if self._is_private(parsed):
            return parsed
        if parsed.scheme != "https":
            raise UrlRefused("It has to be an https URL.")
        if not any(_matches(host, pattern) for pattern in self._hosts):
            raise UrlRefused(f"The host {host[:100]!r} is not among those that the server allows.")
        return parsed

    def address_of(self, url: httpx.URL) -> str:
        """The address to connect to.

        Raises:
            UrlRefused: the name does not resolve, or to an address that is not public.
        """
        port = url.port or _DEFAULT_PORTS[url.scheme]
        try:
            found = socket.getaddrinfo(url.host, port, type=socket.SOCK_STREAM)
        except OSError:
            raise UrlRefused(f"The host {url.host[:100]!r} has no address.") from None
        addresses = [str(entry[4][0]) for entry in found]
        if not self._is_private(url):
            for address in addresses:
                if not is_public(address):
                    raise UrlRefused(f"The host {url.host[:100]!r} has a private address.")
        return addresses[0]

    @contextmanager
    def stream(
        self, client: httpx.Client, method: str, url: str, **options: object
    ) -> Iterator[httpx.Response]:
        """An answer whose body is read by the caller; redirects are not followed.

        Raises:
            UrlRefused: the URL may not be asked.
            httpx.TransportError: no answer.
        """
        checked = self.check(url)
        address = self.address_of(checked)
        headers = httpx.Headers(options.pop("headers", None))  # type: ignore[arg-type]
        headers["Host"] = checked.netloc.decode()
        request = client.build_request(
            method,
            checked.copy_with(host=address),
            headers=headers,
            extensions={"sni_hostname": checked.host, "timeout": client.timeout.as_dict()},
            **options,  # type: ignore[arg-type]
        )
        response = client.send(request, stream=True, follow_redirects=False)
        try:
            yield response
        finally:
            response.close()

    @contextmanager
    def follow(
        self, client: httpx.Client, method: str, url: str, **options: object
    ) -> Iterator[httpx.Response]:
        """The same, with redirects: each is checked like the first URL."""
        for _ in range(_MAX_REDIRECTS + 1):
            with self.stream(client, method, url, **dict(options)) as response:
                target = response.headers.get("location")
                if response.status_code not in _REDIRECTS or target is None:
                    yield response
                    return
                url = str(httpx.URL(url).join(target))
        raise UrlRefused(f"It redirects more than {_MAX_REDIRECTS} times.")

    def _is_private(self, url: httpx.URL) -> bool:
        port = url.port or _DEFAULT_PORTS[url.scheme]
        return f"{url.host.lower()}:{port}" in self._private


def _names(text: str) -> list[str]:
    return [name for part in text.split(",") if (name := part.strip())]


def new_client(timeout_s: float) -> httpx.Client:
    """A client for the guard: no proxies, no credentials, no cookies of earlier answers."""
    return httpx.Client(timeout=timeout_s, trust_env=False)


def is_public(address: str) -> bool:
    """Whether an address is one of the public internet."""
    found = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address):
        inner = found.ipv4_mapped or found.sixtofour or (found.teredo and found.teredo[1])
        if inner:
            found = inner
    return found.is_global and not found.is_multicast


def _matches(host: str, pattern: str) -> bool:
    if pattern.startswith("*."):
        return host.endswith(pattern[1:]) and len(host) > len(pattern) - 1
    return host == pattern
