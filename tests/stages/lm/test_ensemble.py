"""Several networks that say together what comes next."""

from __future__ import annotations

import signal
import threading
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from data import cores
from data.errors import Interrupted
from stages.lm import ensemble, parameters
from stages.lm.ensemble import Ensemble
from stages.lm.network import Network
from stages.lm.parameters import Architecture
from tests.stages.lm.test_mixture import text

if TYPE_CHECKING:
    from numpy.typing import NDArray

VOCAB = 9
EACH = Architecture("gru", "tanh", 7, 2, VOCAB, 5, networks=3)
IDS = text(400, seed=2) % VOCAB


def drawn(seed: int) -> dict[str, NDArray[np.float32]]:
    return {name: 4 * array for name, array in EACH.initial("uniform", seed).items()}


def likely(network: Network, states: Any) -> NDArray[np.float64]:
    logits = network.readout()(states).astype(np.float64)
    chances: NDArray[np.float64] = np.exp(logits) / np.exp(logits).sum()
    return chances


def test_what_several_say_is_the_mean_of_their_probabilities() -> None:
    several = ensemble.made(EACH, parameters.together([drawn(seed) for seed in range(3)]))
    alone = [Network(EACH, drawn(seed)) for seed in range(3)]
    states, each = several.beginning(), [network.beginning() for network in alone]
    readout, losses = several.readout(), []
    for id_, target in zip(IDS[:60].tolist(), IDS[1:61].tolist(), strict=True):
        several.advance(id_, states)
        for network, own in zip(alone, each, strict=True):
            network.advance(id_, own)
        expected = np.mean([likely(network, own) for network, own in zip(alone, each, strict=True)], axis=0)
        np.testing.assert_allclose(np.exp(readout(states)), expected, rtol=1e-5)
        np.testing.assert_allclose(np.exp(several.readout(2)(states)), expected[2:], rtol=1e-5)
        losses.append(-np.log(expected[target]))
    np.testing.assert_allclose(np.concatenate([*several.losses(IDS[:61])]), losses, rtol=1e-5)
    assert several.loss(IDS[:61]) == pytest.approx(np.mean(losses), rel=1e-6)


def test_no_text_costs_several_more_than_it_costs_them_on_average() -> None:
    alone = [Network(EACH, drawn(seed)) for seed in range(3)]
    assert Ensemble(alone).loss(IDS) < np.mean([network.loss(IDS) for network in alone])


def test_a_long_text_is_read_by_as_many_threads_as_there_are_cores_and_costs_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    several = Ensemble([Network(EACH, drawn(seed)) for seed in range(3)])
    seen = set()

    def read() -> list[Any]:
        states = several.beginning()
        carried, windowed = several.losses(IDS, states), several.windowed_losses(IDS, 32)
        return [*np.concatenate([*carried, *windowed]), *np.concatenate([array for state in states for array in state])]

    def column(*given: Any, own: Any = Network.advance_columns) -> None:
        seen.add(threading.current_thread())
        own(*given)

    monkeypatch.setattr(Network, "advance_columns", column)
    monkeypatch.setattr(cores, "available", lambda: 2)
    before, here = read(), {threading.current_thread()}
    assert seen == here  # of a short text that would take longer
    monkeypatch.setattr(ensemble, "_LONG", EACH.weights() * len(IDS))
    np.testing.assert_array_equal(read(), before)
    assert seen > here


def test_nobody_waits_for_a_chunk_to_end_who_is_told_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cores, "available", lambda: 2)
    monkeypatch.setattr(ensemble, "_LONG", 1)
    going_on = threading.Event()
    monkeypatch.setattr(Network, "losses", lambda *given: (going_on.wait(40) for _ in IDS))

    def told(*signal: Any) -> None:
        raise Interrupted("told to end", signal[0])

    signal.signal(signal.SIGALRM, told)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        began = time.monotonic()
        with pytest.raises(Interrupted):
            Ensemble([Network(EACH, drawn(seed)) for seed in range(3)]).loss(IDS)
        assert time.monotonic() - began < 30
    finally:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        going_on.set()


def test_equal_ones_are_one() -> None:
    network = Network(EACH, drawn(0))
    np.testing.assert_allclose(
        np.concatenate([*Ensemble([network] * 4).losses(IDS)]), np.concatenate([*network.losses(IDS)]), rtol=1e-6
    )


def test_their_parameters_come_apart_as_they_were_put_together() -> None:
    each = [drawn(seed) for seed in range(12)]
    found = parameters.apart(parameters.together(each), 12)
    for one, other in zip(each, found, strict=True):
        assert one.keys() == other.keys()
        assert all(one[name] is other[name] for name in one)
    assert parameters.together(each[:1]) == each[0], "of one they have its own names"
