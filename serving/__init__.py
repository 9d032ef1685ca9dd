"""The service: releases of `models/` over HTTP. ONNX Runtime and BentoML; never torch, never mlflow."""
