"""Readers of conversations and guidelines, from the packaged sample or from files of the same schema.

They keep what the platform can use and ignore the rest. STAR's `constraints` are expressions in a language of
their own: they stay text and are never evaluated.
"""

from __future__ import annotations

import gzip
import re
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.resources import files
from importlib.resources.abc import Traversable
from itertools import islice, pairwise
from pathlib import Path
from typing import IO, Final, Self, cast

from pydantic import AliasPath, BaseModel, ConfigDict, Field, model_validator
from pydantic import ValidationError as PydanticValidationError

from soldier_data.demo.models import Conversation, Guideline, GuidelineStep, StepKind
from soldier_data.errors import ConfigurationError, ValidationError

Source = Path | Traversable

SAMPLE_CONVERSATIONS: Final = files("soldier_data.demo") / "sample" / "conversations.jsonl"
SAMPLE_GUIDELINES: Final = files("soldier_data.demo") / "sample" / "guidelines.json"

# STAR's graphs hold two kinds of node that nobody ever says: calls of the task's API, and labels of what came
# out of a call or of a question. Nothing in the file marks them, but the names are the same in every task.
_STAR_ACTIONS: Final = frozenset({"query", "query_check", "query_book"})
_STAR_BRANCHES: Final = frozenset(
    {"query_success", "query_failure", "available", "unavailable", "yes", "no", "done"}
    | {"correct", "incorrect", "noanswer", "info_missing", "info_missing2"}
)

# ABCD's buttons are named like its actions, but for these.
_ABCD_BUTTONS: Final = {
    "n-a": "respond",
    "enter-detail": "enter-details",
    "membership-privileges": "membership",
    "notify-internal-team": "notify-team",
    "select-answer": "select-faq",
}


class _Shape(BaseModel):
    """Part of a guidelines file, as the file has it."""

    model_config = ConfigDict(frozen=True)


