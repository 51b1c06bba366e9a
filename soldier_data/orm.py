"""The mapped classes of all tables, for SQLAlchemy sessions.

Use them in the session of a unit of work (`uow.session`), or in any `AsyncSession` on an engine that
`soldier_data.prepare_engine` has prepared:

    async with AsyncSession(engine) as session:
        session.add(AgentRow(tenant_id=tenant_id, name="Support"))
        await session.commit()

**Defaults.** Columns have the defaults of the entities' fields, so that only required fields must be given. They are
set when the session flushes. The session does not notice changes inside a document or a list: assign a new one.

**Validation is the stores' part.** A session writes whatever the table accepts. If it is not valid for the entity, such
as an empty name, reading the row through a store raises `StoreError`. A session also does not keep the former values of
profile fields and the former identifiers of customers, and does not delete the parts of a deleted agent. Prefer the
stores for writing. `SessionRow`, whose document is compressed and which Redis has a copy of, is for reading only.

**Revisions.** A flush of a changed object increments its `revision` as a store does. So a store's `if_revision` detects
changes by sessions, and a session raises SQLAlchemy's `StaleDataError` after a change by a store. UPDATE statements of
your own must set `revision`, `updated_at` and `write_id` themselves.

**Relationships** such as `AgentRow.rules` are for reading (`viewonly`), and must be loaded explicitly, for example by
`selectinload`: access to one that was not loaded raises an error. They contain what the stores list, in the same order:
no soft-deleted rows, and of profile fields only the present values. They never cross tenants. Selects of your own see
soft-deleted rows unless they have the condition `RuleRow.deleted_at.is_(None)`, and the rows of all tenants unless they
have one on the `tenant_id` or row-level security applies.

**Vectors.** `RuleRow.embedding.cosine_distance(vector)`, `l2_distance` and `max_inner_product` are exact and compare
all rows. The vector index is ordered by `indexed_cosine_distance`, which has half the precision:

    select(RuleRow, RuleRow.embedding.cosine_distance(vector).label("distance"))
    .where(RuleRow.tenant_id == tenant_id, RuleRow.deleted_at.is_(None))
    .order_by(RuleRow.embedding.indexed_cosine_distance(vector))
    .limit(10)

The index contains the rows of all tenants. To continue its scan until enough of them match your conditions, run
`SET LOCAL hnsw.iterative_scan = 'relaxed_order'` first. The searches of the stores do so.

**Tables of your own** can refer to these, on a `MetaData` of their own:

    class Ticket(YourBase):
        __table_args__ = (ForeignKeyConstraint(["tenant_id", "agent_id"], [AgentRow.tenant_id, AgentRow.id]),)
        agent: Mapped[AgentRow] = relationship(AgentRow)

**Schemas.** The tables name no schema. If `SOLDIER_DATABASE_SCHEMA` is not public, add it to the search_path of your
engine, or behind PgBouncer to that of your role:

    create_async_engine(url, connect_args={"server_settings": {"search_path": "public, soldier"}})

Let your own tables name theirs, `MetaData(schema="public")`: in `uow.session`, tables without one are those of
`SOLDIER_DATABASE_SCHEMA`. Then `engine.execution_options(schema_translate_map={None: "soldier"})` works too. The schema
of pgvector need not be on the search_path.
"""

from __future__ import annotations

from soldier_data.audit.orm import AuditEventRow, TurnRecordRow
from soldier_data.config.orm import (
    AgentRow,
    MigrationPlanRow,
    RuleRow,
    ScenarioArchiveRow,
    ScenarioRow,
    TemplateRow,
    ToolActivationRow,
    VariableRow,
)
from soldier_data.memory.orm import EntityRow, EpisodeRow, RelationshipRow
from soldier_data.postgres.orm import Base
from soldier_data.profiles.orm import (
    ChannelIdentityRow,
    CustomerProfileRow,
    FormerIdentifierRow,
    ProfileAssetRow,
    ProfileConsentRow,
    ProfileFieldRow,
)
from soldier_data.runs.orm import ArtifactRow, LLMCallRow, RunRow, StepRow
from soldier_data.sessions.orm import SessionRow
from soldier_data.vectors.orm import EmbeddingRow

__all__ = [
    "AgentRow",
    "ArtifactRow",
    "AuditEventRow",
    "Base",
    "ChannelIdentityRow",
    "CustomerProfileRow",
    "EmbeddingRow",
    "EntityRow",
    "EpisodeRow",
    "FormerIdentifierRow",
    "LLMCallRow",
    "MigrationPlanRow",
    "ProfileAssetRow",
    "ProfileConsentRow",
    "ProfileFieldRow",
    "RelationshipRow",
    "RuleRow",
    "RunRow",
    "ScenarioArchiveRow",
    "ScenarioRow",
    "SessionRow",
    "StepRow",
    "TemplateRow",
    "ToolActivationRow",
    "TurnRecordRow",
    "VariableRow",
]
