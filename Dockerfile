# The service with the releases in models/, for any platform that Python and ONNX Runtime know.
#     docker build -t verisynth .
# It answers other machines, so it starts with a file of API keys only, or where anybody is to be let in by name:
#     docker run --rm -v verisynth-state:/state verisynth verisynth keys --file /state/keys.json create --scopes generate,check
#     docker run --rm -p 3000:3000 -v verisynth-state:/state -e VERISYNTH_KEYS_FILE=/state/keys.json verisynth
#     docker run --rm -p 127.0.0.1:3000:3000 -e VERISYNTH_ALLOW_ANONYMOUS=true verisynth      # this machine alone
# With `-v "$PWD/models:/app/models:ro"` the models come from outside, and with another for `collections` the collections.
#     docker build --build-arg EXTRAS=serve,fingerprints -t verisynth .           # with a store of fingerprints
FROM python:3.11-slim

ENV BENTOML_DO_NOT_TRACK=True \
    BENTOML_HOME=/home/verisynth/bentoml \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1

# `/state` is the place for keys and audit log: a volume there belongs to the service.
RUN useradd --create-home --uid 10001 verisynth && install --directory --owner verisynth --mode 0750 /state
WORKDIR /app

ARG EXTRAS=serve
COPY LICENSE README.md constraints.txt pyproject.toml ./
COPY contracts contracts
COPY monitoring monitoring
COPY serving serving
RUN pip install --constraint constraints.txt setuptools \
    && pip install --no-build-isolation --constraint constraints.txt ".[$EXTRAS]"

# The licence goes along so that there is something to copy where no model has been made yet.
COPY LICENSE model[s] models/

USER verisynth
EXPOSE 3000
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:3000/readyz', timeout=4)"]
# `exec` form: SIGTERM reaches BentoML, which lets running requests end.
CMD ["bentoml", "serve", "serving.service:Verisynth", "--host", "0.0.0.0", "--port", "3000", "--timeout-graceful-shutdown", "30"]
