"""What is sent again, and when.

Sent again are requests that had no answer, and those answered by 429 or 503 (too busy, stopping,
starting), or by a gateway (502, 504) that is not the service. The service says in `Retry-After`
when; where it does not, pauses grow from half a second to half a minute, and are spread so that
clients which failed together do not come back together.

A request is sent again only if that is safe: `GET`, `HEAD`, `PUT` and `DELETE` are, and uploads,
which are named by their content.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpx

from service.client.errors import RequestProblem, UnreachableError

_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 30.0
_BUSY = frozenset({429, 503})
_GATEWAY = frozenset({502, 504})
_PROBLEM = "application/problem+json"


class Retries:
    """How long to try.

    Args:
        patience_s: Seconds after which the last failure is final.
    """

    def __init__(self, patience_s: float) -> None:
        self._patience_s = patience_s

    def send(self, send: Callable[[], httpx.Response]) -> httpx.Response:
        """The first answer that is not a reason to try again.

        Raises:
            UnreachableError: there was none.
            RequestProblem: the service was too busy to the last.
        """
        end = time.monotonic() + self._patience_s
        pause_s = _FIRST_PAUSE_S
        while True:
            failure: Exception
            wait_s = None
            try:
                response = send()
            except httpx.TransportError as error:
                failure = UnreachableError(f"The service does not answer: {_words(error)}.")
            else:
                if not _is_passing(response):
                    return response
                wait_s = retry_after_s(response.headers.get("retry-after"))
                response.read()
                response.close()
                failure = RequestProblem.of(response)
            if wait_s is None:
                wait_s = pause_s * random.uniform(0.5, 1.0)
                pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)
            if time.monotonic() + wait_s > end:
                raise failure from None
            time.sleep(wait_s)


def retry_after_s(header: str | None) -> float | None:
    """Seconds that a `Retry-After` header asks for, as a number or a date; None without one."""
    if header is None:
        return None
    if header.strip().isdigit():
        return float(header)
    try:
        at = parsedate_to_datetime(header)
    except ValueError:
        return None
    return max(0.0, (at - datetime.now(UTC)).total_seconds())


def _is_passing(response: httpx.Response) -> bool:
    """Whether the same request may succeed later; failed jobs are problems with 502 and 504."""
    if response.status_code in _BUSY:
        return True
    is_ours = response.headers.get("content-type", "").startswith(_PROBLEM)
    return response.status_code in _GATEWAY and not is_ours


def _words(error: Exception) -> str:
    return str(error).rstrip(".") or type(error).__name__
