"""The figures of the evaluation, as PNG files without dates so that they can be cached."""

from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from contracts.imaging import grid, with_channels
from training.detectors.corruptions import FAMILIES
from training.detectors.ranking import roc_curve
from training.evaluation import detection

COLUMNS = 8
ROWS = 6
PAIRS = 8
HEATMAPS = 16
GAP = 2
HEATMAP_OPACITY = 0.55
SHADED_BELOW = 0.6
"""Numbers on darker colours are white."""
SCALED_SHARE = 0.99
"""Share of the heat within the colour scale: a few extreme cells would pale all others."""


def real_beside_synthetic(real: np.ndarray, synthetic: np.ndarray, path: Path) -> None:
    """Held-out real images on the left, generated ones on the right, neither chosen; uint8 [N, H, W, C]."""
    count = COLUMNS * ROWS
    figure = Figure(figsize=(11, 4.4), layout="constrained")
    for axes, images, title in zip(
        figure.subplots(1, 2), (_spread(real, count), synthetic[:count]), ("real, held out", "synthetic"), strict=True
    ):
        _show(axes, grid(images, COLUMNS))
        axes.set_title(title)
    _save(figure, path)


def pairs(images: np.ndarray, masks: np.ndarray, drawn_images: np.ndarray, drawn_masks: np.ndarray, path: Path) -> None:
    """Real images above their masks on the left, drawn ones on the right; uint8 [N, H, W, C] and [N, H, W]."""
    figure = Figure(figsize=(11, 4.4), layout="constrained")
    for axes, photographs, outlines, title in zip(
        figure.subplots(1, 2), (images, drawn_images), (masks, drawn_masks), ("real", "drawn"), strict=True
    ):
        rows = _spread(np.arange(len(photographs)), COLUMNS * ROWS // 2)
        sheets = [
            part
            for start in range(0, len(rows), COLUMNS)
            for part in (
                photographs[rows[start : start + COLUMNS]],
                _as_images(outlines[rows[start : start + COLUMNS]], photographs.shape[3]),
            )
        ]
        _show(axes, grid(np.concatenate(sheets), COLUMNS))
        axes.set_title(title)
    _save(figure, path)


def closest_pairs(synthetic: np.ndarray, neighbours: np.ndarray, distances: np.ndarray, path: Path) -> None:
    """The generated images nearest to the training set, above their nearest training images; uint8 [N, H, W, C]."""
    order = np.argsort(distances)[:PAIRS]
    figure = Figure(figsize=(9, 2.6), layout="constrained")
    axes = figure.subplots()
    _show(axes, grid(np.concatenate([synthetic[order], neighbours[order]]), len(order)))
    axes.set_title(f"closest pairs: synthetic above its nearest training image ({distances[order[0]]:.1f} grey levels)")
    _save(figure, path)


def roc(curves: dict[str, tuple[np.ndarray, np.ndarray]], path: Path) -> None:
    """ROC curves by detector, of (synthetic bool [N], probability [N]); false positives on a logarithmic axis too."""
    figure = Figure(figsize=(8, 4), layout="constrained")
    linear, logarithmic = figure.subplots(1, 2)
    for name, (synthetic, probabilities) in curves.items():
        false_positive, true_positive, _ = roc_curve(synthetic, probabilities)
        linear.plot(false_positive, true_positive, label=name)
        logarithmic.semilogx(np.maximum(false_positive, 1e-3), true_positive, label=name)
    for axes in (linear, logarithmic):
        axes.set(xlabel="false positive rate", ylabel="true positive rate", ylim=(-0.02, 1.02))
        axes.grid(alpha=0.3)
    linear.legend()
    _save(figure, path)


def reliability_diagram(curves: dict[str, tuple[np.ndarray, np.ndarray]], path: Path) -> None:
    """Stated probability against the share found synthetic, by detector; a point's area is its share of images."""
    figure = Figure(figsize=(4.5, 4.2), layout="constrained")
    axes = figure.subplots()
    axes.plot((0, 1), (0, 1), color="grey", linewidth=1)
    for name, (synthetic, probabilities) in curves.items():
        shares, stated, found = zip(*detection.reliability(synthetic, probabilities), strict=True)
        axes.plot(stated, found, alpha=0.4)
        axes.scatter(stated, found, s=[20 + 300 * share for share in shares], alpha=0.6, label=name)
    axes.set(xlabel="stated probability", ylabel="share synthetic", xlim=(-0.05, 1.05), ylim=(-0.05, 1.05))
    axes.legend()
    _save(figure, path)


def losses(rows: dict[str, list[dict[str, float]]], path: Path) -> None:
    """Losses over training images by recipe, from the rows of `stats.jsonl`."""
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    axes = figure.subplots()
    for recipe, stats in rows.items():
        seen = [row["images"] for row in stats]
        for name in ("discriminator_loss", "generator_loss"):
            axes.plot(seen, [row[name] for row in stats], label=f"{recipe}: {name.replace('_', ' ')}")
    axes.set(xlabel="training images seen", ylabel="loss")
    axes.grid(alpha=0.3)
    axes.legend()
    _save(figure, path)


def looks(rows: dict[str, list[dict[str, float]]], path: Path) -> None:
    """KID against the validation split and diversity over training images by recipe, from the rows of `looks.jsonl`."""
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    distance, diversity = figure.subplots(1, 2)
    for recipe, found in rows.items():
        seen = [row["images"] for row in found]
        distance.plot(seen, [row["kid"] for row in found], marker=".", label=recipe)
        diversity.plot(seen, [row["diversity"] for row in found], marker=".", label=recipe)
    distance.set(ylabel="KID against validation", yscale="symlog")
    diversity.set(ylabel="diversity, real images = 1", ylim=(0, None))
    for axes in (distance, diversity):
        axes.set(xlabel="training images seen")
        axes.grid(alpha=0.3)
    distance.legend()
    _save(figure, path)


def matrix(values: dict[str, dict[str, float]], title: str, path: Path) -> None:
    """Shares or areas from 0 to 1 by row and column, as colours with their numbers; what is missing stays empty."""
    rows = list(values)
    columns = list(dict.fromkeys(rows + [column for cells in values.values() for column in cells]))
    cells = np.array([[values[row].get(column, np.nan) for column in columns] for row in rows])
    figure = Figure(figsize=(2.2 + 0.9 * len(columns), 1.4 + 0.6 * len(rows)), layout="constrained")
    axes = figure.subplots()
    axes.imshow(cells, vmin=0, vmax=1, cmap="viridis", aspect="auto")
    for row, column in np.argwhere(np.isfinite(cells)):
        shade = "white" if cells[row, column] < SHADED_BELOW else "black"
        axes.text(column, row, f"{cells[row, column]:.2f}", ha="center", va="center", color=shade)
    axes.set_xticks(range(len(columns)), columns, rotation=30, ha="right")
    axes.set_yticks(range(len(rows)), rows)
    axes.set_title(title, fontsize="medium")
    _save(figure, path)


def latent_walk(images: np.ndarray, steps: int, path: Path) -> None:
    """Walks through the latents, one per row of `steps` images; uint8 [N, H, W, C]."""
    sheet = grid(images, steps)
    figure = Figure(figsize=(9, 9 * sheet.shape[0] / sheet.shape[1] + 0.4), layout="constrained")
    axes = figure.subplots()
    _show(axes, sheet)
    axes.set_title("walks between two latents each")
    _save(figure, path)


def heatmaps(images: np.ndarray, maps: np.ndarray, masks: np.ndarray, path: Path) -> None:
    """Images uint8 [N, H, W, C], at most 16 of them, each above its heatmap float [N, h, w] laid over it in grey.

    Red speaks for synthetic, blue for real, on one scale for all that ends at the hottest percent. Where `masks` float
    [N, H, W] reach 0.5, as in the pasted region of a patched image, they are outlined; zeros outline nothing.
    """
    count, (height, width, channels) = min(len(images), HEATMAPS), images.shape[1:]
    columns = min(count, COLUMNS)
    bands = -(-count // columns)
    limit = max(float(np.quantile(np.abs(maps[:count]), SCALED_SHARE)), 1e-6)
    sheet = np.full((bands, 2, columns, height, width, channels), 255, dtype=np.uint8)
    for index in range(count):
        band, column = divmod(index, columns)
        sheet[band, 0, column] = images[index]
        sheet[band, 1, column] = with_channels(with_channels(images[index], 1), channels)
    laid_out = grid(sheet.reshape(-1, height, width, channels), columns, gap=GAP)

    figure = Figure(figsize=(1.35 * columns + 1.2, 1.35 * 2 * bands + 0.2), layout="constrained")
    axes = figure.subplots()
    _show(axes, laid_out)
    axes.autoscale(False)
    for index in range(count):
        band, column = divmod(index, columns)
        left, top = GAP + column * (width + GAP), GAP + 2 * band * (height + GAP)
        below = top + height + GAP
        heat = axes.imshow(
            maps[index],
            cmap="coolwarm",
            vmin=-limit,
            vmax=limit,
            alpha=HEATMAP_OPACITY,
            interpolation="bilinear",
            extent=(left - 0.5, left + width - 0.5, below + height - 0.5, below - 0.5),
        )
        if (masks[index] >= 0.5).any():
            # A frame of zeros closes outlines that touch the image's border.
            framed = np.pad(masks[index], 1)
            for start in (top, below):
                across, down = np.arange(left - 1, left + width + 1), np.arange(start - 1, start + height + 1)
                outline = axes.contour(across, down, framed, levels=[0.5], colors="white", linewidths=1)
                outline.set_path_effects([withStroke(linewidth=2.5, foreground="black")])
    figure.colorbar(heat, ax=axes, label="heat: real below 0, synthetic above", shrink=0.8)
    _save(figure, path)


def robustness(clean: dict[str, float], after: dict[str, dict[str, float]], path: Path) -> None:
    """AUC over the strength of each family of corruptions, by detector; `after` is that of `robustness.after`.

    The curves go through the clean AUC, a ring, where the strength changes nothing.
    """
    columns = -(-len(FAMILIES) // 2)
    figure = Figure(figsize=(3 * columns, 5.2), layout="constrained")
    panels = figure.subplots(2, columns, sharey=True).flat
    for (name, family), axes in zip(FAMILIES.items(), panels, strict=False):
        strengths = sorted([family.neutral, *family.strengths])
        for kind, found in after.items():
            aucs = {strength: found[f"{name}_{strength:g}"] for strength in family.strengths}
            aucs[family.neutral] = clean[kind]
            (line,) = axes.plot(strengths, [aucs[strength] for strength in strengths], marker=".", label=kind)
            axes.plot(family.neutral, clean[kind], marker="o", fillstyle="none", color=line.get_color())
        axes.axhline(0.5, color="grey", linewidth=1)
        axes.set(xlabel=family.quantity, xticks=strengths)
        axes.grid(alpha=0.3)
    for axes in figure.axes[len(FAMILIES) :]:
        axes.set_axis_off()
    for axes in figure.axes[::columns]:
        axes.set_ylabel("AUC")
    figure.axes[-1].legend(*figure.axes[0].get_legend_handles_labels(), loc="center", title="ring: clean images")
    _save(figure, path)


def _spread(images: np.ndarray, count: int) -> np.ndarray:
    """Evenly spread over the set, since neighbouring rows may be neighbouring details of one image."""
    rows = np.linspace(0, len(images) - 1, min(count, len(images))).astype(int)
    return np.asarray(images[rows])


def _as_images(masks: np.ndarray, channels: int) -> np.ndarray:
    """Masks uint8 [N, H, W] as images uint8 [N, H, W, channels]."""
    return np.repeat(masks[..., None], channels, axis=3)


def _show(axes: mpl.axes.Axes, sheet: np.ndarray) -> None:
    axes.imshow(sheet[..., 0] if sheet.shape[2] == 1 else sheet, cmap="gray", vmin=0, vmax=255)
    axes.set_axis_off()


def _save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, metadata={"Software": None})
