"""The command ``rnnlm``: signals are minded from the first moment on, before anything that takes time is loaded."""

from __future__ import annotations

import signal
import sys

from stages.training import signals


def main() -> None:
    """Run the command line."""
    for signum in signals.ending():
        # Nothing has begun: there is nothing to keep, and nothing to say but that it ends.
        signal.signal(signum, lambda signum, frame: sys.exit(128 + signum))
    from stages.cli import app as cli

    cli.main()


if __name__ == "__main__":
    main()
