"""The command line, ``rnnlm``: results on standard output, progress and log lines on standard error.

Exit code 2 and one sentence for whatever a user can mend; 130 or 143 when interrupted.
"""

from __future__ import annotations

import errno
import io
import itertools
import json
import logging
import math
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from typer.exceptions import TyperException

from data.corpus import catalogue as corpora
from data.corpus import text
from data.corpus.encoding import check_utf8
from data.errors import ConfigError, CorpusError, Interrupted, RnnlmError, StoreError
from data.moment import minute
from data.progress import Progress, reporting
from data.store import champions
from data.store.artifact import Artifact
from data.store.collect import collect
from data.store.folder import Store, open_store
from stages.config import RunConfig
from stages.pipeline import decide, graph, settings
from stages.pipeline import run as pipeline
from stages.report import kept, words
from stages.sweep import search as sweeps
from stages.sweep import space, worker

if TYPE_CHECKING:
    from data.tables.tokens import Ids
    from stages.lm.layers import Vector
    from stages.lm.model import LanguageModel

logger = logging.getLogger(__name__)

CHUNK, CHUNK_ADAPTING = 1 << 14, 1 << 9
"""Bytes of a text that are measured before the progress is shown again; where the model learns, some seconds' worth."""
SECONDS_BETWEEN_FLUSHES = 0.05
"""At most, so that a text is seen as it is written and a fast one is not held up."""

