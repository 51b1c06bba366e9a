"""Conversations that the demonstration replays, and the guidelines that their agents follow.

`soldier_data.demo.dataset` reads them from files: the sample in this package, or a larger selection from STAR and ABCD
that is not part of it.
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

# ABCD has no timestamps. Its conversations are dated from here, the day after the last one of STAR.
UNDATED_START: Final = 1_590_656_400  # 2020-05-28 09:00:00 UTC
UNDATED_PACE: Final = 30

_NUMBERED_SUBFLOW = re.compile(r"_\d+$")


class Turn(BaseModel):
    """One line of a conversation: a message, or an action of the agent.

    Attributes:
        role: "customer", "agent" or "action".
        text: Text of the message, or a description of the action.
        at: Time of the turn; evenly spaced made-up times if the file has none.
        task: The current task; None until the agent has chosen one.
        step: Key of the guideline's step that the agent chose; None for most replies that were typed.
        free_text: False if the agent chose the reply of the step instead of typing.
        action: Name of the action: `query`, `result`, `select_task`, `complete`, or the key of a step in ABCD.
        api: API of a `query` or `result`.
        constraints: Conditions of a `query`: expressions, kept as text.
        item: Data of a `result`.
        values: Values that the agent entered, for ABCD's actions.
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
        """Key of the step in the task's guideline, which may lack it, because people leave the script."""
        return self.step or self.action


@dataclass(frozen=True, slots=True)
class Exchange:
    """A turn of the platform: the customer's messages, the actions, and the agent's replies.

    Attributes:
        number: Number within the conversation, from 1.
        task: The current task at the end of the exchange; None if not known.
        turns: The lines of the exchange in order; never empty.
    """

    number: int
    task: str | None
    turns: tuple[Turn, ...]

    @property
    def started_at(self) -> datetime:
        """Time of the first turn."""
        return self.turns[0].at

    @property
    def customer_text(self) -> str:
        """The customer's messages, one per line; empty for an opening greeting by the agent."""
        return "\n".join(turn.text for turn in self.turns if turn.role == "customer")

    @property
    def reply_text(self) -> str:
        """The agent's messages, one per line; empty if the conversation ends with the customer's message."""
        return "\n".join(turn.text for turn in self.turns if turn.role == "agent")

    @property
    def actions(self) -> tuple[Turn, ...]:
        """The actions, in order."""
        return tuple(turn for turn in self.turns if turn.role == "action")


class Conversation(BaseModel):
    """One dialogue between a customer and an agent.

    Attributes:
        id: Id of the conversation.
        source: Origin: `sample`, `star` or `abcd`.
        flow: Domain or flow.
        subflow: Task or subflow; several are joined with `+`.
        domains: Domains of the tasks.
        tasks: Keys of the tasks.
        customer: Data about the customer; unknown values are None.
        turns: The lines of the conversation in order.
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
    def _date_turns(cls, record: Any) -> Any:
        match record:
            case {"turns": [*turns]} if all(isinstance(turn, dict) and "ts" not in turn for turn in turns):
                times = count(UNDATED_START, UNDATED_PACE)
                record = record | {"turns": [turn | {"ts": next(times)} for turn in turns]}
        return record

    @property
    def started_at(self) -> datetime:
        """Time of the first turn."""
        return self.turns[0].at

    @property
    def customer_key(self) -> str | None:
        """Identifier of the customer across conversations; None if unknown.

        The name is not an identifier, because STAR's people use a different one in each dialogue.
        """
        known = (self.customer.get(name) for name in ("worker_id", "account_id", "phone"))
        return next((str(value) for value in known if value), None)

    @property
    def customer_name(self) -> str | None:
        """Name of the customer in this conversation."""
        name = self.customer.get("name")
        return str(name) if name else None

    @property
    def guideline_keys(self) -> tuple[str, ...]:
        """Keys of the guidelines of the conversation in the result of `read_guidelines()`."""
        return self.tasks or tuple(_NUMBERED_SUBFLOW.sub("", part) for part in self.subflow.split("+"))

    def exchanges(self) -> list[Exchange]:
        """Group the turns into exchanges, each of which the platform processes as one turn.

        An exchange begins with the customer's first message after a reply. It also holds the customer's further
        messages, the replies and the actions up to the next exchange. An opening greeting by the agent is an exchange
        without a customer's message, and the customer's last message may be one without a reply. Every turn is in
        exactly one exchange.
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
        key: Key, unique within the guideline; `step` or `action` of a turn refers to it.
        name: Readable name.
        text: The reply (`reply`), the instruction (`action`), or the outcome (`branch`).
        kind: `reply` for a message to the customer, `action` for an action in a system, `branch` for the label of an
            outcome.
        details: Further instructions, each of which becomes a rule.
        next_keys: Keys of the steps that may follow.
        is_entry: True for the first step.
        is_terminal: True if no step follows. A query whose outcomes are branches is not terminal.
        is_detached: True if no other step leads here: a branch, or a reply for any situation (`out_of_scope`).
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
    """Instructions for agents on one task (STAR) or subflow (ABCD).

    Attributes:
        key: Key of the task or subflow, as in `Conversation.guideline_keys`.
        title: Readable title.
        description: Description; None in STAR.
        group: Domain or flow that it belongs to.
        source: Origin: `star` or `abcd`.
        steps: The entry, then the other steps of the main path, then the branches.
        instructions: Rules for the whole task; empty in STAR.
    """

    key: str
    title: str
    description: str | None
    group: str
    source: Literal["star", "abcd"]
    steps: tuple[GuidelineStep, ...]
    instructions: tuple[str, ...]

    def step(self, key: str | None) -> GuidelineStep | None:
        """Return the step with that key; None if there is none, since agents also use replies of other tasks."""
        return next((step for step in self.steps if step.key == key), None)
