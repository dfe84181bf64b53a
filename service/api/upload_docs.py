"""How the OpenAPI document shows uploads, whose bodies are read as streams."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

_URL = {
    "type": "object",
    "properties": {
        "url": {"type": "string", "maxLength": 2048, "description": "https:// or s3://"}
    },
    "required": ["url"],
    "additionalProperties": False,
}


def upload_body(what: str) -> dict[str, Any]:
    """A request body that is one file, multipart or raw."""
    file = {"type": "string", "format": "binary", "description": what}
    form = {"type": "object", "properties": {"file": file}, "required": ["file"]}
    return {
        "required": True,
        "content": {
            "multipart/form-data": {"schema": form},
            "application/octet-stream": {"schema": file},
            "application/json": {"schema": _URL},
        },
    }


def upload_responses(view: type[BaseModel]) -> dict[int | str, dict[str, Any]]:
    """The two ways an upload succeeds."""
    location = {"Location": {"schema": {"type": "string"}, "description": "Path of the upload."}}
    return {
        200: {"model": view, "description": "It was there already.", "headers": location},
        201: {"description": "It is stored.", "headers": location},
    }
