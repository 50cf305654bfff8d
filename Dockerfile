# syntax=docker/dockerfile:1
# Two images from one base: `pipeline` (the command line, builds, a Prefect worker) and `trainer` (training, without Prefect and encoder).
#   docker build --target pipeline -t clustermix-pipeline .
#   docker build --target trainer --build-arg VARIANT=cuda -t clustermix-trainer:cuda .
# docs/how-to/container.md says how to run them.
ARG PYTHON=3.11

# cpu or cuda: which wheels of PyTorch. Those for CUDA bring its libraries with them; the machine brings the driver.
ARG VARIANT=cpu

FROM python:${PYTHON}-slim-bookworm AS base
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_ROOT_USER_ACTION=ignore \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    DO_NOT_TRACK=1 \
    HF_HUB_DISABLE_TELEMETRY=1
RUN useradd --uid 1000 --create-home clustermix \
    && install --directory --owner=clustermix /work /work/data /work/catalogs /work/runs
WORKDIR /opt/clustermix
COPY pyproject.toml constraints.txt ./
COPY docker/requirements.py docker/

FROM base AS base-cpu
# another index, or a folder of wheels, for a network of your own
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ENV PIP_EXTRA_INDEX_URL=${TORCH_INDEX}

FROM base AS base-cuda
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility

# hadolint ignore=DL3006
FROM base-${VARIANT} AS pipeline-packages
ARG PIPELINE_EXTRAS=pipeline,flows,minilm,s3
RUN --mount=type=cache,target=/root/.cache/pip \
    python docker/requirements.py pyproject.toml "${PIPELINE_EXTRAS}" > /tmp/requirements.txt \
    && pip install --constraint constraints.txt --requirement /tmp/requirements.txt

# hadolint ignore=DL3006
FROM base-${VARIANT} AS trainer-packages
ARG TRAINER_EXTRAS=trainer,s3
RUN --mount=type=cache,target=/root/.cache/pip \
    python docker/requirements.py pyproject.toml "${TRAINER_EXTRAS}" > /tmp/requirements.txt \
    && pip install --constraint constraints.txt --requirement /tmp/requirements.txt

FROM pipeline-packages AS pipeline
WORKDIR /opt/clustermix
LABEL org.opencontainers.image.title="clustermix pipeline" \
      org.opencontainers.image.description="Cluster a web corpus into domains: the command line, builds, a Prefect worker" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY README.md LICENSE ./
COPY data_catalog data_catalog
COPY pipeline pipeline
COPY trainer trainer
COPY flows flows
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install --constraint constraints.txt --no-deps .
COPY docker/smoke.py docker/
# can be written whoever the user is (`--user`)
ENV XDG_CACHE_HOME=/tmp/cache
USER 1000:1000
WORKDIR /work
# a real catalog of sixty documents, offline; the trainer's last step trains on it
RUN clustermix --help > /dev/null \
    && python /opt/clustermix/docker/smoke.py /home/clustermix/smoke /tmp/runs \
    && HF_HUB_OFFLINE=1 clustermix build /home/clustermix/smoke/build.toml \
    && clustermix verify /home/clustermix/smoke/catalog \
    && rm -rf /home/clustermix/smoke/catalog/work /tmp/cache
ENTRYPOINT ["clustermix"]
CMD ["--help"]

FROM trainer-packages AS trainer
WORKDIR /opt/clustermix
LABEL org.opencontainers.image.title="clustermix trainer" \
      org.opencontainers.image.description="Train on a catalog of domains while learning which of them the task needs" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY README.md LICENSE ./
COPY data_catalog data_catalog
COPY pipeline pipeline
COPY trainer trainer
COPY flows flows
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install --constraint constraints.txt --no-deps .
ENV XDG_CACHE_HOME=/tmp/cache
USER 1000:1000
WORKDIR /work
# a real training of four steps on the catalog that the other image has just built; nothing of it stays in this one
RUN --mount=type=bind,from=pipeline,source=/home/clustermix/smoke,target=/home/clustermix/smoke \
    python -m trainer /home/clustermix/smoke/train.toml \
    && clustermix query /home/clustermix/smoke/catalog --runs /tmp/runs/smoke "SELECT finished FROM runs" \
    && rm -rf /tmp/runs /tmp/cache
ENTRYPOINT ["python", "-m", "trainer"]
CMD ["--help"]
