"""A collection of generated images on disk: what its files are called, and the checksums that list them.

    NAME/VERSION/README.md  croissant.json  provenance.json  records.csv  SHA256SUMS
        shards/00000.zip               images and masks, PNG files
        records/00000.csv              a line per image of that shard

`SHA256SUMS` is written last: a folder without it is not whole yet.
"""

CROISSANT, CARD, CHECKSUMS, PROVENANCE = "croissant.json", "README.md", "SHA256SUMS", "provenance.json"
RECORDS = "records.csv"
"""The tables of all shards as one."""
DIGEST_LETTERS = 64


def archive_name(number: int) -> str:
    """The path of a shard's ZIP in its collection."""
    return f"shards/{number:05d}.zip"


def table_name(number: int) -> str:
    """The path of a shard's table in its collection."""
    return f"records/{number:05d}.csv"


def parse_checksums(text: str) -> dict[str, str]:
    """SHA-256 by path, out of the lines of `SHA256SUMS`: 64 hexadecimal digits, two spaces, a path.

    Raises:
        ValueError: for a line of another form.
    """
    found = {}
    for line in text.splitlines():
        digest, gap, path = line[:DIGEST_LETTERS], line[DIGEST_LETTERS : DIGEST_LETTERS + 2], line[DIGEST_LETTERS + 2 :]
        if gap != "  " or not path or len(bytes.fromhex(digest)) * 2 != DIGEST_LETTERS:
            raise ValueError(f"{line!r} is no line of checksums")
        found[path] = digest
    return found
