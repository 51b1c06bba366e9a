"""What the state machine does to the audit, run and vector stores."""

from __future__ import annotations

from decimal import Decimal

from hypothesis import strategies as st

from soldier_data.audit import AuditEvent, AuditStore, ToolCall, TurnRecord
from soldier_data.runs import Artifact, LLMCall, Run, RunStatus, RunStore, Step
from soldier_data.vectors import Embedding, VectorStore
from tests.reliability.operations.values import (
    JSON,
    LIMITS,
    MOMENTS,
    NAMES,
    OFFSETS,
    REVISIONS,
    TENANT,
    TO_DELETE,
    VECTORS,
    certain,
    cursors,
    entities,
    ids,
    lists,
    subjects,
)
from tests.reliability.side_by_side import Operations, call

TURN_IDS = ids(20, 4)
TURN = st.sampled_from(TURN_IDS)
SESSION = st.sampled_from(ids(30, 2))

TURNS = entities(
    TurnRecord,
    turn_id=TURN,
    agent_id=SESSION,
    session_id=SESSION,
    turn_number=st.sampled_from([0, 1]),
    user_message=st.just("Where is it?"),
    agent_response=st.just("On its way."),
    matched_rule_ids=st.lists(SESSION, max_size=1),
    tool_calls=st.lists(
        st.builds(
            ToolCall,
            tool_id=st.just("t"),
            tool_name=st.just("t"),
            input=JSON,
            output=JSON,
            success=st.just(True),
            latency_ms=st.just(1.5),
        ),
        max_size=1,
    ),
    latency_ms=st.just(2.5),
    tokens_used=st.just(3),
    timestamp=MOMENTS,
)
EVENTS = entities(
    AuditEvent,
    id=TURN,
    event_type=NAMES,
    event_data=JSON,
    session_id=st.none() | SESSION,
    turn_id=st.none() | TURN,
    timestamp=MOMENTS,
)

PEOPLE = subjects(ids(80, 1), ids(30, 2))

AUDIT = Operations(
    store="audit",
    contract=AuditStore,
    first=[
        call(
            "save_turns", st.tuples(certain(TURNS, turn_id=TURN_IDS[0]), certain(TURNS, turn_id=TURN_IDS[1]))
        ),
        call("save_event", certain(EVENTS)),
    ],
    reads=[
        call("get_turn", TENANT, TURN),
        call("list_turns_by_session", TENANT, SESSION, limit=LIMITS, offset=OFFSETS),
        call(
            "list_turns_by_tenant",
            TENANT,
            start_time=st.none() | MOMENTS,
            end_time=st.none() | MOMENTS,
            limit=LIMITS,
            before=cursors(TURN_IDS),
        ),
        call("get_event", TENANT, TURN),
        call("list_events_by_session", TENANT, SESSION, event_type=st.none() | NAMES, limit=LIMITS),
        call("export_subject", PEOPLE),
    ],
    writes=[
        call("save_turn", TURNS),
        call("save_turns", lists(TURNS)),
        call("save_event", EVENTS),
        call("save_events", lists(EVENTS)),
        call("erase_subject", PEOPLE),
    ],
)

RUN_IDS = ids(40)
RUN = st.sampled_from(RUN_IDS)
PART = st.sampled_from(ids(50))
STATUSES = st.sampled_from([RunStatus.RUNNING, RunStatus.COMPLETED])
COSTS = st.sampled_from([Decimal(0), Decimal("0.1"), Decimal("1e-15"), Decimal("999999999.000000000000001")])

