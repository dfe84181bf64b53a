"""Client of the service, for Python and the command line.

    from service.client import Client

    with Client("http://127.0.0.1:8000", api_key="ofp_...") as client:
        job = client.submit("model.onnx", "calibration.npz", {"target": {"filters": 8}})
        client.wait(job.id)
        client.download(job.id, "model", "pruned.onnx")

errors.py      what goes wrong, as exceptions
retries.py     what is sent again, and when
transfers.py   files up and down, with resumed downloads
client.py      the requests
commands.py    `onnx-filter-pruner submit|status|wait|download|cancel`

It stands on httpx alone and imports nothing of the server.
"""

from service.client.client import Client, RemoteJob
from service.client.errors import ClientError, DownloadError, RequestProblem, UnreachableError

__all__ = [
    "Client",
    "ClientError",
    "DownloadError",
    "RemoteJob",
    "RequestProblem",
    "UnreachableError",
]
