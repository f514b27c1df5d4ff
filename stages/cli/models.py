"""Commands that use a model that is there: it continues a text, or reads one and says how well it foresees it."""

from __future__ import annotations

import itertools
import json
import math
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from data.errors import ConfigError, Interrupted
from data.progress import Progress, reporting
from data.shown import line
from data.store.naming import DEFAULT
from stages.cli import chosen
from stages.cli.options import Configuration, Json, Model, Name, Place, as_text, configured
from stages.cli.output import print_json, short

CHUNK, CHUNK_ADAPTING = 1 << 14, 1 << 9
"""Bytes of a text that are measured before the progress is shown again; where the model learns, some seconds' worth."""
SECONDS_BETWEEN_FLUSHES = 0.05
"""At most, so that a text is seen as it is written and a fast one is not held up."""

# --- sample


@configured
def sample(
    *,
    model: Model = None,
    name: Name = DEFAULT,
    prefix: Annotated[
        str | None,
        typer.Option(
            callback=as_text,
            metavar="TEXT",
            help="The text to continue; by default the first words of what it learnt from.",
        ),
    ] = None,
    length: Annotated[int, typer.Option(min=1, max=1_000_000, metavar="N", help="Add so many tokens at most.")] = 50,
    temperature: Annotated[
        float, typer.Option(min=0, metavar="T", help="0 always takes the likeliest token, 1 draws as the model says.")
    ] = 0.0,
    top_k: Annotated[
        int, typer.Option(min=0, metavar="K", help="Draw among the K likeliest tokens only; 0 is all of them.")
    ] = 0,
    top_p: Annotated[
        float,
        typer.Option(metavar="P", help="Draw among the fewest of the likeliest tokens that have the probability P."),
    ] = 1.0,
    stop: Annotated[
        list[str] | None,
        typer.Option(callback=as_text, metavar="TEXT", help="End before the first place that says TEXT; repeatable."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, metavar="S", help="The same seed draws the same text.")] = 0,
    count: Annotated[
        int, typer.Option(min=1, max=1_000_000, metavar="N", help="How many continuations, from seeds S, S+1, …")
    ] = 1,
    probabilities: Annotated[
        bool, typer.Option("--probabilities", help="Print each token and the probability that the model gives it.")
    ] = False,
    untrained: Annotated[
        bool, typer.Option("--untrained", help="Random weights of the preset's shape, as before training.")
    ] = False,
    config: Configuration,
    place: Place,
    as_json: Json = False,
) -> None:
    """Continue a text with a trained model; one of many documents begins another, and ends where that does.

    With --untrained, --preset, --corpus and --set describe the model whose weights are drawn at random.
    """
    from stages.lm.network import one_thread

    if temperature == 0 and (top_k or top_p != 1):
        raise ConfigError("--top-k and --top-p need a --temperature above 0: without it nothing is drawn")
    if count > 1 and temperature == 0:
        raise ConfigError("--count above 1 needs a --temperature above 0: greedy continuations are all the same")
    if not untrained:
        folder = chosen.folder(model, name, place)
        language_model, table = chosen.load(folder), None if prefix is not None else chosen.trained_on(folder)
    elif model is None and name == DEFAULT:
        language_model, table = chosen.untrained(config.load(), place.open())
    else:
        raise ConfigError(f"--untrained draws its own weights: leave out --{'name' if model is None else 'model'}")
    if prefix is None:
        prefix = language_model.opening(table.ids) if table else ""
    prompt = language_model.prompt(prefix)
    samples: list[dict[str, Any]] = []
    with one_thread():  # so that the same seed writes the same text on any number of cores
        if count > 1 and not (probabilities or as_json):
            seeds = range(seed, seed + count)
            texts = language_model.samples(
                prefix, length, temperature, seeds, top_k=top_k, top_p=top_p, stop=stop or ()
            )
            stream(text + "\n" for text in texts)
            return
        for drawn_by in range(seed, seed + count):
            tokens = language_model.stream(
                prefix,
                length,
                temperature,
                drawn_by,
                top_k=top_k,
                top_p=top_p,
                stop=stop or (),
                probabilities=probabilities or as_json,
            )
            if as_json:
                pieces = list(tokens)
                whole = "".join([prompt, *[piece for piece, _ in pieces]])
                listed = [{"text": piece, "probability": probability} for piece, probability in pieces]
                samples.append({"seed": drawn_by, "text": whole, "tokens": listed})
            elif probabilities:
                if drawn_by > seed:
                    print()
                stream(f"{json.dumps(piece, ensure_ascii=False)}\t{probability:.6g}\n" for piece, probability in tokens)
            else:
                stream(itertools.chain([prompt], (piece for piece, _ in tokens), ["\n"]))
    if as_json:
        print_json({"samples": samples})


