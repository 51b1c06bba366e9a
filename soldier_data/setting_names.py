"""Names of settings and of their environment variables, and how names that do not exist are reported."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches

from pydantic import AliasChoices
from pydantic.fields import FieldInfo

from soldier_data.errors import ConfigurationError
from soldier_data.logging import get_logger

PREFIX = "SOLDIER_"
# Variables for this package's own tests, which are not settings.
_TEST_PREFIX = "soldier_test_"

# Unknown variables that have already been logged.
_logged: set[str] = set()


def variable_name(field: str) -> str:
    """Return the name of the environment variable that sets `field`."""
    return f"{PREFIX}{field.upper()}"


def refuse_unknown_arguments(names: Iterable[str], fields: Mapping[str, FieldInfo]) -> None:
    """Check that every name is a field or one of its aliases.

    Raises:
        ConfigurationError: Some are not; the message has one line for each of them.
    """
    known = set(fields)
    for field in fields.values():
        if isinstance(field.validation_alias, AliasChoices):
            known.update(str(alias) for alias in field.validation_alias.choices)
    # pydantic-settings has arguments of its own, which begin with an underscore.
    unknown = [name for name in names if name not in known and not name.startswith("_")]
    if unknown:
        raise ConfigurationError("\n".join(_unknown(name, _closest(name, fields)) for name in unknown))


def warn_of_unknown_variables(variables: Iterable[str], fields: Iterable[str]) -> None:
    """Log a warning, once in a process, for each variable that has the prefix but names no field."""
    known = list(fields)
    for variable in variables:
        name = variable.lower()
        field = name.removeprefix(PREFIX.lower())
        if field == name or field in known or name.startswith(_TEST_PREFIX) or name in _logged:
            continue
        _logged.add(name)
        closest = _closest(field, known)
        get_logger(__name__).warning(
            "unknown environment variable is ignored",
            variable=name.upper(),
            did_you_mean=None if closest is None else variable_name(closest),
        )


def _unknown(name: str, closest: str | None) -> str:
    advice = "remove it" if closest is None else f"did you mean {closest}?"
    return f"{name}: there is no such setting: {advice}"


def _closest(name: str, fields: Iterable[str]) -> str | None:
    return next(iter(get_close_matches(name, fields, n=1)), None)
