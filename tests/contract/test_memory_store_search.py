"""The contract of `MemoryStore`, run against every backend: text, vector and hybrid search."""

from __future__ import annotations

import math
import struct
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

import pytest

from soldier_data.errors import ValidationError
from soldier_data.memory import Episode, MemoryStore
from tests.cases.values import NOON
from tests.conftest import DIMENSIONS
from tests.factories.memory import EntityFactory, EpisodeFactory

QUERY = [1.0] + [0.0] * (DIMENSIONS - 1)


def at_angle(degrees: float, length: float = 1.0) -> list[float]:
    """A vector whose cosine with QUERY is that of `degrees`."""
    angle = math.radians(degrees)
    return [length * math.cos(angle), length * math.sin(angle)] + [0.0] * (DIMENSIONS - 2)


async def add(store: MemoryStore, tenant_id: UUID, *contents: str, **fields: Any) -> list[Episode]:
    """Episodes of these contents, each a minute after the one before it."""
    episodes: list[Episode] = [
        EpisodeFactory(
            **{"tenant_id": tenant_id, "occurred_at": NOON + timedelta(minutes=minutes), **fields},
            content=content,
        )
        for minutes, content in enumerate(contents)
    ]
    await store.add_episodes(episodes)
    return episodes


async def find(store: MemoryStore, tenant_id: UUID, query: str, **options: Any) -> list[str]:
    return [episode.content for episode in await store.text_search_episodes(query, tenant_id, **options)]


# -- text ------------------------------------------------------------------------------------------------------


async def test_every_word_must_be_contained_in_any_order_and_place(
    memory_store: MemoryStore, tenant_id: UUID
) -> None:
    await add(
        memory_store,
        tenant_id,
        "the parcel arrived broken",
        "a broken promise about a parcel",
        "unbroken parcels",
        "the parcel arrived",
        "broken",
    )
    assert await find(memory_store, tenant_id, "broken parcel") == [
        "unbroken parcels",
        "a broken promise about a parcel",
        "the parcel arrived broken",
    ]
    assert await find(memory_store, tenant_id, "  parcel\tbroken\n broken ") == [
        "unbroken parcels",
        "a broken promise about a parcel",
        "the parcel arrived broken",
    ]
    assert await find(memory_store, tenant_id, "arrived the") == [
        "the parcel arrived",
        "the parcel arrived broken",
    ]
    assert await find(memory_store, tenant_id, "parcel arrived late") == []


@pytest.mark.parametrize(
    ("content", "query"),
    [
        ("Where is my ORDER", "order WHERE"),
        ("Die Straße", "STRASSE"),
        ("DIE STRASSE", "straße"),
        ("ΟΔΟΣ", "οδος"),
        ("οδός", "ΟΔΌΣ"),
        ("ПОСЫЛКА пришла", "посылка"),
        ("İstanbul", "i\u0307stanbul"),
        ("ﬁnal", "FINAL"),
        ("包裹已经到了", "已经"),
        ("got a 🎁 today", "🎁"),
        ("no-break\u00a0space", "SPACE no-break"),
        ("ab", "A"),
        ("x+y=z", "+"),
    ],
)
async def test_upper_and_lower_case_are_alike_in_every_script(
    memory_store: MemoryStore, tenant_id: UUID, content: str, query: str
) -> None:
    await add(memory_store, tenant_id, "something else", content)
    assert await find(memory_store, tenant_id, query) == [content]


@pytest.mark.parametrize("special", ["%", "_", "\\", "\\%", "%%", "'", '"', "$1", "*", ".*", "\\\\", "a_b\\"])
async def test_no_character_has_a_special_meaning(
    memory_store: MemoryStore, tenant_id: UUID, special: str
) -> None:
    contents = [f"abc{special}def", "abcdef", "abcxdef", "abcxydef", "aXb"]
    await add(memory_store, tenant_id, *contents)
    assert await find(memory_store, tenant_id, special) == [contents[0]]
    assert await find(memory_store, tenant_id, f"abc{special}def") == [contents[0]]
    assert await find(memory_store, tenant_id, f"c{special}d abc") == [contents[0]]


