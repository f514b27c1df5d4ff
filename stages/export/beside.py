"""What lies beside a graph: the vocabulary as JSON, and a page that says how both are used."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from data.corpus import subwords
from data.corpus.level import LEVELS
from data.corpus.text import LINE_END
from data.tables.tokens import END_ID

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from stages.lm.parameters import Architecture
    from stages.lm.stored import Stored

logger = logging.getLogger(__name__)

VOCABULARY, PAGE = "vocab.json", "README.md"
_RULES = {
    "none": "as it is",
    "lower": "every character lowercased by itself",
    "book": "each run of anything but A to Z and a to z as one space, and lowercased",
}
_COMPOSED = ", with its accents composed before (NFC)"
_LINES = f", with each line end as a word `{LINE_END}` of its own"
_TOKENS = {
    "char": "A token is a character.",
    "letter": "A token is a character, or of a capital that has a small letter of its own two: U+000E and that letter. "
    "Behind two capitals in a row all letters of the word, which digits and `_` belong to, are capitals without it, as "
    "far as a U+000F stands before one that is none.",
    "word": "A token is what stands between white space.",
    "bpe": "A token is a subword of byte-level BPE: `merges` are its merges, the first one first, and each letter of a "
    "token stands for the byte that is its place in `letters`.",
}
_PRINTED = {
    "char": 'print("".join(text))',
    "letter": """written, shifted, capitals = "", False, 0
for letter in text:
    if letter in "\\x0e\\x0f":
        shifted = letter == "\\x0e"
        capitals *= shifted
        continue
    within = capitals > 1 and (letter.isalnum() or letter == "_")
    capitals = capitals + 1 if shifted and letter != letter.upper() else capitals * within
    shifted = False
    written += letter.upper() if capitals else letter
print(written)""",
    "word": f'print("".join("\\n" if word == "{LINE_END}" else word + " " for word in text))',
    "bpe": 'print(bytes(map(vocab["letters"].index, "".join(text))).decode(errors="replace"))',
}
"""The text of tokens, printed by Python."""


@dataclass(frozen=True)
class Graph:
    """What a page says of one format."""

    title: str
    file: str
    """That holds the graph and its weights."""
    called: str
    """How it is called, in prose."""
    imports: str
    load: str
    """Two statements: the model, and ``states``, all zero."""
    step: Sequence[str]
    """Statements: from ``ids``, a list, to those of the token that is drawn after them, and to the next ``states``."""


def states(architecture: Architecture) -> list[str]:
    """The names of what a graph carries from call to call, in order, each of shape (layers, batch, hidden)."""
    own = ["hidden", "cell"] if architecture.cell == "lstm" else ["hidden"]
    if architecture.networks == 1:
        return own
    return [f"{name}_{number}" for number in range(architecture.networks) for name in own]


def write(out: Path, stored: Stored, graph: Graph) -> None:
    """Write ``vocab.json`` and ``README.md``, and say what of the model a graph leaves out."""
    vocabulary(out / VOCABULARY, stored)
    (out / PAGE).write_text(_page(stored, graph), encoding="utf-8")
    if stored.ngram is not None:
        logger.warning("%s", _left_out(graph.title))


def vocabulary(path: Path, stored: Stored) -> None:
    """Write the tokens in the order of their ids, as JSON, and how text becomes them."""
    vocab = stored.vocab
    described = {
        "level": stored.level,
        "normalizer": stored.normalizer,
        "unknown": 0,
        "end": END_ID if vocab.ends else None,
        "tokens": vocab.tokens,
    }
    if vocab.merges is not None:
        described |= {"letters": subwords.LETTERS, "merges": vocab.merges.pairs}
    path.write_text(json.dumps(described, ensure_ascii=False) + "\n", encoding="utf-8")


def described(architecture: Architecture, noun: str) -> str:
    """The network in a sentence."""
    cell = architecture.cell.upper()
    if cell == "RNN":
        cell = f"{'ReLU' if architecture.activation == 'relu' else 'tanh'} RNN"
    several = (
        f"{architecture.networks} networks, each {'an' if cell == 'LSTM' else 'a'} "
        if architecture.networks > 1
        else ""
    )
    layers = f"{architecture.layers} layer{'s' if architecture.layers > 1 else ''}"
    embedding = f", an embedding of {architecture.embedding_size}" if architecture.embedding_size else ""
    tied = " tied to the output layer" if architecture.tie_weights else ""
    return (
        f"{several}{cell}, {layers} of {architecture.hidden_size} hidden units over {architecture.vocab_size:,} {noun}s"
        f"{embedding}{tied}."
    )


def reading(stored: Stored) -> str:
    """How a text becomes tokens, in sentences."""
    rule, *beside = stored.normalizer.split("+")
    text = _RULES[rule] + _COMPOSED * ("nfc" in beside) + _LINES * ("lines" in beside)
    unknown = "" if LEVELS[stored.level].merged else " What is not in `tokens` is read as the id 0."
    return f"The text is read {text}. {_TOKENS[stored.level]}{unknown}"


def _left_out(title: str) -> str:
    return (
        f"{title} holds the network alone, without the n-gram beside it and their shares: it says less well what comes "
        "next than the model does (--to hf has all of it)"
    )


def _page(stored: Stored, graph: Graph) -> str:
    architecture = stored.architecture
    ends = (
        f"Where the id {END_ID} is read, which ends a document, the state that comes in is taken as zero: that is in "
        f"the graph. A text begins with the id {END_ID} at the zero state, all zeros."
        if architecture.ends
        else "A text begins at the zero state, all zeros."
    )
    several = " They are the log of the mean of the networks' probabilities." if architecture.networks > 1 else ""
    shape = f"({architecture.layers}, batch, {architecture.hidden_size})"
    names = ", ".join(f"`{name}`" for name in states(architecture))
    lacking = f"\n{_left_out(graph.title)}.\n" if stored.ngram is not None else ""
    begins = min(END_ID, architecture.vocab_size - 1)
    opening = "the end of a document: another one begins" if architecture.ends else "the most frequent token"
    return f"""# A language model

{described(architecture, LEVELS[stored.level].noun)}
{lacking}
- `{graph.file}`: the graph and its weights, float32. {graph.called}
- `{VOCABULARY}`: `tokens` in the order of their ids, and how text becomes tokens. {reading(stored)}

In go ids of shape (steps, batch), int64, one step at least, and the states {names}, each {shape}, float32.
An id that is not in the vocabulary is an error.
Out come logits of shape (steps, batch, {architecture.vocab_size}), for what follows each id, and the states to go on
with: one step after the other, or a whole sequence at once.{several}
{ends}

```python
import json
{graph.imports}

vocab = json.load(open("{VOCABULARY}", encoding="utf-8"))
{graph.load}
ids, text = [{begins}], []  # {opening}
for _ in range(200):
    {f"{chr(10)}    ".join(graph.step)}
    if ids[0] == vocab["end"]:
        break
    text.append(vocab["tokens"][ids[0]])
{_PRINTED[stored.level]}
```
"""
