"""The card of a model on a hub: metadata in YAML, which machines read, and the same in words."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from data.corpus.address import identity, is_address
from data.corpus.catalogue import catalogue
from data.corpus.level import LEVELS
from data.moment import minute
from data.shown import visible
from data.store.artifact import Artifact
from data.store.folder import Store
from data.store.reading import SMALL, read
from stages.export import beside
from stages.pipeline import sound
from stages.report import words
from stages.report.markdown import plain

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from data.corpus.catalogue import Corpus
    from data.store.manifest import Manifest
    from stages.lm.stored import Stored

_LICENCES = {"MIT": "mit"}
"""What a licence in the catalogue begins with → what a hub calls it. Any other one is `other`, with its name."""
_METRICS = {"perplexity": "Perplexity", "bits_per_character": "Bits per character", "loss": "Loss (nats per token)"}
_SPLITS = {"valid": "validation", "test": "test"}
"""Of unseen text, as the evaluation and as a hub calls them."""


@dataclass(frozen=True)
class Origin:
    """Where a model comes from, as far as its store knows."""

    made: Mapping[str, Manifest] = field(default_factory=dict)
    """Stage → manifest of the model and of all that it was made from, the model first."""
    keys: Mapping[str, str] = field(default_factory=dict)
    """Stage → key, of those too that are there no more; and of the evaluation."""
    metrics: Mapping[str, Any] = field(default_factory=dict)
    """``metrics.json`` of the evaluation."""

    @property
    def corpus(self) -> str:
        """What was downloaded, without what is nobody else's business: of a path its last name. Empty where nobody
        knows."""
        manifest = self.made.get("download")
        named = manifest.config.get("corpus", "") if manifest else ""
        if named in catalogue() or not isinstance(named, str):
            return str(named)
        if is_address(named) and not named.lower().startswith("file:"):
            return identity(named)
        return Path(named).name

    @property
    def known(self) -> Corpus | None:
        """The corpus, where the catalogue has it."""
        return catalogue().get(self.corpus)

    @property
    def digest(self) -> str:
        """The SHA-256 of the text, as its stages have read it; empty where nobody knows."""
        read = [manifest.components.get("inputs", {}).get("download/corpus.txt") for manifest in self.made.values()]
        return next((digest for digest in read if digest), "")


def origin(model: Path) -> Origin:
    """What the store of a model's folder has to say about it; of a folder in no store, nothing."""
    model = model.resolve()
    artifact = Artifact.read(model)
    if artifact is None:
        return Origin()
    store = Store(model.parents[1])
    made, keys = {artifact.manifest.stage: artifact.manifest}, {artifact.manifest.stage: artifact.manifest.key}
    waiting = [artifact.manifest]
    for manifest in waiting:  # which grows
        for stage, key in manifest.parents.items():
            found = store.find(stage, key)
            if stage not in keys and found is not None:
                made[stage] = found.manifest
                waiting.append(found.manifest)
            keys.setdefault(stage, key)
    metrics = {}
    for evaluated in store.artifacts("evaluate"):
        if evaluated.manifest.parents.get(artifact.manifest.stage) == artifact.manifest.key:
            if store.damage(evaluated):
                continue
            sound.evaluate(evaluated.folder)
            metrics = json.loads(read(evaluated.folder / "metrics.json", SMALL))
            keys["evaluate"] = evaluated.manifest.key
            break
    return Origin(made, keys, metrics)


def text(stored: Stored, origin: Origin) -> str:
    """The card, Markdown with metadata in front."""
    metadata = yaml.safe_dump(_metadata(stored, origin), sort_keys=False, allow_unicode=True, width=1000)
    return visible(f"---\n{metadata}---\n\n" + "\n".join(_words(stored, origin)) + "\n")


def _licence(origin: Origin) -> dict[str, str]:
    if origin.known is None:
        return {"license": "unknown"}
    for begins, hub in _LICENCES.items():
        if origin.known.licence.startswith(begins):
            return {"license": hub}
    return {"license": "other", "license_name": origin.known.licence.partition("(")[0].strip().replace(" ", "-")}


