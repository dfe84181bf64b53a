"""`/v1/webhooks/secret`: what a receiver of webhooks checks their signatures with."""

from __future__ import annotations

from fastapi import APIRouter

from service.access import CallerDep, require
from service.api.schemas import WebhookSecret
from service.keys import Scope
from service.problems import Problem
from service.services import ServicesDep
from service.webhooks import secret_of

router = APIRouter(tags=["jobs"])


@router.get("/v1/webhooks/secret")
async def get_webhook_secret(services: ServicesDep, caller: CallerDep) -> WebhookSecret:
    """The secret that webhooks of the caller's jobs are signed with (Standard Webhooks)."""
    require(caller.scope, Scope.SUBMIT)
    secret = services.settings.webhook_secret
    if secret is None:
        raise Problem("webhook_not_allowed", "This server sends no webhooks.")
    return WebhookSecret(secret=secret_of(secret.get_secret_value(), caller.owner))