app = typer.Typer(
    name="rnnlm",
    help="A recurrent language model from raw text to report, in four cached stages: "
    "download, tokenize, train, evaluate. Only what changed reruns.",
    epilog="""\b
Examples:
  rnnlm run                                     our own story, offline, in a minute
  rnnlm run --corpus my.txt                     your own text
  rnnlm run --preset book                       the book's model on its text
  rnnlm run --set train.hidden_size=512         one field changed: what depends on it reruns
  rnnlm status --set train.hidden_size=512      what would rerun, and why
  rnnlm sample --prefix 'the sea' --temperature 0.7 --count 3
  rnnlm evaluate --on letters.txt               how well the champion predicts another text
  rnnlm sweep --vary train.hidden_size=128,256  several models side by side, the best first

\b
Fields are STAGE.FIELD; `rnnlm explain STAGE` lists a stage's with their values.
Results go to standard output, progress to standard error; exit code 2 is a mistake
that you can mend, said in one sentence.""",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

Preset = Annotated[str, typer.Option(metavar="NAME|FILE", help="A preset (see `rnnlm presets`), or such a TOML file.")]
Corpus = Annotated[
    str | None,
    typer.Option(metavar="NAME|URL|PATH", help="The text: a name (see `rnnlm corpora`), an address or a file."),
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="STAGE.FIELD=VALUE", help="Set a field, train.hidden_size=512 for one; repeatable."),
]
Force = Annotated[list[str] | None, typer.Option(metavar="STAGE", help="Rerun this stage although cached; repeatable.")]
From = Annotated[str | None, typer.Option("--from", metavar="STAGE", help="Rerun this stage and all after it.")]
Model = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="A model's folder. [default: the store's champion, else its newest]"),
]
StoreAt = Annotated[
    str | None,
    typer.Option(metavar="DIR", help="Where artifacts live. [default: $RNNLM_STORE, else data/artifacts]"),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")]


def _verb(until: str) -> Callable[..., None]:
    """The command that walks the pipeline up to a stage; all of them take the same options."""

    def verb(
        preset: Preset = settings.DEFAULT_PRESET,
        corpus: Corpus = None,
        set_: Set = None,
        force: Force = None,
        from_: From = None,
        store: StoreAt = None,
        as_json: Json = False,
    ) -> None:
        chosen = settings.load(preset, corpus, set_ or ())
        opened = open_store(store)
        outcomes = _outcomes(until, chosen, _forced(until, force or [], from_), opened)
        report = _report(opened, outcomes) if until == "evaluate" else None
        if as_json:
            metrics = report.metrics if report else {}
            _print_json({"stages": [outcome.json() for outcome in outcomes], "metrics": metrics})
        elif report:
            print(report.markdown)
            if report.page:
                print(f"report: {_shown(report.page)}")
        else:
            print(_shown(outcomes[-1].artifact.folder))

    return verb


app.command("run", help="Run the whole pipeline: download, tokenize, train, evaluate.")(_verb("evaluate"))
for _name in ("download", "tokenize", "train"):
    app.command(_name, help=graph.STAGES[_name].summary)(_verb(_name))


@app.command()
def evaluate(
    context: typer.Context,
    on: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Measure a trained model on this text instead; - is standard input."),
    ] = None,
    adapt: Annotated[
        float | None,
        typer.Option(
            metavar="RATE",
            help="With --on: let the model learn at this rate from what it has read, such as 0.2 (dynamic evaluation).",
        ),
    ] = None,
    model: Model = None,
    preset: Preset = settings.DEFAULT_PRESET,
    corpus: Corpus = None,
    set_: Set = None,
    force: Force = None,
    from_: From = None,
    store: StoreAt = None,
    as_json: Json = False,
) -> None:
    """Measure the model and write the report.

    With --on nothing runs and nothing is kept: a model that was trained before, the one of --model, reads the text.
    """
    if on is None:
        if model is not None:
            raise ConfigError("--model names what --on is measured with: give a text with --on FILE, or leave it out")
        if adapt is not None:
            raise ConfigError("--adapt is for the text of --on: give one with --on FILE, or leave it out")
        _verb("evaluate")(preset, corpus, set_, force, from_, store, as_json)
        return
    for name in ("preset", "corpus", "set_", "force", "from_"):
        source = context.get_parameter_source(name)
        if source and source.name == "COMMANDLINE":
            flag = f"--{name.strip('_')}"
            raise ConfigError(f"{flag} is for the pipeline, of which --on runs nothing: leave out one of the two")
    if adapt is not None and not 0 < adapt < math.inf:
        raise ConfigError(f"--adapt must be above 0, not {adapt:g}")
    folder = _folder(model, store)
    language_model = _load(folder)
    losses = None if adapt is None else _adapting(language_model, folder, adapt)
    with _text(on) as path, reporting() as reporter:
        chunks = _chunks(path, CHUNK_ADAPTING if losses else CHUNK, reporter("evaluate"))
        score = language_model.score(chunks, losses)
    if as_json:
        _print_json({"model": str(folder), **({"adapt": adapt} if adapt else {}), **asdict(score)})
        return
    tokens = "words" if language_model.level == "word" else "characters"
    print(f"model               {_shown(folder)}{f', adapting at {adapt:g}' if adapt else ''}")
    print(f"perplexity          {words.figure(score.perplexity)}")
    print(f"bits per character  {score.bits_per_character:.4g}")
    print(f"loss (nats)         {score.loss:.5g}")
    print(f"{tokens:19} {score.tokens:,}")
    flattered = " (measured as <unk>, which flatters the model)" if score.unknown_rate else ""
    print(f"unknown             {score.unknown_rate:.2%}{flattered}")


Vary = Annotated[
    list[str],
    typer.Option(
        metavar="STAGE.FIELD=V1,V2,…",
        help="Try these values of a field; with --trials also LOW..HIGH, drawn evenly, or evenly in the logarithm "
        "where HIGH is ten times a LOW above 0, or more; repeatable.",
    ),
]
Trials = Annotated[int | None, typer.Option(min=1, metavar="N", help="Draw N trials at random. [default: the grid]")]
DrawSeed = Annotated[int, typer.Option("--seed", min=0, metavar="S", help="The same seed draws the same trials.")]
Jobs = Annotated[
    int | None,
    typer.Option(min=1, metavar="N", help="Trials at a time, which share the cores. [default: one per core]"),
]
Keep = Annotated[
    float,
    typer.Option(
        min=0,
        max=1,
        metavar="SHARE",
        help="The share of the trials that goes on, rung by rung, until two are left; 1 stops none early.",
    ),
]


