"""The champions of a store: by name, which trained model is the one to use, and those that were it before.

``<store>/champion.json`` is the record of the name ``default``, ``<store>/champions/NAME.json`` that of any other. It
holds the last `KEPT_REIGNS` reigns, the newest last. The champion is the newest one that was not withdrawn: promoting
adds a reign, going back withdraws one.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from data.errors import StoreError
from data.moment import now
from data.store import mirror, naming, reigns
from data.store.reigns import Record, Reign, Rejection, Withdrawal

if TYPE_CHECKING:
    from data.store.artifact import Artifact
    from data.store.folder import Store

logger = logging.getLogger(__name__)


class OvertakenError(StoreError):
    """Another model became the champion while this one was compared with the one before."""


KEPT_BEFORE = 10
"""Of each name so many models stay that were champions before the present one, however old; one can go back to them."""
KEPT_REIGNS = 1000
KEPT_REJECTIONS = 100
STAGE = "train"
"""The stage whose artifacts can be champions."""


def current(store: Store, name: str = naming.DEFAULT) -> Reign | None:
    """The champion's reign; None where no model was ever promoted, or all of them were withdrawn.

    Raises:
        ConfigError: what cannot be a name, as in all that follows.
        StoreError: a record that cannot be read.
    """
    return _standing(reigns.read(store, name))


def best(store: Store, name: str = naming.DEFAULT) -> Artifact:
    """The champion's artifact, sound; where there is no default champion, that of the newest model.

    Raises:
        StoreError: none, or a damaged one.
    """
    reign = current(store, name)
    if reign is not None:
        artifact, damage = mirror.obtain(store, STAGE, reign.model)
        if artifact is None or damage:
            raise StoreError(
                f"the champion {reign.model[:16]} cannot be used ({damage}): `rnnlm rollback` goes back to the one "
                "before, --model names another"
            )
        return artifact
    if name != naming.DEFAULT:
        raise StoreError(
            f"{store.root} has no champion under the name {name}: `rnnlm champion --all` lists those it has"
        )
    models = store.artifacts(STAGE)
    newest = next((artifact for artifact in models if not store.damage(artifact, again=True)), None)
    if newest is None:
        raise StoreError(
            f"there is no trained model in {store.root}: train one with `rnnlm run`, or name it with --model"
        )
    return newest


def history(store: Store, name: str = naming.DEFAULT) -> list[Reign]:
    """The reigns that are kept, the newest last.

    Raises:
        StoreError: a record that cannot be read.
    """
    return reigns.read(store, name).reigns


def withdrawn(store: Store, key: str, name: str = naming.DEFAULT) -> Withdrawal | None:
    """Why a model was gone back from, unless it was promoted again since."""
    last = next((reign for reign in reversed(history(store, name)) if reign.model == key), None)
    return last.withdrawn if last else None


def rejected(store: Store, key: str, over: str, name: str = naming.DEFAULT) -> Rejection | None:
    """What came of comparing a model with this champion, if they were compared and it was not better."""
    compared = (one for one in reigns.read(store, name).rejections if (one.model, one.over) == (key, over))
    return next(compared, None)


def reject(store: Store, key: str, over: str, reason: str, *, name: str = naming.DEFAULT) -> None:
    """Remember that a model was compared with this champion and was not better, so that nobody asks again."""
    rejection = Rejection(model=key, over=over, when=now(), reason=reason)

    def note(record: Record) -> None:
        record.rejections = [*record.rejections[-KEPT_REJECTIONS + 1 :], rejection]

    reigns.change(store, name, note)


def promote(
    store: Store,
    key: str,
    reason: str,
    figures: Mapping[str, Any],
    *,
    over: str | None = None,
    source: str | None = None,
    name: str = naming.DEFAULT,
) -> Reign:
    """Make a model the champion; its predecessors stay in the history. The champion itself just stays it.

    Args:
        store: where the model and the pointer lie.
        key: of a sound artifact of `train`.
        reason: why, in one sentence for people.
        figures: what spoke for it, as JSON can hold it.
        over: the champion that it was compared with, where it was; it has to be the champion still. Empty where there
            was none to compare with.
        source: the corpus that it was made from, as `Reign` has it.
        name: of the champion.

    Raises:
        OvertakenError: another one became the champion than the one it was compared with.
        StoreError: no such model or a damaged one, figures that are not finite, or a pointer that cannot be read or
            written.
    """
    try:
        kept = json.loads(json.dumps(dict(figures), allow_nan=False))
    except ValueError:
        raise StoreError(
            f"the model {key[:16]} is not promoted, for its figures are not all finite: train again, with a lower "
            "train.learning_rate for one"
        ) from None
    if fault := _fault(store, key):
        raise StoreError(f"the model {key[:16]} is not promoted, for its artifact {fault}: train again")
    with reigns.staying():
        mirror.share(store, STAGE, key)

    def add(record: Record) -> Reign:
        champion = _standing(record)
        if champion is not None and champion.model == key:
            return champion
        if over is not None and over != (champion.model if champion else ""):
            before = f"it was compared with {over[:16]}, which is no longer" if over else "meanwhile another one became"
            raise OvertakenError(f"the model {key[:16]} is not promoted, for {before} the champion: run the same again")
        # Nothing is collected while a champion changes: what is there now will be.
        if store.find(STAGE, key) is None:
            raise StoreError(f"the model {key[:16]} is not promoted, for its artifact is gone: train again")
        store.settle(STAGE)
        reign = Reign(model=key, since=now(), reason=reason, figures=kept, source=source)
        record.reigns = [*record.reigns[-KEPT_REIGNS + 1 :], reign]
        return reign

    return reigns.change(store, name, add)


def rollback(store: Store, reason: str, *, name: str = naming.DEFAULT) -> Reign:
    """Withdraw the champion and give back its predecessor's reign, which is the champion's now.

    Predecessors whose artifact is gone or damaged are withdrawn too, with a warning. Where no sound one is left,
    nothing is withdrawn.

    Raises:
        StoreError: nothing to go back to, or a pointer that cannot be read or written.
    """

    def withdraw(record: Record) -> Reign:
        known = record.reigns
        standing = [number for number, reign in enumerate(known) if not reign.withdrawn]
        if not standing:
            raise StoreError(
                f"the store {store.root} has no champion to go back from{called(name)}: `rnnlm run` trains a model"
            )
        champion, *before = reversed(standing)
        withdrawals, predecessor = {champion: reason}, None
        for number in before:
            fault = _fault(store, known[number].model)
            if fault is None:
                predecessor = known[number]
                break
            withdrawals[number] = f"its artifact {fault}"
        if predecessor is None:
            why = "the artifacts of all before it are gone or damaged" if before else "none was before it"
            raise StoreError(
                f"there is no champion to go back to from {known[champion].model[:16]}, for {why}: it stays the "
                "champion until another model is promoted"
            )
        moment = now()
        for number, why in withdrawals.items():
            if number != champion:
                logger.warning(
                    "%s, champion since %s, is skipped: %s", known[number].model[:16], known[number].since, why
                )
            known[number] = known[number].model_copy(update={"withdrawn": Withdrawal(when=moment, why=why)})
        return predecessor

    return reigns.change(store, name, withdraw)


def publish(store: Store, name: str) -> bool:
    """Send a champion and its record to the remote, where that has none; whether it was.

    Raises:
        StoreError: a record or a model that cannot be read.
        RemoteError: the remote does not take it.
    """
    champion = _standing(reigns.here(store, name))
    if champion is not None:
        mirror.share(store, STAGE, champion.model)
    return reigns.publish(store, name)


def _standing(record: Record) -> Reign | None:
    return next((reign for reign in reversed(record.reigns) if not reign.withdrawn), None)


def pinned(store: Store) -> set[str]:
    """Keys of the models that the store must keep: of each name the champion, and the last `KEPT_BEFORE` before it.

    Raises:
        StoreError: a record that cannot be read, of whatever name, so that nobody knows what to keep.
    """
    kept: set[str] = set()
    for name in reigns.names(store):
        standing = [reign.model for reign in history(store, name) if not reign.withdrawn]
        kept.update(standing[-KEPT_BEFORE - 1 :])
    return kept


def called(name: str) -> str:
    """What tells a champion from the default one, to go into a sentence."""
    return "" if name == naming.DEFAULT else f" under the name {name}"


def _fault(store: Store, key: str) -> str | None:
    """What keeps a model from being the champion, or None."""
    artifact, damage = mirror.obtain(store, STAGE, key)
    if artifact is None:
        return "is gone"
    return f"is damaged ({damage})" if damage else None
