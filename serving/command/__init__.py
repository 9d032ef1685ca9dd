"""The command `verisynth`; its root is `main`."""