@app.command()
def sweep(
    vary: Vary,
    trials: Trials = None,
    seed: DrawSeed = 0,
    jobs: Jobs = None,
    keep: Keep = 0.5,
    dask: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Train on the Dask cluster of this scheduler, whose workers see the store under the same path.",
        ),
    ] = None,
    preset: Preset = settings.DEFAULT_PRESET,
    corpus: Corpus = None,
    set_: Set = None,
    store: StoreAt = None,
    as_json: Json = False,
) -> None:
    """Try many settings side by side, stop early what does badly, and say which is best.

    Trials are compared on the validation split, in bits per character; only the best is measured on the test split.
    What was trained is kept: the same sweep again trains nothing, and one that was interrupted goes on.
    """
    if dask is not None and jobs is not None:
        raise ConfigError("--jobs is for this machine, and --dask has a worker's thread for each trial: leave out one")
    candidates = [
        sweeps.Trial(*found)
        for found in space.configurations(settings.load(preset, corpus, set_ or ()), vary, trials, seed)
    ]
    opened = open_store(store)
    sweeps.prepare(candidates, lambda chosen: _outcomes("tokenize", chosen, set(), opened)[-1].artifact)
    apart = worker.cluster(opened, dask) if dask else worker.processes(opened, worker.jobs(jobs, len(candidates)))
    with apart as train, reporting() as reporter:
        ranked = sweeps.search(candidates, keep, opened, train, reporter("sweep"))
    outcomes = _outcomes("evaluate", ranked[0].config, set(), opened)
    folder = sweeps.publish(ranked, keep, outcomes[-1].artifact, opened).folder
    report = _report(opened, outcomes)
    if as_json:
        trained = sum(trial.ran for trial in ranked)
        found = {
            "trials": sweeps.results(ranked),
            "trained": trained,
            "metrics": report.metrics,
            "artifact": str(folder),
        }
        _print_json(found)
        return
    print(sweeps.table(ranked))
    print(f"best: {sweeps.settings(ranked[0])}")
    print(report.metrics["summary"])
    print(f"picture: {_shown(folder / 'curves.svg')}")
    if report.page:
        print(f"report: {_shown(report.page)}")


