"""The data layer of a conversational-AI agent platform.

The public names are imported on first use, so that `import soldier_data` is fast.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from soldier_data.audit import AuditEvent as AuditEvent
    from soldier_data.audit import AuditStore as AuditStore
    from soldier_data.audit import TurnRecord as TurnRecord
    from soldier_data.base.paging import Cursor as Cursor
    from soldier_data.config import Agent as Agent
    from soldier_data.config import AgentSettings as AgentSettings
    from soldier_data.config import ConfigStore as ConfigStore
    from soldier_data.config import Rule as Rule
    from soldier_data.config import Scenario as Scenario
    from soldier_data.config import ScenarioStep as ScenarioStep
    from soldier_data.config import StepTransition as StepTransition
    from soldier_data.config import Template as Template
    from soldier_data.config import ToolActivation as ToolActivation
    from soldier_data.config import Variable as Variable
    from soldier_data.data_layer import DataLayer as DataLayer
    from soldier_data.errors import ConfigurationError as ConfigurationError
    from soldier_data.errors import ConflictError as ConflictError
    from soldier_data.errors import NotFoundError as NotFoundError
    from soldier_data.errors import StoreConnectionError as StoreConnectionError
    from soldier_data.errors import StoreError as StoreError
    from soldier_data.errors import ValidationError as ValidationError
    from soldier_data.health import HealthReport as HealthReport
    from soldier_data.memory import Entity as Entity
    from soldier_data.memory import Episode as Episode
    from soldier_data.memory import MemoryStore as MemoryStore
    from soldier_data.memory import Relationship as Relationship
    from soldier_data.postgres.vector_codec import prepare_engine as prepare_engine
    from soldier_data.privacy import CustomerExport as CustomerExport
    from soldier_data.privacy import ErasureReport as ErasureReport
    from soldier_data.profiles import CustomerProfile as CustomerProfile
    from soldier_data.profiles import ProfileField as ProfileField
    from soldier_data.profiles import ProfileStore as ProfileStore
    from soldier_data.runs import Artifact as Artifact
    from soldier_data.runs import LLMCall as LLMCall
    from soldier_data.runs import Run as Run
    from soldier_data.runs import RunStatus as RunStatus
    from soldier_data.runs import RunStore as RunStore
    from soldier_data.runs import Step as Step
    from soldier_data.sessions import Channel as Channel
    from soldier_data.sessions import Session as Session
    from soldier_data.sessions import SessionStatus as SessionStatus
    from soldier_data.sessions import SessionStore as SessionStore
    from soldier_data.sessions import StepVisit as StepVisit
    from soldier_data.settings import Settings as Settings
    from soldier_data.unit_of_work import UnitOfWork as UnitOfWork
    from soldier_data.vectors import Embedding as Embedding
    from soldier_data.vectors import VectorStore as VectorStore

_NAMES_BY_MODULE = {
    "soldier_data.audit": ("AuditEvent", "AuditStore", "TurnRecord"),
    "soldier_data.base.paging": ("Cursor",),
    "soldier_data.config": (
        "Agent",
        "AgentSettings",
        "ConfigStore",
        "Rule",
        "Scenario",
        "ScenarioStep",
        "StepTransition",
        "Template",
        "ToolActivation",
        "Variable",
    ),
    "soldier_data.data_layer": ("DataLayer",),
    "soldier_data.errors": (
        "ConfigurationError",
        "ConflictError",
        "NotFoundError",
        "StoreConnectionError",
        "StoreError",
        "ValidationError",
    ),
    "soldier_data.health": ("HealthReport",),
    "soldier_data.memory": ("Entity", "Episode", "MemoryStore", "Relationship"),
    "soldier_data.postgres.vector_codec": ("prepare_engine",),
    "soldier_data.privacy": ("CustomerExport", "ErasureReport"),
    "soldier_data.profiles": ("CustomerProfile", "ProfileField", "ProfileStore"),
    "soldier_data.runs": ("Artifact", "LLMCall", "Run", "RunStatus", "RunStore", "Step"),
    "soldier_data.sessions": ("Channel", "Session", "SessionStatus", "SessionStore", "StepVisit"),
    "soldier_data.settings": ("Settings",),
    "soldier_data.unit_of_work": ("UnitOfWork",),
    "soldier_data.vectors": ("Embedding", "VectorStore"),
}
_MODULE_OF = {name: module for module, names in _NAMES_BY_MODULE.items() for name in names}

__version__ = "0.2.0"

__all__ = [*_MODULE_OF]  # noqa: PLE0604 - They are names.


def __getattr__(name: str) -> Any:
    module = _MODULE_OF.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(module), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_MODULE_OF])
