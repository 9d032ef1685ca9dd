# The service with the releases in models/, for any platform that Python and ONNX Runtime know.
#     docker build -t verisynth .
#     docker run --rm -p 3000:3000 verisynth
#     docker run --rm -p 3000:3000 -v "$PWD/models:/app/models:ro" verisynth      # models from outside
FROM python:3.11-slim

ENV BENTOML_DO_NOT_TRACK=True \
    BENTOML_HOME=/home/verisynth/bentoml \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1

RUN useradd --create-home --uid 10001 verisynth
WORKDIR /app

COPY LICENSE README.md constraints.txt pyproject.toml ./
COPY contracts contracts
COPY monitoring monitoring
COPY serving serving
RUN pip install --constraint constraints.txt setuptools \
    && pip install --no-build-isolation --constraint constraints.txt ".[serve]"

# The licence goes along so that there is something to copy where no model has been made yet.
COPY LICENSE model[s] models/

USER verisynth
EXPOSE 3000
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:3000/readyz', timeout=4)"]
# `exec` form: SIGTERM reaches BentoML, which lets running requests end.
CMD ["bentoml", "serve", "serving.service:Verisynth", "--host", "0.0.0.0", "--port", "3000", "--timeout-graceful-shutdown", "30"]
