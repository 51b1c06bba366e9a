"""The names of the Redis keys."""

from __future__ import annotations

import re
from uuid import UUID

from soldier_data.base.channels import Channel
from soldier_data.sessions.models import Session, SessionStatus
from soldier_data.sessions.step_places import StepPlace, step_place

# What follows the prefix in an index key. It matches no key of a deployment whose prefix begins with ours.
_INDEX = (
    "(?:channel:{id}:[^:]+:.*|agent:{id}:{id}(?::(?:{statuses}))?|customer:{id}:{id}|step:{id}:{id}:-?[0-9]+:.*)"
).format(id="[0-9a-f]{32}", statuses="|".join(SessionStatus))


class SessionKeys:
    """Builder of key names.

    The braces put the keys of one session into the same cluster slot; the indexes are in any slot. An index is a
    sorted set of session ids, scored by last activity in microseconds. Its name holds ids in hexadecimal
    without hyphens, which takes half the time to format.
    """

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._index = re.compile(f"{re.escape(prefix)}:{_INDEX}".encode(), re.DOTALL)

    def session(self, session_id: UUID | str) -> tuple[str, str]:
        """Return the hot and the persistent key of a session."""
        return f"{self._prefix}:hot:{{{session_id}}}", f"{self._prefix}:persist:{{{session_id}}}"

    def deleted(self, session_id: UUID) -> str:
        """Return the key that holds, for a minute, the write id of the call that deleted the session."""
        return f"{self._prefix}:deleted:{{{session_id}}}"

    def pattern(self, kind: str) -> str:
        """Return the SCAN pattern of the keys of a kind: "hot", "persist", or "*" for all keys."""
        prefix = "".join(f"\\{letter}" if letter in "*?[]\\^-" else letter for letter in self._prefix)
        return f"{prefix}:{kind}:*"

    def is_index(self, key: bytes) -> bool:
        """Return whether this is the key of an index, rather than a foreign key with the same prefix."""
        return self._index.fullmatch(key) is not None

    def session_id(self, key: bytes, kind: str) -> UUID | None:
        """Return the session id in a key of a kind, or None for a foreign key with the same prefix."""
        start = f"{self._prefix}:{kind}:{{".encode()
        text = key.removeprefix(start).removesuffix(b"}")
        try:
            session_id = UUID(text.decode())
        except ValueError:
            return None
        return session_id if key == b"%b%b}" % (start, str(session_id).encode()) else None

    def channel(self, tenant_id: UUID, channel: Channel, user_channel_id: str) -> str:
        """Return the key of the index of a customer's address on a channel."""
        return f"{self._prefix}:channel:{tenant_id.hex}:{channel}:{user_channel_id}"

    def agent(self, tenant_id: UUID, agent_id: UUID, status: SessionStatus | None = None) -> str:
        """Return the key of the index of an agent's sessions, or of those with one status."""
        key = f"{self._prefix}:agent:{tenant_id.hex}:{agent_id.hex}"
        return key if status is None else f"{key}:{status}"

    def customer(self, tenant_id: UUID, customer_profile_id: UUID) -> str:
        """Return the key of the index of a customer's sessions."""
        return f"{self._prefix}:customer:{tenant_id.hex}:{customer_profile_id.hex}"

    def step(self, tenant_id: UUID, place: StepPlace) -> str:
        """Return the key of the index of the active sessions at a step."""
        scenario_id, version, content_hash = place
        return f"{self._prefix}:step:{tenant_id.hex}:{scenario_id.hex}:{version}:{content_hash}"

    def indexes(self, session: Session) -> list[str]:
        """Return the keys of all indexes that list the session. An entry in any other index is stale."""
        tenant_id = session.tenant_id
        agent_key = self.agent(tenant_id, session.agent_id)
        keys = [
            self.channel(tenant_id, session.channel, session.user_channel_id),
            agent_key,
            f"{agent_key}:{session.status}",
        ]
        if session.customer_profile_id is not None:
            keys.append(self.customer(tenant_id, session.customer_profile_id))
        place = step_place(session)
        if place is not None:
            keys.append(self.step(tenant_id, place))
        return keys
