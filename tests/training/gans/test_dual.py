import dataclasses
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from contracts.imaging import ImageSpec, quantise
from contracts.latents import latents
from tests.training.gans.small import DCGAN_ADA
from training.gans import geometry, recipes
from training.gans.averaging import renormalise
from training.gans.dual import NOISE_SIZE, Dual
from training.gans.recipes import Trained
from training.reading import ParamsError
from training.releases import onnx_export

SPEC = ImageSpec(32, 3)
SETTINGS = dataclasses.replace(DCGAN_ADA, latent_size=NOISE_SIZE + 8)


def stream() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def dual() -> Dual:
    gan = recipes.build("dual", SPEC, SETTINGS, seed=0)
    assert isinstance(gan, Dual)
    return gan


def pairs(count: int, seed: int) -> torch.Tensor:
    return torch.rand(count, 4, 32, 32, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def trained() -> Trained:
    noise = torch.randn(64, SETTINGS.latent_size, generator=stream())
    return Trained(renormalise(dual().generator, [(noise,)]), "dual", SPEC, SETTINGS, recipes.UNLABELLED)


def test_the_noise_of_stage_two_leaves_the_geometry_alone() -> None:
    generator = trained().generator
    latent = torch.randn(4, SETTINGS.latent_size, generator=stream())
    other = latent.clone()
    other[:, :NOISE_SIZE] = -latent[:, :NOISE_SIZE]
    with torch.inference_mode():
        one, two = generator(latent), generator(other)
    torch.testing.assert_close(one[:, 3], two[:, 3])
    assert not torch.allclose(one[:, :3], two[:, :3])


def drawn(gan: Dual) -> torch.Tensor:
    return gan.drawn(pairs(4, 1), torch.randn(4, SETTINGS.latent_size, generator=stream()), None, stream())


def test_fakes_are_drawn_pairs_and_real_masks_painted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    gan, painted = dual(), []
    forward = gan.generator.painter.forward
    monkeypatch.setattr(gan.generator.painter, "forward", lambda *given: painted.append(given[0]) or forward(*given))
    real, fake = pairs(4, 1), drawn(gan)
    assert fake.shape == (8, 4, 32, 32)
    torch.testing.assert_close(fake[4:, 3], real[:, 3])
    gan.discriminator_loss(real, fake, None, stream())
    gan.generator_loss(real, fake, None, stream())
    assert len(painted) == 2
    assert sum(torch.equal(masks, geometry.hard(real[:, 3:])) for masks in painted) == 1


def test_each_stage_learns_from_its_own_loss() -> None:
    gan = dual()
    fake = drawn(gan)
    loss, numbers = gan.discriminator_loss(pairs(4, 1), fake, None, stream())
    loss.backward()
    assert all(one.grad is None for one in gan.generator.parameters())
    assert {"real_sign", "patch_loss"} <= set(numbers)
    gan.discriminator.requires_grad_(False)
    gan.generator_loss(pairs(4, 1), fake, None, stream()).backward()
    assert all(one.grad is not None and one.grad.abs().max() > 0 for one in gan.generator.parameters())


def test_a_tone_of_its_own_costs_a_painted_image_no_coarse_loss() -> None:
    gan, images = dual(), pairs(2, 1)
    toned = images.clone()
    toned[:, :3] += 0.3
    torch.testing.assert_close(gan._coarse(images), gan._coarse(toned))


def test_pairs_are_the_images_with_their_masks_and_survive_a_file(tmp_path: Path) -> None:
    generator = trained()
    images, masks = generator.pairs(seed=3, start=5, count=6)
    np.testing.assert_array_equal(images, generator.generate(seed=3, start=5, count=6))
    assert images.shape == (6, 32, 32, 3)
    assert masks.shape == (6, 32, 32)
    assert set(np.unique(masks)) == {0, 255}
    generator.save(tmp_path / "generator.pt")
    np.testing.assert_array_equal(Trained.load(tmp_path / "generator.pt").pairs(3, 5, 6)[1], masks)


def test_the_graph_gives_image_and_mask(tmp_path: Path) -> None:
    generator, path = trained(), tmp_path / "generator.onnx"
    onnx_export.export_generator(generator.generator, SETTINGS.latent_size, False, path, draws_masks=True)
    noise = latents(0, 0, 8, SETTINGS.latent_size)

    def original(latent: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return quantise(generator.generator(torch.from_numpy(latent)).permute(0, 2, 3, 1).numpy())

    assert onnx_export.check_generator(path, original, {"latent": noise}) <= 1
    image, mask = onnxruntime.InferenceSession(path).run(["image", "mask"], {"latent": noise})
    assert image.shape == (8, 32, 32, 3)
    np.testing.assert_array_equal(mask, geometry.masks(original(noise)[..., 3]))
    with pytest.raises(onnx_export.ExportError, match="pixels of its masks"):
        onnx_export.check_generator(path, lambda latent: original(latent) ^ np.uint8([0, 0, 0, 255]), {"latent": noise})


def test_the_painter_alone_paints_what_the_whole_graph_paints(tmp_path: Path) -> None:
    whole, alone, other = trained(), tmp_path / "painter.onnx", tmp_path / "other.onnx"
    onnx_export.export_generator(whole.generator, SETTINGS.latent_size, False, tmp_path / "g.onnx", draws_masks=True)
    onnx_export.export_painter(whole.generator.painter, 32, NOISE_SIZE, alone)
    noise = latents(0, 0, 4, SETTINGS.latent_size)
    assert onnx_export.check_painter(alone, tmp_path / "g.onnx", noise, NOISE_SIZE) <= 1
    onnx_export.export_painter(recipes.build("dual", SPEC, SETTINGS, seed=1).generator.painter, 32, NOISE_SIZE, other)
    with pytest.raises(onnx_export.ExportError, match="grey levels, allowed 1"):
        onnx_export.check_painter(other, tmp_path / "g.onnx", noise, NOISE_SIZE)


def test_what_it_cannot_do_is_refused() -> None:
    with pytest.raises(ParamsError, match="draws no labels"):
        recipes.build("dual", SPEC, SETTINGS, seed=0, classes=2)
    with pytest.raises(ParamsError, match=f"latent_size above {NOISE_SIZE}, not 8"):
        recipes.build("dual", SPEC, DCGAN_ADA, seed=0)
