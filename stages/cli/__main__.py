"""The command ``rnnlm``: signals are minded from the first moment on, before anything that takes time is loaded."""

from __future__ import annotations

import signal
import sys

from data.errors import RnnlmError
from stages.training import signals


def main() -> None:
    """Run the command line."""
    for signum in signals.ending():
        # Nothing has begun: there is nothing to keep, and nothing to say but that it ends.
        signal.signal(signum, lambda signum, frame: sys.exit(128 + signum))
    try:
        from stages.cli import app as cli
    except RnnlmError as error:  # a system that cannot run it
        print(f"rnnlm: {error}", file=sys.stderr)
        sys.exit(error.exit_code)

    cli.main()


if __name__ == "__main__":
    main()
