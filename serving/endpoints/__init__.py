"""The HTTP endpoints: each reads a request, asks the worker, writes an answer, and refuses by `Refusal`."""
