"""The requests that a client sends, as methods."""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import httpx

from service.client.errors import RequestProblem, UnreachableError
from service.client.retries import Retries
from service.client.transfers import OnBytes, PartialFile, ignore_bytes, pieces_of, sha256_of

DEFAULT_URL = "http://127.0.0.1:8000"
URL_VARIABLE = "PRUNER_URL"
API_KEY_VARIABLE = "PRUNER_API_KEY"

_FINAL = frozenset({"succeeded", "failed", "cancelled", "expired"})
_RECONNECT_S = 1.0
_NO_MORE = "no more"
"""In place of an event: the job is over and its events were all read."""


@dataclass(frozen=True)
class RemoteJob:
    """A job as the service described it.

    Attributes:
        id: Its id.
        state: `queued`, `running`, `cancelling`, `cancelled`, `succeeded`, `failed` or `expired`.
        progress: `phase`, `done`, `total`, `message`, `eta_s`; None until the first report.
        problem: The problem document of a job that failed or was cancelled.
        links: Paths of the job, its events and its results.
        document: All that the service said.
    """

    id: str
    state: str
    progress: Mapping[str, Any] | None
    problem: Mapping[str, Any] | None
    links: Mapping[str, str]
    document: Mapping[str, Any] = field(repr=False)

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Self:
        """The job of a JSON document."""
        names = ("id", "state", "progress", "problem", "links")
        return cls(**{name: document[name] for name in names}, document=document)

    @property
    def is_over(self) -> bool:
        """Whether its state is final."""
        return self.state in _FINAL

    def check(self) -> Self:
        """The job, if it has not failed.

        Raises:
            RequestProblem: why it gave no result.
        """
        if self.problem is not None:
            raise RequestProblem(int(self.problem.get("status", 500)), self.problem)
        return self


