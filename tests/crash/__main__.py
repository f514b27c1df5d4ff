"""A command of its own: every state that a crash can leave a store in, and what notices each mutation of its code.

    .venv/bin/python -m tests.crash             all states
    .venv/bin/python -m tests.crash mutations   what notices that a sync or a lock is left out, or a sync comes late

Exit code 1, and what is lost, where a promise is not kept or nobody notices a mutation.
"""

from __future__ import annotations

import logging
import sys
import time
from collections import Counter

from tests.crash import mutations, states

if __name__ == "__main__":
    BEGAN = time.monotonic()

    def told(counts: Counter[str]) -> None:
        seconds = time.monotonic() - BEGAN
        print(f"{seconds:6.0f} s  " + ", ".join(f"{number:,} {what}" for what, number in counts.items()), flush=True)

    if sys.argv[1:] == ["mutations"]:
        logging.disable(logging.CRITICAL)
        sys.exit(bool(mutations.main()))
    states.tried(states.ALL, told)
