# docker build -t ci-eventstore . && docker run ci-eventstore --help
# What jobs need, such as git or a compiler, comes in an image of yours: FROM ci-eventstore, USER root, RUN apt-get …, USER 10001.

FROM python:3.13-slim-bookworm AS build
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY src ./src
# With `masking`, many secrets are masked three times as fast, and the image is 70 MB larger.
ARG EXTRAS=cli,server,archive
# The environment gets no pip of its own.
RUN python -m venv --without-pip /opt/ci-eventstore \
    && pip --python /opt/ci-eventstore/bin/python install --no-cache-dir ".[${EXTRAS}]"

FROM python:3.13-slim-bookworm
LABEL org.opencontainers.image.title="ci-eventstore" \
      org.opencontainers.image.description="An event-sourced store for CI jobs: server, controllers and commands" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.licenses="MIT AND BSD-3-Clause AND ISC"
RUN apt-get update \
    && apt-get install -y --no-install-recommends tini \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --user-group --home-dir /var/lib/ci-eventstore --create-home --shell /usr/sbin/nologin ci \
    && install -d -o ci -g ci /var/lib/ci-eventstore/files
COPY --from=build /opt/ci-eventstore /opt/ci-eventstore
# Uploaded projects, and what a store that was away didn't take, are kept in /var/lib/ci-eventstore.
ENV PATH=/opt/ci-eventstore/bin:/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin \
    PYTHONUNBUFFERED=1 \
    XDG_DATA_HOME=/var/lib
WORKDIR /var/lib/ci-eventstore
# A number, by which Kubernetes sees that it isn't root.
USER 10001:10001
EXPOSE 8000
# Of the server; it doesn't ask the store, whose absence is no reason to restart anything.
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/health', timeout=2)"]
# The first process of a container has to collect processes that jobs have left, and to pass signals on.
ENTRYPOINT ["tini", "--", "ci-eventstore"]
CMD ["serve", "--host", "0.0.0.0"]
