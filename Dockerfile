# Two images from one file: `cpu` (the default) and `gpu`. See docs/deployment.md.
#
# The cpu stages stand before the gpu ones, and the default is an alias at the end: builders that
# run every stage up to the wanted one then never download the CUDA libraries for the cpu image.

ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS python
# A bare Debian has no Python; the official Python images need nothing.
RUN python3 -c 'import sys, venv, ensurepip; assert sys.version_info >= (3, 11)' 2>/dev/null \
    || { apt-get update \
        && apt-get install --yes --no-install-recommends python3 python3-venv \
        && rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin; }

FROM python AS builder
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /source
RUN python3 -m venv /opt/venv
# Dependencies first, in a layer that changes only when these two files do.
COPY pyproject.toml constraints.txt ./
RUN python3 -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["dependencies"], sep="\n")' \
        > /requirements.txt \
    && /opt/venv/bin/pip install -c constraints.txt -r /requirements.txt
COPY README.md LICENSE ./
COPY graph_ops graph_ops
COPY service service

FROM python AS runtime
LABEL org.opencontainers.image.title="onnx-filter-pruner" \
      org.opencontainers.image.description="Filter pruning of ONNX models as an HTTP service" \
      org.opencontainers.image.licenses="Apache-2.0"
# The data folder belongs to the user, and so does a new named volume that is mounted there.
RUN groupadd --gid 10001 pruner \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent \
        --shell /usr/sbin/nologin pruner \
    && mkdir /data && chown 10001:10001 /data
# The root file system may be read-only: all that is written lies under /data. The server makes
# /data/tmp when it starts.
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    TMPDIR=/data/tmp \
    ORT_DISABLE_TELEMETRY=1 \
    HOST=0.0.0.0 \
    PORT=8000 \
    DATA_DIR=/data \
    LOG_FORMAT=json
WORKDIR /data
USER 10001:10001
EXPOSE 8000
VOLUME ["/data"]
# No proxy between a container and itself, whatever the environment says.
HEALTHCHECK --interval=30s --timeout=5s --start-period=20s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as u; u.build_opener(u.ProxyHandler({})).open('http://127.0.0.1:' + os.environ['PORT'] + '/healthz', timeout=4)"]
ENTRYPOINT ["python", "-m", "service"]

# The ort-training engine has an environment of its own: both packages install `onnxruntime/`.
FROM python AS training
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONDONTWRITEBYTECODE=1
RUN python3 -c 'import sys; assert sys.version_info < (3, 13), "onnxruntime-training ends at Python 3.12"' \
    && python3 -m venv /opt/venv-training
COPY graph_ops/engines/ort_training/requirements /requirements

FROM training AS training-cpu
RUN /opt/venv-training/bin/pip install --no-deps -r /requirements/cpu.txt \
    && /opt/venv-training/bin/pip uninstall --yes setuptools pip

FROM builder AS builder-cpu
RUN /opt/venv/bin/pip install -c constraints.txt '.[cpu,parquet,otel]' \
    && /opt/venv/bin/pip uninstall --yes setuptools pip

FROM runtime AS cpu
COPY --from=builder-cpu /opt/venv /opt/venv
COPY --from=training-cpu /opt/venv-training /opt/venv-training

FROM training AS training-gpu
RUN /opt/venv-training/bin/pip install --no-deps -r /requirements/gpu.txt \
    && /opt/venv-training/bin/pip uninstall --yes setuptools pip

FROM builder AS builder-gpu
RUN /opt/venv/bin/pip install -c constraints.txt '.[gpu,parquet,otel]' \
    && /opt/venv/bin/pip uninstall --yes setuptools pip

FROM runtime AS gpu
COPY --from=builder-gpu /opt/venv /opt/venv
COPY --from=training-gpu /opt/venv-training /opt/venv-training

FROM cpu
