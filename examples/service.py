"""An example service: it creates and lists agents, stores facts, and answers questions with them.

Start it with `uvicorn examples.service:app`. It uses the servers of SOLDIER_DATABASE_URL and SOLDIER_REDIS_URL.
"""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import FastAPI, Header
from pydantic import BaseModel

from soldier_data import Agent, Embedding, Run, RunStatus, Settings
from soldier_data.base.models import utcnow
from soldier_data.fastapi import (
    Caller,
    CallerDep,
    ConfigStoreDep,
    UnitOfWorkDep,
    add_exception_handlers,
    get_caller,
    lifespan,
    router,
)
from soldier_data.providers import HashingEmbeddingProvider

settings = Settings()
embed = HashingEmbeddingProvider(settings.embedding_dimensions).embed

app = FastAPI(title="Support", lifespan=lifespan(settings))
add_exception_handlers(app)
app.include_router(router)


async def caller_from_headers(
    x_tenant_id: Annotated[UUID, Header()], x_actor: Annotated[str, Header()]
) -> Caller:
    """Return the caller, as the gateway in front of this service has authenticated it."""
    return Caller(tenant_id=x_tenant_id, actor=x_actor)


app.dependency_overrides[get_caller] = caller_from_headers


class Question(BaseModel):
    """A question, and the trace id of its request."""

    text: str
    trace_id: str


@app.get("/agents")
async def list_agents(caller: CallerDep, config: ConfigStoreDep) -> list[Agent]:
    """Return the agents of the tenant."""
    agents, _total = await config.get_agents(caller.tenant_id)
    return agents


@app.post("/agents", status_code=201)
async def create_agent(name: str, caller: CallerDep, config: ConfigStoreDep) -> Agent:
    """Create an agent. A duplicate name gives 409, an empty one 422."""
    agent = Agent(tenant_id=caller.tenant_id, name=name)
    await config.save_agent(agent)
    return agent


@app.post("/facts", status_code=201)
async def add_fact(text: str, caller: CallerDep, uow: UnitOfWorkDep) -> UUID:
    """Store a fact that questions can be answered with."""
    fact = Embedding(
        tenant_id=caller.tenant_id,
        content=text,
        embedding=await embed(text),
        source_type="fact",
        source_id=caller.actor,
    )
    return await uow.vectors.add_embedding(fact)


@app.post("/questions")
async def ask(question: Question, caller: CallerDep, uow: UnitOfWorkDep) -> list[str]:
    """Return the facts most similar to a question. The run is saved in the same transaction as the search."""
    found = await uow.vectors.search(await embed(question.text), caller.tenant_id, min_score=0.1)
    run = Run(
        tenant_id=caller.tenant_id,
        actor=caller.actor,
        trace_id=question.trace_id,
        request_payload={"question": question.text},
        status=RunStatus.COMPLETED,
        completed_at=utcnow(),
    )
    await uow.runs.save_run(run)
    return [fact.content for fact, _score in found]
