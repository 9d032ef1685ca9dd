"""The few errors that cross a border between a person and the software.

VerisynthError          what a user can mend; its message says what is wrong, the value, and what to do
├── ImageError          bytes that are no image we take; carries a machine-readable `code`
└── ReleaseError        a model folder that is missing, incomplete or altered
"""


class VerisynthError(Exception):
    """A mistake the user can mend. Shown without a traceback."""


class ImageError(VerisynthError):
    """An image that is refused.

    `code` is one of `not_an_image`, `broken_image`, `image_too_large`,
    `image_too_small`, `several_frames`, `unsupported_pixels`, `not_a_mask`, `empty_mask`.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class ReleaseError(VerisynthError):
    """A release folder that cannot be trusted: a file is missing, altered, or breaks the contract."""
