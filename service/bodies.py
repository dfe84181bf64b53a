"""Bodies of requests: none may stand still, and JSON is bounded and read as what it has to be."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError

from service.problems import Problem
from service.settings import Settings

Body = TypeVar("Body", bound=BaseModel)


def json_body(name: str) -> dict[str, Any]:
    """How the OpenAPI document shows a JSON body, by the name of its schema."""
    schema = {"$ref": f"#/components/schemas/{name}"}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


async def body_chunks(request: Request, idle_timeout_s: float) -> AsyncIterator[bytes]:
    """A body as it arrives.

    Raises:
        Problem: `upload_stalled` when nothing comes for `idle_timeout_s` seconds.
        ClientDisconnect: the client went away.
    """
    chunks = request.stream()
    while True:
        try:
            async with asyncio.timeout(idle_timeout_s):
                chunk = await anext(chunks, None)
        except TimeoutError:
            raise Problem(
                "upload_stalled", f"No bytes came for {idle_timeout_s:g} seconds."
            ) from None
        if chunk is None:
            return
        yield chunk


async def read_body(
    request: Request, model: type[Body], settings: Settings, max_bytes: int | None = None
) -> Body:
    """A JSON body.

    Args:
        request: Whose body it is; also one that declares no length.
        model: What it has to be.
        settings: How much is taken, and how long it may stand still.
        max_bytes: More are refused as soon as they arrive; None for `MAX_OPTIONS_BYTES`.

    Raises:
        Problem: too long, of another type, or not what is expected.
        ClientDisconnect: the client went away.
    """
    largest = settings.max_options_bytes if max_bytes is None else max_bytes
    try:
        body = await _read(request, largest, settings.upload_idle_timeout_s)
        return model.model_validate_json(body)
    except ValidationError as error:
        errors = [
            {"field": ".".join(str(part) for part in e["loc"]) or "body", "problem": e["msg"]}
            for e in error.errors(include_url=False, include_input=False, include_context=False)
        ]
        detail = f"{errors[0]['field']}: {errors[0]['problem']}."
        raise Problem("request_invalid", detail, errors=errors) from None


async def _read(request: Request, max_bytes: int, idle_timeout_s: float) -> bytes:
    content_type = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if content_type not in ("application/json", ""):
        raise Problem(
            "unsupported_media_type",
            f"The body is {content_type[:100]!r}; send application/json.",
            headers={"Accept": "application/json"},
        )
    body = bytearray()
    async for chunk in body_chunks(request, idle_timeout_s):
        body += chunk
        if len(body) > max_bytes:
            raise Problem(
                "body_too_large",
                f"The body has more than the {max_bytes} bytes that are taken.",
                limit_bytes=max_bytes,
            )
    return bytes(body)