def stream(pieces: Iterable[str]) -> None:
    """Print a text as it comes, whoever reads it."""
    flushed = -math.inf
    try:
        for piece in pieces:
            moment = time.monotonic()
            due = moment - flushed > SECONDS_BETWEEN_FLUSHES
            print(piece, end="", flush=due)
            flushed = moment if due else flushed
    except Interrupted:
        print()
        raise


# --- evaluate --on


def measure(on: str, adapt: float | None, model: Path | None, name: str, place: Place, as_json: bool) -> None:
    """Print how well a model predicts a text: `rnnlm evaluate --on`.

    Args:
        on: the text: a file, ``-`` for standard input, or what else a corpus is named by.
        adapt: the learning rate of dynamic evaluation; with 0 an n-gram alone learns, with None nothing does.
        model: a model's folder; by default the store's champion, else its newest model.
        name: of the champion.
        place: where the artifacts are, where no model is named.
        as_json: whether to print one object.

    Raises:
        ConfigError: a rate that does not fit the model or none, or a text of fewer than two tokens.
        CorpusError: what cannot be read, or is not text.
        StoreError: a model that is not there or cannot be used.
    """
    if adapt is not None:
        from stages.scoring.adapting import adapting, check_rate

        check_rate(adapt)
    folder = chosen.folder(model, name, place)
    language_model = chosen.load(folder)
    losses = None if adapt is None else adapting(language_model, adapt)
    with reporting() as reporter, text_of(on, reporter("download")) as text:
        chunks = _chunks(text / "corpus.txt", CHUNK_ADAPTING if adapt else CHUNK, reporter("evaluate"))
        score = language_model.score(chunks, losses)
    if as_json:
        print_json({"model": str(folder), **({} if adapt is None else {"adapt": adapt}), **asdict(score)})
        return

    from data.corpus.level import LEVELS
    from stages.report import words

    tokens = f"{LEVELS[language_model.level].noun}s"
    print(f"model               {line(str(short(folder)))}{'' if adapt is None else f', adapting at {adapt:g}'}")
    print(f"perplexity          {words.figure(score.perplexity)}")
    print(f"bits per character  {score.bits_per_character:.4g}")
    print(f"loss (nats)         {score.loss:.5g}")
    print(f"{tokens:19} {score.tokens:,}")
    spelled = " (spelled out in bits per character, mere <unk> in perplexity and loss)" if score.unknown_rate else ""
    print(f"unknown             {score.unknown_rate:.2%}{spelled}")


def meant(name: str) -> str:
    """The corpus that a text's name means: a file that is here comes before the catalogue."""
    from data.corpus import catalogue

    return f"./{name}" if name in catalogue.catalogue() and Path(name).exists() else name


@contextmanager
def text_of(name: str, progress: Progress, text_column: str = "text") -> Iterator[Path]:
    """A folder with the text of that name, unpacked and checked to be UTF-8, as `stages.download` writes it: of a local
    file, or else of whatever a corpus is.

    Raises:
        CorpusError: what cannot be read or had, or is not text.
    """
    from data.corpus import catalogue, spool
    from data.documents.columns import Columns
    from data.documents.reader import Reading
    from stages.download import obtain

    source = catalogue.resolve(meant(name), once=True)
    with ExitStack() as stack:
        try:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            obtain(source, out=folder, progress=progress, reading=Reading(columns=Columns(text_column)))
        except OSError as error:
            raise spool.no_room(f"the text {source.name}", error) from None
        yield folder


def _chunks(path: Path, size: int, progress: Progress) -> Iterator[str]:
    """A text in chunks of so many bytes, each of which tells how far it is once it was used."""
    from data.corpus import text

    total, began, done, characters = path.stat().st_size, time.monotonic(), 0, 0
    for chunk in text.read(path, size):
        yield chunk
        done, characters = min(done + size, total), characters + len(chunk)
        progress(done, total, f"{characters / (time.monotonic() - began):,.0f} characters/s")
