"""Response headers that tell browsers what not to do with answers of this service."""

from __future__ import annotations

from starlette.datastructures import MutableHeaders

_ALWAYS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}
# Pages bring their own policy; nothing else is a page.
_NO_PAGE = "default-src 'none'; frame-ancestors 'none'"
_HSTS = "max-age=31536000"


def secure(headers: MutableHeaders, is_https: bool) -> None:
    """Add what is missing to the headers of a response."""
    for name, value in _ALWAYS.items():
        headers[name] = value
    headers.setdefault("Content-Security-Policy", _NO_PAGE)
    if "etag" not in headers:
        headers.setdefault("Cache-Control", "no-store")
    if is_https:
        headers["Strict-Transport-Security"] = _HSTS
