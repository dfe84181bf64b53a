"""What goes wrong between a client and the service.

ClientError
├── UnreachableError     no answer, as often as it was tried
├── RequestProblem       the service's own words: a problem document
└── DownloadError        the bytes that came are not those that were promised
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import httpx


class ClientError(Exception):
    """The request has no result.

    Attributes:
        code: Stable name of what happened.
        detail: Sentence for a person.
        members: Further facts.
    """

    code = "client_error"

    def __init__(self, detail: str, members: Mapping[str, Any] | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.members = dict(members or {})


class UnreachableError(ClientError):
    """The service does not answer, or answered to the last that it is too busy."""

    code = "service_unreachable"


class DownloadError(ClientError):
    """A file came, but not the one that was promised."""

    code = "download_corrupt"


class RequestProblem(ClientError):  # noqa: N818 - the word of RFC 9457
    """The service refused a request, or a job failed.

    Attributes:
        status: The HTTP status.
    """

    def __init__(self, status: int, document: Mapping[str, Any]) -> None:
        plain = {"type", "title", "status", "detail", "code"}
        members = {name: value for name, value in document.items() if name not in plain}
        super().__init__(str(document.get("detail") or f"HTTP status {status}."), members)
        self.code = str(document.get("code") or "http_error")
        self.status = status

    @classmethod
    def of(cls, response: httpx.Response) -> RequestProblem:
        """The problem that a response is; its body has been read."""
        try:
            document = response.json()
        except ValueError:
            document = None
        if not isinstance(document, dict):
            document = {"detail": f"The server answered with HTTP status {response.status_code}."}
        return cls(response.status_code, document)
