"""How Redis is reached: by which URL, with which password, and what is done about connections that went bad."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import shutil
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import pytest
from redis.asyncio import Redis, RedisCluster
from redis.crc import key_slot
from redis.exceptions import ResponseError

from soldier_data.data_layer import DataLayer
from soldier_data.errors import ConfigurationError, StoreConnectionError, StoreError
from soldier_data.sessions import RedisSessionStore, create_redis_client
from soldier_data.sessions.opening import open_redis_store
from soldier_data.settings import Settings
from tests.backends.redis_helpers import serving, store_at, wait_until
from tests.factories.sessions import SessionFactory
from tests.redis_servers import (
    SERVICE,
    RedisServer,
    program,
    redis_cluster,
    redis_sentinel,
    redis_sentinels,
    redis_server,
    wait_for,
)

CANARY = "canary"
DATA, WATCH = "for-data", "for-sentinels"


@asynccontextmanager
async def opened(url: str, **settings: Any) -> AsyncIterator[RedisSessionStore]:
    store = open_redis_store(Settings(**{"redis_url": url, "retry_budget": timedelta(seconds=1), **settings}))
    try:
        yield store
    finally:
        await store.close()


async def check_in_use(store: RedisSessionStore) -> None:
    """A session can be saved and found."""
    session = SessionFactory()
    await store.save(session)
    assert await store.get(session.session_id) == session
    assert await store.list_by_agent(session.tenant_id, session.agent_id) == [session]
    await store.ping()


class TestUrls:
    @pytest.mark.parametrize(
        "url",
        [
            f"redis+sentinel://:{CANARY}@localhost",
            f"redis+sentinel://:{CANARY}@localhost/",
            f"redis+sentinel://:{CANARY}@/service",
            f"redis+sentinel://:{CANARY}@localhost,/service",
            f"redis+sentinel://:{CANARY}@localhost:port/service",
            f"redis+cluster://:{CANARY}@",
            f"redis+cluster://:{CANARY}@localhost/1",
            f"redis+cluster://localhost?nonsense={CANARY}",
        ],
    )
    def test_a_url_that_lacks_something_is_one_clear_line(self, url: str) -> None:
        with pytest.raises(ConfigurationError, match="SOLDIER_REDIS_URL") as caught:
            create_redis_client(Settings(redis_url=url))
        assert CANARY not in str(caught.value)
        assert caught.value.__context__ is None

    async def test_every_host_and_option_of_the_url_is_used(self) -> None:
        url = "rediss+sentinel://app:secret@[::1]:1,two,three:3/mymaster/5?ssl_cert_reqs=none&client_name=me"
        client = create_redis_client(Settings(redis_url=url, redis_sentinel_username="watch"))
        assert isinstance(client, Redis)
        pool: Any = client.connection_pool
        assert [
            (one.connection_pool.connection_kwargs["host"], one.connection_pool.connection_kwargs["port"])
            for one in pool.sentinel_manager.sentinels
        ] == [("::1", 1), ("two", 26379), ("three", 3)]
        assert pool.service_name == "mymaster"
        wanted = {
            "db": 5,
            "username": "app",
            "password": "secret",
            "client_name": "me",
            "ssl_cert_reqs": "none",
        }
        assert wanted.items() <= pool.connection_kwargs.items()
        of_sentinel = pool.sentinel_manager.sentinels[0].connection_pool.connection_kwargs
        assert {"username": "watch", "password": None, "db": 0}.items() <= of_sentinel.items()
        assert "ssl_context" in dir(pool.make_connection())
        await client.aclose()
        cluster = create_redis_client(Settings(redis_url="redis+cluster://app:secret@one:1,two"))
        assert isinstance(cluster, RedisCluster)
        assert list(cluster.nodes_manager.startup_nodes) == ["one:1", "two:6379"]
        assert {"username": "app", "password": "secret"}.items() <= cluster.connection_kwargs.items()
        await cluster.aclose()

    async def test_a_url_of_a_server_without_cluster_says_so(self, tmp_path: Path) -> None:
        with redis_server(program(), tmp_path) as server:
            async with opened(f"redis+cluster://127.0.0.1:{server.port}") as store:
                with pytest.raises(ConfigurationError, match="not part of a cluster"):
                    await store.save(SessionFactory())

    async def test_sentinels_that_know_no_primary_are_told_of(self) -> None:
        async with opened("redis+sentinel://127.0.0.1:1,127.0.0.1:2/sessions") as store:
            with pytest.raises(StoreConnectionError, match="its sentinels know no primary"):
                await store.save(SessionFactory())


def only_redis(url: str, **settings: Any) -> Settings:
    """Settings of a data layer that has everything but its sessions in memory."""
    given = Settings(**{"redis_url": url, "redis_wait_timeout": timedelta(seconds=2), **settings})
    return given.in_memory().model_copy(update={"session_backend": "redis"})


class TestOpen:
    async def test_sentinel_with_passwords(self, tmp_path: Path) -> None:
        with redis_sentinels(program(), tmp_path, password=DATA, sentinel_password=WATCH) as (
            _,
            sentinels,
        ):
            url = (
                f"redis+sentinel://:{DATA}@{','.join(f'127.0.0.1:{one.port}' for one in sentinels)}/{SERVICE}"
            )
            async with opened(url) as store:
                with pytest.raises(StoreConnectionError, match="SOLDIER_REDIS_SENTINEL_PASSWORD"):
                    await store.save(SessionFactory())
            settings = only_redis(url, redis_sentinel_password=lambda: WATCH, redis_wait_replicas=1)
            async with DataLayer.open(settings) as data:
                assert isinstance(data.sessions, RedisSessionStore)
                await check_in_use(data.sessions)
                assert (await data.health()).redis.ok

    async def test_a_cluster_of_which_a_node_is_gone(self, tmp_path: Path) -> None:
        with redis_cluster(program(), tmp_path) as servers:
            # The first one is nobody's; the others are found through the one that is.
            url = f"redis+cluster://127.0.0.1:1,127.0.0.1:{servers[1].port}"
            async with DataLayer.open(only_redis(url, retry_budget=0)) as data:
                assert isinstance(data.sessions, RedisSessionStore)
                await check_in_use(data.sessions)
                assert (await data.health()).redis.ok
                servers[2].kill()
                assert not (await data.health()).redis.ok

    async def test_no_connection_to_a_cluster_outlives_the_store(self, tmp_path: Path) -> None:
        with redis_cluster(program(), tmp_path) as servers:
            url = f"redis+cluster://127.0.0.1:{servers[0].port}"
            async with opened(url, retry_budget=0, redis_timeout=timedelta(seconds=0.5)) as store:
                assert isinstance(store.client, RedisCluster)
                # Slots are only ever asked for at the server that will go on answering.
                store.client.nodes_manager._dynamic_startup_nodes = False
                for _ in range(20):  # Enough for keys on all nodes.
                    await check_in_use(store)
                nodes = store.client.get_nodes()
                servers[2].kill()
                servers[1].suspend()
                # One is known to be gone at once, while the other keeps its callers waiting.
                with pytest.raises(StoreConnectionError):
                    await store.ping()
            assert not any(connection.is_connected for node in nodes for connection in node._connections)

    async def test_a_cluster_whose_first_primary_is_gone(self, tmp_path: Path) -> None:
        with redis_cluster(program(), tmp_path, cluster_require_full_coverage="no") as servers:
            servers[0].kill()
            async with opened(f"redis+cluster://127.0.0.1:{servers[1].port}") as store:
                ids = (uuid4() for _ in range(1000))
                elsewhere = next(one for one in ids if key_slot(store._keys.session(one)[0].encode()) > 6000)
                assert await store.get(elsewhere) is None

    async def test_tls_to_sentinels_and_primary(self, tmp_path: Path) -> None:
        certificate, context = make_certificate(tmp_path)
        async with door(context) as primary_door, door(context) as sentinel_door:
            with redis_server(program(), tmp_path) as server:
                primary_door.leads_to = server.port
                with redis_sentinel(program(), tmp_path / "sentinel", primary_door.port) as sentinel:
                    sentinel_door.leads_to = sentinel.port
                    url = f"rediss+sentinel://localhost:{sentinel_door.port}/{SERVICE}?ssl_ca_certs={certificate}"
                    async with opened(url, retry_budget=timedelta(seconds=10)) as store:
                        await check_in_use(store)
        assert sentinel_door.encrypted > 0
        assert primary_door.encrypted > 0

    async def test_tls_to_a_cluster(self, tmp_path: Path) -> None:
        certificate, context = make_certificate(tmp_path)
        async with door(context) as cluster_door:
            announced: dict[str, Any] = {
                "cluster_announce_ip": "127.0.0.1",
                "cluster_announce_port": str(cluster_door.port),
            }
            with redis_server(program(), tmp_path, cluster_enabled="yes", **announced) as server:
                cluster_door.leads_to = server.port
                with server.client() as client:
                    client.execute_command("CLUSTER ADDSLOTS", *range(16384))
                url = f"rediss+cluster://127.0.0.1:{cluster_door.port}?ssl_ca_certs={certificate}"
                async with opened(url, retry_budget=timedelta(seconds=20)) as store:
                    await check_in_use(store)
        assert cluster_door.encrypted > 0


def make_certificate(folder: Path) -> tuple[Path, ssl.SSLContext]:
    """A certificate for localhost, and what a server needs to show it."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl")
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    names = "subjectAltName=DNS:localhost,IP:127.0.0.1"
    command = [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-days", "2", "-subj", "/CN=localhost", "-addext", names]
    subprocess.run([*command, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return certificate, context


class Door:
    """A port that leads to a server that knows no TLS, for those who speak TLS and those who do not."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.setblocking(False)
        self.port: int = self._listener.getsockname()[1]
        self.leads_to = 0
        self.encrypted = 0

    async def serve(self) -> None:
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as group:
            while True:
                visitor, _ = await loop.sock_accept(self._listener)
                group.create_task(self._pass(visitor))

    def close(self) -> None:
        self._listener.close()

    async def _pass(self, visitor: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader()
        protocol = asyncio.StreamReaderProtocol(reader)
        try:
            is_encrypted = await peek(visitor) == b"\x16"
            self.encrypted += is_encrypted
            transport, _ = await loop.connect_accepted_socket(
                lambda: protocol, visitor, ssl=self._context if is_encrypted else None
            )
        except (OSError, asyncio.CancelledError):
            visitor.close()
            return
        writer = asyncio.StreamWriter(transport, protocol, reader, loop)
        try:
            answers, there = await asyncio.open_connection("127.0.0.1", self.leads_to)
        except (OSError, asyncio.CancelledError):
            writer.close()
            return
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(pump(reader, there))
                group.create_task(pump(answers, writer))
        finally:
            for one in (writer, there):
                one.close()


async def peek(visitor: socket.socket) -> bytes:
    """The first byte, which stays to be read."""
    visitor.setblocking(False)
    while True:
        try:
            return visitor.recv(1, socket.MSG_PEEK) or b"nobody"
        except BlockingIOError:
            await asyncio.sleep(0.005)


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
    except OSError:
        pass
    writer.close()


@asynccontextmanager
async def door(context: ssl.SSLContext) -> AsyncIterator[Door]:
    opened_door = Door(context)
    serving = asyncio.create_task(opened_door.serve())
    try:
        yield opened_door
    finally:
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
        # Not by the task, which may have ended before it began.
        opened_door.close()


class TestPasswords:
    @pytest.mark.parametrize("is_async", [False, True])
    async def test_a_callable_is_asked_for_each_connection(self, tmp_path: Path, is_async: bool) -> None:
        asked = 0

        def token() -> str:
            nonlocal asked
            asked += 1
            return current

        async def async_token() -> str:
            await asyncio.sleep(0)
            return token()

        with redis_server(program(), tmp_path) as server, server.client() as client:
            current = "first"
            client.execute_command("ACL SETUSER app on >first ~* &* +@all")
            url = f"redis://app@127.0.0.1:{server.port}"
            password = async_token if is_async else token
            async with opened(url, redis_password=password) as store:
                await check_in_use(store)
                assert asked == 1
                # The token was replaced, and the connections that it had opened are gone.
                current = "second"
                client.execute_command("ACL SETUSER app resetpass >second")
                client.execute_command("CLIENT KILL USER app")
                await check_in_use(store)
                assert asked == 2
                current = CANARY
                client.execute_command("CLIENT KILL USER app")
                with pytest.raises(StoreConnectionError, match="rejected the login") as caught:
                    await store.ping()
                assert CANARY not in str(caught.value)

    @pytest.mark.parametrize("returned", [None, b"bytes", ValueError(CANARY)])
    async def test_a_callable_that_fails_is_told_of_by_its_setting(
        self, redis_url: str, returned: Any
    ) -> None:
        def token() -> Any:
            if isinstance(returned, Exception):
                raise returned
            return returned

        async with opened(redis_url, redis_password=token) as store:
            with pytest.raises(StoreConnectionError, match="redis_password failed") as caught:
                await store.save(SessionFactory())
        assert CANARY not in str(caught.value)
        assert isinstance(caught.value.cause, ValueError | TypeError)

    async def test_a_plain_one_replaces_that_of_the_url(self, tmp_path: Path) -> None:
        with redis_server(program(), tmp_path, requirepass=DATA) as server:
            async with opened(f"redis://:wrong@127.0.0.1:{server.port}", redis_password=DATA) as store:
                await check_in_use(store)


class TestPermissions:
    @pytest.mark.parametrize(
        "rules",
        ["~* &* +@all -evalsha", "~* &* +@all -set", "~* &* +@all -zadd", "~others:* &* +@all"],
        ids=["the script", "a command in it", "another one in it", "its keys"],
    )
    async def test_a_lacking_permission_is_told_as_such(self, tmp_path: Path, rules: str) -> None:
        with redis_server(program(), tmp_path) as server:
            with server.client() as client:
                client.execute_command(f"ACL SETUSER app on >{CANARY} {rules}")
            async with store_at(f"redis://app:{CANARY}@127.0.0.1:{server.port}", seconds=5) as store:
                with pytest.raises(
                    ConfigurationError, match="lacks a permission for saving session"
                ) as caught:
                    await store.save(SessionFactory())
                assert "login" not in str(caught.value)
                assert CANARY not in str(caught.value)

    async def test_health_asks_for_nothing_that_a_service_may_not(self, tmp_path: Path) -> None:
        with redis_server(program(), tmp_path) as server:
            with server.client() as client:
                client.execute_command(
                    "ACL SETUSER app on nopass ~session:* -@all +@read +@write +eval +evalsha"
                )
            async with store_at(f"redis://app:any@127.0.0.1:{server.port}", seconds=5) as store:
                await check_in_use(store)


async def test_a_server_kept_busy_by_a_script_is_waited_for(tmp_path: Path) -> None:
    with redis_server(program(), tmp_path, busy_reply_threshold="50") as server, server.client() as client:
        endless = asyncio.create_task(asyncio.to_thread(try_endless_script, client))

        async def is_busy() -> bool:
            try:
                with server.client() as other:
                    await asyncio.to_thread(other.ping)
            except ResponseError:
                return True
            return False

        await wait_until(is_busy)
        async with store_at(server.url, seconds=5, retry_budget=0.1) as store:
            with pytest.raises(StoreConnectionError, match="a script keeps it busy"):
                await store.save(SessionFactory())
            assert await store.health_check() is False
        async with store_at(server.url, seconds=5, retry_budget=30) as store:
            saving = asyncio.create_task(store.save(SessionFactory()))
            await asyncio.sleep(0.1)
            with server.client() as other:
                other.script_kill()
            await saving
        await endless


def try_endless_script(client: Any) -> None:
    with contextlib.suppress(ResponseError):
        client.eval("while true do end", 0)


class TestForgottenConnections:
    async def test_one_time_out_is_enough(self, redis_url: str) -> None:
        async with forgetful_proxy(redis_url) as (url, forget), store_at(url, seconds=1) as store:
            await asyncio.gather(*(store.get(uuid4()) for _ in range(20)))
            assert forget() > 5
            failures = 0
            for _ in range(30):
                try:
                    await store.get(uuid4())
                except StoreConnectionError:
                    failures += 1
            assert failures == 1

    async def test_keep_alives_are_set(self, tmp_path: Path) -> None:
        settings: dict[str, Any] = {
            "tcp_keepalive_idle": timedelta(seconds=11),
            "tcp_keepalive_interval": timedelta(seconds=7),
            "tcp_keepalive_count": 5,
            "tcp_user_timeout": timedelta(seconds=13),
        }
        with redis_server(program(), tmp_path) as server:
            async with opened(server.url, **settings) as store:
                await store.ping()
                assert isinstance(store.client, Redis)
                connection: Any = store.client.connection_pool._available_connections[0]
                transport = connection._writer.get_extra_info("socket")
                assert transport.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
                options = ("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT", "TCP_USER_TIMEOUT")
                assert [
                    transport.getsockopt(socket.IPPROTO_TCP, getattr(socket, name)) for name in options
                ] == [11, 7, 5, 13_000]


@asynccontextmanager
async def forgetful_proxy(redis_url: str) -> AsyncIterator[tuple[str, Callable[[], int]]]:
    """A way to Redis on which one can have all connections forgotten: nothing is passed on, and nothing is told."""
    remembered: set[asyncio.StreamWriter] = set()
    place = urlsplit(redis_url)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answers, there = (
            await asyncio.open_unix_connection(place.path)
            if place.scheme == "unix"
            else await asyncio.open_connection(place.hostname, place.port)
        )
        remembered.add(writer)

        async def passing(source: asyncio.StreamReader, to: asyncio.StreamWriter) -> None:
            while data := await source.read(65536):
                if writer in remembered:
                    to.write(data)

        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(passing(answers, writer))
                await passing(reader, there)
                raise asyncio.CancelledError
        finally:
            there.close()

    def forget() -> int:
        count = len(remembered)
        remembered.clear()
        return count

    async with serving(serve) as port:
        yield f"redis://127.0.0.1:{port}", forget


class TestReadOnly:
    async def test_a_planned_change_of_the_primary_behind_one_address(self, tmp_path: Path) -> None:
        (tmp_path / "other").mkdir()
        with (
            redis_server(program(), tmp_path) as old,
            redis_server(program(), tmp_path / "other", replicaof=f"127.0.0.1 {old.port}") as new,
        ):
            wait_for(new.is_in_sync, tmp_path)
            place = {"port": old.port}
            async with moving_address(place) as url, store_at(url, seconds=5, retry_budget=30) as store:
                session = SessionFactory()
                await store.save(session)
                await asyncio.gather(*(store.get(session.session_id) for _ in range(10)))
                await replace(old, new)
                # The address still leads to the old one, whose connections stay open.
                with pytest.raises(StoreConnectionError, match="it is a replica"):
                    await store.ping()
                assert await store.health_check() is False
                saving = asyncio.create_task(store.save(session, if_revision=1))
                await asyncio.sleep(0.2)
                assert not saving.done()
                place["port"] = new.port
                await saving
                assert session.revision == 2
                await asyncio.gather(*(store.save(SessionFactory()) for _ in range(20)))
                await store.ping()


async def replace(old: RedisServer, new: RedisServer) -> None:
    """Make `new` the primary, and `old` its replica; connections stay."""
    with old.client() as client, new.client() as other:
        other.execute_command("REPLICAOF NO ONE")
        client.execute_command("REPLICAOF", "127.0.0.1", new.port)
    await asyncio.to_thread(wait_for, old.is_in_sync, Path("the servers' logs"))


@asynccontextmanager
async def moving_address(place: dict[str, int]) -> AsyncIterator[str]:
    """An address that leads new connections to the server in its place, as a DNS name or a load balancer does."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answers, there = await asyncio.open_connection("127.0.0.1", place["port"])
        passing = asyncio.create_task(pump(answers, writer))
        try:
            await pump(reader, there)
        finally:
            passing.cancel()
            there.close()

    async with serving(serve) as port:
        yield f"redis://127.0.0.1:{port}"


class TestReplicas:
    async def test_a_save_without_its_copies_fails_and_counts_once_when_repeated(
        self, tmp_path: Path
    ) -> None:
        (tmp_path / "replica").mkdir()
        wait = {"redis_wait_replicas": 1, "redis_wait_timeout": timedelta(seconds=0.2)}
        with redis_server(program(), tmp_path, repl_diskless_sync_delay="0") as server:
            async with opened(server.url, **wait) as store:
                session = SessionFactory()
                for _ in range(2):
                    with pytest.raises(StoreConnectionError, match=r"0 of 1 replicas .* may not survive"):
                        await store.save(session, if_revision=0)
                assert session.revision == 0
                stored = await store.get(session.session_id)
                assert stored is not None
                assert stored.revision == 1
                # What was changed since is another save.
                other = SessionFactory()
                with pytest.raises(StoreConnectionError):
                    await store.save(other, if_revision=0)
                other.turn_count += 1
                with pytest.raises(StoreError, match="has revision 1, not 0"):
                    await store.save(other, if_revision=0)
                with redis_server(
                    program(), tmp_path / "replica", replicaof=f"127.0.0.1 {server.port}"
                ) as replica:
                    wait_for(replica.is_in_sync, tmp_path)
                    await store.save(session, if_revision=0)
                    assert session.revision == 1
                    await store.save(session, if_revision=1)
                    with replica.client() as client:
                        assert client.exists(*store._keys.session(session.session_id)) == 2
                assert await store.get(session.session_id) == session

    async def test_a_refused_save_waits_for_nothing(self, tmp_path: Path) -> None:
        with redis_server(program(), tmp_path) as server:
            async with opened(server.url, redis_wait_replicas=1) as store:
                with pytest.raises(StoreError, match="has revision 0, not 5"):
                    await store.save(SessionFactory(), if_revision=5)


@pytest.mark.filterwarnings(
    "ignore:unclosed:ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)
def test_a_second_event_loop_is_refused_each_time(redis_url: str) -> None:
    store = open_redis_store(Settings(redis_url=redis_url))
    assert asyncio.run(store.get(uuid4())) is None
    for _ in range(4):
        with pytest.raises(StoreError, match="belongs to another event loop"):
            asyncio.run(store.get(uuid4()))
    asyncio.run(store.close())
    # What belonged to the first event loop complains that it ended before it was closed: here, where that is expected.
    del store
    gc.collect()