class Client:
    """A connection to the service. Methods wait; they raise the exceptions of `errors`.

    Args:
        url: Where it is; `PRUNER_URL` or this machine's port 8000 when None.
        api_key: Bearer token; `PRUNER_API_KEY`, or none, when None.
        timeout_s: Seconds without a byte after which a connection counts as broken.
        patience_s: Seconds that requests are sent again while the service does not answer or is
            too busy.
    """

    def __init__(
        self,
        url: str | None = None,
        api_key: str | None = None,
        *,
        timeout_s: float = 60.0,
        patience_s: float = 120.0,
    ) -> None:
        url = url or os.environ.get(URL_VARIABLE) or DEFAULT_URL
        api_key = api_key or os.environ.get(API_KEY_VARIABLE)
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._http = httpx.Client(base_url=url, headers=headers, timeout=timeout_s)
        self._retries = Retries(patience_s)
        self._patience_s = patience_s

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    # Models and bundles -------------------------------------------------------------------------

    def upload(self, kind: str, path: str | Path, on_bytes: OnBytes = ignore_bytes) -> str:
        """Store a file unless the service has it; its id, which is its sha256.

        Args:
            kind: `model` or `bundle`.
            path: The file; it is streamed.
            on_bytes: Told how much is sent.
        """
        path = Path(path)
        sha256 = sha256_of(path)
        known = self._retries.send(lambda: self._http.get(f"/v1/{kind}s/{sha256}"))
        if known.status_code == 200:
            return sha256
        name = path.name.replace('"', "_").encode("ascii", "replace").decode()
        headers = {
            "Content-Type": "application/octet-stream",
            "Content-Length": str(path.stat().st_size),
            "Content-Disposition": f'attachment; filename="{name}"',
        }

        def send() -> httpx.Response:
            body = pieces_of(path, on_bytes)
            return self._http.post(f"/v1/{kind}s", content=body, headers=headers)

        upload_id: str = _document(self._retries.send(send))["id"]
        return upload_id

    # Jobs ---------------------------------------------------------------------------------------

    def submit(
        self,
        model: str | Path,
        bundle: str | Path,
        options: Mapping[str, Any] | None = None,
        metadata: Mapping[str, str] | None = None,
        *,
        job_id: str | None = None,
        webhook_url: str | None = None,
        on_bytes: Callable[[str], OnBytes] = lambda kind: ignore_bytes,
    ) -> RemoteJob:
        """Store both files and start a job on them.

        The job has an id of the client's, so that a request which was sent twice is one job.

        Args:
            model: The model file.
            bundle: The calibration bundle.
            options: Options of the run: those that differ from the defaults are enough.
            metadata: Your own words about the job.
            job_id: The id; a new one when None.
            webhook_url: A URL that the service tells, signed, when the job is over.
            on_bytes: For `model` and `bundle`, who is told how much is sent.
        """
        body: dict[str, Any] = {
            "model_id": self.upload("model", model, on_bytes("model")),
            "bundle_id": self.upload("bundle", bundle, on_bytes("bundle")),
            "options": dict(options or {}),
            "metadata": dict(metadata or {}),
        }
        if webhook_url is not None:
            body["webhook_url"] = webhook_url
        path = f"/v1/jobs/{job_id or uuid.uuid4()}"
        return self._job(lambda: self._http.put(path, json=body))

    def job(self, job_id: str) -> RemoteJob:
        """A job as it stands."""
        return self._job(lambda: self._http.get(f"/v1/jobs/{job_id}"))

    def jobs(self, **filters: str | int) -> Iterator[RemoteJob]:
        """Jobs, newest first; `state`, `label` and `limit` (of a page) filter."""
        parameters: dict[str, Any] = dict(filters)
        while True:
            query = dict(parameters)
            found = _document(
                self._retries.send(lambda query=query: self._http.get("/v1/jobs", params=query))  # type: ignore[misc]
            )
            yield from (RemoteJob.of(item) for item in found["items"])
            if found["next_cursor"] is None:
                return
            parameters["cursor"] = found["next_cursor"]

    def events(self, job_id: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """What happens to a job, from its beginning to its end: kind and data of each event.

        Connections that break are made again, and the stream goes on where it was.
        """
        last, end = "0", time.monotonic() + self._patience_s
        while True:
            try:
                for number, kind, data in self._stream_events(job_id, last):
                    if kind == _NO_MORE:
                        return
                    last, end = number, time.monotonic() + self._patience_s
                    yield kind, data
                    if kind == "state" and data["state"] in _FINAL:
                        return
            except httpx.TransportError as error:
                if time.monotonic() > end:
                    raise UnreachableError(f"The service does not answer: {error}.") from None
            time.sleep(_RECONNECT_S)

    def wait(
        self, job_id: str, on_progress: Callable[[Mapping[str, Any]], None] = lambda _: None
    ) -> RemoteJob:
        """The job when it is over.

        Raises:
            RequestProblem: it failed or was cancelled.
        """
        for kind, data in self.events(job_id):
            if kind == "progress":
                on_progress(data)
        return self.job(job_id).check()

    def cancel(self, job_id: str) -> RemoteJob:
        """Stop a job; it is `cancelled` when its processes are gone."""
        return RemoteJob.of(_document(self._once("POST", f"/v1/jobs/{job_id}/cancel")))

    def retry(self, job_id: str) -> RemoteJob:
        """Put a job that failed or was cancelled into the queue again."""
        return RemoteJob.of(_document(self._once("POST", f"/v1/jobs/{job_id}/retry")))

    def delete(self, job_id: str) -> None:
        """Remove a job with its results."""
        _check(self._retries.send(lambda: self._http.delete(f"/v1/jobs/{job_id}")))

    def download(
        self, job_id: str, name: str, target: str | Path, on_bytes: OnBytes = ignore_bytes
    ) -> Path:
        """Fetch a result; one whose download was cut short goes on where it ended.

        Args:
            job_id: The job.
            name: `model`, `report` or `scores`.
            target: Where the file goes.
            on_bytes: Told how much there is.
        """
        path = f"/v1/jobs/{job_id}/{name}"
        head = self._retries.send(lambda: self._http.head(path))
        if head.status_code != 200:  # HEAD has no body that says why
            _check(self._retries.send(lambda: self._http.get(path)))
        size = int(head.headers["content-length"])
        part = PartialFile(Path(target), head.headers["etag"], size)
        end = time.monotonic() + self._patience_s
        while (before := part.received_bytes) < size:
            try:
                self._fetch(path, part, on_bytes)
            except httpx.TransportError as error:
                if part.received_bytes > before:
                    end = time.monotonic() + self._patience_s
                elif time.monotonic() > end:
                    raise UnreachableError(f"The download broke off: {error}.") from None
                else:
                    time.sleep(_RECONNECT_S)
        return part.finish()

    # Inside -------------------------------------------------------------------------------------

    def _fetch(self, path: str, part: PartialFile, on_bytes: OnBytes) -> None:
        def send() -> httpx.Response:
            request = self._http.build_request("GET", path, headers=part.headers)
            return self._http.send(request, stream=True)

        response = self._retries.send(send)
        try:
            if response.status_code not in (200, 206):
                response.read()
                raise RequestProblem.of(response)
            part.take(response, on_bytes)
        finally:
            response.close()

    def _stream_events(self, job_id: str, last: str) -> Iterator[tuple[str, str, dict[str, Any]]]:
        headers = {"Last-Event-ID": last, "Accept": "text/event-stream"}
        with self._http.stream("GET", f"/v1/jobs/{job_id}/events", headers=headers) as response:
            if response.status_code == 204:
                yield last, _NO_MORE, {}
                return
            if response.status_code >= 400:
                response.read()
                if response.status_code not in (429, 503):
                    raise RequestProblem.of(response)
                return
            fields: dict[str, str] = {}
            for line in response.iter_lines():
                if line:
                    name, _, value = line.partition(": ")
                    fields[name] = value
                elif "data" in fields:
                    yield fields["id"], fields["event"], json.loads(fields["data"])
                    fields = {}

    def _job(self, send: Callable[[], httpx.Response]) -> RemoteJob:
        return RemoteJob.of(_document(self._retries.send(send)))

    def _once(self, method: str, path: str) -> httpx.Response:
        """Send what is not safe to send again."""
        try:
            return self._http.request(method, path)
        except httpx.TransportError as error:
            raise UnreachableError(f"The service does not answer: {error}.") from None


def _check(response: httpx.Response) -> httpx.Response:
    if response.status_code >= 400:
        raise RequestProblem.of(response)
    return response


def _document(response: httpx.Response) -> dict[str, Any]:
    document: dict[str, Any] = _check(response).json()
    return document
