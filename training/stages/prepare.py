"""Stage `prepare`: images as they are found become arrays on disk, split by patient or region.

python -m training.stages.prepare ihc
"""

import argparse
import sys

from training import folders, params
from training.border import border
from training.data.items import LeftOut, refuse_links_below
from training.data.preparation import prepare
from training.data.prepared import LEFT_OUT, DatasetInfo, read_left_out

NAMES_SHOWN = 10


def main() -> None:
    parser = argparse.ArgumentParser(description="Prepare a dataset of params.yaml into data/prepared/NAME.")
    parser.add_argument("name")
    name = parser.parse_args().name
    with border("prepare", name):
        folder = folders.prepared(name)
        entry = params.load().dataset(name)
        refuse_links_below(folders.raw(name))
        info = prepare(name, entry.prepare, entry.card.origin, entry.card.licence, folder)
        print(report(info, read_left_out(folder)), file=sys.stderr)


def report(info: DatasetInfo, left_out: list[LeftOut]) -> str:
    """What was prepared and what was left out, for the console."""
    counts = ", ".join(f"{count} {split}" for split, count in info.counts.items())
    channels = "grey" if info.image.channels == 1 else "RGB"
    lines = [f"prepare@{info.name}: {counts}; {info.image.size}x{info.image.size} {channels}; {info.split}"]
    lines += [f"  converted: {count} images {what}" for what, count in info.converted.items()]
    lines += [f"  warning: {warning}" for warning in info.warnings]
    for reason, count in info.left_out.items():
        members = [left for left in left_out if left.reason == reason]
        lines.append(f"  left out: {count} {reason}")
        lines += [f"    {left.name}: {left.detail}" for left in members[:NAMES_SHOWN]]
        if len(members) > NAMES_SHOWN:
            lines.append(
                f"    and {len(members) - NAMES_SHOWN} more, named in {folders.prepared(info.name) / LEFT_OUT}"
            )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
