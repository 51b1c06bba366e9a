"""Readers of conversations and guidelines, from the packaged sample or from files of the same schema.

They ignore data that the platform does not use. STAR's `constraints` are expressions in a language of their own, which
are kept as text and never evaluated.
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

# STAR's graphs have two kinds of nodes that are not replies: calls of the task's API, and labels of the outcome of a
# call or a question. The file does not mark them, but their names are the same in every task.
_STAR_ACTIONS: Final = frozenset({"query", "query_check", "query_book"})
_STAR_BRANCHES: Final = frozenset(
    {"query_success", "query_failure", "available", "unavailable", "yes", "no", "done"}
    | {"correct", "incorrect", "noanswer", "info_missing", "info_missing2"}
)

# ABCD's buttons have the names of its actions, with these exceptions.
_ABCD_BUTTONS: Final = {
    "n-a": "respond",
    "enter-detail": "enter-details",
    "membership-privileges": "membership",
    "notify-internal-team": "notify-team",
    "select-answer": "select-faq",
}


class _Shape(BaseModel):
    """Base class of the parts of a guidelines file."""

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
            raise ValueError(f"graph or happy_path has steps that are not in replies: {', '.join(unknown)}")
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
            # A button that occurs twice makes two steps. Actions in conversations refer to the first.
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
    """Read conversations one by one, without loading the whole file.

    Args:
        source: A `.jsonl` or `.jsonl.gz` file; by default the packaged sample.
        limit: Largest number of conversations; by default all.

    Raises:
        ConfigurationError: The file is missing or cannot be unpacked. Raised when the iteration begins.
        ValidationError: A line is not a valid conversation. The message names the file, the line and the field.
    """
    with _open(source) as stream:
        numbered = ((number, line) for number, line in enumerate(stream, start=1) if line.strip())
        for number, line in islice(numbered, limit):
            try:
                yield Conversation.model_validate_json(line)
            except PydanticValidationError as error:
                raise _validation_error(f"{source}, line {number}", error) from None


def count_conversations(source: Source = SAMPLE_CONVERSATIONS) -> int:
    """Count the conversations without parsing them.

    Raises:
        ConfigurationError: The file is missing or cannot be unpacked.
    """
    with _open(source) as stream:
        return sum(1 for line in stream if line.strip())


def read_guidelines(source: Source = SAMPLE_GUIDELINES) -> dict[str, Guideline]:
    """Read the guidelines of STAR and ABCD, by key, in the order of the file.

    Args:
        source: A `.json` or `.json.gz` file; by default the packaged sample.

    Raises:
        ConfigurationError: The file is missing or cannot be unpacked.
        ValidationError: The file has a different structure, or two guidelines have the same key.
    """
    with _open(source) as stream:
        text = stream.read()
    try:
        content = _GuidelineFile.model_validate_json(text)
    except PydanticValidationError as error:
        raise _validation_error(str(source), error) from None

    guidelines = [task.guideline() for task in content.tasks]
    guidelines += [subflow.guideline(flow) for flow in content.flows for subflow in flow.subflows]
    by_key: dict[str, Guideline] = {}
    for guideline in guidelines:
        if by_key.setdefault(guideline.key, guideline) is not guideline:
            raise ValidationError(
                f"{source}: two guidelines have the key {guideline.key}: rename one of them"
            )
    return by_key


def _star_kind(key: str) -> StepKind:
    if key in _STAR_ACTIONS:
        return "action"
    return "branch" if key in _STAR_BRANCHES else "reply"


def _linked(steps: list[GuidelineStep], edges: dict[str, str]) -> tuple[GuidelineStep, ...]:
    """Return the steps with their successors and their roles in the graph. The first step is the entry."""
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
def _open(source: Source) -> Iterator[IO[bytes]]:
    try:
        with source.open("rb") as stream:
            if source.name.endswith(".gz"):
                with gzip.open(stream) as unpacked:
                    # GzipFile has the methods of IO, but typeshed does not derive it from IO.
                    yield cast("IO[bytes]", unpacked)
            else:
                yield stream
    except (OSError, EOFError, zlib.error) as error:
        # The error of a damaged archive has no strerror, and its text may quote the content.
        reason = getattr(error, "strerror", None) or "it is not a complete gzip file"
        raise ConfigurationError(f"{source} cannot be read: {reason}", cause=error) from None


def _validation_error(where: str, error: PydanticValidationError) -> ValidationError:
    """Convert the first error, without the invalid value, which may be personal data."""
    first = error.errors(include_input=False, include_url=False)[0]
    field = ".".join(str(part) for part in first["loc"])
    # Pydantic counts lines within its input, which is a single line here.
    problem = first["msg"].replace(" at line 1 column ", " at column ")
    return ValidationError(
        f"{where}: {field}: {problem}" if field else f"{where}: {problem}", field=field or None, cause=error
    )
