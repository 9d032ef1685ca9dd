"""What the training loop needs of a GAN, and all it knows of it."""

from torch import Tensor, nn


class Gan(nn.Module):
    """Two networks and their losses. A recipe is a subclass in a file of its own."""

    generator: nn.Module
    """Latents float [N, latent_size] to images float [N, C, H, W] in [-1, 1]."""
    discriminator: nn.Module

    def discriminator_loss(self, real: Tensor, fake: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of real images and fakes [N, C, H, W] (no gradient reaches the generator), and scalars worth logging."""
        raise NotImplementedError

    def generator_loss(self, fake: Tensor) -> Tensor:
        """Loss of fakes [N, C, H, W]."""
        raise NotImplementedError
