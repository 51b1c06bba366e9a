"""The names of the Redis keys."""

from __future__ import annotations

import re
from uuid import UUID

from soldier_data.base.channels import Channel
from soldier_data.sessions.models import Session, SessionStatus
from soldier_data.sessions.semantics import StepPlace, step_place

# What follows the prefix in the key of an index, and in no key of a deployment whose prefix begins with ours.
_INDEX = (
    "(?:channel:{id}:[^:]+:.*|agent:{id}:{id}(?::(?:{statuses}))?|customer:{id}:{id}|step:{id}:{id}:-?[0-9]+:.*)"
).format(id="[0-9a-f]{32}", statuses="|".join(SessionStatus))


class SessionKeys:
    """Makes key names.

    The two keys of a session share a cluster slot, for the braces; the indexes lie wherever they fall. An
    index is a sorted set of session ids, scored by last activity in microseconds. Its name holds ids as bare
    hexadecimal digits, which a UUID gives in half the time.
    """

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._index = re.compile(f"{re.escape(prefix)}:{_INDEX}".encode(), re.DOTALL)

    def session(self, session_id: UUID | str) -> tuple[str, str]:
        """The hot and the persistent key."""
        return f"{self._prefix}:hot:{{{session_id}}}", f"{self._prefix}:persist:{{{session_id}}}"

    def deleted(self, session_id: UUID) -> str:
        """Holds the write id of the call that deleted the session, for a minute; in the slot of its keys."""
        return f"{self._prefix}:deleted:{{{session_id}}}"

    def pattern(self, kind: str) -> str:
        """Matches every key of the kind; for SCAN. Kinds are "hot" and "persist", or "*" for all."""
        prefix = "".join(f"\\{letter}" if letter in "*?[]\\^-" else letter for letter in self._prefix)
        return f"{prefix}:{kind}:*"

    def is_index(self, key: bytes) -> bool:
        """Whether this is the key of an index, and not one that somebody else made under our prefix."""
        return self._index.fullmatch(key) is not None

    def session_id(self, key: bytes, kind: str) -> UUID | None:
        """The id in a session's key of that kind, or None if it is none: somebody else's can match the pattern."""
        start = f"{self._prefix}:{kind}:{{".encode()
        text = key.removeprefix(start).removesuffix(b"}")
        try:
            session_id = UUID(text.decode())
        except ValueError:
            return None
        return session_id if key == b"%b%b}" % (start, str(session_id).encode()) else None

    def channel(self, tenant_id: UUID, channel: Channel, user_channel_id: str) -> str:
        """Index of a customer's address on a channel."""
        return f"{self._prefix}:channel:{tenant_id.hex}:{channel}:{user_channel_id}"

    def agent(self, tenant_id: UUID, agent_id: UUID, status: SessionStatus | None = None) -> str:
        """Index of an agent's sessions, or of those with one status."""
        key = f"{self._prefix}:agent:{tenant_id.hex}:{agent_id.hex}"
        return key if status is None else f"{key}:{status}"

    def customer(self, tenant_id: UUID, customer_profile_id: UUID) -> str:
        """Index of a customer's sessions."""
        return f"{self._prefix}:customer:{tenant_id.hex}:{customer_profile_id.hex}"

    def step(self, tenant_id: UUID, place: StepPlace) -> str:
        """Index of the active sessions that stand at a step."""
        scenario_id, version, content_hash = place
        return f"{self._prefix}:step:{tenant_id.hex}:{scenario_id.hex}:{version}:{content_hash}"

    def indexes(self, session: Session) -> list[str]:
        """Every index that the session belongs in. An entry for it anywhere else is stale."""
        tenant_id = session.tenant_id
        of_agent = self.agent(tenant_id, session.agent_id)
        keys = [
            self.channel(tenant_id, session.channel, session.user_channel_id),
            of_agent,
            f"{of_agent}:{session.status}",
        ]
        if session.customer_profile_id is not None:
            keys.append(self.customer(tenant_id, session.customer_profile_id))
        place = step_place(session)
        if place is not None:
            keys.append(self.step(tenant_id, place))
        return keys
