"""What takes long ends soon after whoever waits for it has left, and the next one has its turn."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Generator

from stages.serving.bench import Bench


def test_what_nobody_waits_for_any_more_ends() -> None:
    steps = 0

    def long() -> Generator[None, None, int]:
        nonlocal steps
        while steps < 500:
            steps += 1
            time.sleep(0.01)
            yield
        return steps

    def short() -> Generator[None, None, int]:
        yield
        return 5

    async def left() -> None:
        bench = Bench()
        waiting = asyncio.create_task(bench.do(long()))
        await asyncio.sleep(0.1)
        waiting.cancel()
        assert await bench.do(short()) == 5
        assert waiting.cancelled()

    asyncio.run(left())
    assert 0 < steps < 400
