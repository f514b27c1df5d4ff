"""Every error that a user can cause, each one sentence that names what is wrong and what to do.

    RnnlmError                 exit code 2
    ├── ConfigError            a preset, a field or a value
    ├── CorpusError            a text that cannot be had or cannot be used
    │   └── TransientError     the same, but worth another try later (a network's fault)
    ├── StoreError             an artifact, the disk under it, or the code that makes it
    │   ├── FormatError        what a newer version of this program has written
    │   └── RemoteError        the mirror of a store that machines share
    │       └── DeniedError    the same, where it answers and lets nobody do what was asked
    ├── DeviceError            a GPU that was asked for and cannot be used
    ├── ServerError            a Prefect server that does not answer, or has given this run up
    ├── TrainingError          training that cannot go on
    └── Interrupted            Ctrl-C, SIGTERM, SIGHUP; exit code 128 + the signal's number

Anything else is a defect of this program and keeps its traceback.
"""

from __future__ import annotations

from data import shown


class RnnlmError(Exception):
    """Base of the tree; its text is one line, and is shown to the user as it stands."""

    exit_code = 2

    def __init__(self, message: str) -> None:
        super().__init__(shown.line(message))


class ConfigError(RnnlmError):
    """A preset, a field or a value that the configuration refuses."""


class CorpusError(RnnlmError):
    """A corpus that cannot be had, or that is not text a model can learn from."""


class TransientError(CorpusError):
    """A corpus that could not be had this time; the same request may succeed later."""


class StoreError(RnnlmError):
    """An artifact that is missing or damaged, a disk that cannot take one, or a process that must not make one."""


class FormatError(StoreError):
    """A file of a newer format than this version reads: it is not damaged, and is left as it is."""


class RemoteError(StoreError):
    """A remote that does not answer, or not as one does; what the local store has is as good as before."""


class DeniedError(RemoteError):
    """A remote that does not let whoever asks read or write."""


class DeviceError(RnnlmError):
    """A device that was asked for by name and cannot be used."""


class ServerError(RnnlmError):
    """A Prefect server that is asked for and does not answer, or has given up the run that asks."""


class TrainingError(RnnlmError):
    """Training that cannot start or go on, a loss that is not finite for one."""


class Interrupted(RnnlmError):
    """Work that a signal ended; ``signum`` is that signal's number."""

    def __init__(self, message: str, signum: int) -> None:
        super().__init__(message)
        self.signum = signum
        self.exit_code = 128 + signum
