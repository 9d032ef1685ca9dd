"""How a command ends: its exit code, and errors in words."""

import errno
from typing import Any

import click

from contracts.errors import VerisynthError
from serving.client.connection import ServiceError

FOUND, USAGE, UNREACHABLE, REFUSED, INTERRUPTED = 1, 2, 3, 4, 130
"""Exit codes besides 0, as told by `EXIT_CODES`."""
EXIT_CODES = """\b
Exit codes:
  0    done
  1    an image is what --fail-on names; an audit log is not what was written
  2    the command cannot be understood, or a file cannot be read or written
  3    the service cannot be reached or cannot answer now: try again later
  4    the service refuses: trying again changes nothing
  130  stopped by Ctrl-C
"""


# Too slow just now, too often just now.
PASSING = (408, 429)


class EndingInWords(click.Group):
    """A group whose commands end with the exit codes above, and no stack traces where a user can do something."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except ServiceError as error:
            click.echo(f"{error.code}: {shown(error.message)} (request {error.request_id or 'without id'})", err=True)
            ctx.exit(exit_code(error))
        except VerisynthError as error:
            click.echo(str(error), err=True)
            ctx.exit(exit_code(error))
        except OSError as error:
            if error.errno == errno.EPIPE:
                raise
            click.echo(str(error), err=True)
            ctx.exit(exit_code(error))
        except KeyboardInterrupt:
            click.echo("stopped; what was saved stays, and the same command goes on", err=True)
            ctx.exit(INTERRUPTED)


def exit_code(error: VerisynthError | OSError) -> int:
    """What to end with for an error that is told: a file's or the command's own fault, or what the service says."""
    if not isinstance(error, ServiceError):
        return USAGE
    return UNREACHABLE if error.status is None or error.status in PASSING or error.status >= 500 else REFUSED


def shown(text: object) -> str:
    """A text from elsewhere for a terminal: a file's name may hold what moves the cursor."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in str(text))
