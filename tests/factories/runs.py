"""Entities of the runs domain."""

from __future__ import annotations

from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import factory

from soldier_data.runs import Artifact, LLMCall, Run, RunStatus, Step


class RunFactory(factory.Factory[Run]):  # factory-boy ships no types.
    class Meta:
        model = Run

    tenant_id: UUID = factory.LazyFunction(uuid4)
    actor: str = "ada"
    request_payload: dict[str, Any] = factory.LazyFunction(lambda: {"task": "Summarise the week"})
    status: RunStatus = RunStatus.RUNNING
    trace_id: str = factory.LazyFunction(lambda: uuid4().hex)


class StepFactory(factory.Factory[Step]):  # As above.
    class Meta:
        model = Step

    tenant_id: UUID = factory.LazyFunction(uuid4)
    run_id: UUID = factory.LazyFunction(uuid4)
    step_number: int = factory.Sequence(lambda number: number)
    node_name: str = "plan"
    status: RunStatus = RunStatus.COMPLETED


class ArtifactFactory(factory.Factory[Artifact]):  # As above.
    class Meta:
        model = Artifact

    tenant_id: UUID = factory.LazyFunction(uuid4)
    run_id: UUID = factory.LazyFunction(uuid4)
    artifact_type: str = "report"
    url: str = "s3://artifacts/report.pdf"


class LLMCallFactory(factory.Factory[LLMCall]):  # As above.
    class Meta:
        model = LLMCall

    tenant_id: UUID = factory.LazyFunction(uuid4)
    run_id: UUID = factory.LazyFunction(uuid4)
    model: str = "model-1"
    provider: str = "provider"
    prompt_tokens: int = 100
    completion_tokens: int = 20
    total_tokens: int = 120
    cost_usd: Decimal = Decimal("0.0012")