class _StarTask(_Shape):
    task: str
    domain: str
    replies: dict[str, str]
    graph: dict[str, str]
    happy_path: tuple[str, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _steps_are_known(self) -> Self:
        named = {*self.graph, *self.graph.values(), *self.happy_path}
        if unknown := sorted(named - self.replies.keys()):
            raise ValueError(f"graph or happy_path name steps that replies do not have: {', '.join(unknown)}")
        return self

    def guideline(self) -> Guideline:
        in_graph = [key for edge in self.graph.items() for key in edge]
        steps = [
            GuidelineStep(key, key.replace("_", " "), self.replies[key], _star_kind(key))
            for key in dict.fromkeys([*self.happy_path, *in_graph, *self.replies])
        ]
        return Guideline(
            key=self.task,
            title=self.task.replace("_", " ").capitalize(),
            description=None,
            group=self.domain,
            source="star",
            steps=_linked(steps, self.graph),
            instructions=(),
        )


class _AbcdAction(_Shape):
    button: str
    text: str
    subtext: tuple[str, ...] = ()


class _AbcdSubflow(_Shape):
    subflow_id: str
    subflow: str
    instructions: tuple[str, ...]
    actions: tuple[_AbcdAction, ...] = Field(min_length=1)
    kb_actions: tuple[str, ...]

    def _keys(self) -> list[str]:
        keys: list[str] = []
        uses: Counter[str] = Counter()
        for action in self.actions:
            slug = re.sub(r"[^a-z0-9]+", "-", action.button.lower())
            key = _ABCD_BUTTONS.get(slug, slug)
            if f"search-{key}" in self.kb_actions:
                key = f"search-{key}"
            uses[key] += 1
            # A button that is used twice makes two steps; agents' actions name the first.
            keys.append(key if uses[key] == 1 else f"{key}-{uses[key]}")
        return keys

    def guideline(self, flow: _AbcdFlow) -> Guideline:
        keys = self._keys()
        steps = [
            GuidelineStep(
                key=key,
                name="Respond" if action.button == "N/A" else action.button,
                text=action.text,
                kind="action" if key in self.kb_actions else "reply",
                details=action.subtext,
            )
            for key, action in zip(keys, self.actions, strict=True)
        ]
        return Guideline(
            key=self.subflow_id,
            title=self.subflow,
            description=flow.description,
            group=flow.flow_id,
            source="abcd",
            steps=_linked(steps, dict(pairwise(keys))),
            instructions=self.instructions,
        )


class _AbcdFlow(_Shape):
    flow_id: str
    description: str
    subflows: tuple[_AbcdSubflow, ...]


class _GuidelineFile(_Shape):
    tasks: tuple[_StarTask, ...] = Field(validation_alias=AliasPath("star", "tasks"))
    flows: tuple[_AbcdFlow, ...] = Field(validation_alias=AliasPath("abcd", "flows"))


def read_conversations(
    source: Source = SAMPLE_CONVERSATIONS, *, limit: int | None = None
) -> Iterator[Conversation]:
    """Read conversations one by one, without holding the file in memory.

    Args:
        source: A `.jsonl` or `.jsonl.gz` file; the packaged sample unless given.
        limit: At most this many, from the beginning.

    Raises:
        ConfigurationError: The file is missing or cannot be unpacked; raised with the first conversation.
        ValidationError: A line is no conversation. The message names the file, the line and the field.
    """
    with _opened(source) as stream:
        numbered = ((number, line) for number, line in enumerate(stream, start=1) if line.strip())
        for number, line in islice(numbered, limit):
            try:
                yield Conversation.model_validate_json(line)
            except PydanticValidationError as error:
                raise _refusal(f"{source}, line {number}", error) from None


def count_conversations(source: Source = SAMPLE_CONVERSATIONS) -> int:
    """Count the conversations without parsing them: fast enough to set up a progress bar.

    Raises:
        ConfigurationError: The file is missing or cannot be unpacked.
    """
    with _opened(source) as stream:
        return sum(1 for line in stream if line.strip())


def read_guidelines(source: Source = SAMPLE_GUIDELINES) -> dict[str, Guideline]:
    """Read the guidelines of both kinds, by key, in the order of the file.

    Args:
        source: A `.json` or `.json.gz` file; the packaged sample unless given.

    Raises:
        ConfigurationError: The file is missing or cannot be unpacked.
        ValidationError: The file has another shape, or two guidelines share a key.
    """
    with _opened(source) as stream:
        text = stream.read()
    try:
        content = _GuidelineFile.model_validate_json(text)
    except PydanticValidationError as error:
        raise _refusal(str(source), error) from None

    found = [task.guideline() for task in content.tasks]
    found += [subflow.guideline(flow) for flow in content.flows for subflow in flow.subflows]
    guidelines: dict[str, Guideline] = {}
    for guideline in found:
        if guidelines.setdefault(guideline.key, guideline) is not guideline:
            raise ValidationError(f"{source}: two guidelines are called {guideline.key}; rename one of them.")
    return guidelines


def _star_kind(key: str) -> StepKind:
    if key in _STAR_ACTIONS:
        return "action"
    return "branch" if key in _STAR_BRANCHES else "reply"


def _linked(steps: list[GuidelineStep], edges: dict[str, str]) -> tuple[GuidelineStep, ...]:
    """Tell each step what follows it and what it is to the whole, the first one being the entry."""
    reached = set(edges.values())
    has_branches = any(step.kind == "branch" for step in steps)
    return tuple(
        replace(
            step,
            next_keys=(edges[step.key],) if step.key in edges else (),
            is_entry=position == 0,
            is_terminal=step.key in reached - edges.keys() and not (has_branches and step.kind == "action"),
            is_detached=position > 0 and step.key not in reached,
        )
        for position, step in enumerate(steps)
    )


@contextmanager
def _opened(source: Source) -> Iterator[IO[bytes]]:
    try:
        with source.open("rb") as stream:
            if source.name.endswith(".gz"):
                with gzip.open(stream) as unpacked:
                    # It reads like any binary file, but typeshed does not call it an IO.
                    yield cast("IO[bytes]", unpacked)
            else:
                yield stream
    except (OSError, EOFError, zlib.error) as error:
        # A damaged archive has no errno, and the text of its error may quote the content.
        reason = getattr(error, "strerror", None) or "it is called .gz, but is not a complete gzip file"
        raise ConfigurationError(
            f"{source} cannot be read: {reason}. Give the path of a whole file.", cause=error
        ) from None


def _refusal(where: str, error: PydanticValidationError) -> ValidationError:
    """Say what is wrong without the value itself, which may be somebody's words."""
    first = error.errors(include_input=False, include_url=False)[0]
    field = ".".join(str(part) for part in first["loc"])
    # Pydantic counts lines within what it was given; of a single line only the column tells anything.
    problem = first["msg"].replace(" at line 1 column ", " at column ")
    return ValidationError(
        f"{where}: {field}: {problem}" if field else f"{where}: {problem}", field=field or None, cause=error
    )
