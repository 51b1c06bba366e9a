"""The contract of `AuditStore`, run against every backend: saving many records at once."""

from __future__ import annotations

from uuid import uuid4

import pytest

from soldier_data.audit import AuditStore
from soldier_data.errors import ConflictError, ValidationError
from tests.cases.kind import exactly
from tests.contract.audit_kinds import Kind, every_kind


@every_kind
async def test_many_records_are_saved_at_once_in_every_field(audit_store: AuditStore, kind: Kind) -> None:
    tenant_id = uuid4()
    records = [kind.make(tenant_id=tenant_id, **kind.full()) for _ in range(3)]
    records += [kind.make(tenant_id=tenant_id) for _ in range(40)]
    assert await kind.save_all(audit_store, records) == 43
    for record in records:
        assert exactly(await kind.get(audit_store, record)) == exactly(record)


@every_kind
async def test_an_empty_list_is_no_work_and_any_iterable_will_do(audit_store: AuditStore, kind: Kind) -> None:
    assert await kind.save_all(audit_store, []) == 0
    record = kind.make()
    assert await kind.save_all(audit_store, (each for each in [record])) == 1
    assert await kind.get(audit_store, record) == record


@every_kind
async def test_records_stored_before_count_too(audit_store: AuditStore, kind: Kind) -> None:
    tenant_id = uuid4()
    records = [kind.make(tenant_id=tenant_id) for _ in range(4)]
    await kind.save(audit_store, records[1])
    for _ in range(2):
        assert await kind.save_all(audit_store, records) == 4
    for record in records:
        assert await kind.get(audit_store, record) == record


@every_kind
async def test_the_same_record_may_be_in_the_list_twice(audit_store: AuditStore, kind: Kind) -> None:
    record = kind.make()
    other = kind.make(tenant_id=record.tenant_id)
    assert await kind.save_all(audit_store, [record, other, record.model_copy(deep=True)]) == 3
    assert await kind.get(audit_store, record) == record
    assert await kind.get(audit_store, other) == other


@every_kind
async def test_two_different_records_under_one_id_are_refused_together(
    audit_store: AuditStore, kind: Kind
) -> None:
    record = kind.make()
    other = kind.make(tenant_id=record.tenant_id)
    different = record.model_copy(update={"session_id": uuid4()})
    with pytest.raises(ConflictError, match=str(kind.id(record))):
        await kind.save_all(audit_store, [other, record, different])
    assert await kind.get(audit_store, record) is None
    assert await kind.get(audit_store, other) is None


@every_kind
async def test_one_record_that_differs_from_the_stored_one_refuses_all(
    audit_store: AuditStore, kind: Kind
) -> None:
    stored = kind.make()
    others = [kind.make(tenant_id=stored.tenant_id) for _ in range(4)]
    await kind.save(audit_store, stored)
    different = stored.model_copy(update={"session_id": uuid4()})
    with pytest.raises(ConflictError, match=str(kind.id(stored))):
        await kind.save_all(audit_store, [*others[:2], different, *others[2:]])
    assert await kind.get(audit_store, stored) == stored
    for other in others:
        assert await kind.get(audit_store, other) is None


@every_kind
async def test_records_of_several_tenants_are_refused(audit_store: AuditStore, kind: Kind) -> None:
    records = [kind.make(), kind.make()]
    with pytest.raises(ValidationError, match=rf"^{kind.name}s\[1\].tenant_id") as caught:
        await kind.save_all(audit_store, records)
    assert caught.value.field == "tenant_id"
    for record in records:
        assert await kind.get(audit_store, record) is None


@every_kind
async def test_one_record_that_cannot_be_stored_refuses_all_and_its_place_is_named(
    audit_store: AuditStore, kind: Kind
) -> None:
    fine = kind.make()
    faulty = kind.nested("\x00", tenant_id=fine.tenant_id)
    with pytest.raises(ValidationError, match=rf"^{kind.name}s\[1\]: ") as caught:
        await kind.save_all(audit_store, [fine, faulty])
    assert (caught.value.field or "").startswith(("tool_calls[0].output", "event_data"))
    assert await kind.get(audit_store, fine) is None
