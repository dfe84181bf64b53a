"""Problem documents (RFC 9457): the one shape of every error the service answers with.

A handler raises `Problem(code, detail, **members)`; the code's row in `problem_types` gives the
status and title. Errors of `graph_ops` come through `Problem.from_error`. Every role raises
problems; `problem_handlers` makes the API answer with them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Self

from pydantic import BaseModel, ConfigDict
from starlette.responses import Response

from graph_ops.errors import PrunerError
from service.problem_types import PROBLEM_TYPES

MEDIA_TYPE = "application/problem+json"

_RESERVED = frozenset({"type", "title", "status", "detail", "instance", "code"})


class ProblemDocument(BaseModel):
    """Body of every error response. Members beyond these depend on the code."""

    model_config = ConfigDict(extra="allow", use_attribute_docstrings=True)

    type: str
    """URI reference of the kind of problem; it can be opened: `/problems/{code}`."""
    title: str
    """What kind of problem it is; the same for every problem of this code."""
    status: int
    """The HTTP status, or the one that a waiting request would have got."""
    detail: str
    """What is wrong this time, where, and what to do."""
    instance: str
    """The job or the request that the problem belongs to."""
    code: str
    """Stable name of the kind of problem, for programs."""


class Problem(Exception):  # noqa: N818 - the word of RFC 9457
    """An error that becomes a problem document.

    Attributes:
        code: A key of `PROBLEM_TYPES`.
        detail: Sentence for this occurrence.
        members: Further JSON-ready members of the document.
        headers: Further response headers.
        instance: URI reference of the job or request; the request's path when None.
    """

    def __init__(
        self,
        code: str,
        detail: str,
        *,
        headers: Mapping[str, str] | None = None,
        instance: str | None = None,
        **members: Any,
    ) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail
        self.members = members
        self.headers = dict(headers or {})
        self.instance = instance

    @classmethod
    def from_error(cls, error: PrunerError) -> Self:
        """The problem that an error of the library is."""
        return cls.from_parts(error.code, error.message, error.details)

    @classmethod
    def from_parts(cls, code: str, detail: str, members: Mapping[str, Any]) -> Self:
        """A problem from data that came out of another process or off the disk.

        Members named like a field of the document get the prefix `error_`.
        """
        problem = cls(code if code in PROBLEM_TYPES else "job_failed", detail)
        for name, value in members.items():
            clean = f"error_{name}" if name in _RESERVED else name
            problem.members[clean] = value
        return problem

    @property
    def status(self) -> int:
        """The HTTP status of this problem."""
        return PROBLEM_TYPES[self.code].status

    def document(self, instance: str) -> dict[str, Any]:
        """The JSON body; `instance` is used where the problem has none of its own."""
        kind = PROBLEM_TYPES[self.code]
        return {
            "type": f"/problems/{self.code}",
            "title": kind.title,
            "status": kind.status,
            "detail": self.detail,
            "instance": self.instance or instance,
            "code": self.code,
            **self.members,
        }

    def response(self, instance: str) -> Response:
        """The HTTP response."""
        body = json.dumps(self.document(instance), ensure_ascii=False, default=str)
        return Response(
            body.encode("utf-8", "replace"),
            status_code=self.status,
            headers=self.headers,
            media_type=MEDIA_TYPE,
        )
