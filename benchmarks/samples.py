"""Stored data, generated from a seed so that it is the same in every run."""

from __future__ import annotations

import random
from datetime import timedelta
from uuid import UUID

import numpy as np

from soldier_data import Agent, Channel, Rule, Session, StepVisit
from soldier_data.base.models import new_id, utcnow

_random = np.random.default_rng(2026)
_choice = random.Random(2026)  # noqa: S311 - nothing secret.

_TEXT = (
    "the customer asks for a refund of an order that arrived late and wants to know when the money comes back "
    "to their card while the parcel is still on its way to the shop"
)
_WORDS = _TEXT.split()


def embeddings(count: int, dimensions: int) -> list[list[float]]:
    """Return random directions in float32, which are read back exactly."""
    vectors: list[list[float]] = _random.standard_normal((count, dimensions), dtype=np.float32).tolist()
    return vectors


def sentence(words: int) -> str:
    """Return some words."""
    return " ".join(_choice.choices(_WORDS, k=words))


def agents(tenant_id: UUID, count: int) -> list[Agent]:
    """Return agents with descriptions."""
    return [
        Agent(tenant_id=tenant_id, name=f"Support desk {new_id()}", description=sentence(20))
        for _ in range(count)
    ]


def rules(agent: Agent, vectors: list[list[float] | None]) -> list[Rule]:
    """Return a rule for each of `vectors`."""
    return [
        Rule(
            tenant_id=agent.tenant_id,
            agent_id=agent.id,
            name=f"Rule {number}",
            description=sentence(12),
            condition_text=sentence(15),
            action_text=sentence(20),
            priority=number % 7,
            attached_tool_ids=["orders.lookup", "refunds.create"],
            attached_template_ids=[new_id()],
            embedding=vector,
            embedding_model=None if vector is None else "text-embedding-3-small",
        )
        for number, vector in enumerate(vectors)
    ]


def with_embeddings(agent: Agent, count: int, dimensions: int) -> list[Rule]:
    """Return rules with embeddings."""
    return rules(agent, [*embeddings(count, dimensions)])


def session(tenant_id: UUID, agent_id: UUID, *, visits: int = 5, step_hash: str | None = None) -> Session:
    """Return a session after some turns, about 3 kB of JSON with five visits."""
    now = utcnow()
    fired = [str(new_id()) for _ in range(4)]
    return Session(
        tenant_id=tenant_id,
        agent_id=agent_id,
        channel=Channel.WEBCHAT,
        user_channel_id=f"visitor-{new_id()}",
        customer_profile_id=new_id(),
        config_version=3,
        active_scenario_id=new_id(),
        active_step_id=new_id(),
        active_scenario_version=2,
        step_history=[
            StepVisit(
                step_id=new_id(),
                step_name=f"Step {turn}: {sentence(3)}",
                entered_at=now - timedelta(minutes=visits - turn),
                turn_number=turn,
                transition_reason=sentence(6),
                confidence=0.87,
                step_content_hash=step_hash or f"{_choice.getrandbits(128):032x}",
            )
            for turn in range(visits)
        ],
        rule_fires=dict.fromkeys(fired, 1),
        rule_last_fire_turn=dict.fromkeys(fired, visits - 1),
        variables={"order_id": "A-10042", "amount": 129.9, "summary": sentence(25), "items": [1, 2, 3]},
        variable_updated_at=dict.fromkeys(("order_id", "amount", "summary", "items"), now),
        turn_count=visits,
    )
