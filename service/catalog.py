"""What is known about stored models and bundles, found in children and kept beside the files."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio.to_thread

from graph_ops.options import PruneOptions
from graph_ops.preprocessing import missing_settings
from service.access import Caller
from service.children import Children
from service.files import read_json, remove, write_json
from service.holdings import Holdings
from service.problems import Problem
from service.runner import ChildFailure
from service.sinks import ReceivedFile
from service.storage import Kind, Storage, StoredUpload

# Facts come from a child; more than this is not a description any more.
_FACTS_LIMIT_BYTES = 256 * 2**20
_RETRY_AFTER_S = 5

_FILE_OF_ACTION = {
    "inspect": "inspection.json",
    "channels": "channels.json",
    "contents": "contents.json",
    "probe": "probe.json",
    "forecast": "forecast.json",
}
_CHECK_OF_KIND = {Kind.MODEL: "inspect", Kind.BUNDLE: "contents"}


class Catalog:
    """Facts about uploads. Used on one event loop."""

    def __init__(
        self,
        storage: Storage,
        holdings: Holdings,
        children: Children,
        places: int,
        max_queued: int,
    ) -> None:
        self._storage = storage
        self._holdings = holdings
        self._children = children
        self._places = asyncio.Semaphore(places)
        self._max_queued = max_queued
        self._waiting = 0
        self._searches: dict[Path, asyncio.Task[Any]] = {}

    async def add(
        self, caller: Caller, kind: Kind, received: ReceivedFile
    ) -> tuple[StoredUpload, bool]:
        """Check an upload in a child and store it; whether it is new to the caller.

        Raises:
            Problem: it is refused, and not stored.
        """
        action = _CHECK_OF_KIND[kind]
        existing = self._storage.find_upload(kind, received.sha256)
        if existing is not None:
            await self.facts(existing, action)
            return await anyio.to_thread.run_sync(self._holdings.add, caller, kind, received)
        # The disk may still be busy with the file, which the child reads from memory meanwhile.
        flushing = asyncio.create_task(asyncio.to_thread(received.flush))
        try:
            found = await self._search(action, {str(kind): received.path})
            await flushing
        finally:
            with anyio.CancelScope(shield=True):
                await asyncio.wait({flushing})
        upload, is_new = await anyio.to_thread.run_sync(self._holdings.add, caller, kind, received)
        await anyio.to_thread.run_sync(write_json, _cache(upload, action), found)
        return upload, is_new

    async def facts(self, upload: StoredUpload, action: str) -> Any:
        """What `action` finds about a stored upload; from the cache where it is there.

        Raises:
            Problem: the upload cannot be used, or too many wait.
        """
        known = await self._known(upload, action)
        if known is not None:
            return known
        cache = _cache(upload, action)
        search = self._searches.get(cache)
        if search is None:
            search = asyncio.create_task(self._search_and_keep(upload, action, cache))
            self._searches[cache] = search
            search.add_done_callback(lambda task: self._forget(cache, task))
        # The search goes on for others, and for the cache, when this request goes away.
        return await asyncio.shield(search)

    async def require_settings(
        self, model: StoredUpload, bundle: StoredUpload, options: PruneOptions
    ) -> None:
        """Refuse images that nobody has said how to read, before a job is made of them.

        Only what is known already is looked at: where it is not, the job finds out.

        Raises:
            PreprocessingError: neither bundle nor options have settings; it shows the guess.
        """
        if options.preprocessing is not None:
            return
        contents = await self._known(bundle, "contents")
        images = None if contents is None else contents.get("images")
        if images is None or images["preprocessing"] is not None:
            return
        facts = await self._known(model, "inspect")
        if facts is not None and "preprocessing_guess" in facts:
            raise missing_settings(facts["preprocessing_guess"])

    async def forecast(
        self, model: StoredUpload, bundle: StoredUpload, options: dict[str, Any]
    ) -> Any:
        """What a job would come to.

        Raises:
            Problem: model, bundle and options cannot be used together, or too many wait.
        """
        paths = {"model": model.path, "bundle": bundle.path}
        async with self._localised(model, bundle):
            return await self._search("forecast", paths, options)

    async def probe(self) -> Any:
        """Versions of the runtime and states of the engines, as a child sees them.

        Raises:
            Problem: a child cannot be started or cannot import it.
        """
        return await self._search("probe", {})

    async def stop(self) -> None:
        """Kill the children that run."""
        searches = list(self._searches.values())
        for search in searches:
            search.cancel()
        await asyncio.gather(*searches, return_exceptions=True)

    async def _known(self, upload: StoredUpload, action: str) -> Any:
        """What was found before; None where nothing was."""
        cache = _cache(upload, action)
        return await anyio.to_thread.run_sync(read_json, cache, _FACTS_LIMIT_BYTES)

    def _forget(self, cache: Path, task: asyncio.Task[Any]) -> None:
        self._searches.pop(cache, None)
        if not task.cancelled():
            task.exception()  # marked as seen, also when every request has gone away

    async def _search_and_keep(self, upload: StoredUpload, action: str, cache: Path) -> Any:
        async with self._localised(upload):
            found = await self._search(action, {str(upload.kind): upload.path})
        if upload.folder.exists():  # it may have been deleted meanwhile
            await anyio.to_thread.run_sync(write_json, cache, found)
        return found

    async def _search(
        self, action: str, paths: dict[str, Path], options: dict[str, Any] | None = None
    ) -> Any:
        async with self._place():
            workdir = await anyio.to_thread.run_sync(self._storage.new_temporary)
            try:
                await self._children.inspect(workdir, action, paths, options)
                result = workdir / _FILE_OF_ACTION[action]
                found = await anyio.to_thread.run_sync(read_json, result, _FACTS_LIMIT_BYTES)
            except ChildFailure as failure:
                raise Problem.from_parts(failure.code, failure.detail, failure.members) from None
            finally:
                with anyio.CancelScope(shield=True):
                    await anyio.to_thread.run_sync(remove, workdir)
        if found is None:
            raise Problem("job_failed", "The inspection left no readable result.")
        return found

    @asynccontextmanager
    async def _localised(self, *uploads: StoredUpload) -> AsyncIterator[None]:
        held = self._storage.localised(*uploads)
        await anyio.to_thread.run_sync(held.__enter__)
        try:
            yield
        finally:
            held.__exit__(None, None, None)

    @asynccontextmanager
    async def _place(self) -> AsyncIterator[None]:
        if self._places.locked() and self._waiting >= self._max_queued:
            raise Problem(
                "queue_full",
                f"{self._waiting} inspections are waiting; try again in {_RETRY_AFTER_S} seconds.",
                headers={"Retry-After": str(_RETRY_AFTER_S)},
                limit=self._max_queued,
            )
        self._waiting += 1
        try:
            await self._places.acquire()
        finally:
            self._waiting -= 1
        try:
            yield
        finally:
            self._places.release()


def _cache(upload: StoredUpload, action: str) -> Path:
    return upload.folder / _FILE_OF_ACTION[action]
