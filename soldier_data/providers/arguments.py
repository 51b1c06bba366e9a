"""Checks of the arguments of providers, made before an SDK sends them or fails on them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from soldier_data.errors import ValidationError


def check_text(value: Any, field: str) -> None:
    """Check that a value is a string.

    Raises:
        ValidationError: It is not; the error names `field`.
    """
    if not isinstance(value, str):
        raise ValidationError(f"{field} is of the type {type(value).__name__}: pass a string", field=field)


def checked_texts(values: Any, field: str) -> list[str]:
    """Return the values as a list, after checking that each is a string.

    Raises:
        ValidationError: `values` is a single string, or holds something else; the error names `field` and the index.
    """
    if isinstance(values, str):
        raise ValidationError(f"{field} is a single string: pass a list of strings", field=field)
    if not isinstance(values, Iterable):
        raise ValidationError(
            f"{field} is of the type {type(values).__name__}: pass a list of strings", field=field
        )
    texts = list(values)
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            kind = type(text).__name__
            raise ValidationError(f"{field}[{index}] is of the type {kind}: pass a string", field=field)
    return texts


def check_prompt(prompt: Any, system_prompt: Any, max_tokens: Any) -> None:
    """Check the arguments that all calls of a language model have.

    Raises:
        ValidationError: An argument is invalid; the error names it.
    """
    check_text(prompt, "prompt")
    if system_prompt is not None:
        check_text(system_prompt, "system_prompt")
    if not isinstance(max_tokens, int) or max_tokens < 1:
        raise ValidationError("max_tokens must be an integer of at least 1", field="max_tokens")
