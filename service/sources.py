"""Models and bundles that are given as URLs: `https://` and `s3://`.

They are fetched by the service under the same limits as an upload. https URLs go through the
guard of `service.outbound`, redirects included. s3 URLs are read with the service's own
credentials, so only from buckets (or prefixes) that the operator names in `SOURCE_BUCKETS`, and
never from where the service keeps its own objects: there, the id would be all it takes to read
what belongs to somebody else.
"""

from __future__ import annotations

from typing import Annotated

import httpx
from pydantic import BaseModel, ConfigDict, StringConstraints

from service.objects import StorageUnavailable, open_store, reading
from service.outbound import OutboundGuard, UrlRefused, new_client
from service.problems import Problem
from service.settings import Settings
from service.sinks import FileSink

_PIECE_BYTES = 2**20


class UrlSource(BaseModel):
    """Body of an upload that names where the file is."""

    model_config = ConfigDict(extra="forbid")

    url: Annotated[str, StringConstraints(pattern=r"^[\x00-\x7f]*$", max_length=2048)]


class Sources:
    """Fetches what URLs name.

    Args:
        settings: Which buckets may be read, and how long a source may stand still.
        guard: Which hosts may be asked.
    """

    def __init__(self, settings: Settings, guard: OutboundGuard) -> None:
        self._guard = guard
        self._timeout_s = settings.upload_idle_timeout_s
        buckets = settings.source_buckets.split(",")
        self._buckets = [f"{b.strip().strip('/')}/" for b in buckets if b.strip()]
        self._own = f"{(settings.storage_url or '').removeprefix('s3://').strip('/')}/"

    def fetch(self, url: str, sink: FileSink) -> None:
        """Write to a sink what a URL names. Blocks.

        Raises:
            Problem: `source_not_allowed`, `source_unreadable`, and those of the sink.
        """
        try:
            if url.startswith("s3://"):
                self._fetch_object(url.removeprefix("s3://"), sink)
            else:
                self._fetch_page(url, sink)
        except UrlRefused as refusal:
            raise Problem("source_not_allowed", f"url: {refusal}") from None
        except (httpx.HTTPError, StorageUnavailable, FileNotFoundError) as error:
            name = type(error).__name__
            raise Problem("source_unreadable", f"The URL could not be read ({name}).") from None

    def _fetch_page(self, url: str, sink: FileSink) -> None:
        plain = {"Accept-Encoding": "identity"}
        with (
            new_client(self._timeout_s) as client,
            self._guard.follow(client, "GET", url, headers=plain) as response,
        ):
            if response.status_code != 200:
                raise Problem(
                    "source_unreadable",
                    f"The URL was answered with HTTP status {response.status_code}.",
                )
            length = response.headers.get("content-length", "0")
            sink.expect(int(length) if length.isdigit() else 0)
            for piece in response.iter_raw(_PIECE_BYTES):
                sink.write(piece)

    def _fetch_object(self, place: str, sink: FileSink) -> None:
        bucket, _, key = place.partition("/")
        is_allowed = any(f"{bucket}/{key}".startswith(allowed) for allowed in self._buckets)
        is_own = self._own != "/" and place.startswith(self._own)
        if not key or not is_allowed or is_own or ".." in key.split("/"):
            raise UrlRefused(f"The bucket {bucket[:100]!r} is not one that the server may read.")
        with reading(open_store(f"s3://{bucket}"), key) as found:
            sink.expect(found.meta["size"])
            for piece in found.stream(min_chunk_size=_PIECE_BYTES):
                sink.write(bytes(piece))
