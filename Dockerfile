# One image for building catalogs and training on the CPU.
#   docker build -t clustermix .
#   docker run -v "$PWD/out:/out" clustermix demo --out /out/demo
FROM python:3.11-slim

# git-free, compiler-free: every dependency ships a wheel
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONUNBUFFERED=1 XDG_CACHE_HOME=/tmp/cache
# PyTorch's CPU wheels live on PyTorch's own index; build with --build-arg TORCH_INDEX= for the default (CUDA) ones
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu

WORKDIR /opt/clustermix
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY data_catalog data_catalog
COPY pipeline pipeline
COPY trainer trainer
COPY flows flows
RUN pip install ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} -c constraints.txt '.[all]'

RUN useradd --create-home clustermix
USER clustermix
WORKDIR /home/clustermix
RUN clustermix --help >/dev/null && python -m trainer --help >/dev/null
ENTRYPOINT ["clustermix"]
CMD ["--help"]
