"""Webhooks: tells a URL of the user's that a job is over.

Signed as the Standard Webhooks specification has it: `webhook-signature` is an HMAC-SHA256 over id,
timestamp and body. Every owner has a secret of their own, which follows from the server's, so that
no secret is in the database and none can sign in another's name.

A message is written in the transaction that ends its job, so it is lost no more than the job is.
Every worker looks for messages that are due, and claims each by moving its due time into the
future: should the worker die, the message is due again, with the same `webhook-id`. This is kept
in a table of its own and not in the job engine, where a message that waits for its next try would
hold a place all the while.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import logging
import secrets
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import httpx
import sqlalchemy as sa

from service.database import WEBHOOKS, Database
from service.outbound import OutboundGuard, UrlRefused, new_client
from service.records import Job
from service.storage import now

_LOOK_S = 0.5
_TIMEOUT_S = 15.0
_LEASE_S = 60.0
_AT_ONCE = 16
_GROWTH = 4.0
_LONGEST_PAUSE_S = 6 * 3600.0
_GONE = 410

log = logging.getLogger("service.webhooks")


def secret_of(server_secret: str, owner: str) -> str:
    """The signing secret of an owner, in the form of the specification."""
    key = hmac.new(server_secret.encode(), f"webhooks of {owner}".encode(), hashlib.sha256)
    return "whsec_" + base64.b64encode(key.digest()).decode()


def signature_of(secret: str, message_id: str, timestamp: int, body: bytes) -> str:
    """Value of `webhook-signature`."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signed = f"{message_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()


def message_of(job: Job) -> dict[str, Any]:
    """What is said of a job that is over."""
    data: dict[str, Any] = {
        "id": job.id,
        "state": str(job.state),
        "metadata": job.metadata,
        "links": {
            "self": job.instance,
            **{name: f"{job.instance}/{name}" for name in job.results},
        },
    }
    if job.failure is not None:
        data["code"] = job.failure.code
    return {"type": f"job.{job.state}", "timestamp": now(), "data": data}


def put(connection: sa.Connection, job: Job) -> None:
    """Write the message of a job that is over, in the transaction that ends it."""
    if job.webhook_url is None:
        return
    connection.execute(
        WEBHOOKS.insert().values(
            id=f"msg_{secrets.token_hex(16)}",
            job_id=job.id,
            owner=job.owner,
            url=job.webhook_url,
            body=json.dumps(message_of(job)),
            attempts=0,
            due_at=time.time(),
        )
    )


@dataclass(frozen=True)
class _Message:
    id: str
    job_id: str
    owner: str
    url: str
    body: str
    attempts: int


class WebhookSender:
    """Sends what is due; every worker runs one.

    Args:
        database: Where messages are.
        guard: Which hosts may be asked.
        server_secret: What the owners' secrets follow from.
        attempts: Times that a message is sent before it is given up.
        first_pause_s: Seconds to the second attempt; each further pause is four times as long.
    """

    def __init__(
        self,
        database: Database,
        guard: OutboundGuard,
        server_secret: str,
        attempts: int,
        first_pause_s: float,
    ) -> None:
        self._database = database
        self._guard = guard
        self._server_secret = server_secret
        self._attempts = attempts
        self._first_pause_s = first_pause_s

    def run(self, stop: threading.Event) -> None:
        """Send again and again until told to stop.

        No more are claimed than are sent at once: a claim counts as an attempt and runs out, so
        that none may wait behind hosts that do not answer.
        """
        under_way: list[Future[None]] = []
        with new_client(_TIMEOUT_S) as client, ThreadPoolExecutor(_AT_ONCE) as pool:
            while not stop.wait(_LOOK_S):
                under_way = [future for future in under_way if not future.done()]
                try:
                    for message in self._claim(_AT_ONCE - len(under_way)):
                        under_way.append(pool.submit(self._send, client, message))
                except sa.exc.SQLAlchemyError as error:
                    log.warning("the database does not answer: %s", type(error).__name__)

    def _claim(self, most: int) -> list[_Message]:
        """Messages that are due and that no other worker sends now, up to `most`."""
        table = WEBHOOKS.c
        with self._database.read() as connection:
            at = self._database.clock(connection)
            query = sa.select(WEBHOOKS).where(table.due_at <= at).limit(most)
            due = list(connection.execute(query).mappings())
        claimed = []
        for row in due:
            with self._database.write() as connection:
                mine = WEBHOOKS.update().where(table.id == row["id"], table.due_at == row["due_at"])
                changes = {"due_at": at + _LEASE_S, "attempts": row["attempts"] + 1}
                if connection.execute(mine.values(**changes)).rowcount:
                    fields = {name: row[name] for name in ("id", "job_id", "owner", "url", "body")}
                    claimed.append(_Message(**fields, attempts=row["attempts"] + 1))
        return claimed

    def _send(self, client: httpx.Client, message: _Message) -> None:
        """Send a message once, and write down what came of it."""
        try:
            outcome = self._post(client, message)
            is_over = outcome in ("delivered", "gone") or message.attempts >= self._attempts
            with self._database.write() as connection:
                mine = WEBHOOKS.c.id == message.id
                if is_over:
                    connection.execute(WEBHOOKS.delete().where(mine))
                else:
                    due_at = self._database.clock(connection) + self._pause_s(message.attempts)
                    connection.execute(WEBHOOKS.update().where(mine).values(due_at=due_at))
            level = logging.INFO if outcome == "delivered" else logging.WARNING
            log.log(level, "webhook of job %s: %s (%d)", message.job_id, outcome, message.attempts)
        except Exception:
            log.exception("webhook of job %s failed; it is tried again", message.job_id)

    def _post(self, client: httpx.Client, message: _Message) -> str:
        body, timestamp = message.body.encode(), int(time.time())
        secret = secret_of(self._server_secret, message.owner)
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "onnx-filter-pruner",
            "webhook-id": message.id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": signature_of(secret, message.id, timestamp, body),
        }
        try:
            with self._guard.stream(
                client, "POST", message.url, headers=headers, content=body
            ) as response:
                status = response.status_code
        except UrlRefused:
            return "refused"
        except httpx.TransportError as error:
            return type(error).__name__
        if status == _GONE:
            return "gone"
        return "delivered" if 200 <= status < 300 else f"status {status}"

    def _pause_s(self, attempts: int) -> float:
        return min(self._first_pause_s * _GROWTH ** (attempts - 1), _LONGEST_PAUSE_S)
