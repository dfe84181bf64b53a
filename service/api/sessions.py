"""`/v1/sessions`: scores that grow piece by piece, and cuts from them without a bundle."""

from __future__ import annotations

from typing import Annotated, Any

import anyio.to_thread
from fastapi import APIRouter, Depends, Path, Request, Response
from pydantic import ConfigDict, Field

from graph_ops.options import parse_options
from service.access import Caller, CallerDep
from service.api.answers import MODEL_ANSWERS, model_answer
from service.api.schemas import JobView, SchemaBase, Sha256
from service.api.upload_docs import upload_body
from service.api.waiting import KeyHeader, PreferHeader, job_response, wait_for
from service.bodies import json_body, read_body
from service.idempotency import check_key
from service.jobs import NewJob
from service.merging import merged_states
from service.metadata import check_metadata
from service.multipart import FilePart
from service.preferences import parse_prefer
from service.problems import Problem
from service.records import JobKind
from service.services import Services, ServicesDep
from service.sessions import Piece, Session
from service.storage import Kind, StoredUpload, as_text

router = APIRouter(tags=["score sessions"])

_TAKEN_WHOLE: dict[str, Any] = {"validation_fraction": 0.0, "max_samples": None}
"""Every sample of a piece is scored: pieces add up to what the whole bundle gives."""


class SessionRequest(SchemaBase):
    """A new session."""

    model_config = ConfigDict(use_attribute_docstrings=True, extra="forbid")

    model_id: Sha256
    """sha256 of a model that was uploaded."""
    options: dict[str, Any] | None = None
    """What defines the scores: `loss`, `output`, `targets`, `preprocessing`, `reduction`, `gate`,
    `include`, `exclude`, `engine`, `batch_size`. Every sample is scored: nothing is held out."""


class PieceRequest(SchemaBase):
    """A piece of data to score on."""

    model_config = ConfigDict(use_attribute_docstrings=True, extra="forbid")

    bundle_id: Sha256
    """sha256 of a bundle that was uploaded."""
    metadata: dict[str, Any] = Field(default_factory=dict)
    """Your own words about the job."""


class SessionCutRequest(SchemaBase):
    """A cut from a session's scores."""

    model_config = ConfigDict(use_attribute_docstrings=True, extra="forbid")

    options: dict[str, Any] | None = None
    """The target, floors and ranking, over the session's options."""
    bundle_id: Sha256 | None = None
    """sha256 of a bundle for proof, recovery and metric: the cut is then a run whose first
    scoring is saved. Without one the proof is made on random inputs, and nothing is recovered."""
    metadata: dict[str, Any] = Field(default_factory=dict)
    """Your own words about the job."""


class PieceView(SchemaBase):
    """Something that was added."""

    name: str
    """The job that took it, or the sha256 of the uploaded file."""
    source: str
    """`job` or `upload`."""
    size_bytes: int
    """Size of its state."""
    added_at: str
    """When it was added, ISO 8601 in UTC."""


class SessionView(SchemaBase):
    """A session."""

    id: str
    """Its id."""
    model_id: str
    """sha256 of the model."""
    options: dict[str, Any]
    """What defines the scores."""
    created_at: str
    """When it was made, ISO 8601 in UTC."""
    expires_at: str | None
    """When it goes if nobody uses it until then; null for never."""
    pieces: list[PieceView]
    """What was added so far."""
    links: dict[str, str]
    """Paths: `self`, `bundles`, `scores`, `cut`."""

    @classmethod
    def of(cls, session: Session, retention_s: float) -> SessionView:
        """What clients see of a session."""
        path = session.instance
        return cls(
            id=session.id,
            model_id=session.model_id,
            options=session.options,
            created_at=session.created_at,
            expires_at=as_text(session.used_at + retention_s) if retention_s else None,
            pieces=[_piece(piece) for piece in session.pieces],
            links={"self": path, **{n: f"{path}/{n}" for n in ("bundles", "scores", "cut")}},
        )