@pytest.mark.parametrize("query", ["", " ", "\t\n\u00a0\u3000"])
async def test_a_query_without_words_finds_nothing(
    memory_store: MemoryStore, tenant_id: UUID, query: str
) -> None:
    await add(memory_store, tenant_id, "something", "")
    assert await find(memory_store, tenant_id, query) == []


async def test_matches_come_newest_first_and_ties_by_id(memory_store: MemoryStore, tenant_id: UUID) -> None:
    episodes = [
        EpisodeFactory(tenant_id=tenant_id, content="same", occurred_at=NOON + timedelta(seconds=number % 3))
        for number in range(9)
    ]
    await memory_store.add_episodes(episodes)
    expected = sorted(episodes, key=lambda episode: (episode.occurred_at, episode.id), reverse=True)
    assert await memory_store.text_search_episodes("same", tenant_id) == expected
    assert await memory_store.text_search_episodes("same", tenant_id, limit=4) == expected[:4]
    assert await memory_store.text_search_episodes("sa", tenant_id, limit=4) == expected[:4]
    assert await memory_store.text_search_episodes("same", tenant_id, limit=0) == []


async def test_a_long_query_of_many_words_is_answered(memory_store: MemoryStore, tenant_id: UUID) -> None:
    words = [f"word{number}" for number in range(2_000)]
    content = " ".join(words)
    await add(memory_store, tenant_id, content, content + " more")
    assert await find(memory_store, tenant_id, content) == [content + " more", content]
    assert await find(memory_store, tenant_id, content + " more") == [content + " more"]
    assert await find(memory_store, tenant_id, "x" * 1_000_000) == []


@pytest.mark.parametrize("text", ["a\0b", "\ud800"], ids=ascii)
async def test_texts_that_are_searched_for_are_checked(
    memory_store: MemoryStore, tenant_id: UUID, text: str
) -> None:
    for search in (
        memory_store.text_search_episodes(text, tenant_id),
        memory_store.hybrid_search_episodes(text, QUERY, tenant_id),
    ):
        with pytest.raises(ValidationError) as refused:
            await search
        assert refused.value.field == "query"
    for name in ("group_id", "content_type"):
        options: dict[str, Any] = {name: text}
        for search in (
            memory_store.text_search_episodes("a", tenant_id, **options),
            memory_store.vector_search_episodes(QUERY, tenant_id, **options),
            memory_store.hybrid_search_episodes("a", QUERY, tenant_id, **options),
        ):
            with pytest.raises(ValidationError) as refused:
                await search
            assert refused.value.field == name
    with pytest.raises(ValidationError) as refused:
        await memory_store.vector_search_entities(QUERY, tenant_id, entity_type=text)
    assert refused.value.field == "entity_type"


# -- filters ---------------------------------------------------------------------------------------------------


async def found_by(store: MemoryStore, tenant_id: UUID, filters: dict[str, Any]) -> list[set[UUID]]:
    """What each of the three searches finds."""
    by_text = await store.text_search_episodes("same", tenant_id, **filters)
    by_vector = await store.vector_search_episodes(QUERY, tenant_id, **filters)
    by_both = await store.hybrid_search_episodes("same", QUERY, tenant_id, **filters)
    return [
        {episode.id for episode in by_text},
        {episode.id for episode, _ in by_vector},
        {episode.id for episode, _ in by_both},
    ]


