"""The command line, ``rnnlm``: results on standard output, progress and log lines on standard error.

Exit code 2 and one sentence for whatever a user can mend; 129, 130 or 143 when interrupted.
"""

from __future__ import annotations

import errno
import io
import logging
import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

import typer
from typer.exceptions import TyperException

from data import shown
from data.errors import Interrupted, RnnlmError
from stages.cli import (
    champions,
    device,
    export,
    lists,
    models,
    nights,
    remotes,
    runs,
    score,
    serve,
    stores,
    suggest,
    sweeps,
)
from stages.pipeline import graph
from stages.training import signals

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

STAGES = ", ".join(graph.shown())
COUNT = {4: "four", 5: "five"}.get(len(graph.shown()), len(graph.shown()))

app = typer.Typer(
    name="rnnlm",
    help=f"A recurrent language model from raw text to report, in {COUNT} cached stages: {STAGES}. "
    "Only what changed reruns.",
    epilog="""\b
Examples:
  rnnlm run                                     our own story, offline, in half a minute
  rnnlm run --corpus my.txt                     your own text
  rnnlm run --preset book                       the book's model on its text
  rnnlm run --set train.hidden_size=512         one field changed: what depends on it reruns
  rnnlm status --set train.hidden_size=512      what would rerun, and why
  rnnlm sample --prefix 'the sea' --temperature 0.7 --count 3
  rnnlm evaluate --on letters.txt               how well the champion predicts another text
  rnnlm score app.log --per line --to log.csv   how odd each line is, and its oddest word
  rnnlm serve                                   complete and score texts for other programs
  rnnlm export --to onnx story                  the champion for other programs: torch, onnx, hf
  rnnlm suggest --corpus my.txt --minutes 10    a preset for your text and your time
  rnnlm sweep --vary train.hidden_size=128,256  several models side by side, the best first
  rnnlm compare --vary train.cell=gru,lstm      is one better, or only luckier? five seeds of each
  rnnlm night --corpus my.txt                   for cron: train again, promote only what is better

\b
Fields are STAGE.FIELD; `rnnlm explain STAGE` lists a stage's with their values.
Results go to standard output, progress to standard error; exit code 2 is a mistake
that you can mend, said in one sentence.""",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

app.command("run", help=f"Run the whole pipeline: {STAGES}.")(runs.verb(graph.LAST))
for _name in graph.shown():
    if _name != graph.LAST:  # which is asked for more than the pipeline
        app.command(_name, help=graph.STAGES[_name].summary)(runs.verb(_name))
for _command in (
    runs.evaluate,
    suggest.suggest,
    sweeps.sweep,
    sweeps.compare,
    models.sample,
    score.score,
    serve.serve,
    export.export,
    runs.status,
    runs.explain,
    stores.runs,
    stores.verify,
    stores.gc,
    remotes.push,
    remotes.pull,
    nights.night,
    nights.history,
    champions.champion,
    champions.promote,
    champions.rollback,
    lists.presets,
    lists.corpora,
    device.device,
):
    app.command()(_command)


def main() -> None:
    """The entry point of the command ``rnnlm``."""
    if sys.stderr is None:  # closed by whoever called us: nothing that is meant for it may reach standard output
        sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115
    elif isinstance(sys.stderr, io.TextIOWrapper):
        raw = _Unheard(sys.stderr.fileno(), "w", closefd=False)
        sys.stderr = io.TextIOWrapper(io.BufferedWriter(raw), sys.stderr.encoding, line_buffering=True)
    if isinstance(sys.stdout, io.TextIOWrapper) and (sys.stdout.isatty() or sys.argv[1:2] != ["sample"]):
        # No terminal is told anything by what is printed; what `sample` writes, a pipe or a file gets as it is.
        write = sys.stdout.write
        sys.stdout.write = lambda text: write(shown.visible(text))  # type: ignore[method-assign]
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    handler = _StandardError()
    for floor in ("data", "stages"):
        logging.getLogger(floor).addHandler(handler)
        logging.getLogger(floor).setLevel(logging.INFO)
    for signum in signals.ending():
        signal.signal(signum, _interrupt)
    enter(app)


def enter(app: typer.Typer) -> NoReturn:
    """Run a command line; every error that a user can cause ends in one sentence and its exit code."""
    try:
        sys.exit(app(standalone_mode=False, complete_var=""))  # no completion, whatever the environment has
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        print("rnnlm: standard output cannot take what there is to say: no space left", file=sys.stderr)
        sys.exit(2)
    except MemoryError as error:
        print(f"rnnlm: this machine has too little memory for that ({shown.line(str(error))})", file=sys.stderr)
        sys.exit(2)
    except (RnnlmError, TyperException) as error:
        message = error.format_message() if isinstance(error, TyperException) else str(error)
        asked_nothing = message.startswith("Usage:")  # and is told what there is to ask, on as many lines as it takes
        print(message if asked_nothing else f"rnnlm: {shown.line(message)}", file=sys.stderr)
        sys.exit(error.exit_code)


class _Unheard(io.FileIO):
    """Standard error, which nobody may read any more: a terminal goes with its connection, and the work must not."""

    def write(self, data: ReadableBuffer, /) -> int:
        try:
            return super().write(data)
        except OSError:
            return len(memoryview(data))


class _StandardError(logging.Handler):
    """Log records as plain lines on whatever standard error is at that moment, a live progress bar's included."""

    def emit(self, record: logging.LogRecord) -> None:
        print(shown.line(self.format(record)), file=sys.stderr)


def _interrupt(signum: int, frame: FrameType | None) -> None:
    name = signal.Signals(signum).name
    raise Interrupted(f"interrupted by {name}; what was finished is kept", signum)


if __name__ == "__main__":
    main()