def _metadata(stored: Stored, origin: Origin) -> dict[str, Any]:
    architecture = stored.architecture
    tags = ["language-model", architecture.cell, f"{LEVELS[stored.level].noun}-level", "safetensors"]
    found: dict[str, Any] = {
        **_licence(origin),
        "library_name": "rnnlm",
        "pipeline_tag": "text-generation",
        "tags": [*tags, *(["n-gram"] if stored.ngram is not None else [])],
    }
    measured = [split for split in _SPLITS if origin.metrics.get(split)]
    if measured:
        name = f"{architecture.cell}-{architecture.layers}x{architecture.hidden_size}"
        found["metrics"] = [*_METRICS]
        found["model-index"] = [{"name": name, "results": [_result(split, origin) for split in measured]}]
    return found


def _result(split: str, origin: Origin) -> dict[str, Any]:
    title = origin.known.title if origin.known else origin.corpus or "a text of its own"
    figures = origin.metrics[split]
    dataset = {"type": origin.corpus or "unknown", "name": title, "split": _SPLITS[split]}
    return {
        "task": {"type": "text-generation", "name": "Language modelling"},
        "dataset": dataset | ({"revision": origin.digest} if origin.digest else {}),
        "metrics": [
            {"type": name, "name": title, "value": round(figures[name], 6)} for name, title in _METRICS.items()
        ],
    }


def _words(stored: Stored, origin: Origin) -> Iterator[str]:
    beside_it = f", beside an n-gram of order {len(stored.shares)}" if stored.ngram is not None else ""
    network = beside.described(stored.architecture, LEVELS[stored.level].noun)
    yield from ("# A language model", "", network.removesuffix(".") + beside_it + ".", "")
    yield from ("## How it is used", "", "Nothing in this folder has to be executed.", "")
    yield from ("```python", "import rnnlm", "", 'model = rnnlm.LanguageModel.load(".")')
    yield from ('print(model.sample("", 200, temperature=0.8))', "```", "")
    yield (
        "`model.safetensors` has the weights by the names and in the order of gates that `torch.nn` has, "
        f"`config.json` what they are of, `vocab.json` the tokens in the order of their ids. {beside.reading(stored)}"
    )
    if stored.ngram is not None:
        yield "`ngrams.arrow` is the n-gram, and `mixture` in `config.json` the network's share for each context."
    yield from ("", "## How well it predicts", "")
    measured = [split for split in ("train", *_SPLITS) if origin.metrics.get(split)]
    if measured:
        yield from ("| split | tokens | perplexity | bits per character | loss (nats) |", "|---|--:|--:|--:|--:|")
        for split in measured:
            row = origin.metrics[split]
            yield (
                f"| {split} | {row['tokens']:,} | {row['perplexity']:.4g} | {row['bits_per_character']:.4g} "
                f"| {row['loss']:.5g} |"
            )
    else:
        yield "Nobody has measured it where it comes from: `rnnlm evaluate --on TEXT --model DIR` does."
    yield from ("", "## Licence", "", _licence_in_words(origin), "", "## Where it comes from", "")
    yield from _lineage(origin)
    yield from ("", "## What it is not for", "", "It knows what its text says, and nothing else: fill in what that is.")


def _licence_in_words(origin: Origin) -> str:
    if origin.known is None:
        return (
            "Not known: it depends on the text that the model has learnt from. Find out what that allows, and fill in "
            "`license` above, with one of the hub's names, or with `other`, a `license_name` and a `license_link`."
        )
    return f"Of the text: {plain(origin.known.licence)}. See that `license` above says what you give the model under."


def _lineage(origin: Origin) -> Iterator[str]:
    if not origin.keys:
        yield "Nobody knows: it was exported from a folder that lies in no store."
        return
    trained = next(iter(origin.made.values()))
    title = f", {plain(origin.known.title)}" if origin.known else ""
    yield f"- Text: {plain(origin.corpus) or 'nobody knows which'}{title}"
    if origin.digest:
        yield f"- SHA-256 of the text: `{origin.digest}`"
    yield from (f"- Key of {stage}: `{key}`" for stage, key in origin.keys.items())
    if trained.git:
        yield f"- Commit: `{trained.git['commit']}`{', with changes of its own' if trained.git['dirty'] else ''}"
    yield f"- Seed: {trained.seed}"
    by = words.computed(trained.components, trained.device)
    yield f"- Trained: {minute(trained.created)}{f' by {plain(by)}' if by else ''}"
    versions = {**trained.versions, **trained.components.get("libraries", {})}
    yield f"- Versions: {plain(', '.join(f'{name} {version}' for name, version in versions.items()))}"
