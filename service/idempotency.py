"""`Idempotency-Key`: a request that is sent again is answered by the job of the first one.

The rules of draft-ietf-httpapi-idempotency-key-header: the same key with the same content is the
same job, also when both come at once; with other content it is an error. What counts as content
are the digests of model and bundle, the options and the metadata, not the bytes of the body: a
multipart boundary differs each time. A key is written in the transaction that accepts its job
(`JobStore.add`) and goes when the job is deleted.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

from service.problems import Problem

_KEY = re.compile(r"[\x21-\x7e]{1,255}")


def check_key(key: str | None) -> str | None:
    """The key of a request.

    Raises:
        Problem: `idempotency_key_invalid`.
    """
    if key is not None and not _KEY.fullmatch(key):
        raise Problem(
            "idempotency_key_invalid",
            "The Idempotency-Key has to be 1 to 255 visible ASCII characters.",
        )
    return key


def digest_of(key: str, owner: str) -> str:
    """What is kept of a key; two owners may use the same one."""
    return hashlib.sha256(f"{owner}\n{key}".encode() if owner else key.encode()).hexdigest()


def fingerprint_of(
    model_id: str,
    bundle_id: str,
    options: dict[str, Any],
    metadata: Mapping[str, str],
    *more: str,
) -> str:
    """Digest of what a job is asked to do."""
    content = json.dumps([model_id, bundle_id, options, dict(metadata), *more], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()
