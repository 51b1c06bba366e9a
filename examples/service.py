"""A service on soldier_data: agents are made and listed, questions are answered from what is known.

Start it with `uvicorn examples.service:app`, on the servers that SOLDIER_DATABASE_URL and SOLDIER_REDIS_URL name.
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


async def caller_of(x_tenant_id: Annotated[UUID, Header()], x_actor: Annotated[str, Header()]) -> Caller:
    """Who calls, as the gateway in front of this service says."""
    return Caller(tenant_id=x_tenant_id, actor=x_actor)


app.dependency_overrides[get_caller] = caller_of


class Question(BaseModel):
    """What somebody wants to know."""

    text: str
    trace_id: str


@app.get("/agents")
async def list_agents(caller: CallerDep, config: ConfigStoreDep) -> list[Agent]:
    """The agents of the tenant."""
    agents, _total = await config.get_agents(caller.tenant_id)
    return agents


@app.post("/agents", status_code=201)
async def make_agent(name: str, caller: CallerDep, config: ConfigStoreDep) -> Agent:
    """Make an agent. A name that is taken is answered with 409, an empty one with 422."""
    agent = Agent(tenant_id=caller.tenant_id, name=name)
    await config.save_agent(agent)
    return agent


@app.post("/facts", status_code=201)
async def learn(text: str, caller: CallerDep, uow: UnitOfWorkDep) -> UUID:
    """Keep a fact to answer questions from."""
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
    """The facts nearest to a question. The run is kept with the answer, or not at all."""
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
