"""Plans for migrating running sessions from one version of a scenario to another."""

from __future__ import annotations

from enum import StrEnum
from uuid import UUID

from pydantic import Field

from soldier_data.base.models import Model, Moment, new_id, utcnow
from soldier_data.base.scope_filters import ScopeFilter


class MigrationPlanStatus(StrEnum):
    """The status of a plan."""

    PENDING = "pending"
    APPROVED = "approved"
    DEPLOYED = "deployed"
    SUPERSEDED = "superseded"
    REJECTED = "rejected"


class MigrationScenario(StrEnum):
    """The way in which a session at an anchor migrates to the new version."""

    CLEAN_GRAFT = "clean_graft"
    GAP_FILL = "gap_fill"
    RE_ROUTE = "re_route"


class InsertedNode(Model):
    """A step that the new version adds."""

    node_id: UUID
    node_name: str
    collects_fields: list[str] = Field(default_factory=list)
    has_rules: bool = False
    is_required_action: bool = False
    is_checkpoint: bool = False


class ForkBranch(Model):
    """A branch of a fork."""

    target_step_id: UUID
    target_step_name: str
    condition_text: str
    condition_fields: list[str] = Field(default_factory=list)


class NewFork(Model):
    """A fork that the new version adds."""

    fork_node_id: UUID
    fork_node_name: str
    branches: list[ForkBranch] = Field(default_factory=list)


class DeletedNode(Model):
    """A step that the new version removes."""

    node_id_v1: UUID
    node_name: str
    nearest_anchor_hash: str | None = None
    nearest_anchor_id_v2: UUID | None = None


class TransitionChange(Model):
    """A transition with a different target."""

    from_step_id: UUID
    to_step_id_v1: UUID | None = None
    to_step_id_v2: UUID | None = None
    change_type: str


class _Changes(Model):
    inserted_nodes: list[InsertedNode] = Field(default_factory=list)
    removed_node_ids: list[UUID] = Field(default_factory=list)
    new_forks: list[NewFork] = Field(default_factory=list)
    modified_transitions: list[TransitionChange] = Field(default_factory=list)


class UpstreamChanges(_Changes):
    """Changes before an anchor."""


class DownstreamChanges(_Changes):
    """Changes after an anchor."""


class AnchorTransformation(Model):
    """The changes around an anchor: a step that both versions contain, identified by its content."""

    anchor_content_hash: str
    anchor_name: str
    anchor_node_id_v1: UUID
    anchor_node_id_v2: UUID
    upstream_changes: UpstreamChanges = Field(default_factory=UpstreamChanges)
    downstream_changes: DownstreamChanges = Field(default_factory=DownstreamChanges)
    migration_scenario: MigrationScenario


class TransformationMap(Model):
    """All differences between two versions."""

    anchors: list[AnchorTransformation] = Field(default_factory=list)
    deleted_nodes: list[DeletedNode] = Field(default_factory=list)
    new_node_ids: list[UUID] = Field(default_factory=list)

    def get_anchor_by_hash(self, content_hash: str) -> AnchorTransformation | None:
        """Return the anchor with this content hash, or None."""
        return next((anchor for anchor in self.anchors if anchor.anchor_content_hash == content_hash), None)


class AnchorMigrationPolicy(Model):
    """A reviewer's decision about an anchor."""

    anchor_content_hash: str
    anchor_name: str
    scope_filter: ScopeFilter = Field(default_factory=ScopeFilter)
    update_downstream: bool = True
    force_scenario: MigrationScenario | None = None


class MigrationWarning(Model):
    """A warning for reviewers."""

    severity: str
    anchor_name: str
    message: str
    affected_sessions_estimate: int = Field(default=0, ge=0)


class FieldCollectionInfo(Model):
    """A profile field that migrated sessions must ask for."""

    field_name: str
    display_name: str
    affected_anchors: list[str] = Field(default_factory=list)
    reason: str
    can_extract_from_conversation: bool = True


class MigrationSummary(Model):
    """The numbers of a plan."""

    total_anchors: int = 0
    anchors_with_clean_graft: int = 0
    anchors_with_gap_fill: int = 0
    anchors_with_re_route: int = 0
    nodes_deleted: int = 0
    estimated_sessions_affected: int = 0
    sessions_by_anchor: dict[str, int] = Field(default_factory=dict)
    warnings: list[MigrationWarning] = Field(default_factory=list)
    fields_to_collect: list[FieldCollectionInfo] = Field(default_factory=list)


class MigrationPlan(Model):
    """A plan for migrating the sessions of a scenario from one version to another.

    Attributes:
        updated_at: Time of the last save.
        revision: Number of saves, 0 before the first. Pass it as `if_revision` to save conditionally.
    """

    id: UUID = Field(default_factory=new_id)
    tenant_id: UUID
    scenario_id: UUID
    from_version: int
    to_version: int
    scenario_checksum_v1: str
    scenario_checksum_v2: str
    transformation_map: TransformationMap = Field(default_factory=TransformationMap)
    anchor_policies: dict[str, AnchorMigrationPolicy] = Field(default_factory=dict)
    summary: MigrationSummary = Field(default_factory=MigrationSummary)
    status: MigrationPlanStatus = MigrationPlanStatus.PENDING
    created_at: Moment = Field(default_factory=utcnow)
    created_by: str | None = None
    approved_at: Moment | None = None
    approved_by: str | None = None
    deployed_at: Moment | None = None
    expires_at: Moment | None = None
    updated_at: Moment = Field(default_factory=utcnow)
    revision: int = Field(default=0, ge=0)
