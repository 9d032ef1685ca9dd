"""What training, serving and monitoring must agree on: pixels, latents, statistics, errors and the model manifest."""
