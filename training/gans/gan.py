"""What the training loop needs of a GAN, and all it knows of it."""

from typing import ClassVar

from torch import Generator, Tensor, nn


class Gan(nn.Module):
    """Two networks and their losses. A recipe is a subclass in a file of its own.

    `label` is int64 [N] where the GAN is conditional, None elsewhere. `stream` is the iteration's random stream, on
    the images' device: whatever a loss draws comes from it.
    """

    draws_masks: ClassVar[bool] = False
    """Whether images come with one more channel, the distances of their masks (`geometry.py`)."""
    generator: nn.Module
    """Latents float [N, latent_size] and labels to images float [N, C, H, W] in [-1, 1]."""
    discriminator: nn.Module

    def drawn(self, real: Tensor, latent: Tensor, label: Tensor | None, stream: Generator) -> Tensor:  # noqa: ARG002
        """What one iteration's losses both judge as `fake`: images of the generator, [N, C, H, W].

        A recipe that also changes real images [N, C, H, W] says what it adds.
        """
        fake: Tensor = self.generator(*(part for part in (latent, label) if part is not None))
        return fake

    def discriminator_loss(
        self, real: Tensor, fake: Tensor, label: Tensor | None, stream: Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of real images and fakes of the same labels, and scalars worth logging.

        No gradient reaches the generator.
        """
        raise NotImplementedError

    def generator_loss(self, real: Tensor, fake: Tensor, label: Tensor | None, stream: Generator) -> Tensor:
        """Loss of fakes; most recipes do not look at the real images."""
        raise NotImplementedError

    def advance(self, share: float) -> bool:  # noqa: ARG002 - for recipes with a schedule
        """Set what follows a schedule, before an iteration; `share` in [0, 1] of the training is done.

        Returns whether the generator already is what it is to be: only then may it be kept as the best.
        """
        return True

    def adapt(self, numbers: dict[str, Tensor], images: int) -> None:
        """Learn from the scalars of a discriminator step over `images` real images; most recipes need not."""
