"""The permanent record of every turn: turn records and audit events."""

from soldier_data.audit.inmemory import InMemoryAuditStore
from soldier_data.audit.models import AuditEvent, ToolCall, TurnRecord
from soldier_data.audit.postgres import PostgresAuditStore
from soldier_data.audit.store import AuditStore
from soldier_data.base.paging import Cursor

__all__ = [
    "AuditEvent",
    "AuditStore",
    "Cursor",
    "InMemoryAuditStore",
    "PostgresAuditStore",
    "ToolCall",
    "TurnRecord",
]
