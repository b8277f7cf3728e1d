# The engine on processors: vLLM's CPU build under Ray Serve, the whole environment pinned. `make images IMAGES=engine-cpu`, or:
#   docker build -f services/engine/cpu.Dockerfile -t localhost/quarterdeck-engine-cpu .
ARG BASE_IMAGE=docker.io/library/python:3.11-slim-bookworm

FROM ${BASE_IMAGE} AS environment
WORKDIR /build
COPY pyproject.toml LICENSE ./
COPY environments/engine.txt environments/engine.txt
# torch's CPU build is on PyTorch's own index only, unless pip's configuration has another source of it.
RUN mkdir -p src/quarterdeck && touch README.md src/quarterdeck/__init__.py \
    && python3 -m venv --without-pip /opt/quarterdeck \
    && pip="python3 -m pip --python /opt/quarterdeck/bin/python install --no-cache-dir --no-compile --root-user-action=ignore --no-deps" \
    && torch=$(sed -nE 's/^(torch==[^ ;]+).*/\1/p' environments/engine.txt) \
    && { $pip "$torch" || $pip --index-url https://download.pytorch.org/whl/cpu "$torch"; } \
    && $pip --requirement environments/engine.txt && $pip .
# Some packages have files that are templates and no Python, which compileall counts as failures.
RUN site=$(/opt/quarterdeck/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))') \
    && rm -r "$site/quarterdeck" && echo /opt/quarterdeck/src > "$site/quarterdeck_source.pth" \
    && find "$site" -name tests -type d -prune -path '*/torch/*' -exec rm -rf {} + \
    && { python3 -m compileall -q -j 0 --invalidation-mode unchecked-hash "$site" > /dev/null || true; }

FROM ${BASE_IMAGE}
# Triton and torch.compile build at the first request: they need a compiler, and Python's headers, which Debian's Python
# has in a package of its own.
RUN apt-get update && apt-get install -y --no-install-recommends g++ libnuma1 \
    && { [ -e "$(python3 -c 'import sysconfig; print(sysconfig.get_path("include"))')/Python.h" ] \
         || apt-get install -y --no-install-recommends python3-dev; } && rm -rf /var/lib/apt/lists/* \
    && echo 'quarterdeck:x:65532:65532::/var/lib/quarterdeck:/bin/bash' >> /etc/passwd && echo 'quarterdeck:x:65532:' >> /etc/group \
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