@app.command()
def sample(
    model: Model = None,
    prefix: Annotated[str, typer.Option(metavar="TEXT", help="The text to continue.")] = "time traveller",
    length: Annotated[int, typer.Option(min=1, max=1_000_000, metavar="N", help="How many tokens to add.")] = 50,
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
        list[str] | None, typer.Option(metavar="TEXT", help="End before the first place that says TEXT; repeatable.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, metavar="S", help="The same seed draws the same text.")] = 0,
    count: Annotated[int, typer.Option(min=1, metavar="N", help="How many continuations, from seeds S, S+1, …")] = 1,
    probabilities: Annotated[
        bool, typer.Option("--probabilities", help="Print each token and the probability that the model gives it.")
    ] = False,
    untrained: Annotated[
        bool, typer.Option("--untrained", help="Random weights of the preset's shape, as before training.")
    ] = False,
    preset: Preset = settings.DEFAULT_PRESET,
    corpus: Corpus = None,
    set_: Set = None,
    store: StoreAt = None,
    as_json: Json = False,
) -> None:
    """Continue a text with a trained model.

    With --untrained, --preset, --corpus and --set describe the model whose weights are drawn at random.
    """
    if temperature == 0 and (top_k or top_p != 1):
        raise ConfigError("--top-k and --top-p need a --temperature above 0: without it nothing is drawn")
    if count > 1 and temperature == 0:
        raise ConfigError("--count above 1 needs a --temperature above 0: greedy continuations are all the same")
    if not untrained:
        language_model = _load(_folder(model, store))
    elif model is None:
        language_model = _untrained(settings.load(preset, corpus, set_ or ()), open_store(store))
    else:
        raise ConfigError("--untrained draws its own weights: leave out --model")
    prompt = language_model.prompt(prefix)
    samples: list[dict[str, Any]] = []
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
            listed = [{"text": piece, "probability": share} for piece, share in pieces]
            samples.append({"seed": drawn_by, "text": whole, "tokens": listed})
        elif probabilities:
            if drawn_by > seed:
                print()
            _stream(f"{json.dumps(piece, ensure_ascii=False)}\t{share:.6g}\n" for piece, share in tokens)
        else:
            _stream(itertools.chain([prompt], (piece for piece, _ in tokens), ["\n"]))
    if as_json:
        _print_json({"samples": samples})


@app.command()
def status(
    preset: Preset = settings.DEFAULT_PRESET,
    corpus: Corpus = None,
    set_: Set = None,
    store: StoreAt = None,
    as_json: Json = False,
) -> None:
    """Say what is cached, and why the rest would rerun.

    Nothing runs. Past a stage that has to run, what comes after it cannot be known: the same output ends the rerun.
    """
    states = list(decide.status(settings.load(preset, corpus, set_ or ()), open_store(store)))
    if as_json:
        _print_json({"stages": [state.json() for state in states]})
        return
    for state in states:
        print(f"{state.name:9} {state.state:8} {state.reason}")


@app.command()
def explain(
    stage: Annotated[str, typer.Argument(metavar="STAGE", help="download, tokenize, train or evaluate.")],
    preset: Preset = settings.DEFAULT_PRESET,
    corpus: Corpus = None,
    set_: Set = None,
    store: StoreAt = None,
    as_json: Json = False,
) -> None:
    """Show what a stage's key is made of.

    Then the closest artifact that the store has of this stage, the last one made of several, and what differs.
    """
    graph.forced([stage], None)
    opened = open_store(store)
    states = {state.name: state for state in decide.status(settings.load(preset, corpus, set_ or ()), opened)}
    state = states[stage]
    components = state.decision.components if state.decision else None
    nearest = decide.closest(components, opened) if components else None
    if as_json:
        last = {"key": nearest.manifest.key, "components": nearest.manifest.components} if nearest else None
        _print_json({**state.json(), "components": components, "closest": last})
        return
    print(f"{stage} is {state.state}: {state.reason}")
    if state.decision is None:
        return
    print(f"\nkey {state.decision.key}")
    print("\n".join(_lines(state.decision.components)))
    if nearest is not None:
        print(f"\nthe closest artifact is {nearest.folder}, made {decide.when(nearest)}")
        for phrase in decide.differences(state.decision.config, nearest, state.decision.components):
            print(f"  {phrase}")


@app.command()
def verify(store: StoreAt = None) -> None:
    """Compare every artifact with its manifest, byte by byte."""
    opened = open_store(store)
    damaged = 0
    artifacts = opened.artifacts()
    for artifact in artifacts:
        damage = opened.damage(artifact, again=True)
        damaged += damage is not None
        print(f"{artifact.manifest.stage:9} {artifact.manifest.key[:16]} {damage or 'sound'}")
    if damaged:
        raise StoreError(
            f"{damaged} of {len(artifacts)} artifacts in {opened.root} are damaged: "
            "the next run makes again what it needs, and `rnnlm gc` removes the rest"
        )


@app.command()
def gc(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    store: StoreAt = None,
) -> None:
    """Remove what nobody needs.

    That is leftovers of runs that were killed, damaged artifacts, and what has not been used for 30 days. The champion
    and those before it stay, with all that they were made from.
    """
    opened = open_store(store)
    collected = collect(opened, pinned=champions.pinned(opened), dry_run=dry_run)
    for folder, why, size in collected:
        print(f"{folder}  {words.size(size)}  {why}")
    print(f"{'would free' if dry_run else 'freed'} {words.size(sum(size for _, _, size in collected))}")


@app.command()
def champion(store: StoreAt = None, as_json: Json = False) -> None:
    """Show the champion and those before it.

    The champion is the model that the flow `retrain` promoted last, and that `rnnlm sample` uses.
    """
    opened = open_store(store)
    reigns = champions.history(opened)
    now = champions.current(opened)
    if as_json:
        current = now.model_dump(mode="json") if now else None
        _print_json({"champion": current, "history": [reign.model_dump(mode="json") for reign in reigns]})
        return
    if now is None:
        print(f"no model has been promoted in {opened.root}")
    for reign in reversed(reigns):
        mark = "champion" if reign is now or reign == now else "withdrawn" if reign.withdrawn else "before"
        print(f"{mark:9} {reign.model[:16]}  since {minute(reign.since)}  {reign.reason}")
        if reign.withdrawn:
            print(f"{'':27} withdrawn {minute(reign.withdrawn.when)}: {reign.withdrawn.why}")


@app.command()
def promote(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A model's folder, or the first digits of its key.")],
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why, for the history.")] = "promoted by hand",
    store: StoreAt = None,
) -> None:
    """Make a model the champion by hand, without comparing it."""
    opened = open_store(store)
    name = Path(model).name
    keys = [artifact.manifest.key for artifact in opened.artifacts("train") if artifact.manifest.key.startswith(name)]
    if len(keys) != 1:
        raise StoreError(
            f"{len(keys) or 'no'} models in {opened.root} begin with {name!r}: name one of `rnnlm champion`"
        )
    champions.promote(opened, keys[0], reason, {})
    print(f"{keys[0][:16]} is the champion")


@app.command()
def rollback(
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why, for the history.")] = "asked for by hand",
    store: StoreAt = None,
) -> None:
    """Go back to the champion before the present one."""
    reign = champions.rollback(open_store(store), reason)
    print(f"{reign.model[:16]} is the champion again")


@app.command()
def presets() -> None:
    """List the presets: runs worth repeating."""
    for name, path in settings.presets().items():
        print(f"{name:12} {path.read_text(encoding='utf-8').splitlines()[0].lstrip('# ')}")


@app.command(name="corpora")
def list_corpora() -> None:
    """List the corpora that are known by name."""
    for name, corpus in corpora.catalogue().items():
        print(f"{name:16} {corpus.title} ({corpus.licence})")


def main() -> None:
    """The entry point of the command ``rnnlm``."""
    if sys.stderr is None:  # closed by whoever called us: nothing that is meant for it may reach standard output
        sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    handler = _StandardError()
    for floor in ("data", "stages"):
        logging.getLogger(floor).addHandler(handler)
        logging.getLogger(floor).setLevel(logging.INFO)
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, _interrupt)
    enter(app)


