"""The command that says what the engines make of this machine."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from stages.cli.options import Json
from stages.cli.output import print_json

if TYPE_CHECKING:
    from stages.training.builds import Build, Probe
    from stages.training.cards import Driver


def device(as_json: Json = False) -> None:
    """Say which engines are installed, which GPUs each can use, and what auto takes.

    Where there is a GPU, every engine that is built for it trains a step there, which takes some seconds.
    """
    from stages.config import TrainConfig
    from stages.training import builds, cards, engines

    found = looked(engines.installed().values(), cards.driver, builds.probe)
    choice = engines.choose(TrainConfig())
    found["auto"] = {"engine": choice.name, "device": choice.device.kind, "reason": choice.reason}
    if as_json:
        print_json(found)
    else:
        print("\n".join(told(found)))


def looked(engines: Iterable[Build], driver: Callable[[], Driver | str], probe: Probe) -> dict[str, Any]:
    """What ``--json`` prints of cards and engines, given what `builds.gpu` asks."""
    from stages.training import builds
    from stages.training.cards import dotted
    from stages.training.device import Device

    there = driver()
    cards = () if isinstance(there, str) else there.cards
    listed = []
    for build in engines:
        asked: Sequence[int | None] = range(len(cards)) if cards else [None] if build.other else []
        said = [builds.gpu(build, index, driver, probe) for index in asked]
        listed.append(
            {
                "engine": build.engine,
                "library": build.title,
                "version": build.version or None,
                "built_for": build.other or (f"CUDA {dotted(build.cuda)}" if build.cuda else "the CPU"),
                "gpus": [one.index for one in said if isinstance(one, Device)],
                "obstacles": [*dict.fromkeys(filter(None, [build.absent, *(x for x in said if isinstance(x, str))]))],
            }
        )
    return {
        "cards": [{"name": card.name, "compute_capability": dotted(card.capability)} for card in cards],
        "driver": there if isinstance(there, str) else f"it speaks CUDA {dotted(there.cuda)}",
        "engines": listed,
    }


def told(found: dict[str, Any]) -> Iterator[str]:
    """The same as lines: the cards, the engines, and what `auto` takes."""
    if not found["cards"]:
        yield f"GPU    {found['driver']}"
    for index, card in enumerate(found["cards"]):
        yield f"GPU {index}  {card['name']}, compute capability {card['compute_capability']}"
    for one in found["engines"]:
        built = [f"{one['library']} {one['version']}, built for {one['built_for']}"] if one["version"] else []
        uses = [f"uses the GPU {index}" for index in one["gpus"]]
        yield f"{one['engine']:6} {'; '.join([*built, *uses, *one['obstacles']])}"
    yield f"auto   {found['auto']['reason'].removeprefix('training with ')}"
