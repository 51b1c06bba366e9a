"""The row-level-security policy of every table."""

from __future__ import annotations

POLICY = "tenant_isolation"


def policy_statements(table: str) -> list[str]:
    """The SQL that lets a role without BYPASSRLS see the rows of the tenant in app.tenant_id alone."""
    tenant = "tenant_id = nullif(current_setting('app.tenant_id', true), '')::uuid"
    return [
        f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY",
        f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY",
        f"DROP POLICY IF EXISTS {POLICY} ON {table}",
        f"CREATE POLICY {POLICY} ON {table} USING ({tenant}) WITH CHECK ({tenant})",
    ]