def enter(app: typer.Typer) -> NoReturn:
    """Run a command line; every error that a user can cause ends in one sentence and its exit code."""
    try:
        sys.exit(app(standalone_mode=False))
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        print("rnnlm: standard output cannot take what there is to say: no space left", file=sys.stderr)
        sys.exit(2)
    except (RnnlmError, TyperException) as error:
        message = error.format_message() if isinstance(error, TyperException) else str(error)
        print(f"rnnlm: {message}", file=sys.stderr)
        sys.exit(error.exit_code)


class _StandardError(logging.Handler):
    """Log records as plain lines on whatever standard error is at that moment, a live progress bar's included."""

    def emit(self, record: logging.LogRecord) -> None:
        print(self.format(record), file=sys.stderr)


def _interrupt(signum: int, frame: FrameType | None) -> None:
    name = signal.Signals(signum).name
    raise Interrupted(f"interrupted by {name}; what was finished is kept", signum)


def _report(store: Store, outcomes: list[pipeline.Outcome]) -> kept.Kept:
    """The run's report; a store that cannot take one, being read-only, costs a warning and not the run."""
    try:
        return kept.keep(store, outcomes)
    except StoreError as error:
        logger.warning("%s", error)
        return kept.unkept(outcomes)


def _forced(until: str, force: list[str], from_: str | None) -> set[str]:
    """The stages to rerun on the way to ``until``; one named with --force or --from has to lie on that way."""
    reached = set(graph.order(until))
    named = [*force, *([] if from_ is None else [from_])]
    if beyond := graph.forced(named, None) - reached:
        raise ConfigError(f"`rnnlm {until}` does not reach the stage {min(beyond)}: rerun that one with `rnnlm run`")
    return graph.forced(force, from_) & reached


def _outcomes(until: str, chosen: RunConfig, forced: set[str], store: Store) -> list[pipeline.Outcome]:
    outcomes = []
    with reporting() as reporter:
        for outcome in pipeline.run(chosen, store, reporter, until=until, force=forced):
            took = f" in {outcome.seconds:.1f} s" if outcome.state == "ran" else ""
            print(f"{outcome.name:9} {outcome.state}{took} ({outcome.reason})", file=sys.stderr)
            outcomes.append(outcome)
    return outcomes


