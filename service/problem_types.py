"""Every problem the service can answer with: code → HTTP status, title, and what to do.

The codes of `graph_ops.errors` are mapped to statuses here and nowhere else. Statuses follow one
rule: 4xx when another request could succeed (422 the content, 413 its size, 409 the state), 5xx
when the same request could succeed elsewhere or later (500 our fault, 502 the worker process
died, 503 busy, 504 too slow, 507 no room).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ProblemType:
    """One kind of problem, as `/problems/{code}` explains it."""

    status: int
    title: str
    advice: str


SERVICE_PROBLEMS: dict[str, ProblemType] = {
    # the request as HTTP
    "not_found": ProblemType(404, "Not found", "See /docs for the paths that exist."),
    "method_not_allowed": ProblemType(
        405, "Method not allowed", "The Allow header lists the methods of this path."
    ),
    "unsupported_media_type": ProblemType(
        415,
        "Unsupported media type",
        "Send multipart/form-data, or the raw file as application/octet-stream where a single "
        "file is uploaded.",
    ),
    "request_invalid": ProblemType(
        422, "Invalid request", "Correct the parameters that `errors` lists."
    ),
    "request_malformed": ProblemType(
        400, "Malformed request", "The request is not what HTTP allows; check the client."
    ),
    "client_disconnected": ProblemType(
        400, "The client went away", "The upload was not complete; send it again."
    ),
    "unauthenticated": ProblemType(
        401, "No valid API key", "Send the key as `Authorization: Bearer ofp_...`."
    ),
    "forbidden": ProblemType(
        403, "Not allowed with this key", "Use a key with the scope that `needed` names."
    ),
    "host_not_allowed": ProblemType(
        403,
        "Not for pages of other sites",
        "Ask http://localhost, or make an API key: `python -m service keys create NAME`.",
    ),
    "webhook_not_allowed": ProblemType(
        422,
        "This URL is not told",
        "Use an https URL of a host that the operator allows (OUTBOUND_HOSTS).",
    ),
    "source_not_allowed": ProblemType(
        422,
        "This URL is not read",
        "Use https:// with a host of OUTBOUND_HOSTS, or s3:// with a bucket of SOURCE_BUCKETS.",
    ),
    "source_unreadable": ProblemType(
        422, "The URL could not be read", "Check that it can be fetched, or upload the file."
    ),
    "rate_limited": ProblemType(
        429, "Too many requests", "Wait for the seconds in Retry-After, and poll less often."
    ),
    "too_many_jobs": ProblemType(
        429,
        "Too many unfinished jobs",
        "Wait until some are over: the seconds in Retry-After at least.",
    ),
    "range_not_satisfiable": ProblemType(
        416,
        "Range not satisfiable",
        "The Content-Range header gives the size of the file; ask for bytes inside it.",
    ),
    "internal_error": ProblemType(
        500,
        "Internal error",
        "This is a fault of the service; its log has the details under the request id.",
    ),
    # uploads
    "multipart_invalid": ProblemType(
        400,
        "Malformed multipart body",
        "Send multipart/form-data as RFC 7578 describes it; every HTTP client can.",
    ),
    "part_missing": ProblemType(
        422, "A part is missing", "Add the part that `part` names to the multipart body."
    ),
    "part_duplicate": ProblemType(
        422, "A part is there twice", "Send the part that `part` names once."
    ),
    "part_unknown": ProblemType(
        422, "A part is unknown", "Remove the part, or use one of the names in `allowed`."
    ),
    "parts_conflict": ProblemType(
        422, "Two parts exclude each other", "Send only one of the parts in `parts`."
    ),
    "too_many_parts": ProblemType(
        413, "Too many parts", "Send no more parts than `limit` in one multipart body."
    ),
    "text_part_too_large": ProblemType(
        413, "A text part is too large", "Options fit in a few hundred bytes; shorten the part."
    ),
    "body_too_large": ProblemType(
        413, "The body is too large", "A job is described in a few hundred bytes; shorten the body."
    ),
    "metadata_invalid": ProblemType(
        422,
        "Unusable metadata",
        "Send a JSON object of up to 16 pairs: short keys, and texts of up to 512 characters.",
    ),
    "upload_too_large": ProblemType(
        413, "Upload too large", "Send a smaller file, or raise MAX_UPLOAD_BYTES on the server."
    ),
    "upload_empty": ProblemType(422, "Empty upload", "The file has no bytes; check its path."),
    "upload_stalled": ProblemType(
        408, "Upload stood still", "No bytes came for too long; send the file again."
    ),
    "insufficient_storage": ProblemType(
        507,
        "Not enough room on disk",
        "Delete jobs, models or bundles that are no longer needed, or give the server more disk.",
    ),
    "quota_exceeded": ProblemType(
        507,
        "The quota is used up",
        "Delete jobs, models or bundles that are no longer needed, or ask for a larger quota.",
    ),
    # resources
    "model_not_found": ProblemType(
        404, "No such model", "Upload it with POST /v1/models; the id is its sha256."
    ),
    "bundle_not_found": ProblemType(
        404, "No such bundle", "Upload it with POST /v1/bundles; the id is its sha256."
    ),
    "session_not_found": ProblemType(
        404, "No such session", "POST /v1/sessions makes one; deleted ones are gone."
    ),
    "job_not_found": ProblemType(
        404, "No such job", "GET /v1/jobs lists the jobs; deleted ones are gone."
    ),
    "result_not_found": ProblemType(
        404, "The job has no such result", "The job's `links` name the results that it has."
    ),
    "job_not_finished": ProblemType(
        409, "The job is not finished", "Ask for the result when the job's state is `succeeded`."
    ),
    "job_not_active": ProblemType(
        409, "The job is over", "Only a queued or running job can be cancelled."
    ),
    "job_not_retryable": ProblemType(
        409, "The job cannot be retried", "Only a failed or cancelled job can; send a new one."
    ),
    "job_not_stopped": ProblemType(
        409,
        "The job has not stopped yet",
        "Its worker does not answer; try again after the seconds in Retry-After.",
    ),
    "job_exists": ProblemType(
        409,
        "Another job has this id",
        "Use a new id for new content; the same id only repeats the same job.",
    ),
    "resource_in_use": ProblemType(
        409,
        "In use",
        "Wait for the job in `job_id` to end, or delete it, or the session in `session_id`, first.",
    ),
    # idempotency
    "idempotency_key_invalid": ProblemType(
        400,
        "Unusable Idempotency-Key",
        "Use 1 to 255 visible ASCII characters, a UUID for example.",
    ),
    "idempotency_key_reused": ProblemType(
        422,
        "Idempotency-Key used for another request",
        "Use a new key for a new request; the same key only repeats the same request.",
    ),
    # jobs
    "queue_full": ProblemType(
        503, "Too much work is waiting", "Try again after the seconds in Retry-After."
    ),
    "not_ready": ProblemType(
        503, "The server is not ready", "The failed entries of `checks` say what is missing."
    ),
    "job_cancelled": ProblemType(
        409, "The job was cancelled", "Send the request again if the result is still wanted."
    ),
    "server_stopping": ProblemType(
        503,
        "The server is stopping",
        "Nothing is lost: the job goes on when the server is back; see `Location`.",
    ),
    "database_unavailable": ProblemType(
        503,
        "The database does not answer",
        "Try again after the seconds in Retry-After; with an Idempotency-Key that is safe.",
    ),
    "storage_unavailable": ProblemType(
        503,
        "The object storage does not answer",
        "Try again after the seconds in Retry-After; nothing is lost.",
    ),
    "job_expired": ProblemType(
        410,
        "The results were removed",
        "Send the job again; JOB_RETENTION_S says how long they stay.",
    ),
    "job_timeout": ProblemType(
        504,
        "The job took too long",
        "Use fewer samples (`max_samples`) or fewer `steps`, or raise JOB_TIMEOUT_S.",
    ),
    "job_out_of_memory": ProblemType(
        507,
        "The job needed too much memory",
        "Use a smaller `batch_size`, or raise JOB_MEMORY_BYTES.",
    ),
    "job_crashed": ProblemType(
        502,
        "The job's process died",
        "Native code crashed on this input; the server is not affected. If it happens again, "
        "report it with the model.",
    ),
    "job_failed": ProblemType(
        500,
        "The job failed unexpectedly",
        "This is a fault of the service; its log has the details under the job's id.",
    ),
    "result_too_large": ProblemType(
        507, "A result file is too large", "Raise JOB_FILE_BYTES on the server."
    ),
}

LIBRARY_PROBLEMS: dict[str, ProblemType] = {
    "pruner_error": ProblemType(500, "The library failed", "Report it with the model."),
    # the model
    "model_error": ProblemType(422, "Unusable model", "`detail` says what is wrong with it."),
    "model_not_onnx": ProblemType(
        422, "Not an ONNX model", "Send a file that `onnx.load` reads, or a zip with one in it."
    ),
    "model_truncated": ProblemType(
        422, "Truncated model", "The file ends too early; copy or export it again."
    ),
    "model_invalid": ProblemType(
        422, "Invalid model", "`onnx.checker` refuses it; export it again."
    ),
    "model_external_data": ProblemType(
        422,
        "Unusable external data",
        "Zip the model with its data files beside it, with plain relative names.",
    ),
    "model_unknown_domain": ProblemType(
        422, "Unknown operators", "Only operators that ONNX Runtime knows can be run."
    ),
    "model_unsupported_version": ProblemType(
        422, "Unsupported version", "Convert the model to an opset or IR version in range."
    ),
    "model_no_convolution": ProblemType(
        422, "No convolution", "There are no filters to prune in this model."
    ),
    "model_archive": ProblemType(
        422, "Unusable model archive", "Zip exactly one .onnx file and its data files."
    ),
    "model_too_large": ProblemType(
        413, "Model too large", "Send a smaller model, or raise MAX_MODEL_BYTES on the server."
    ),
    "model_run_failed": ProblemType(
        422, "The model does not run", "ONNX Runtime refuses it; `detail` has its words."
    ),
    # the bundle
    "bundle_error": ProblemType(422, "Unusable bundle", "`detail` says what is wrong with it."),
    "bundle_format": ProblemType(
        422, "Not a bundle", "Send an .npz (numpy.savez) or .safetensors file."
    ),
    "bundle_pickled": ProblemType(
        422, "Pickled objects", "Save plain arrays of numbers; objects are never unpickled."
    ),
    "bundle_too_large": ProblemType(
        413, "Bundle too large unpacked", "Send fewer samples, or raise the limit it names."
    ),
    "bundle_empty": ProblemType(422, "Empty bundle", "Send at least a few samples."),
    "bundle_missing_input": ProblemType(
        422, "A model input is missing", "Name one array of the bundle like each model input."
    ),
    "bundle_duplicate_name": ProblemType(
        422, "Two arrays of one name", "Give every array of the bundle a name of its own."
    ),
    "bundle_shape": ProblemType(
        422, "Wrong shape", "Make the array's shape fit the model input; samples come first."
    ),
    "bundle_dtype": ProblemType(
        422, "Wrong element type", "Convert the array to the model input's element type."
    ),
    "bundle_length": ProblemType(
        422, "Different numbers of samples", "Every array needs one entry per sample."
    ),
    "bundle_label_range": ProblemType(
        422, "Label out of range", "Class ids run from 0 to the number of classes less one."
    ),
    "bundle_preprocessing": ProblemType(
        422,
        "Images without settings",
        "Send `guess`, corrected where it is wrong, as the option `preprocessing`.",
    ),
    "bundle_images": ProblemType(
        422, "Unusable images", "Repair or remove the images that the details name."
    ),
    "bundle_not_finite": ProblemType(
        422, "NaN or infinity", "Remove the samples that are not finite."
    ),
    # options and the run
    "options_invalid": ProblemType(
        422, "Invalid options", "/v1/options/schema describes every option."
    ),
    "loss_invalid": ProblemType(
        422, "The loss does not fit", "Choose a `loss` that fits the output and the targets."
    ),
    "options_no_match": ProblemType(
        422, "A pattern matches nothing", "/v1/models/{id}/channels lists the node names."
    ),
    "channels_invalid": ProblemType(
        422,
        "Unusable list of channels",
        "/v1/models/{id}/channels lists the convolutions and what may go.",
    ),
    "report_mismatch": ProblemType(
        422,
        "The report is of another graph",
        "Replay a report on a model of the same graph; the message names the first difference.",
    ),
    "score_error": ProblemType(422, "Scoring failed", "`detail` says why."),
    "gradient_unsupported": ProblemType(
        422,
        "No gradient",
        "An operator without a gradient is in the way; `magnitude_l2` needs no gradients.",
    ),
    "nothing_prunable": ProblemType(
        422, "Nothing can be pruned", "/v1/models/{id}/channels says why, filter by filter."
    ),
    "scores_missing": ProblemType(422, "No scores", "Score at least one batch first."),
    "score_state_mismatch": ProblemType(
        422, "Scores of something else", "Use scores of the same model and definition."
    ),
    "stale_shard": ProblemType(
        422,
        "A shard of another round",
        "Nothing is lost: who runs the job scores it.",
    ),
    "out_of_memory": ProblemType(
        422,
        "Memory ran out",
        "Not even one sample fits: use smaller inputs, or a machine or GPU with more memory.",
    ),
    "engine_error": ProblemType(500, "The gradient engine failed", "`detail` says why."),
    "engine_unavailable": ProblemType(
        422,
        "The engine does not work here",
        "/v1/engines says which engines do; `auto` takes one of them.",
    ),
    "engine_unsupported": ProblemType(
        422,
        "The engine cannot differentiate this model",
        "Use the engine `standard`, or `auto`, which falls back to it.",
    ),
    "engine_process_failed": ProblemType(
        500,
        "The engine's process failed",
        "Try again, or use the engine `standard`; the message has the process' last words.",
    ),
    "target_unreachable": ProblemType(
        422,
        "Target out of reach",
        "`detail` says how far it could go; or set `on_unreachable` to `best`.",
    ),
    "surgery_failed": ProblemType(
        500, "The cut failed", "This is a fault of the library; report it with the model."
    ),
    "proof_failed": ProblemType(
        500,
        "The proof failed",
        "The pruned model was not exact, so it is not returned; report it with the model.",
    ),
}

PROBLEM_TYPES: dict[str, ProblemType] = {**SERVICE_PROBLEMS, **LIBRARY_PROBLEMS}
