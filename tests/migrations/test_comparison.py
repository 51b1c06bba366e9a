"""`check` sees every difference between database and models, and autogenerate mends it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from soldier_data.migrations import check
from soldier_data.schema import metadata
from tests.conftest import DIMENSIONS, settings_for
from tests.migrations.tools import alembic, fetch

# What somebody did by hand, and what `check` says about it.
DRIFTS = {
    "type": (
        "ALTER TABLE agents ALTER COLUMN current_version TYPE integer",
        "op.alter_column('agents', 'current_version'",
    ),
    "length of vectors": (
        "ALTER TABLE rules ALTER COLUMN embedding TYPE vector(9)",
        "op.alter_column('rules', 'embedding'",
    ),
    "nullability": ("ALTER TABLE agents ALTER COLUMN name DROP NOT NULL", "op.alter_column('agents', 'name'"),
    "default": (
        "ALTER TABLE agents ALTER COLUMN enabled SET DEFAULT true",
        "op.alter_column('agents', 'enabled'",
    ),
    "column": ("ALTER TABLE templates ADD COLUMN color text", "op.drop_column('templates', 'color'"),
    "storage": (
        "ALTER TABLE scenarios ALTER COLUMN entry_condition_embedding SET STORAGE EXTENDED",
        "set_storage('scenarios', 'entry_condition_embedding')",
    ),
    "storage of a text": (
        "ALTER TABLE embeddings ALTER COLUMN source_type SET STORAGE EXTENDED",
        "set_storage('embeddings', 'source_type', 'MAIN')",
    ),
    "storage that is not declared": (
        "ALTER TABLE episodes ALTER COLUMN content SET STORAGE MAIN",
        "set_storage('episodes', 'content', 'EXTENDED')",
    ),
    "predicate": (
        "DROP INDEX ix_agents_page; CREATE INDEX ix_agents_page ON agents (tenant_id, created_at, id) WHERE enabled",
        "create_index_concurrently('ix_agents_page'",
    ),
    "no predicate": (
        "DROP INDEX ix_rules_purge; CREATE INDEX ix_rules_purge ON rules (tenant_id, deleted_at)",
        "create_index_concurrently('ix_rules_purge'",
    ),
    "operator class": (
        (
            "DROP INDEX uq_tool_activations_tool_id; CREATE UNIQUE INDEX uq_tool_activations_tool_id "
            "ON tool_activations (tenant_id, agent_id, tool_id text_pattern_ops) WHERE deleted_at IS NULL"
        ),
        "create_index_concurrently('uq_tool_activations_tool_id'",
    ),
    "method": (
        (
            "DROP INDEX ix_episodes_words; CREATE INDEX ix_episodes_words ON episodes "
            "USING gist (content_folded gist_trgm_ops) WHERE deleted_at IS NULL"
        ),
        "create_index_concurrently('ix_episodes_words'",
    ),
    "parameters": (
        "ALTER INDEX ix_turn_records_page SET (fillfactor = 50)",
        "create_index_concurrently('ix_turn_records_page'",
    ),
    "included columns": (
        (
            "DROP INDEX ix_relationships_to; "
            "CREATE INDEX ix_relationships_to ON relationships (tenant_id, to_entity_id) INCLUDE (id)"
        ),
        "create_index_concurrently('ix_relationships_to'",
    ),
    "uniqueness": (
        (
            "DROP INDEX uq_variables_name; "
            "CREATE INDEX uq_variables_name ON variables (tenant_id, agent_id, name) WHERE deleted_at IS NULL"
        ),
        "create_index_concurrently('uq_variables_name'",
    ),
    "interrupted build": (
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'ix_entities_page'::regclass",
        "create_index_concurrently('ix_entities_page'",
    ),
    "foreign key": (
        "ALTER TABLE rules DROP CONSTRAINT fk_rules_agents",
        "op.create_foreign_key(op.f('fk_rules_agents')",
    ),
    "primary key": (
        "ALTER TABLE turn_records DROP CONSTRAINT pk_turn_records, ADD CONSTRAINT pk_turn_records PRIMARY KEY (id)",
        'ADD CONSTRAINT "pk_turn_records" PRIMARY KEY (tenant_id, id)',
    ),
    "check": (
        "ALTER TABLE rules ADD CONSTRAINT ck_rules_priority CHECK (priority < 1000)",
        'ALTER TABLE rules DROP CONSTRAINT IF EXISTS "ck_rules_priority"',
    ),
    "no policy": ("DROP POLICY tenant_isolation ON agents", "isolate_tenants('agents')"),
    "open policy": (
        "ALTER POLICY tenant_isolation ON rules USING (true)",
        "isolate_tenants('rules')",
    ),
    "policy of some role": (
        "ALTER POLICY tenant_isolation ON variables TO pg_monitor",
        "isolate_tenants('variables')",
    ),
    "another policy": (
        "CREATE POLICY all_of_it ON episodes USING (true)",
        'DROP POLICY IF EXISTS "all_of_it" ON episodes',
    ),
    "security off": (
        "ALTER TABLE entities DISABLE ROW LEVEL SECURITY",
        "isolate_tenants('entities')",
    ),
    "security not forced": (
        "ALTER TABLE scenarios NO FORCE ROW LEVEL SECURITY",
        "isolate_tenants('scenarios')",
    ),
}


async def test_a_database_at_head_has_no_difference(database_url: str) -> None:
    assert await check(settings_for(database_url)) is None


async def test_every_difference_is_seen(database_url: str) -> None:
    for statements, _ in DRIFTS.values():
        for statement in statements.split("; "):
            await fetch(database_url, statement)
    found = await check(settings_for(database_url))
    assert found is not None
    assert {name: said for name, (_, said) in DRIFTS.items() if said not in found} == {}


@pytest.mark.parametrize(
    ("name", "table"),
    [
        ("predicate", "agents"),
        ("open policy", "rules"),
        ("storage", "scenarios"),
        ("primary key", "turn_records"),
    ],
)
async def test_only_what_differs_is_reported(database_url: str, name: str, table: str) -> None:
    statements, said = DRIFTS[name]
    for statement in statements.split("; "):
        await fetch(database_url, statement)
    found = await check(settings_for(database_url))
    assert found is not None
    assert said in found
    assert set(re.findall(r"\w+", found)) & metadata.tables.keys() == {table}


async def test_a_generated_migration_mends_every_difference(database_url: str, checkout: Path) -> None:
    for statements, _ in DRIFTS.values():
        for statement in statements.split("; "):
            await fetch(database_url, statement)
    checked = await alembic(
        database_url,
        "revision --autogenerate -m 'Mend it all'",
        "upgrade head",
        "check",
        folder=checkout,
        SOLDIER_EMBEDDING_DIMENSIONS=str(DIMENSIONS),
    )
    assert "No new upgrade operations detected" in checked
