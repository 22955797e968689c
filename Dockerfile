# One image for every role: `driftgate analyzer`, `driftgate monitor`, ... and `mlflow server`.
# About 7 GB: most of it is torch with its CUDA libraries, as the package index has it.

FROM python:3.11-slim AS build
WORKDIR /src
ENV UV_PYTHON_DOWNLOADS=never
# The dependencies are a layer of their own: it is built anew only when the lock changes.
COPY pyproject.toml requirements.lock ./
COPY .ci/install.py .ci/
# The versions and hashes of requirements.lock, less what only tests and an embedded broker need;
# setuptools because the next step builds with it.
RUN python .ci/install.py uv \
 && .tools/bin/uv venv /opt/driftgate \
 && .tools/bin/uv pip install --no-cache --python /opt/driftgate/bin/python \
      --constraints requirements.lock --build-constraints requirements.lock \
      --requirements pyproject.toml --extra model --extra redis setuptools
COPY LICENSE README.md ./
COPY schemas schemas
COPY analyzer analyzer
COPY streams streams
COPY driftgate driftgate
RUN .tools/bin/uv pip install --no-cache --python /opt/driftgate/bin/python \
      --no-deps --no-build-isolation .

FROM python:3.11-slim
RUN useradd --uid 10001 --create-home --home-dir /var/lib/driftgate driftgate
COPY --from=build /opt/driftgate /opt/driftgate
# GIT_PYTHON_REFRESH: mlflow looks for git, which is not in here and not needed.
ENV PATH=/opt/driftgate/bin:$PATH \
    GIT_PYTHON_REFRESH=quiet \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
USER 10001
WORKDIR /var/lib/driftgate
CMD ["driftgate", "--help"]
