"""JSON bodies of requests: bounded, and read as what they have to be."""

from __future__ import annotations

from typing import Any, TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError

from service.problems import Problem

Body = TypeVar("Body", bound=BaseModel)


def json_body(name: str) -> dict[str, Any]:
    """How the OpenAPI document shows a JSON body, by the name of its schema."""
    schema = {"$ref": f"#/components/schemas/{name}"}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


async def read_body(request: Request, model: type[Body], max_bytes: int) -> Body:
    """A JSON body.

    Raises:
        Problem: too long, of another type, or not what is expected.
    """
    try:
        return model.model_validate_json(await _read(request, max_bytes))
    except ValidationError as error:
        errors = [
            {"field": ".".join(str(part) for part in e["loc"]) or "body", "problem": e["msg"]}
            for e in error.errors(include_url=False, include_input=False, include_context=False)
        ]
        detail = f"{errors[0]['field']}: {errors[0]['problem']}."
        raise Problem("request_invalid", detail, errors=errors) from None


async def _read(request: Request, max_bytes: int) -> bytes:
    content_type = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if content_type not in ("application/json", ""):
        raise Problem(
            "unsupported_media_type",
            f"The body is {content_type[:100]!r}; send application/json.",
            headers={"Accept": "application/json"},
        )
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > max_bytes:
            raise Problem(
                "body_too_large",
                f"The body has more than the {max_bytes} bytes that are taken.",
                limit_bytes=max_bytes,
            )
    return bytes(body)
