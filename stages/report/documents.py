"""What a report says of a corpus of several documents: how they were divided, and which are much alike."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from data.tables.borders import Found

_HOW = {
    "content": "each as a whole, as its content says",
    "order": "each as a whole, in their order",
}


def divided(found: Found) -> str:
    """How documents were divided, and what stands in two splits, in one paragraph."""
    train, valid, test = found.documents
    if found.split == "position":
        said = f"Documents: {train + valid + test:,}, and the splits are cut anywhere in all of them together"
    else:
        said = f"Documents: {train:,} to train on, {valid:,} to validate, {test:,} to test, {_HOW[found.split]}"
    if found.copies:
        beside = "" if found.split == "position" else ", in the split of the first of their like"
        said += f"; {found.copies:,} are copies{beside}"
    if found.empty:
        said += f"; {found.empty:,} with nothing left after normalisation"
    said += "."
    if found.near is None:
        return said
    near_valid, near_test = found.near
    said += (
        f" Much like one of another split are {near_valid:,} of those to validate and {near_test:,} of those to test"
    )
    if found.left_out:
        said += f", for which {found.left_out:,} were left out of training"
    return f"{said}."