@pytest.mark.parametrize(
    "name", ["group_id", "agent_id", "customer_profile_id", "session_id", "content_type"]
)
async def test_every_search_filters_by_each_field(
    memory_store: MemoryStore, tenant_id: UUID, name: str
) -> None:
    values: Any = {"group_id": ("a", "b"), "content_type": ("event", "fact")}.get(name, (uuid4(), uuid4()))
    plain = {"content": "same", "embedding": QUERY}
    one, two, _ = episodes = [
        EpisodeFactory(tenant_id=tenant_id, **plain, **{name: values[0]}),
        EpisodeFactory(tenant_id=tenant_id, **plain, **{name: values[1]}),
        EpisodeFactory(tenant_id=tenant_id, **plain),
    ]
    await memory_store.add_episodes(episodes)
    await memory_store.add_episode(EpisodeFactory(**plain, **{name: values[0]}))
    assert await found_by(memory_store, tenant_id, {name: values[0]}) == [{one.id}] * 3
    assert await found_by(memory_store, tenant_id, {name: values[1]}) == [{two.id}] * 3
    assert await found_by(memory_store, tenant_id, {}) == [{episode.id for episode in episodes}] * 3
    other = "nothing" if isinstance(values[0], str) else uuid4()
    assert await found_by(memory_store, tenant_id, {name: other}) == [set()] * 3


async def test_the_first_moment_counts_and_the_last_does_not(
    memory_store: MemoryStore, tenant_id: UUID
) -> None:
    early, middle, late = (
        EpisodeFactory(tenant_id=tenant_id, content="same", embedding=QUERY, occurred_at=moment)
        for moment in (NOON - timedelta(microseconds=1), NOON, NOON + timedelta(microseconds=1))
    )
    await memory_store.add_episodes([early, middle, late])
    noon = NOON.astimezone(ZoneInfo("Asia/Tokyo"))
    after, before = {"occurred_after": noon}, {"occurred_before": noon}
    assert await found_by(memory_store, tenant_id, after) == [{middle.id, late.id}] * 3
    assert await found_by(memory_store, tenant_id, before) == [{early.id}] * 3
    assert await found_by(memory_store, tenant_id, after | before) == [set()] * 3
    within = {"occurred_after": NOON, "occurred_before": NOON + timedelta(microseconds=1)}
    assert await found_by(memory_store, tenant_id, within) == [{middle.id}] * 3


async def test_filters_are_met_all_at_once(memory_store: MemoryStore, tenant_id: UUID) -> None:
    filters: dict[str, Any] = {
        "group_id": "g",
        "agent_id": uuid4(),
        "customer_profile_id": uuid4(),
        "session_id": uuid4(),
        "content_type": "summary",
    }
    plain = {"tenant_id": tenant_id, "content": "same", "embedding": QUERY, "occurred_at": NOON}
    wanted = EpisodeFactory(**plain, **filters)
    others = [EpisodeFactory(**plain, **{**filters, name: None}) for name in list(filters)[1:4]]
    others += [EpisodeFactory(**plain, **{**filters, "group_id": "h"})]
    others += [EpisodeFactory(**plain, **{**filters, "content_type": "fact"})]
    others += [EpisodeFactory(**{**plain, "occurred_at": NOON - timedelta(1)}, **filters)]
    await memory_store.add_episodes([wanted, *others])
    times = {"occurred_after": NOON, "occurred_before": NOON + timedelta(seconds=1)}
    assert await found_by(memory_store, tenant_id, filters | times) == [{wanted.id}] * 3


@pytest.mark.parametrize("name", ["occurred_after", "occurred_before"])
@pytest.mark.parametrize(
    "moment",
    [datetime(2026, 1, 1), datetime.min.replace(tzinfo=UTC)],  # noqa: DTZ001 - that is the point.
    ids=["naive", "the very first"],
)
async def test_a_moment_that_is_none_is_refused(
    memory_store: MemoryStore, tenant_id: UUID, name: str, moment: datetime
) -> None:
    options: dict[str, Any] = {name: moment}
    for search in (
        memory_store.text_search_episodes("a", tenant_id, **options),
        memory_store.vector_search_episodes(QUERY, tenant_id, **options),
        memory_store.hybrid_search_episodes("a", QUERY, tenant_id, **options),
    ):
        with pytest.raises(ValidationError) as refused:
            await search
        assert refused.value.field == name


# -- vectors ---------------------------------------------------------------------------------------------------


