"""`/v1/jobs/{id}/model`, `/report`, `/report.html`, `/scores`: what a job left."""

from __future__ import annotations

import re
from pathlib import PurePath
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request, Response

from service.api.visible import VisibleJob
from service.downloads import file_response
from service.records import Job
from service.report_pages import report_page_response
from service.services import Services, ServicesDep

router = APIRouter(tags=["jobs"])

_UNSAFE = re.compile(r"[^\w.() +=@,\-]", re.UNICODE)


def _file_doc(media_type: str, what: str) -> dict[int | str, dict[str, Any]]:
    content = {media_type: {"schema": {"type": "string", "format": "binary"}}}
    return {
        200: {"description": f"{what}. Its sha256 is the ETag.", "content": content},
        206: {"description": "The part that the Range header asks for.", "content": content},
        304: {"description": "If-None-Match names this version."},
    }


async def result_response(
    request: Request,
    services: Services,
    job: Job,
    name: str,
    headers: dict[str, str] | None = None,
) -> Response:
    """A result of a job as a download.

    Raises:
        Problem: it is not there, or the job failed.
    """
    path, result = await services.jobs.result(job, name)
    stem = _UNSAFE.sub("_", PurePath(job.filename).stem) or "model"
    names = {
        "model": f"{stem}-pruned{path.suffix}",
        "report": f"{stem}-report.json",
        "scores": f"{stem}-scores.npz",
    }
    of_point = name.removesuffix("/report").replace("points/", "point-")
    names.setdefault(name, f"{stem}-{of_point}{path.suffix}")
    return file_response(
        request,
        path,
        sha256=result.sha256,
        size_bytes=result.size_bytes,
        media_type=result.media_type,
        filename=names[name],
        headers=headers,
    )


@router.head("/v1/jobs/{job_id}/model", include_in_schema=False)
@router.get(
    "/v1/jobs/{job_id}/model",
    response_class=Response,
    responses=_file_doc("application/octet-stream", "The pruned model"),
)
async def get_job_model(services: ServicesDep, request: Request, job: VisibleJob) -> Response:
    """The pruned model: `.onnx`, or a `.zip` with external data where it is over 2 GB."""
    return await result_response(request, services, job, "model")


@router.head("/v1/jobs/{job_id}/report", include_in_schema=False)
@router.get(
    "/v1/jobs/{job_id}/report",
    response_class=Response,
    responses=_file_doc("application/json", "The report"),
)
async def get_job_report(services: ServicesDep, request: Request, job: VisibleJob) -> Response:
    """What was removed, what it cost, and the proof."""
    return await result_response(request, services, job, "report")


@router.head("/v1/jobs/{job_id}/report.html", include_in_schema=False)
@router.get(
    "/v1/jobs/{job_id}/report.html",
    response_class=Response,
    responses={
        200: {"description": "The report as one page.", "content": {"text/html": {}}},
        304: {"description": "If-None-Match names this version."},
    },
)
async def get_job_report_page(services: ServicesDep, request: Request, job: VisibleJob) -> Response:
    """The report as a page that needs nothing but a browser."""
    path, result = await services.jobs.result(job, "report")
    return await report_page_response(request, path, result.sha256, job.filename)


@router.head("/v1/jobs/{job_id}/scores", include_in_schema=False)
@router.get(
    "/v1/jobs/{job_id}/scores",
    response_class=Response,
    responses=_file_doc("application/x-npz", "The score state"),
)
async def get_job_scores(services: ServicesDep, request: Request, job: VisibleJob) -> Response:
    """The score state, which can be merged and cut again."""
    return await result_response(request, services, job, "scores")


PointNumber = Annotated[int, Path(ge=1, le=50, description="Number of a point, from 1.")]


@router.head("/v1/jobs/{job_id}/points/{point}", include_in_schema=False)
@router.get(
    "/v1/jobs/{job_id}/points/{point}",
    response_class=Response,
    responses=_file_doc("application/octet-stream", "The model of a point"),
)
async def get_job_point(
    services: ServicesDep, request: Request, job: VisibleJob, point: PointNumber
) -> Response:
    """A model of the curve, for a job with the option `points`."""
    return await result_response(request, services, job, f"points/{point}")


@router.head("/v1/jobs/{job_id}/points/{point}/report", include_in_schema=False)
@router.get(
    "/v1/jobs/{job_id}/points/{point}/report",
    response_class=Response,
    responses=_file_doc("application/json", "The report of a point"),
)
async def get_job_point_report(
    services: ServicesDep, request: Request, job: VisibleJob, point: PointNumber
) -> Response:
    """The report of a point, as of a run that ends there."""
    return await result_response(request, services, job, f"points/{point}/report")
