"""An example service with a table of its own beside soldier_data's: in one transaction, and in one query, with them.

It has its own engine, session dependency and Alembic environment. Prepare the database of TICKETS_DATABASE_URL, such as
postgresql+asyncpg://localhost/support, and start it:

    soldier-data db upgrade
    alembic --config examples/tickets_migrations/alembic.ini upgrade head
    uvicorn --factory examples.tickets:main
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request, status
from pydantic import BaseModel
from sqlalchemy import ForeignKeyConstraint, and_, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship, selectinload

from soldier_data import Rule, Settings, TurnRecord, prepare_engine
from soldier_data.fastapi import DataLayerDep, add_exception_handlers, lifespan
from soldier_data.orm import AgentRow, RuleRow
from soldier_data.providers import HashingEmbeddingProvider


class Base(DeclarativeBase):
    """The declarative base of this service's tables."""


class Ticket(Base):
    """A customer's question, and the rule by which such questions are answered."""

    __tablename__ = "tickets"
    __table_args__ = (
        ForeignKeyConstraint(
            ["tenant_id", "agent_id"], [AgentRow.tenant_id, AgentRow.id], ondelete="CASCADE"
        ),
        ForeignKeyConstraint(["tenant_id", "rule_id"], [RuleRow.tenant_id, RuleRow.id], ondelete="CASCADE"),
    )

    tenant_id: Mapped[UUID] = mapped_column(primary_key=True)
    id: Mapped[UUID] = mapped_column(primary_key=True)
    agent_id: Mapped[UUID]
    rule_id: Mapped[UUID]
    question: Mapped[str]

    agent: Mapped[AgentRow] = relationship(AgentRow, viewonly=True)


class NewTicket(BaseModel):
    """A question with its answer, from which a rule is made. The id is the caller's: a repeated request gives 409."""

    id: UUID
    tenant_id: UUID
    agent_id: UUID
    session_id: UUID
    turn_number: int
    question: str
    answer: str


class SimilarTicket(BaseModel):
    """A ticket found by its rule.

    Attributes:
        distance: Cosine distance between the question searched for and the rule's condition, 0 to 2.
    """

    agent: str
    question: str
    answer: str
    distance: float


def main() -> FastAPI:
    """Create the application on the engine of TICKETS_DATABASE_URL."""
    return create_app(create_async_engine(os.environ["TICKETS_DATABASE_URL"]), Settings())


def create_app(engine: AsyncEngine, settings: Settings) -> FastAPI:
    """Create the application; `engine` is shared by its own sessions and soldier_data's stores."""
    app = FastAPI(title="Tickets", lifespan=lifespan(settings, engine=prepare_engine(engine)))
    app.state.engine = engine
    app.state.embed = HashingEmbeddingProvider(settings.embedding_dimensions).embed
    add_exception_handlers(app)
    app.include_router(router)
    return app


async def get_session(request: Request) -> AsyncIterator[AsyncSession]:
    """Yield a session that commits when the endpoint returns, and rolls back if it raises."""
    async with AsyncSession(request.app.state.engine) as session, session.begin():
        yield session


SessionDep = Annotated[AsyncSession, Depends(get_session, scope="function")]

router = APIRouter()


@router.post("/tickets", status_code=201)
async def create_ticket(new: NewTicket, request: Request, session: SessionDep, data: DataLayerDep) -> None:
    """Save a ticket, its rule and the record of the turn: all of them, or nothing."""
    rule = Rule(
        tenant_id=new.tenant_id,
        agent_id=new.agent_id,
        name=new.question,
        condition_text=new.question,
        action_text=new.answer,
        embedding=await request.app.state.embed(new.question),
    )
    turn = TurnRecord(
        tenant_id=new.tenant_id,
        agent_id=new.agent_id,
        session_id=new.session_id,
        turn_number=new.turn_number,
        user_message=new.question,
        agent_response=new.answer,
        latency_ms=0,
        tokens_used=0,
    )
    async with data.unit_of_work(session=session) as uow:
        await uow.config.save_rule(rule)
        await uow.audit.save_turn(turn)
    session.add(
        Ticket(
            tenant_id=new.tenant_id, id=new.id, agent_id=new.agent_id, rule_id=rule.id, question=new.question
        )
    )
    try:
        await session.flush()
    except IntegrityError:
        raise HTTPException(status.HTTP_409_CONFLICT, "The ticket exists already.") from None


@router.get("/tickets/similar")
async def find_similar(
    tenant_id: UUID, question: str, request: Request, session: SessionDep
) -> list[SimilarTicket]:
    """Return the five tickets whose rules are closest to a question, the closest first."""
    distance = RuleRow.embedding.cosine_distance(await request.app.state.embed(question))
    query = (
        select(Ticket, RuleRow.action_text, distance)
        .join(RuleRow, and_(RuleRow.tenant_id == Ticket.tenant_id, RuleRow.id == Ticket.rule_id))
        .where(Ticket.tenant_id == tenant_id, RuleRow.deleted_at.is_(None))
        .order_by(distance)
        .limit(5)
        .options(selectinload(Ticket.agent))
    )
    return [
        SimilarTicket(agent=ticket.agent.name, question=ticket.question, answer=answer, distance=distance)
        for ticket, answer, distance in await session.execute(query)
    ]
