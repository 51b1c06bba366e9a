"""What the state machine does to the profile and session stores."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from hypothesis import strategies as st

from soldier_data.base.channels import Channel
from soldier_data.base.scope_filters import ScopeFilter
from soldier_data.profiles import (
    ChannelIdentity,
    Consent,
    CustomerProfile,
    ProfileAsset,
    ProfileField,
    ProfileFieldSource,
    ProfileStore,
)
from soldier_data.sessions import PendingMigration, Session, SessionStatus, SessionStore, StepVisit
from tests.reliability.operations.values import (
    AGES,
    FLAGS,
    JSON,
    LIMITS,
    MOMENTS,
    NAMES,
    OWNER,
    REVISIONS,
    TENANT,
    TO_DELETE,
    certain,
    entities,
    ids,
    subjects,
)
from tests.reliability.side_by_side import MADE, Operations, call

CHANNELS = st.sampled_from([Channel.EMAIL, Channel.SLACK])
ADDRESSES = st.sampled_from(["ada", "bob"])
# What `get_or_create` makes has an id and a customer_id of the store's own.
PROFILE_IDS, CUSTOMER_IDS = ids(20), ids(40, 4)
PROFILE = st.sampled_from([*PROFILE_IDS, *PROFILE_IDS, *MADE[:4]])
NOON = datetime(2020, 1, 1, 12, tzinfo=UTC)

FIELDS = st.builds(
    ProfileField,
    name=NAMES,
    value=st.sampled_from([1, 1.0, True, None, "x", {"a": 1}]),
    value_type=st.just("any"),
    source=st.just(ProfileFieldSource.USER_PROVIDED),
    collected_at=st.just(NOON),
    updated_at=MOMENTS,
    replaced_at=st.none() | MOMENTS,
)
ASSETS = st.builds(
    ProfileAsset,
    id=st.sampled_from(ids(30)),
    name=NAMES,
    asset_type=st.just("t"),
    storage_provider=st.just("s3"),
    storage_path=st.just("p"),
    mime_type=st.just("m"),
    size_bytes=st.just(1),
    checksum=st.just("c"),
    uploaded_at=st.just(NOON),
    verification_result=st.none() | JSON,
)
IDENTITIES = st.builds(ChannelIdentity, channel=CHANNELS, channel_user_id=ADDRESSES, verified=FLAGS)
CONSENTS = st.builds(Consent, consent_type=NAMES, granted=FLAGS)
PROFILES = entities(
    CustomerProfile,
    id=PROFILE,
    customer_id=st.sampled_from([*CUSTOMER_IDS, *MADE[:2]]),
    external_id=st.none() | NAMES,
    channel_identities=st.lists(IDENTITIES, max_size=2),
    fields=st.lists(FIELDS, max_size=2).map(lambda found: {field.name: field for field in found}),
    assets=st.lists(ASSETS, max_size=2),
    consents=st.lists(CONSENTS, max_size=2),
    last_interaction_at=st.none() | MOMENTS,
    created_at=MOMENTS,
    deleted_at=TO_DELETE,
)

PEOPLE = subjects([*PROFILE_IDS, *MADE[:4]])

PROFILE_OPERATIONS = Operations(
    store="profiles",
    contract=ProfileStore,
    first=[
        call("save", certain(PROFILES, id=PROFILE_IDS[0], customer_id=CUSTOMER_IDS[0])),
        call(
            "save",
            certain(
                PROFILES,
                id=PROFILE_IDS[1],
                customer_id=CUSTOMER_IDS[1],
                external_id=None,
                channel_identities=[],
            ),
        ),
        call("get_or_create", st.just(OWNER), CHANNELS, st.just("eve")),
    ],
    reads=[
        call("get_by_id", TENANT, PROFILE),
        call("get_by_customer_id", TENANT, st.sampled_from([*CUSTOMER_IDS, *MADE[:4]])),
        call("get_by_channel_identity", TENANT, CHANNELS, ADDRESSES),
        call("get_field_history", TENANT, PROFILE, NAMES),
        call("get_data_subject", TENANT, PROFILE),
        call("export_subject", PEOPLE),
    ],
    writes=[
        call("get_or_create", TENANT, CHANNELS, ADDRESSES),
        call("save", PROFILES),
        call("save", PROFILES, if_revision=REVISIONS),
        call("delete", TENANT, PROFILE),
        call("update_field", TENANT, PROFILE, FIELDS),
        call("add_asset", TENANT, PROFILE, ASSETS),
        call("link_channel", TENANT, PROFILE, IDENTITIES),
        call("merge_profiles", TENANT, PROFILE, PROFILE),
        call("purge_deleted", TENANT, AGES),
        call("erase_subject", PEOPLE),
    ],
)

# An id of a session is one of all tenants.
SESSION_IDS = ids(50)
SESSION = st.sampled_from(SESSION_IDS)
AGENT = st.sampled_from(ids(60, 2))
OF_SESSIONS = subjects(ids(60, 2), identities=st.frozensets(st.tuples(CHANNELS, ADDRESSES), max_size=2))
HASHES = st.sampled_from(["h1", "h2"])
STATUSES = st.sampled_from([SessionStatus.ACTIVE, SessionStatus.ACTIVE, SessionStatus.CLOSED])

SESSIONS = entities(
    Session,
    session_id=SESSION,
    agent_id=AGENT,
    channel=CHANNELS,
    user_channel_id=ADDRESSES,
    customer_profile_id=st.none() | AGENT,
    config_version=st.just(1),
    active_scenario_id=st.none() | AGENT,
    active_scenario_version=st.sampled_from([None, 1, 2]),
    step_history=st.lists(
        st.builds(
            StepVisit,
            step_id=AGENT,
            step_name=NAMES,
            turn_number=st.just(1),
            entered_at=MOMENTS,
            step_content_hash=st.none() | HASHES,
        ),
        max_size=2,
    ),
    variables=JSON,
    turn_count=st.sampled_from([0, 1]),
    status=STATUSES,
)
SCOPES = st.builds(
    ScopeFilter,
    include_channels=st.lists(CHANNELS, max_size=1),
    exclude_current_nodes=st.lists(NAMES, max_size=1),
    max_session_age_days=st.sampled_from([None, 0, 1]),
    min_session_age_days=st.sampled_from([None, 0, 1]),
)

SESSION_OPERATIONS = Operations(
    store="sessions",
    contract=SessionStore,
    first=[
        call("save", certain(SESSIONS, session_id=SESSION_IDS[0])),
        call("save", certain(SESSIONS, session_id=SESSION_IDS[1])),
    ],
    reads=[
        call("get", SESSION),
        call("get", SESSION, tenant_id=TENANT),
        call("get_by_channel", TENANT, CHANNELS, ADDRESSES),
        call("list_by_channel", TENANT, CHANNELS, ADDRESSES, limit=LIMITS),
        call("list_by_agent", TENANT, AGENT, status=st.none() | STATUSES, limit=LIMITS),
        call("list_by_customer", TENANT, AGENT, limit=LIMITS),
        call("list_by_subject", OF_SESSIONS),
        call(
            "find_sessions_by_step_hash", TENANT, AGENT, st.sampled_from([1, 2]), HASHES, st.none() | SCOPES
        ),
        call("health_check"),
    ],
    writes=[
        call("save", SESSIONS),
        call("save", SESSIONS, if_revision=REVISIONS),
        call("delete", SESSION, tenant_id=st.none() | TENANT),
        call("delete_many", TENANT, st.lists(SESSION, max_size=3)),
        call(
            "mark_pending_migration",
            TENANT,
            st.lists(SESSION, max_size=3),
            st.builds(
                PendingMigration,
                target_version=st.just(2),
                anchor_content_hash=HASHES,
                migration_plan_id=AGENT,
                marked_at=MOMENTS,
            ),
        ),
    ],
    run_ids=tuple(SESSION_IDS),
    has_units=False,
)


def _of_one_tenant(session: Session) -> Session:
    """The session under an id that only its tenant uses."""
    is_owners = session.tenant_id == OWNER
    if is_owners == (session.session_id != SESSION_IDS[-1]):
        return session
    return session.model_copy(update={"session_id": SESSION_IDS[0 if is_owners else -1]})


# PostgreSQL knows a session by its tenant and its id, so another tenant's id is refused only if Redis has the session.
DURABLE_SESSION_OPERATIONS = replace(
    SESSION_OPERATIONS,
    writes=[
        call("save", SESSIONS.map(_of_one_tenant)),
        call("save", SESSIONS.map(_of_one_tenant), if_revision=REVISIONS),
        *(calls for calls in SESSION_OPERATIONS.writes if calls.method != "save"),
    ],
)
