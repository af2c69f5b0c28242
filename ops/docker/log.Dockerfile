# syntax=docker/dockerfile:1
# Log server, read server, conductor: small, no torch.
# From the top of the repository: docker build -f ops/docker/log.Dockerfile -t mmzero-async/log:0.1.0 .
FROM python:3.12-slim AS build
WORKDIR /src
COPY . .
RUN python -m venv /opt/mmzero \
    && /opt/mmzero/bin/python ops/docker/light.py > /tmp/light.txt \
    && /opt/mmzero/bin/pip install --no-cache-dir -r /tmp/light.txt \
    && /opt/mmzero/bin/pip install --no-cache-dir --no-deps .

FROM python:3.12-slim
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin mmzero \
    && install -d -o 10001 -g 10001 /var/lib/mmzero
COPY --from=build /opt/mmzero /opt/mmzero
ENV PYTHONUNBUFFERED=1
USER 10001:10001
ENTRYPOINT []
CMD ["/opt/mmzero/bin/python", "-m", "mmzero_async.workers.log_server", "--help"]