RUNS = entities(
    Run,
    id=RUN,
    actor=NAMES,
    request_payload=JSON,
    status=STATUSES,
    trace_id=NAMES,
    idempotency_key=st.none() | NAMES,
    created_at=MOMENTS,
    completed_at=st.none() | MOMENTS,
    deleted_at=TO_DELETE,
)
STEPS = entities(
    Step,
    id=PART,
    run_id=RUN,
    step_number=st.sampled_from([0, 1]),
    node_name=NAMES,
    input_data=st.none() | JSON,
    output_data=st.sampled_from([1, 1.0, True, None, "x", [1]]),
    started_at=MOMENTS,
    status=STATUSES,
)
ARTIFACTS = entities(
    Artifact, id=PART, run_id=RUN, artifact_type=NAMES, url=NAMES, metadata=JSON, created_at=MOMENTS
)
LLM_CALLS = entities(
    LLMCall,
    id=PART,
    run_id=RUN,
    step_id=st.none() | PART,
    model=NAMES,
    provider=NAMES,
    prompt_tokens=st.sampled_from([0, 7, 2**63 - 1]),
    completion_tokens=st.sampled_from([0, 2**63 - 1]),
    total_tokens=st.just(9),
    cost_usd=COSTS,
    created_at=MOMENTS,
)

ACTORS = subjects(ids(80, 1), external_ids=st.frozensets(NAMES, max_size=1))

RUN_OPERATIONS = Operations(
    store="runs",
    contract=RunStore,
    first=[
        call("save_run", certain(RUNS, id=RUN_IDS[0], trace_id="a", idempotency_key="a")),
        call("save_run", certain(RUNS, id=RUN_IDS[1], trace_id="b", idempotency_key=None)),
        call("save_step", certain(STEPS, run_id=RUN_IDS[0])),
        call("save_artifact", certain(ARTIFACTS, run_id=RUN_IDS[0])),
        call("save_llm_call", certain(LLM_CALLS, run_id=RUN_IDS[0], step_id=None)),
    ],
    reads=[
        call("get_run", TENANT, RUN),
        call("get_run_by_trace_id", TENANT, NAMES),
        call("get_run_by_idempotency_key", TENANT, NAMES),
        call(
            "list_runs",
            TENANT,
            NAMES,
            status=st.none() | STATUSES,
            limit=LIMITS,
            offset=OFFSETS,
            before=cursors(RUN_IDS),
        ),
        call("count_runs", TENANT, NAMES, status=st.none() | STATUSES),
        call("get_run_stats", TENANT, RUN),
        call("get_steps", TENANT, RUN),
        call("get_artifacts", TENANT, RUN),
        call("get_llm_calls", TENANT, RUN),
        call("export_subject", ACTORS),
    ],
    writes=[
        # Nothing else can be stored without a run.
        call("save_run", RUNS),
        call("save_run", RUNS, if_revision=REVISIONS),
        call("save_step", STEPS),
        call("save_artifact", ARTIFACTS),
        call("save_llm_call", LLM_CALLS),
        call("delete_run", TENANT, RUN),
        call("delete_step", TENANT, PART),
        call("erase_subject", ACTORS),
    ],
)

EMBEDDING_IDS = ids(60, 4)
SOURCE_IDS = ids(90, 2)
SOURCES = st.sampled_from(["s", str(SOURCE_IDS[0]), SOURCE_IDS[1].hex])
EMBEDDINGS = entities(
    Embedding,
    id=st.sampled_from(EMBEDDING_IDS),
    content=NAMES,
    embedding=VECTORS,
    metadata=JSON,
    source_type=SOURCES,
    source_id=SOURCES,
    created_at=MOMENTS,
)

VECTOR_OPERATIONS = Operations(
    store="vectors",
    contract=VectorStore,
    first=[
        call("add_embeddings", st.tuples(*[certain(EMBEDDINGS, id=id_) for id_ in EMBEDDING_IDS[:3]])),
    ],
    reads=[
        call("search", VECTORS, TENANT),
        call(
            "search",
            VECTORS,
            TENANT,
            source_type=st.none() | SOURCES,
            metadata_filter=st.none() | JSON,
            limit=LIMITS,
            min_score=st.sampled_from([None, 0.0, 0.5, -1.0]),
        ),
        call("export_subject", subjects(SOURCE_IDS)),
    ],
    writes=[
        call("add_embedding", EMBEDDINGS),
        call("add_embeddings", lists(EMBEDDINGS)),
        call("delete_by_source", TENANT, SOURCES),
        call("erase_subject", subjects(SOURCE_IDS)),
    ],
)
