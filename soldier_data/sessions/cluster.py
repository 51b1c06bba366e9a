"""Commands on the nodes of a Redis Cluster, wherever its slots are just now.

redis-py's own way sends ASKING on one connection and the command on another, cuts the connections of all calls that
are under way when slots have moved, and has neither EVALSHA nor WAIT in pipelines.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from time import monotonic
from typing import Any

from redis.asyncio import RedisCluster
from redis.asyncio.cluster import ClusterNode, PipelineCommand
from redis.cluster import PRIMARY
from redis.exceptions import AskError, MovedError, SlotNotCoveredError
from redis.exceptions import ConnectionError as RedisConnectionError

from soldier_data.sessions.connections import drop_idle_connections_of

Command = tuple[str | bytes | int | float, ...]

_REDIRECTIONS = 5
# Asking for the slots makes redis-py open all its connections anew.
_BETWEEN_REFRESHES = 0.2


class ClusterCommands:
    """Sends commands to the nodes that have their keys."""

    def __init__(self, client: RedisCluster) -> None:
        self._client = client
        self._stale = False
        self._refreshed_at = 0.0
        # Every node that had the keys at some time, by identity: redis-py compares nodes by their names.
        self._nodes: dict[int, ClusterNode] = {}
        self._epoch = -1

    async def get_ready(self) -> None:
        """Know the nodes: without that, commands go anywhere."""
        try:
            await self._client.initialize()
        except (RedisConnectionError, OSError):
            # It asks the first primary which commands there are, even one that is away: another one, the next time.
            for node in self._client.get_primaries()[:1]:
                self._client.nodes_manager.move_node_to_end_of_cached_nodes(node.name)
            raise
        if self._stale and monotonic() - self._refreshed_at > _BETWEEN_REFRESHES:
            await self.refresh()
        elif self._client.nodes_manager._epoch != self._epoch:  # noqa: SLF001 - nothing else tells of new nodes.
            await self._close_removed_nodes()

    async def close(self) -> None:
        """Close the client, and what it has forgotten to close."""
        await self._close_removed_nodes()
        await self._client.aclose()
        for node in self._nodes.values():
            await drop_idle_connections_of(node)

    async def execute(self, *command: str | bytes | int | float) -> Any:
        """The reply to one command."""
        return (await self.execute_batches([[command]]))[0][0]

    async def execute_batches(self, batches: Sequence[Sequence[Command]]) -> list[list[Any]]:
        """The replies to commands, each batch for keys of one slot, in order and on one connection."""
        places: dict[ClusterNode, list[int]] = {}
        for place, batch in enumerate(batches):
            places.setdefault(self._node_of(batch), []).append(place)
        replies: list[list[Any]] = [[] for _ in batches]

        async def run(node: ClusterNode) -> None:
            mine = places[node]
            for place, found in zip(
                mine, await self._send(node, [batches[place] for place in mine]), strict=True
            ):
                replies[place] = await self._followed(node, batches[place], found)

        # All of them end before an error is told, so that nothing goes on behind the caller's back.
        outcomes = await asyncio.gather(*map(run, places), return_exceptions=True)
        for outcome in outcomes:
            if outcome is not None:
                raise outcome
        return replies

    async def refresh(self) -> None:
        """Ask the cluster anew which node has which slots."""
        self._refreshed_at = monotonic()
        await self._client.nodes_manager.initialize()
        self._stale = False
        await self._close_removed_nodes()

    async def _close_removed_nodes(self) -> None:
        """Close the connections of nodes that have left the cluster, once nobody uses them.

        redis-py closes those that are idle at that moment, and forgets the others.
        """
        manager = self._client.nodes_manager
        self._epoch = manager._epoch  # noqa: SLF001 - as above.
        present = {id(node) for node in (*manager.nodes_cache.values(), *manager.startup_nodes.values())}
        for identity, node in list(self._nodes.items()):
            if identity not in present:
                await drop_idle_connections_of(node)
                if not any(connection.is_connected for connection in node._connections):  # noqa: SLF001 - as above.
                    self._nodes.pop(identity, None)
        for node in (*manager.nodes_cache.values(), *manager.startup_nodes.values()):
            self._nodes[id(node)] = node

    def suspect(self) -> None:
        """Have `get_ready` ask for the slots again."""
        self._stale = True

    def _node_of(self, batch: Sequence[Command]) -> ClusterNode:
        slot = self._client.keyslot(key_of(batch[0]))
        nodes = self._client.nodes_manager.slots_cache.get(slot)
        if not nodes:
            raise SlotNotCoveredError(f"no node has slot {slot}")
        return nodes[0]

    async def _send(
        self, node: ClusterNode, batches: Sequence[Sequence[Command]], *, asking: bool = False
    ) -> list[list[Any]]:
        """Replies as the node gave them, errors among them."""
        commands = [command for batch in batches for command in batch]
        if asking:
            # It holds for one command only.
            commands = [part for command in commands for part in (("ASKING",), command)]
        sent = [PipelineCommand(place, *command) for place, command in enumerate(commands)]
        try:
            await node.execute_pipeline(sent)
        except (RedisConnectionError, OSError):
            await self._lost(node)
            raise
        finally:
            if self._client.nodes_manager.nodes_cache.get(node.name) is not node:
                # It has left the cluster meanwhile, and nobody else would close what was opened just now.
                await drop_idle_connections_of(node)
        answered = iter(sent[1::2] if asking else sent)
        replies = [[next(answered).result for _ in batch] for batch in batches]
        if any(
            isinstance(reply, RedisConnectionError | OSError) for of_batch in replies for reply in of_batch
        ):
            await self._lost(node)
        return replies

    async def _lost(self, node: ClusterNode) -> None:
        # What broke this connection broke the node's others as well, most probably.
        node.update_active_connections_for_reconnect()
        await drop_idle_connections_of(node)

    async def _followed(self, node: ClusterNode, batch: Sequence[Command], replies: list[Any]) -> list[Any]:
        """The replies of whichever node has the batch's keys; raises the first error among them."""
        for _ in range(_REDIRECTIONS):
            redirection = next((reply for reply in replies if isinstance(reply, AskError)), None)
            if redirection is None:
                break
            moved = isinstance(redirection, MovedError)
            # Without a host it means another port of the same one.
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
            # A node without slots is in nobody's list, though slots are on their way to it.
            node = ClusterNode(host, port, PRIMARY, **self._client.connection_kwargs)
            nodes.nodes_cache[node.name] = node
        return node


def key_of(command: Command) -> str | bytes | int | float:
    """The first key of a command."""
    return command[3] if command[0] in ("EVALSHA", "EVAL") else command[1]
