"""Running commands on the nodes of a Redis Cluster, even while its slots move.

redis-py's own cluster commands send ASKING on one connection and the command on another, close the connections of all
calls in progress when slots have moved, leave commands to other nodes running when one fails, and support neither
EVALSHA nor WAIT in pipelines.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable, Sequence
from time import monotonic
from typing import Any, TypeVar

from redis.asyncio import RedisCluster
from redis.asyncio.cluster import ClusterNode, PipelineCommand
from redis.cluster import PRIMARY
from redis.exceptions import AskError, ClusterDownError, MovedError, SlotNotCoveredError
from redis.exceptions import ConnectionError as RedisConnectionError

from soldier_data.sessions.connections import close_connections_of, drop_idle_connections_of

_T = TypeVar("_T")

Command = tuple[str | bytes | int | float, ...]

_REDIRECTIONS = 5
# In seconds. A refresh makes redis-py reopen all its connections.
_MIN_REFRESH_INTERVAL = 0.2


class ClusterCommands:
    """Sends commands to the nodes that serve their keys."""

    def __init__(self, client: RedisCluster) -> None:
        self._client = client
        self._stale = False
        self._refreshed_at = 0.0
        # All nodes that have served keys, by identity, because redis-py compares nodes by name.
        self._nodes: dict[int, ClusterNode] = {}
        self._epoch = -1

    async def ensure_ready(self) -> None:
        """Load the slot assignments, if necessary; without them commands would go to arbitrary nodes."""
        try:
            await self._client.initialize()
        except (RedisConnectionError, OSError):
            # redis-py queries the first primary, even if it is unreachable: use another one next time.
            for node in self._client.get_primaries()[:1]:
                self._client.nodes_manager.move_node_to_end_of_cached_nodes(node.name)
            raise
        if self._stale and monotonic() - self._refreshed_at > _MIN_REFRESH_INTERVAL:
            await self.refresh()
        elif self._client.nodes_manager._epoch != self._epoch:  # noqa: SLF001 - there is no public sign of new nodes.
            await self._close_removed_nodes()

    async def close(self) -> None:
        """Close the client and all connections, also those that it would leave open after a failure."""
        await self._close_removed_nodes()
        await self._client.aclose()
        for node in self._nodes.values():
            await close_connections_of(node)

    async def ping(self) -> None:
        """Raise an error unless all primaries answer and serve all slots."""
        pings: list[Command] = [("PING",), ("CLUSTER INFO",)]
        sent = await _gather(self._send(node, [pings]) for node in self._client.get_primaries())
        for reply in (reply for [replies] in sent for reply in replies):
            if isinstance(reply, Exception):
                raise reply
            if isinstance(reply, dict) and reply["cluster_state"] != "ok":
                raise ClusterDownError("according to CLUSTER INFO")

    async def execute(self, *command: str | bytes | int | float) -> Any:
        """Run one command and return its reply."""
        return (await self.execute_batches([[command]]))[0][0]

    async def execute_batches(self, batches: Sequence[Sequence[Command]]) -> list[list[Any]]:
        """Run batches of commands and return their replies.

        The keys of a batch must be in one slot; its commands run in order, on one connection.
        """
        indices: dict[ClusterNode, list[int]] = {}
        for index, batch in enumerate(batches):
            indices.setdefault(self._node_of(batch), []).append(index)
        replies: list[list[Any]] = [[] for _ in batches]

        async def run(node: ClusterNode) -> None:
            sent = await self._send(node, [batches[index] for index in indices[node]])
            for index, received in zip(indices[node], sent, strict=True):
                replies[index] = await self._follow_redirections(node, batches[index], received)

        await _gather(map(run, indices))
        return replies

    async def refresh(self) -> None:
        """Reload the slot assignments from the cluster."""
        self._refreshed_at = monotonic()
        await self._client.nodes_manager.initialize()
        self._stale = False
        await self._close_removed_nodes()

    async def _close_removed_nodes(self) -> None:
        """Close the connections of nodes that have left the cluster, once they are no longer in use.

        redis-py closes only those that are idle when the node leaves.
        """
        manager = self._client.nodes_manager
        self._epoch = manager._epoch  # noqa: SLF001 - as above.
        nodes = (*manager.nodes_cache.values(), *manager.startup_nodes.values())
        present = {id(node) for node in nodes}
        for identity, node in list(self._nodes.items()):
            if identity not in present:
                await drop_idle_connections_of(node)
                if not any(connection.is_connected for connection in node._connections):  # noqa: SLF001 - as above.
                    self._nodes.pop(identity, None)
        self._nodes.update((id(node), node) for node in nodes)

    def mark_stale(self) -> None:
        """Make the next `ensure_ready` reload the slot assignments."""
        self._stale = True

    def _node_of(self, batch: Sequence[Command]) -> ClusterNode:
        slot = self._client.keyslot(key_of(batch[0]))
        nodes = self._client.nodes_manager.slots_cache.get(slot)
        if not nodes:
            raise SlotNotCoveredError(f"no node serves slot {slot}")
        return nodes[0]

    async def _send(
        self, node: ClusterNode, batches: Sequence[Sequence[Command]], *, asking: bool = False
    ) -> list[list[Any]]:
        """Return the replies of one node, including errors and redirections."""
        commands = [command for batch in batches for command in batch]
        if asking:
            # ASKING applies to one command only.
            commands = [part for command in commands for part in (("ASKING",), command)]
        sent = [PipelineCommand(index, *command) for index, command in enumerate(commands)]
        try:
            await node.execute_pipeline(sent)
        except (RedisConnectionError, OSError):
            await self._drop_connections(node)
            raise
        finally:
            if self._client.nodes_manager.nodes_cache.get(node.name) is not node:
                # The node has left the cluster meanwhile, and nothing else would close the new connections.
                await drop_idle_connections_of(node)
        answered = iter(sent[1::2] if asking else sent)
        replies = [[next(answered).result for _ in batch] for batch in batches]
        if any(isinstance(command.result, RedisConnectionError | OSError) for command in sent):
            await self._drop_connections(node)
        return replies

    async def _drop_connections(self, node: ClusterNode) -> None:
        # The node's other connections are most probably broken too.
        node.update_active_connections_for_reconnect()
        await drop_idle_connections_of(node)

    async def _follow_redirections(
        self, node: ClusterNode, batch: Sequence[Command], replies: list[Any]
    ) -> list[Any]:
        """Return the replies of the node that serves the batch's keys, or raise the first error among them."""
        for _ in range(_REDIRECTIONS):
            redirection = next((reply for reply in replies if isinstance(reply, AskError)), None)
            if redirection is None:
                break
            moved = isinstance(redirection, MovedError)
            # A redirection without a host means another port of the same host.
            node = self._node_at(redirection.host or node.host, redirection.port)
            if moved:
                node.server_type = PRIMARY
                self._client.nodes_manager.slots_cache[redirection.slot_id] = [node]
            replies = (await self._send(node, [batch], asking=not moved))[0]
        for reply in replies:
            if isinstance(reply, Exception):
                raise reply
        return replies

    def _node_at(self, host: str, port: int) -> ClusterNode:
        nodes = self._client.nodes_manager
        host, port = nodes.remap_host_port(host, port)
        node = nodes.get_node(host, port)
        if node is None:
            # A node that is receiving its first slots is not listed yet.
            node = ClusterNode(host, port, PRIMARY, **self._client.connection_kwargs)
            nodes.nodes_cache[node.name] = node
        return node


async def _gather(awaitables: Iterable[Awaitable[_T]]) -> list[_T]:
    """Like `asyncio.gather`, but wait for all before an error is raised, so that no command is still running then."""
    outcomes = await asyncio.gather(*awaitables, return_exceptions=True)
    results = []
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome
        results.append(outcome)
    return results


def key_of(command: Command) -> str | bytes | int | float:
    """Return the first key of a command."""
    return command[3] if command[0] in ("EVALSHA", "EVAL") else command[1]