async def test_the_closest_episodes_come_first_with_their_cosine(
    memory_store: MemoryStore, tenant_id: UUID
) -> None:
    angles = [60, 0, 89, 25.5, 120]
    episodes = [
        EpisodeFactory(tenant_id=tenant_id, embedding=at_angle(angle, length=10.0**place))
        for place, angle in enumerate(angles)
    ]
    await memory_store.add_episodes([*episodes, EpisodeFactory(tenant_id=tenant_id)])
    found = await memory_store.vector_search_episodes(QUERY, tenant_id)
    assert [episode for episode, _ in found] == _in_float32([episodes[place] for place in (1, 3, 0, 2)])
    expected = [math.cos(math.radians(angle)) for angle in (0, 25.5, 60, 89)]
    assert [score for _, score in found] == pytest.approx(expected, abs=1e-6)
    assert await memory_store.vector_search_episodes(QUERY, tenant_id, limit=2) == found[:2]
    assert await memory_store.vector_search_episodes(QUERY, tenant_id, min_score=0.5001) == found[:2]
    everything = await memory_store.vector_search_episodes(QUERY, tenant_id, min_score=-1)
    assert everything[:4] == found
    assert everything[4][1] == pytest.approx(-0.5, abs=1e-6)


def _in_float32(episodes: list[Episode]) -> list[Episode]:
    def rounded(embedding: list[float]) -> list[float]:
        return [struct.unpack("f", struct.pack("f", number))[0] for number in embedding]

    return [
        episode.model_copy(update={"embedding": rounded(episode.embedding)})
        for episode in episodes
        if episode.embedding is not None
    ]


async def test_entities_are_searched_by_vector(memory_store: MemoryStore, tenant_id: UUID) -> None:
    entities = [
        EntityFactory(
            tenant_id=tenant_id,
            group_id=group,
            entity_type=kind,
            embedding=None if angle is None else at_angle(angle),
        )
        for group, kind, angle in (
            ("a", "person", 50),
            ("a", "place", 10),
            ("b", "person", 30),
            ("a", "person", None),
            ("b", "place", 100),
        )
    ]
    for entity in entities:
        await memory_store.add_entity(entity)
    await memory_store.add_entity(EntityFactory(embedding=QUERY))

    async def search(**options: Any) -> list[int]:
        found = await memory_store.vector_search_entities(QUERY, tenant_id, **options)
        places = {entity.id: place for place, entity in enumerate(entities)}
        return [places[entity.id] for entity, _ in found]

    assert await search() == [1, 2, 0]
    assert await search(limit=1) == [1]
    assert await search(group_id="a") == [1, 0]
    assert await search(entity_type="person") == [2, 0]
    assert await search(group_id="a", entity_type="person") == [0]
    assert await search(min_score=-1) == [1, 2, 0, 4]
    assert await search(min_score=0.8) == [1, 2]
    (_, score), *_ = await memory_store.vector_search_entities(QUERY, tenant_id)
    assert score == pytest.approx(math.cos(math.radians(10)), abs=1e-6)


async def test_equal_scores_are_ordered_by_id(memory_store: MemoryStore, tenant_id: UUID) -> None:
    episodes = [EpisodeFactory(tenant_id=tenant_id, id=uuid4(), embedding=QUERY) for _ in range(8)]
    entities = [EntityFactory(tenant_id=tenant_id, id=uuid4(), embedding=QUERY) for _ in range(8)]
    await memory_store.add_episodes(episodes)
    for entity in entities:
        await memory_store.add_entity(entity)
    found_episodes = await memory_store.vector_search_episodes(QUERY, tenant_id, limit=5)
    assert [found.id for found, _ in found_episodes] == sorted(episode.id for episode in episodes)[:5]
    found_entities = await memory_store.vector_search_entities(QUERY, tenant_id, limit=5)
    assert [found.id for found, _ in found_entities] == sorted(entity.id for entity in entities)[:5]


