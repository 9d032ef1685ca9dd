"""The command `verisynth`: samples from a running service, whether images are real, and what a service keeps.

    verisynth generate samples.npz --model ihc --count 16 --seed 7
    verisynth paint mask.png samples.npz --model chase
    verisynth check image.png --fail-on synthetic
    verisynth scan archive --report report.csv
    verisynth models
    verisynth collection fetch retina folder
    verisynth keys create --scopes generate,check --id pathology
    verisynth signing-key signing.pem
    verisynth audit verify audit.jsonl

Also `python -m serving.command.main`.
"""

import click

from serving.command.client import check, collections, generate, models, paint, scan
from serving.command.ending import EXIT_CODES, EndingInWords
from serving.command.keeping import audit, keys, signing_key


@click.group(cls=EndingInWords, epilog=EXIT_CODES, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="verisynth")
def main() -> None:
    """Synthetic bioimages from a running service, whether images are real, and the files that a service keeps."""


for command in (generate, paint, check, scan, models, collections, keys, signing_key, audit):
    main.add_command(command)


if __name__ == "__main__":
    main(prog_name="verisynth")
