"""Who sees everything that is printed, raised and logged, and looks for canaries in it."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import structlog

PASSWORD = "canary-p4ss"  # noqa: S105 - it is there to be looked for.
KEY = "sk-canary-k3y"
TEXT = "canary-t3xt"
CANARIES = (PASSWORD, KEY, TEXT)


def leaves(class_: type[Exception]) -> set[type[Exception]]:
    """The class and all that derive from it."""
    return {class_}.union(*(leaves(below) for below in class_.__subclasses__()))


@dataclass
class Witness:
    """Everything that was shown, to be searched for canaries."""

    shown: list[str] = field(default_factory=list)
    classes: set[type[BaseException]] = field(default_factory=set)

    async def raised(self, kind: type[Exception], call: Callable[[], Awaitable[object]]) -> None:
        """The call must raise just this class of error; keep all that can be printed of it."""
        with pytest.raises(kind) as failed:
            await call()
        assert type(failed.value) is kind, failed.value
        self.saw(failed.value)

    def saw(self, error: BaseException) -> None:
        """Keep what the error shows, and whatever is chained to it."""
        self.classes.add(type(error))
        logging.getLogger("service").error("a service logs it", exc_info=error)
        structlog.get_logger("service").error("a service logs it", exc_info=error)
        self.shown += traceback.format_exception(error)
        chained: BaseException | None = error
        while chained is not None:
            told = {name: value for name, value in vars(chained).items() if name != "cause"}
            self.shown += [str(chained), repr(chained), repr(chained.args), repr(told)]
            chained = chained.__cause__ or chained.__context__

    def assert_clean(self) -> None:
        """No canary was shown."""
        assert self.shown
        leaks = [text for text in self.shown for canary in CANARIES if canary in text]
        assert leaks == []


@contextmanager
def witnessing() -> Iterator[Witness]:
    """What is logged meanwhile, at every level, is kept before any redaction, as a service might configure it."""
    seen = Witness()

    def keep(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        seen.shown.append(repr(dict(event)))
        raise structlog.DropEvent

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            seen.shown.append(logging.Formatter("%(message)s").format(record))

    was_configured, before = structlog.is_configured(), structlog.get_config()
    structlog.configure(
        processors=[structlog.processors.format_exc_info, keep],
        wrapper_class=structlog.make_filtering_bound_logger(0),
    )
    root, handler = logging.getLogger(), Handler()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield seen
    root.setLevel(level)
    root.removeHandler(handler)
    structlog.reset_defaults()
    if was_configured:
        structlog.configure(**before)
