"""Checking what providers are called with, before the SDKs send it or fail over it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from soldier_data.errors import ValidationError


def check_text(value: Any, field: str) -> None:
    """Check that a value is a text.

    Raises:
        ValidationError: It is none; names `field`.
    """
    if not isinstance(value, str):
        raise ValidationError(
            f"{field} is of the type {type(value).__name__}: pass a text (str)", field=field
        )


def checked_texts(values: Any, field: str) -> list[str]:
    """The values as a list, each of them a text.

    Raises:
        ValidationError: They are a single text, or no texts; names `field`, and the place in it.
    """
    if isinstance(values, str):
        raise ValidationError(f"{field} is one text: pass a list of texts", field=field)
    if not isinstance(values, Iterable):
        raise ValidationError(
            f"{field} is of the type {type(values).__name__}: pass a list of texts", field=field
        )
    texts = list(values)
    for place, text in enumerate(texts):
        if not isinstance(text, str):
            kind = type(text).__name__
            raise ValidationError(f"{field}[{place}] is of the type {kind}: pass a text (str)", field=field)
    return texts


def check_question(prompt: Any, system_prompt: Any, max_tokens: Any) -> None:
    """Check what every question to a language model has.

    Raises:
        ValidationError: Names the argument.
    """
    check_text(prompt, "prompt")
    if system_prompt is not None:
        check_text(system_prompt, "system_prompt")
    if not isinstance(max_tokens, int) or max_tokens < 1:
        raise ValidationError("max_tokens is not a whole number from 1 on", field="max_tokens")
