"""What the demonstration replays: conversations, and the guidelines that their agents follow.

`soldier_data.demo.dataset` reads both from files of one schema: the sample that ships inside this package, or
the large selection from STAR and ABCD that is kept outside it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from itertools import count
from typing import Any, Final, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, JsonValue, model_validator

Role = Literal["customer", "agent", "action"]
StepKind = Literal["reply", "action", "branch"]

# ABCD has no times. Its conversations are laid out from here, the day after the last one of STAR.
UNDATED_START: Final = 1_590_656_400  # 2020-05-28 09:00:00 UTC
UNDATED_PACE: Final = 30

_NUMBERED_SUBFLOW = re.compile(r"_\d+$")


class Turn(BaseModel):
    """One line of a conversation: something said, or something that the agent did.

    Attributes:
        at: When it happened; made up, evenly spaced, where the file has no times.
        task: The task being worked on, None until the agent has chosen one.
        step: The guideline's step that an agent's turn was picked from; None for most freely typed replies.
        free_text: False where the agent picked the step's reply instead of typing.
        action: What was done: `query`, `result`, `select_task`, `complete`, or the name of a step in ABCD.
        api: The API that a `query` or `result` is about.
        constraints: What a `query` asked for: expressions, to be kept as text.
        item: What a `result` brought.
        values: What the agent entered, for ABCD's actions.
    """

    model_config = ConfigDict(frozen=True)

    role: Role
    text: str
    at: AwareDatetime = Field(validation_alias="ts")
    task: str | None = None
    step: str | None = None
    free_text: bool = True
    action: str | None = None
    api: str | None = None
    constraints: dict[str, str] = Field(default_factory=dict)
    item: dict[str, JsonValue] = Field(default_factory=dict)
    values: tuple[str, ...] = ()

    @property
    def step_key(self) -> str | None:
        """What to look up in the task's guideline. It may be missing there: people leave the script."""
        return self.step or self.action


@dataclass(frozen=True, slots=True)
class Exchange:
    """What the platform processes as one turn: what the customer said, what was done, what was answered.

    Attributes:
        number: Counted from 1 within the conversation.
        task: The task in hand when it ended, as far as known by then.
        turns: All of it, in the order in which it happened; never empty.
    """

    number: int
    task: str | None
    turns: tuple[Turn, ...]

    @property
    def started_at(self) -> datetime:
        """When the first turn happened."""
        return self.turns[0].at

    @property
    def customer_text(self) -> str:
        """The customer's messages, one a line; empty for a greeting that the agent opens with."""
        return "\n".join(turn.text for turn in self.turns if turn.role == "customer")

    @property
    def reply_text(self) -> str:
        """The agent's messages, one a line; empty if the customer had the last word."""
        return "\n".join(turn.text for turn in self.turns if turn.role == "agent")

    @property
    def actions(self) -> tuple[Turn, ...]:
        """What was done, in order."""
        return tuple(turn for turn in self.turns if turn.role == "action")


class Conversation(BaseModel):
    """One dialogue between a customer and an agent.

    Attributes:
        source: Where it comes from: `sample`, `star` or `abcd`.
        subflow: The task, or several joined with `+`.
        customer: Everything known about the customer, as the file has it; unknown values are None.
    """

    model_config = ConfigDict(frozen=True)

    id: str = Field(validation_alias="conversation_id")
    source: str
    flow: str
    subflow: str
    domains: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    customer: dict[str, JsonValue] = Field(default_factory=dict)
    turns: tuple[Turn, ...] = Field(min_length=1)

    @model_validator(mode="before")
    @classmethod
    def _lay_out_undated(cls, record: Any) -> Any:
        match record:
            case {"turns": [*turns]} if all(isinstance(turn, dict) and "ts" not in turn for turn in turns):
                times = count(UNDATED_START, UNDATED_PACE)
                record = record | {"turns": [turn | {"ts": next(times)} for turn in turns]}
        return record

    @property
    def started_at(self) -> datetime:
        """When the first turn happened."""
        return self.turns[0].at

    @property
    def customer_key(self) -> str | None:
        """What identifies the person over many conversations, or None for somebody unknown.

        The name is no key: STAR's people play another role in each dialogue.
        """
        known = (self.customer.get(name) for name in ("worker_id", "account_id", "phone"))
        return next((str(value) for value in known if value), None)

    @property
    def customer_name(self) -> str | None:
        """The name that the customer goes by in this conversation."""
        name = self.customer.get("name")
        return str(name) if name else None

    @property
    def guideline_keys(self) -> tuple[str, ...]:
        """Keys of the guidelines that were followed, for looking them up in `read_guidelines()`."""
        return self.tasks or tuple(_NUMBERED_SUBFLOW.sub("", part) for part in self.subflow.split("+"))

    def exchanges(self) -> list[Exchange]:
        """Group the turns into what the platform would process as one turn each.

        A customer who speaks after a reply begins the next exchange; messages before the reply belong
        together, as do the actions around it. A greeting by the agent is an exchange without a customer's
        message, last words of the customer are one without a reply, and actions at the end belong to the
        last one. So every turn is in exactly one exchange.
        """
        groups: list[list[Turn]] = []
        answered = False
        for turn in self.turns:
            if not groups or (answered and turn.role == "customer"):
                groups.append([])
                answered = False
            groups[-1].append(turn)
            answered = answered or turn.role == "agent"

        task = self.guideline_keys[0] if len(self.guideline_keys) == 1 else None
        exchanges = []
        for number, group in enumerate(groups, start=1):
            task = next((turn.task for turn in reversed(group) if turn.task), task)
            exchanges.append(Exchange(number=number, task=task, turns=tuple(group)))
        return exchanges


@dataclass(frozen=True, slots=True)
class GuidelineStep:
    """One step of a guideline.

    Attributes:
        key: Unique within the guideline; what a turn's `step` or `action` names.
        text: What the agent says (`reply`), is told to do (`action`), or what has come about (`branch`).
        kind: Said to the customer, done in a system, or a mere label of an outcome that is never said.
        details: What to mind in this step, one rule each.
        next_keys: The steps that may follow, all of them in the guideline.
        is_terminal: Nothing follows. A query does not count where branches tell how it ends.
        is_detached: No other step leads here: a branch, or a reply that fits anywhere (`out_of_scope`).
    """

    key: str
    name: str
    text: str
    kind: StepKind
    details: tuple[str, ...] = ()
    next_keys: tuple[str, ...] = ()
    is_entry: bool = False
    is_terminal: bool = False
    is_detached: bool = False


@dataclass(frozen=True, slots=True)
class Guideline:
    """How agents are told to handle one task (STAR) or subflow (ABCD).

    Attributes:
        key: Task or subflow, the same word as in `Conversation.guideline_keys`.
        group: The domain or flow that it belongs to.
        description: What it is about; STAR has none.
        steps: The entry comes first, the straight path follows, branches come last.
        instructions: Rules for the whole of it; STAR has none.
    """

    key: str
    title: str
    description: str | None
    group: str
    source: Literal["star", "abcd"]
    steps: tuple[GuidelineStep, ...]
    instructions: tuple[str, ...]

    def step(self, key: str | None) -> GuidelineStep | None:
        """The step of that key, or None: real agents also use replies of other tasks."""
        return next((step for step in self.steps if step.key == key), None)
