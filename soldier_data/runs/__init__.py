"""Runs of an agent executor, with their steps, artifacts and LLM calls."""

from soldier_data.base.paging import Cursor
from soldier_data.runs.inmemory import InMemoryRunStore
from soldier_data.runs.models import Artifact, LLMCall, Run, RunStats, RunStatus, Step
from soldier_data.runs.postgres import PostgresRunStore
from soldier_data.runs.store import RunStore

__all__ = [
    "Artifact",
    "Cursor",
    "InMemoryRunStore",
    "LLMCall",
    "PostgresRunStore",
    "Run",
    "RunStats",
    "RunStatus",
    "RunStore",
    "Step",
]