@pytest.mark.parametrize("vector", [[], [1.0], [0.0] * DIMENSIONS, [math.nan] + [1.0] * (DIMENSIONS - 1)])
async def test_a_vector_that_cannot_be_compared_is_refused(
    memory_store: MemoryStore, tenant_id: UUID, vector: list[float]
) -> None:
    for search in (
        memory_store.vector_search_episodes(vector, tenant_id),
        memory_store.hybrid_search_episodes("a", vector, tenant_id),
        memory_store.vector_search_entities(vector, tenant_id),
    ):
        with pytest.raises(ValidationError) as refused:
            await search
        assert refused.value.field == "query_embedding"
    for add_one in (
        memory_store.add_episode(EpisodeFactory(embedding=vector)),
        memory_store.add_entity(EntityFactory(embedding=vector)),
        memory_store.update_entity(EntityFactory(embedding=vector)),
    ):
        with pytest.raises(ValidationError) as refused:
            await add_one
        assert refused.value.field == "embedding"
    with pytest.raises(ValidationError) as refused:
        await memory_store.vector_search_episodes(QUERY, tenant_id, min_score=math.nan)
    assert refused.value.field == "min_score"


# -- hybrid ----------------------------------------------------------------------------------------------------


async def test_a_hybrid_score_is_the_sum_of_reciprocal_ranks(
    memory_store: MemoryStore, tenant_id: UUID
) -> None:
    # By text, newest first: c, b. By vector: a, b, d.
    a, b, c, d = [
        EpisodeFactory(
            tenant_id=tenant_id,
            content=content,
            embedding=None if angle is None else at_angle(angle),
            occurred_at=NOON + timedelta(seconds=seconds),
        )
        for seconds, (content, angle) in enumerate(
            (("nothing", 0), ("the word", 20), ("word", None), ("", 170))
        )
    ]
    await memory_store.add_episodes([a, b, c, d])
    found = await memory_store.hybrid_search_episodes("WORD", QUERY, tenant_id)
    scores = {episode.id: score for episode, score in found}
    assert scores == {b.id: 1 / 62 + 1 / 62, a.id: 1 / 61, c.id: 1 / 61, d.id: 1 / 63}
    assert [episode.id for episode, _ in found] == [b.id, *sorted([a.id, c.id]), d.id]
    assert await memory_store.hybrid_search_episodes("WORD", QUERY, tenant_id, limit=2) == found[:2]
    assert await memory_store.hybrid_search_episodes("WORD", QUERY, tenant_id, limit=0) == []
    for query in ("", "unsaid", "zz"):
        by_vector = await memory_store.hybrid_search_episodes(query, QUERY, tenant_id)
        assert [(episode.id, score) for episode, score in by_vector] == [
            (a.id, 1 / 61),
            (b.id, 1 / 62),
            (d.id, 1 / 63),
        ]


async def test_a_hundred_of_each_ranking_are_fused_or_as_many_as_are_wanted(
    memory_store: MemoryStore, tenant_id: UUID
) -> None:
    # The text ranking is the reverse of the vector ranking: newest is farthest.
    episodes = [
        EpisodeFactory(
            tenant_id=tenant_id,
            content="same",
            embedding=at_angle(number / 2),
            occurred_at=NOON + timedelta(seconds=number),
        )
        for number in range(130)
    ]
    await memory_store.add_episodes(episodes)

    def expected(fused: int, limit: int) -> list[tuple[UUID, float]]:
        scores = {
            episode.id: (1 / (60 + 130 - place) if 130 - place <= fused else 0.0)
            + (1 / (61 + place) if place < fused else 0.0)
            for place, episode in enumerate(episodes)
        }
        best = sorted(scores.items(), key=lambda item: (-item[1], item[0]))
        return [(id_, score) for id_, score in best if score][:limit]

    for limit, fused in ((10, 100), (100, 100), (110, 110), (200, 130)):
        found = await memory_store.hybrid_search_episodes("same", QUERY, tenant_id, limit=limit)
        assert [(episode.id, score) for episode, score in found] == expected(fused, limit)
