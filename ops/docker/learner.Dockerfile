# syntax=docker/dockerfile:1
# The learner: torch for GPUs, no vLLM.
# From the top of the repository: docker build -f ops/docker/learner.Dockerfile -t mmzero-async/learner:0.1.0 .
# CUDA's libraries come with the wheels; the machine needs the driver and NVIDIA's container runtime.
FROM python:3.12-slim
RUN useradd --uid 10001 --create-home --shell /usr/sbin/nologin mmzero \
    && install -d -o 10001 -g 10001 /var/lib/mmzero
WORKDIR /src
COPY . .
RUN python -m venv /opt/mmzero \
    && /opt/mmzero/bin/pip install --no-cache-dir .
ENV PYTHONUNBUFFERED=1 NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
WORKDIR /var/lib/mmzero
USER 10001:10001
ENTRYPOINT []
CMD ["/opt/mmzero/bin/python", "-m", "mmzero_async.workers.learner", "--help"]
