"""A process that does at random what can be done to one session. Another one does the same meanwhile."""

from __future__ import annotations

import asyncio
import random
import sys
from contextlib import suppress
from time import monotonic

from soldier_data.errors import ConflictError
from soldier_data.sessions import RedisSessionStore, Session, SessionTierConfig, create_redis_client
from soldier_data.settings import Settings

# Whichever takes longer.
_SECONDS = 2
_OPERATIONS = 200


async def main(url: str, prefix: str, seed: str) -> int:
    """Returns how many operations were done."""
    session = Session.model_validate_json(sys.stdin.read())
    # To be repeated, not to be safe.
    dice = random.Random(seed)  # noqa: S311
    client = create_redis_client(Settings(redis_url=url))
    store = RedisSessionStore(client, SessionTierConfig(key_prefix=prefix))
    end = monotonic() + _SECONDS
    count = 0
    while monotonic() < end or count < _OPERATIONS:
        count += 1
        found = await store.get(session.session_id, tenant_id=session.tenant_id)
        if found is not None:
            assert found.variables["text"] == "x" * found.turn_count, "half of one save and half of another"
        match dice.randrange(10):
            case 0:
                await store.delete(session.session_id)
            case 1 | 2:
                await store.demote_to_persistent(session.session_id)
            case 3:
                await store.promote_to_hot(session.session_id)
            case choice:
                mine = found or session
                mine.turn_count = dice.randrange(5000)
                mine.variables = {"text": "x" * mine.turn_count}
                with suppress(ConflictError):
                    await store.save(mine, if_revision=mine.revision if choice > 6 else None)
    await client.aclose()
    return count


if __name__ == "__main__":
    sys.stdout.write(str(asyncio.run(main(*sys.argv[1:]))))
