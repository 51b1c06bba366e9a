"""The row-level-security policy of every table."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import Column, Connection, text
from sqlalchemy.schema import SchemaItem

POLICY = "tenant_isolation"

_ISOLATED = text(
    "SELECT c.relrowsecurity AND c.relforcerowsecurity AND EXISTS (SELECT FROM pg_policy p "
    "WHERE p.polrelid = c.oid AND p.polname = :policy AND p.polcmd = '*' AND p.polpermissive AND p.polroles = '{0}' "
    "AND pg_get_expr(p.polqual, p.polrelid) = :tenant AND pg_get_expr(p.polwithcheck, p.polrelid) = :tenant) "
    "FROM pg_class c WHERE c.oid = CAST(:table AS regclass)"
)
# The expression of `policy_statements` as PostgreSQL prints it.
_TENANT = "(tenant_id = (NULLIF(current_setting('app.tenant_id'::text, true), ''::text))::uuid)"


def is_tenants(items: Iterable[SchemaItem]) -> bool:
    """Return True if a table with these columns holds tenants' rows, and so needs the policy."""
    return any(isinstance(item, Column) and item.name == "tenant_id" for item in items)


def policy_statements(table: str) -> list[str]:
    """Return the SQL of the policy that shows only the rows of the tenant in app.tenant_id."""
    tenant = "tenant_id = nullif(current_setting('app.tenant_id', true), '')::uuid"
    return [
        f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY",
        f"DROP POLICY IF EXISTS {POLICY} ON {table}",
        f"CREATE POLICY {POLICY} ON {table} USING ({tenant}) WITH CHECK ({tenant})",
    ]


def has_policy(connection: Connection, table: str) -> bool:
    """Return True if `table`, a quoted name, has the policy as `policy_statements` creates it."""
    values = {"policy": POLICY, "tenant": _TENANT, "table": table}
    return bool(connection.scalar(_ISOLATED, values))