def _piece(piece: Piece) -> PieceView:
    return PieceView.model_validate(piece.model_dump())


async def visible_session(
    services: ServicesDep,
    caller: CallerDep,
    session_id: Annotated[str, Path(description="Id of a session.")],
) -> Session:
    """The session that a path names, if the caller sees it."""
    return await anyio.to_thread.run_sync(services.sessions.use, caller, session_id)


VisibleSession = Annotated[Session, Depends(visible_session)]


@router.post("/v1/sessions", status_code=201, openapi_extra=json_body("SessionRequest"))
async def create_session(
    services: ServicesDep, caller: CallerDep, request: Request, response: Response
) -> SessionView:
    """Begin to take scores of a stored model."""
    asked = await read_body(request, SessionRequest, services.settings)
    options = parse_options({**(asked.options or {}), **_TAKEN_WHOLE})
    if not options.criterion.needs_gradients:
        raise Problem(
            "options_invalid",
            f"criterion: {options.criterion.value!r} takes no scores.",
            field="criterion",
        )
    use = services.holdings.use
    model = await anyio.to_thread.run_sync(use, caller, Kind.MODEL, asked.model_id)
    dumped = options.model_dump(mode="json", exclude_unset=True)
    create = services.sessions.create
    session = await anyio.to_thread.run_sync(create, caller, model.id, dumped)
    response.headers["Location"] = session.instance
    return _view(services, session)


@router.get("/v1/sessions/{session_id}")
async def get_session(services: ServicesDep, session: VisibleSession) -> SessionView:
    """The session and the pieces that it has."""
    return _view(services, session)


@router.delete("/v1/sessions/{session_id}", status_code=204)
async def delete_session(services: ServicesDep, caller: CallerDep, session: VisibleSession) -> None:
    """Forget a session and its scores."""
    await anyio.to_thread.run_sync(services.sessions.delete, caller, session.id)


@router.post(
    "/v1/sessions/{session_id}/bundles",
    status_code=202,
    response_class=Response,
    responses={
        200: {"description": "The job, which is over: its scores are added.", "model": JobView},
        202: {"description": "The job is accepted; `Location` names it.", "model": JobView},
    },
    openapi_extra=json_body("PieceRequest"),
)
async def add_bundle(
    services: ServicesDep,
    caller: CallerDep,
    request: Request,
    session: VisibleSession,
    prefer: PreferHeader = None,
    idempotency_key: KeyHeader = None,
) -> Response:
    """Score a stored bundle and add that to the session, like `updateScore`."""
    preferences = parse_prefer(prefer or [])
    key = check_key(idempotency_key)
    asked = await read_body(request, PieceRequest, services.settings)
    metadata = check_metadata(asked.metadata)
    model = await _use_model(services, caller, session)
    use = services.holdings.use
    bundle = await anyio.to_thread.run_sync(use, caller, Kind.BUNDLE, asked.bundle_id)
    options = parse_options(session.options)
    await services.catalog.require_settings(model, bundle, options)
    services.storage.require_space()
    new = NewJob(
        model_id=session.model_id,
        bundle_id=bundle.id,
        filename=model.filename,
        options=options.model_dump(mode="json"),
        sent_options=session.options,
        metadata=metadata,
        kind=JobKind.SCORE,
        task={"session": session.id, "pieces": [p.name for p in session.pieces][:1]},
    )
    job = await services.jobs.submit(caller, new, key)
    if preferences.wait_s:
        job = await wait_for(services, request, job, preferences.wait_s)
    return job_response(job, preferences)


