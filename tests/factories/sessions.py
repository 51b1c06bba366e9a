from __future__ import annotations

from uuid import uuid4

import factory

from soldier_data.sessions import Channel, Session, StepVisit


class StepVisitFactory(factory.Factory):  # factory-boy ships no types.
    class Meta:
        model = StepVisit

    step_id = factory.LazyFunction(uuid4)
    step_name = factory.Sequence(lambda number: f"step {number}")
    turn_number = factory.Sequence(lambda number: number)
    step_content_hash = factory.LazyFunction(lambda: uuid4().hex)


class SessionFactory(factory.Factory):  # As above.
    """A session in the middle of a scenario, so that every look-up finds it."""

    class Meta:
        model = Session

    tenant_id = factory.LazyFunction(uuid4)
    agent_id = factory.LazyFunction(uuid4)
    channel = Channel.WEBCHAT
    user_channel_id = factory.Sequence(lambda number: f"customer-{number}")
    customer_profile_id = factory.LazyFunction(uuid4)
    config_version = 1
    active_scenario_id = factory.LazyFunction(uuid4)
    active_step_id = factory.LazyFunction(uuid4)
    active_scenario_version = 1
    step_history = factory.List([factory.SubFactory(StepVisitFactory) for _ in range(2)])
    variables = factory.LazyFunction(lambda: {"order": {"id": "A-1", "lines": [1, 2.5, None, True]}})
