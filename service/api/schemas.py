"""Bodies of requests and responses, as the OpenAPI document shows them."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Path
from pydantic import BaseModel, ConfigDict, Field

from service.problems import ProblemDocument
from service.records import Job, JobKind, JobState
from service.storage import StoredUpload, as_text


class SchemaBase(BaseModel):
    """A body whose fields are described beside them."""

    model_config = ConfigDict(use_attribute_docstrings=True)


Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
JobId = Annotated[str, Path(description="Id of a job.")]
CallersJobId = Annotated[
    str,
    Path(
        pattern=r"^[A-Za-z0-9][\w.\-]{0,63}$",
        description="Up to 64 letters, digits and `.` `_` `-`, a UUID for example.",
    ),
]


class JobRequest(SchemaBase):
    """What a job is asked to do."""

    model_config = ConfigDict(use_attribute_docstrings=True, extra="forbid")

    model_id: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    """sha256 of a model that was uploaded."""
    bundle_id: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    """sha256 of a bundle that was uploaded."""
    options: dict[str, Any] | None = None
    """Options of the run: see `/v1/options/schema`."""
    metadata: dict[str, Any] = Field(default_factory=dict)
    """Your own words about the job: up to 16 pairs of texts, which lists can be filtered by."""
    webhook_url: Annotated[str, Field(max_length=2048)] | None = None
    """An https URL that is told, signed, when the job is over."""


class WebhookSecret(SchemaBase):
    """What webhooks are signed with."""

    secret: str
    """`whsec_` and base64, as libraries of Standard Webhooks take it."""


class CostView(SchemaBase):
    """What a model costs."""

    filters: int
    """Filters of all convolutions but depthwise ones."""
    macs: int | None
    """Multiply-accumulates per sample; null when a shape is not static."""
    parameters: int
    """Weights of convolutions and matrix products."""


class Forecast(SchemaBase):
    """What a job would come to."""

    model_id: str
    """sha256 of the model."""
    bundle_id: str
    """sha256 of the bundle."""
    options: dict[str, Any]
    """All options, defaults included."""
    before: CostView
    """The model as it is."""
    after: CostView | None
    """What it would be; null for targets that are searched for. Close in what the target is given
    in, rough in the rest, because filters are ranked by weight magnitude in place of scores."""
    is_reachable: bool
    """Whether the target can be reached."""
    rounds: int
    """Rounds of scoring."""
    samples: int
    """Samples scored in each round."""
    held_out: int
    """Samples kept to measure the result on."""


class ProgressView(SchemaBase):
    """How far a job is."""

    phase: str
    """What it is doing."""
    done: int
    """Units of the phase that are done."""
    total: int
    """Units of the phase; 0 when unknown."""
    message: str
    """A few words for a person; may be empty."""
    eta_s: float | None
    """Seconds to the end of the phase; null where that cannot be said yet."""


class JobView(SchemaBase):
    """A job."""

    id: str
    """Its id, made here or chosen by the client."""
    state: JobState
    """Where it stands."""
    times: dict[JobState, str]
    """When each state was entered last, ISO 8601 in UTC."""
    model_id: str
    """sha256 of the model."""
    bundle_id: str | None
    """sha256 of the bundle; null for a cut without one."""
    kind: JobKind
    """`prune`, `cut` (by hand or from a session's scores), or `score` (for a session)."""
    filename: str
    """File name of the uploaded model."""
    options: dict[str, Any]
    """All options of the run, defaults included."""
    metadata: dict[str, str]
    """Your own words about it."""
    owner: str | None
    """Whose it is; null where it was sent without an API key."""
    attempts: int
    """Times that work on it was begun."""
    progress: ProgressView | None
    """Null until the first report."""
    problem: ProblemDocument | None
    """Why it failed or was cancelled."""
    expires_at: str | None
    """When its results are removed, ISO 8601 in UTC; null before its end, or for never."""
    links: dict[str, str]
    """Paths: `self`, `events`, and when it has succeeded `model`, `report`, `report_html`,
    `scores`, `points/1` and so on, as far as its kind has them."""

    @classmethod
    def of(cls, job: Job) -> JobView:
        """What clients see of a job."""
        problem = job.problem()
        progress = job.progress
        return cls(
            id=job.id,
            state=job.state,
            times=job.times,
            model_id=job.model_id,
            bundle_id=job.bundle_id or None,
            kind=job.kind,
            filename=job.filename,
            options=job.options,
            metadata=job.metadata,
            owner=job.owner or None,
            attempts=job.attempts,
            progress=None
            if progress is None
            else ProgressView.model_validate(progress.model_dump()),
            problem=None
            if problem is None
            else ProblemDocument.model_validate(problem.document(job.instance)),
            expires_at=None if job.expires_at is None else as_text(job.expires_at),
            links={
                "self": job.instance,
                "events": f"{job.instance}/events",
                **{name: f"{job.instance}/{name}" for name in job.results},
                **(
                    {"report_html": f"{job.instance}/report.html"}
                    if "report" in job.results
                    else {}
                ),
            },
        )


class JobPage(SchemaBase):
    """Some jobs, newest first."""

    items: list[JobView]
    """The jobs."""
    next_cursor: str | None
    """Value of `cursor` for the next page; null on the last."""


class UploadView(SchemaBase):
    """A stored model or bundle."""

    id: str
    """sha256 of its bytes."""
    size_bytes: int
    """Size of the file."""
    filename: str
    """File name at the first upload."""
    created_at: str
    """When it was stored, ISO 8601 in UTC."""
    expires_at: str | None
    """When it is removed if no job uses it until then; null for never."""
    links: dict[str, str]
    """Paths: `self`, and for models `channels`."""

    @classmethod
    def fields_of(cls, upload: StoredUpload, retention_s: float) -> dict[str, Any]:
        """The fields of this class for an upload that is kept so long after its last use."""
        path = f"/v1/{upload.kind}s/{upload.id}"
        links = {"self": path}
        if upload.kind == "model":
            links["channels"] = f"{path}/channels"
        return {
            "id": upload.id,
            "size_bytes": upload.size_bytes,
            "filename": upload.filename,
            "created_at": upload.created_at,
            "expires_at": as_text(upload.used_at + retention_s) if retention_s else None,
            "links": links,
        }


class ModelView(UploadView):
    """A stored model and what is in it."""

    model: dict[str, Any]
    """Inputs, outputs, opset, MACs, parameters, number of prunable filters; and in
    `preprocessing_guess` what images the input suggests (null: none)."""


class ArrayView(SchemaBase):
    """An array of a bundle."""

    name: str
    """Its name, which is the model input's."""
    dtype: str
    """Element type, in numpy's words."""
    shape: list[int]
    """All axes; the first counts the samples."""


class BundleView(UploadView):
    """A stored bundle and what is in it."""

    arrays: list[ArrayView]
    """Its arrays; none of a bundle of images, which become arrays when they are used."""
    images: dict[str, Any] | None = None
    """`count`, `is_labelled`, `classes`, and `preprocessing` from its bundle.json."""


class ProblemTypeView(SchemaBase):
    """What a problem code means."""

    code: str
    """The code."""
    status: int
    """The HTTP status it comes with."""
    title: str
    """What kind of problem it is."""
    advice: str
    """What to do about it."""


class Health(SchemaBase):
    """That the server answers."""

    status: str
    """Always `ok`."""


class EngineView(SchemaBase):
    """A gradient engine as the server found it when it started."""

    name: str
    """Value of the option `engine`."""
    works: bool
    """Whether jobs can use it."""
    version: str | None
    """Version of its runtime; null where it has none."""
    provider: str | None
    """Execution provider it uses; null where it does not work."""
    device: str | None
    """`cpu` or `gpu`; null where it does not work."""
    reason: str | None
    """Why it does not work, or why it does not use a GPU; null where it does."""


class Readiness(SchemaBase):
    """Whether the server can do its work."""

    status: str
    """`ready`; a server that is not answers with the problem `not_ready`."""
    checks: dict[str, str]
    """Result of each check."""
    versions: dict[str, str]
    """Versions of what the children use."""
    engines: list[EngineView]
    """The gradient engines, and which of them work here."""