@router.post(
    "/v1/sessions/{session_id}/scores",
    openapi_extra={"requestBody": upload_body("A score state: `.npz`.")},
)
async def add_scores(
    services: ServicesDep, caller: CallerDep, request: Request, session: VisibleSession
) -> SessionView:
    """Add scores that were taken elsewhere: by another session, `score()`, or the command line.

    They are checked against the model first. The same file is added once.
    """
    services.storage.require_space()
    get = services.holdings.get
    model = await anyio.to_thread.run_sync(get, caller, Kind.MODEL, session.model_id)
    model = await anyio.to_thread.run_sync(services.storage.localise, model)
    part = FilePart(services.settings.max_cut_bytes)
    async with services.uploads.single_file(request, part) as received:
        states = [received.path]
        options = parse_options(session.options).model_dump(mode="json")
        async with merged_states(services, session, states, model.path, options):
            state = await anyio.to_thread.run_sync(received.path.read_bytes)
    add = services.sessions.add_piece
    if not await anyio.to_thread.run_sync(add, session.id, received.sha256, "upload", state):
        raise Problem("session_not_found", f"There is no session with the id {session.id!r}.")
    found = await anyio.to_thread.run_sync(services.sessions.get, caller, session.id)
    return _view(services, found)


@router.get(
    "/v1/sessions/{session_id}/scores",
    response_class=Response,
    responses={
        200: {
            "description": "The sum of all pieces. Its sha256 is the ETag.",
            "content": {"application/x-npz": {"schema": {"type": "string", "format": "binary"}}},
        }
    },
)
async def get_scores(services: ServicesDep, request: Request, session: VisibleSession) -> Response:
    """The scores so far: one state, the same to the bit in whatever order pieces came."""
    async with merged_states(services, session) as merged:
        content = await anyio.to_thread.run_sync(merged.path.read_bytes)
    etag = f'"{merged.sha256}"'
    headers = {
        "ETag": etag,
        "Content-Disposition": 'attachment; filename="scores.npz"',
        "Cache-Control": "private, no-cache",
    }
    return Response(content, headers=headers, media_type="application/x-npz")


@router.post(
    "/v1/sessions/{session_id}/cut",
    response_class=Response,
    responses=MODEL_ANSWERS,
    openapi_extra=json_body("SessionCutRequest"),
)
async def cut_from_session(
    services: ServicesDep,
    caller: CallerDep,
    request: Request,
    session: VisibleSession,
    prefer: PreferHeader = None,
    idempotency_key: KeyHeader = None,
) -> Response:
    """Cut the session's model by the scores so far, at any target, as often as you like."""
    preferences = parse_prefer(prefer or [])
    key = check_key(idempotency_key)
    asked = await read_body(request, SessionCutRequest, services.settings)
    metadata = check_metadata(asked.metadata)
    if not session.pieces:
        raise Problem(
            "scores_missing",
            "The session has no scores yet: post a bundle first.",
            instance=session.instance,
        )
    ours = session.options if asked.bundle_id is None else _without(session.options)
    sent = {**ours, **(asked.options or {})}
    options = parse_options(sent)
    model = await _use_model(services, caller, session)
    if asked.bundle_id is not None:
        use = services.holdings.use
        bundle = await anyio.to_thread.run_sync(use, caller, Kind.BUNDLE, asked.bundle_id)
        await services.catalog.require_settings(model, bundle, options)
    services.storage.require_space()
    new = NewJob(
        model_id=session.model_id,
        bundle_id=asked.bundle_id or "",
        filename=model.filename,
        options=options.model_dump(mode="json"),
        sent_options=options.model_dump(mode="json", exclude_unset=True),
        metadata=metadata,
        kind=JobKind.CUT if asked.bundle_id is None else JobKind.PRUNE,
        task={"session": session.id, "pieces": [p.name for p in session.pieces]},
    )
    job = await services.jobs.submit(caller, new, key)
    return await model_answer(services, request, job, preferences)


async def _use_model(services: Services, caller: Caller, session: Session) -> StoredUpload:
    use = services.holdings.use
    return await anyio.to_thread.run_sync(use, caller, Kind.MODEL, session.model_id)


def _without(options: dict[str, Any]) -> dict[str, Any]:
    """A session's options without those that say that nothing is held out."""
    return {name: value for name, value in options.items() if name not in _TAKEN_WHOLE}


def _view(services: Services, session: Session) -> SessionView:
    return SessionView.of(session, services.settings.upload_retention_s)
