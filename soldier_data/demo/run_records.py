"""Conversations as runs of an agent executor.

No model is called, since people wrote the replies. Words are counted as tokens, at a made-up price.
"""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from uuid import UUID

from soldier_data.config.models import Agent
from soldier_data.demo.models import Conversation, Exchange
from soldier_data.runs.models import LLMCall, Run, RunStatus, Step

_USD_PER_WORD = Decimal("0.000003")


def run_of(conversation: Conversation, agent: Agent, session_id: UUID) -> Run:
    """Return the run of a conversation."""
    return Run(
        tenant_id=agent.tenant_id,
        actor=f"{conversation.source} {conversation.id}",
        request_payload={"conversation": conversation.id, "tasks": list(conversation.guideline_keys)},
        status=RunStatus.RUNNING,
        trace_id=session_id.hex,
    )


def step_of(run: Run, exchange: Exchange, seconds: float) -> Step:
    """Return the step of an exchange, with the current task as its node."""
    step = Step(
        tenant_id=run.tenant_id,
        run_id=run.id,
        step_number=exchange.number,
        node_name=exchange.task or "greeting",
        input_data={"customer": exchange.customer_text},
        output_data={"agent": exchange.reply_text},
        status=RunStatus.COMPLETED,
    )
    step.completed_at = step.started_at + timedelta(seconds=seconds)
    return step


def llm_call(step: Step, exchange: Exchange, seconds: float) -> LLMCall:
    """Return an LLM call that stands for the reply."""
    read, written = len(exchange.customer_text.split()), len(exchange.reply_text.split())
    return LLMCall(
        tenant_id=step.tenant_id,
        run_id=step.run_id,
        step_id=step.id,
        model="people",
        provider="replay",
        prompt_tokens=read,
        completion_tokens=written,
        total_tokens=read + written,
        cost_usd=(read + written) * _USD_PER_WORD,
        latency_ms=seconds * 1000,
    )