def _untrained(chosen: RunConfig, store: Store) -> LanguageModel:
    """The model that a run would begin with; what comes before the training runs if need be."""
    from data.tables.tokens import IndexTable
    from data.tables.vocab import Vocab
    from stages.lm.model import LanguageModel

    *_, tokens = _outcomes("tokenize", chosen, set(), store)
    table = IndexTable.open(tokens.artifact.folder / "tokens.arrow")
    vocab = Vocab.read(tokens.artifact.folder / "vocab.arrow")
    return LanguageModel.untrained(chosen.train, vocab, level=table.level, normalizer=table.normalizer)


def _load(folder: Path) -> LanguageModel:
    from stages.lm.model import LanguageModel

    return LanguageModel.load(folder)


def _adapting(model: LanguageModel, folder: Path, rate: float) -> Callable[[Iterator[Ids]], Iterator[Vector]]:
    """How `LanguageModel.score` measures with dynamic evaluation, which takes an engine; segments suit no GPU."""
    from safetensors.numpy import load_file

    from stages.config import TrainConfig
    from stages.training import adaptation, engines

    weights, engine = load_file(folder / "model.safetensors"), engines.choose(TrainConfig(device="cpu")).build
    return partial(adaptation.losses, model.architecture, weights, rate, engine=engine)


def _folder(model: Path | None, store: str | None) -> Path:
    """Of the model that was named, else of the store's best."""
    return model if model is not None else _best_model(open_store(store)).folder


def _best_model(store: Store) -> Artifact:
    """The champion, else the newest model."""
    reign = champions.current(store)
    if reign is not None:
        artifact = store.find("train", reign.model)
        damage = store.damage(artifact) if artifact else "it is gone"
        if artifact is None or damage:
            raise StoreError(
                f"the champion {reign.model[:16]} cannot be used ({damage}): `rnnlm rollback` goes back to the one "
                "before, --model names another"
            )
        return artifact
    newest = next((artifact for artifact in store.artifacts("train") if not store.damage(artifact)), None)
    if newest is None:
        raise StoreError(
            f"there is no trained model in {store.root}: train one with `rnnlm run`, or name it with --model"
        )
    return newest


def _stream(pieces: Iterable[str]) -> None:
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


@contextmanager
def _text(name: str) -> Iterator[Path]:
    """The file of that name, checked to be UTF-8 text; what can be read only once, a pipe, is copied first.

    Raises:
        CorpusError: what cannot be read, or is not text.
    """
    if name == "-" and sys.stdin is None:
        raise CorpusError("standard input is closed: name a text with --on FILE")
    path = Path(name)
    with tempfile.TemporaryDirectory() as folder:
        try:
            if name == "-" or path.is_fifo():
                path = Path(folder) / "text"
                with sys.stdin.buffer if name == "-" else Path(name).open("rb") as source, path.open("wb") as copy:
                    shutil.copyfileobj(source, copy)
            check_utf8("standard input" if name == "-" else name, path)
        except OSError as error:
            raise CorpusError(
                f"the text {name} cannot be read ({error.strerror}): name another, or - for standard input"
            ) from None
        yield path


def _chunks(path: Path, size: int, progress: Progress) -> Iterator[str]:
    """A text in chunks of so many bytes, each of which tells how far it is once it was used."""
    total, began, done, characters = path.stat().st_size, time.monotonic(), 0, 0
    for chunk in text.read(path, size):
        yield chunk
        done, characters = min(done + size, total), characters + len(chunk)
        progress(done, total, f"{characters / (time.monotonic() - began):,.0f} characters/s")


def _print_json(value: dict[str, Any]) -> None:
    print(json.dumps(value, indent=1, ensure_ascii=False))


def _lines(components: dict[str, Any], indent: str = "  ") -> list[str]:
    lines = []
    for name, value in components.items():
        if isinstance(value, dict) and value:
            lines.append(f"{indent}{name}")
            lines.extend(_lines(value, indent + "  "))
        else:
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            lines.append(f"{indent}{name}: {text}")
    return lines


def _shown(path: Path) -> Path:
    """A path as short as it can be typed from here."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


if __name__ == "__main__":
    main()
