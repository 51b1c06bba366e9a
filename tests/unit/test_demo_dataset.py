from __future__ import annotations

import gzip
import json
import re
from collections import Counter
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from soldier_data.demo.dataset import (
    SAMPLE_GUIDELINES,
    count_conversations,
    read_conversations,
    read_guidelines,
)
from soldier_data.demo.models import Conversation, Exchange
from soldier_data.errors import ConfigurationError, ValidationError

_SHARED = Path(__file__).parents[3] / "shared" / "data"
_REAL_CONVERSATIONS = _SHARED / "conversations.jsonl.gz"
_REAL_GUIDELINES = _SHARED / "guidelines.json.gz"

needs_real_data = pytest.mark.skipif(
    not (_REAL_CONVERSATIONS.is_file() and _REAL_GUIDELINES.is_file()),
    reason=f"the real conversations and guidelines are not in {_SHARED}",
)

_TASK: dict[str, Any] = {
    "task": "post_parcel",
    "domain": "post",
    "replies": {
        "hello": "Hello",
        "query": "Query",
        "query_success": "Succeeded",
        "inform_sent": "It is sent.",
        "out_of_scope": "Sorry?",
    },
    "graph": {"hello": "query", "query_success": "inform_sent"},
    "happy_path": ["hello", "query"],
}


def _record(*turns: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"conversation_id": "c-1", "source": "abcd", "flow": "f", "subflow": "s", "turns": turns} | fields


def _conversation(roles: str, **fields: Any) -> Conversation:
    names = {"c": "customer", "a": "agent", "x": "action"}
    turns = [{"role": names[role], "text": f"{role}{number}"} for number, role in enumerate(roles)]
    return Conversation.model_validate(_record(*turns, **fields))


def _shape(exchanges: list[Exchange]) -> list[str]:
    return [" ".join(turn.text for turn in exchange.turns) for exchange in exchanges]


def _write(path: Path, *lines: str) -> Path:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


class TestSample:
    def test_it_has_twelve_conversations_of_eight_people_three_of_whom_come_back(self) -> None:
        conversations = list(read_conversations())
        visits = Counter(each.customer_key for each in conversations)

        assert visits.total() == count_conversations() == 12
        assert len(visits) == len({(each.customer_key, each.customer_name) for each in conversations}) == 8
        assert None not in visits
        assert sum(count > 1 for count in visits.values()) == 3

    def test_conversations_are_short_and_move_forward_in_time(self) -> None:
        conversations = list(read_conversations())

        assert [each.id for each in conversations] == [f"sample-{number:02d}" for number in range(1, 13)]
        assert all(before.started_at < after.started_at for before, after in pairwise(conversations))
        for conversation in conversations:
            assert conversation.source == "sample"
            assert 6 <= len(conversation.turns) <= 16
            assert all(before.at <= after.at for before, after in pairwise(conversation.turns))

    def test_some_conversations_switch_task_in_the_middle(self) -> None:
        switches = [
            turn.task for each in read_conversations() for turn in each.turns if turn.action == "select_task"
        ]

        assert switches == ["change_address", "stock_question", "invoice_copy", "order_status"]

    def test_every_task_is_a_guideline_and_is_used(self) -> None:
        used = {turn.task for each in read_conversations() for turn in each.turns}

        assert used == {each.key for each in read_guidelines().values() if each.source == "star"}

    def test_every_step_that_an_agent_takes_is_a_reply_of_the_task(self) -> None:
        guidelines = read_guidelines()
        for turn in (turn for each in read_conversations() for turn in each.turns if turn.step):
            step = guidelines[turn.task or ""].step(turn.step)
            assert step is not None
            assert step.kind == "reply"
            template = re.sub(r"\\\{\w+\\\}", ".+", re.escape(step.text))
            assert turn.free_text or re.fullmatch(template, turn.text)

    def test_happy_paths_follow_the_graph_from_the_entry(self) -> None:
        guidelines = read_guidelines()
        for task in json.loads(SAMPLE_GUIDELINES.read_text(encoding="utf-8"))["star"]["tasks"]:
            assert task["happy_path"][0] == "hello"
            assert all(task["graph"][step] == following for step, following in pairwise(task["happy_path"]))
            assert task["happy_path"][-1] not in task["graph"]
            assert [step.key for step in guidelines[task["task"]].steps if step.is_entry] == ["hello"]

    def test_both_kinds_of_guideline_are_in_it(self) -> None:
        kinds = Counter(guideline.source for guideline in read_guidelines().values())

        assert kinds == {"star": 8, "abcd": 4}
        assert all(each.instructions for each in read_guidelines().values() if each.source == "abcd")


class TestExchanges:
    @pytest.mark.parametrize(
        ("roles", "expected"),
        [
            ("caca", ["c0 a1", "c2 a3"]),
            ("ccxxaac", ["c0 c1 x2 x3 a4 a5", "c6"]),
            ("aaca", ["a0 a1", "c2 a3"]),
            ("cax", ["c0 a1 x2"]),
            ("cacaxx", ["c0 a1", "c2 a3 x4 x5"]),
            ("cxca", ["c0 x1 c2 a3"]),
            ("caxac", ["c0 a1 x2 a3", "c4"]),
            ("xca", ["x0 c1 a2"]),
            ("x", ["x0"]),
        ],
    )
    def test_turns_are_grouped_around_the_reply(self, roles: str, expected: list[str]) -> None:
        assert _shape(_conversation(roles).exchanges()) == expected

    def test_texts_are_joined_and_may_be_empty(self) -> None:
        greeting, middle, goodbye = _conversation("accxac").exchanges()

        assert (greeting.customer_text, greeting.reply_text) == ("", "a0")
        assert (middle.customer_text, middle.reply_text) == ("c1\nc2", "a4")
        assert [turn.text for turn in middle.actions] == ["x3"]
        assert (goodbye.customer_text, goodbye.reply_text) == ("c5", "")
        assert [greeting.number, middle.number, goodbye.number] == [1, 2, 3]

    def test_a_task_holds_until_the_next_one_is_chosen(self) -> None:
        turns = [
            {"role": "customer", "text": "hi"},
            {"role": "agent", "text": "hello"},
            {"role": "customer", "text": "two things"},
            {"role": "action", "text": "", "action": "select_task", "task": "first"},
            {"role": "agent", "text": "yes?", "task": "first"},
            {"role": "customer", "text": "well"},
        ]
        conversation = Conversation.model_validate(_record(*turns, tasks=["first", "second"]))

        assert [exchange.task for exchange in conversation.exchanges()] == [None, "first", "first"]

    def test_the_only_task_of_a_conversation_is_its_task_from_the_start(self) -> None:
        assert [each.task for each in _conversation("caca", tasks=["timing"]).exchanges()] == ["timing"] * 2


class TestConversation:
    def test_turns_without_times_are_laid_out_evenly(self) -> None:
        conversation = _conversation("cac")

        assert conversation.started_at == datetime(2020, 5, 28, 9, tzinfo=UTC)
        gaps = {after.at - before.at for before, after in pairwise(conversation.turns)}
        assert gaps == {timedelta(seconds=30)}

    @pytest.mark.parametrize(
        ("customer", "key"),
        [
            ({"worker_id": "w", "account_id": "a", "phone": "p"}, "w"),
            ({"worker_id": None, "account_id": "a", "phone": "p"}, "a"),
            ({"account_id": None, "phone": "p"}, "p"),
            ({"name": "Alexis", "email": "a@example.com"}, None),
            ({}, None),
        ],
    )
    def test_a_person_is_known_by_the_most_lasting_id(
        self, customer: dict[str, Any], key: str | None
    ) -> None:
        assert _conversation("ca", customer=customer).customer_key == key

    @pytest.mark.parametrize(
        ("fields", "keys"),
        [
            ({"subflow": "timing_4", "tasks": ["timing"]}, ("timing",)),
            ({"subflow": "timing_4"}, ("timing",)),
            ({"subflow": "return_size"}, ("return_size",)),
            ({"subflow": "weather+plane_book"}, ("weather", "plane_book")),
        ],
    )
    def test_guidelines_are_found_by_task_or_by_subflow(
        self, fields: dict[str, Any], keys: tuple[str, ...]
    ) -> None:
        assert _conversation("ca", **fields).guideline_keys == keys


class TestReading:
    def test_packed_and_plain_files_read_the_same(self, tmp_path: Path) -> None:
        line = json.dumps(_record({"role": "customer", "text": "hi", "ts": 1_589_286_356}))
        plain = _write(tmp_path / "c.jsonl", line, "", line)
        packed = tmp_path / "c.jsonl.gz"
        packed.write_bytes(gzip.compress(plain.read_bytes()))

        assert list(read_conversations(plain)) == list(read_conversations(packed))
        assert count_conversations(plain) == count_conversations(packed) == 2

    def test_a_limit_stops_before_what_follows(self, tmp_path: Path) -> None:
        line = json.dumps(_record({"role": "customer", "text": "hi"}))
        path = _write(tmp_path / "c.jsonl", line, "", line, "not JSON")

        assert len(list(read_conversations(path, limit=2))) == 2
        assert list(read_conversations(path, limit=0)) == []

    def test_conversations_before_a_bad_line_are_read(self, tmp_path: Path) -> None:
        path = _write(tmp_path / "c.jsonl", json.dumps(_record({"role": "agent", "text": "hi"})), "{")
        conversations = read_conversations(path)

        assert next(conversations).turns[0].text == "hi"
        with pytest.raises(ValidationError, match=r"c\.jsonl, line 2: Invalid JSON"):
            next(conversations)

    @pytest.mark.parametrize(
        ("line", "field", "problem"),
        [
            ("{'single': 'quotes'}", None, "line 1: Invalid JSON: .* at column 2"),
            ("[]", None, "line 1: Input should be an object"),
            (
                '{"conversation_id": "1", "source": "s", "flow": "f", "subflow": "s"}',
                "turns",
                "Field required",
            ),
            (json.dumps(_record()), "turns", "line 1: turns: .* at least 1 item"),
            (json.dumps(_record(turns="secret")), "turns", "valid array"),
            (
                json.dumps(_record({"role": "bot", "text": "secret"})),
                "turns.0.role",
                "'customer', 'agent' or",
            ),
            (
                json.dumps(_record({"role": "agent", "text": "secret", "ts": "secret"})),
                "turns.0.ts",
                "datetime",
            ),
            (
                json.dumps(_record({"role": "agent", "text": "a", "ts": 1}, {"role": "agent", "text": "b"})),
                "turns.1.ts",
                "Field required",
            ),
        ],
    )
    def test_a_bad_line_is_named_without_repeating_it(
        self, tmp_path: Path, line: str, field: str | None, problem: str
    ) -> None:
        path = _write(tmp_path / "c.jsonl", line)

        with pytest.raises(ValidationError, match=problem) as caught:
            list(read_conversations(path))

        assert str(caught.value).startswith(f"{path}, line 1: ")
        assert caught.value.field == field
        assert "secret" not in str(caught.value)

    @pytest.mark.parametrize(
        "content", [b"plain text", gzip.compress(b"{}\n" * 9, mtime=0)[:-9], b"\x1f\x8b\x08rubbish"]
    )
    def test_a_file_that_only_pretends_to_be_packed_is_refused(self, tmp_path: Path, content: bytes) -> None:
        path = tmp_path / "c.jsonl.gz"
        path.write_bytes(content)

        with pytest.raises(ConfigurationError, match=r"c\.jsonl\.gz cannot be read: .* complete gzip file"):
            count_conversations(path)
        with pytest.raises(ConfigurationError, match="complete gzip file"):
            read_guidelines(path)

    def test_a_missing_file_is_named(self, tmp_path: Path) -> None:
        missing = tmp_path / "nowhere.jsonl"

        with pytest.raises(ConfigurationError, match=r"nowhere\.jsonl cannot be read: No such file"):
            next(read_conversations(missing))
        with pytest.raises(ConfigurationError, match=r"nowhere\.jsonl cannot be read: No such file"):
            read_guidelines(missing)
        with pytest.raises(ConfigurationError, match="directory"):
            count_conversations(tmp_path)


class TestGuidelines:
    def _read(self, path: Path, *, tasks: list[Any], flows: list[Any]) -> dict[str, Any]:
        document = {"star": {"tasks": tasks}, "abcd": {"flows": flows}}
        path.write_text(json.dumps(document), encoding="utf-8")
        return {key: guideline.steps for key, guideline in read_guidelines(path).items()}

    def test_a_graph_becomes_steps_that_know_their_place(self, tmp_path: Path) -> None:
        steps = self._read(tmp_path / "g.json", tasks=[_TASK], flows=[])["post_parcel"]

        assert [(step.key, step.kind, step.next_keys) for step in steps] == [
            ("hello", "reply", ("query",)),
            ("query", "action", ()),
            ("query_success", "branch", ("inform_sent",)),
            ("inform_sent", "reply", ()),
            ("out_of_scope", "reply", ()),
        ]
        assert [step.key for step in steps if step.is_entry] == ["hello"]
        assert [step.key for step in steps if step.is_terminal] == ["inform_sent"]
        assert [step.key for step in steps if step.is_detached] == ["query_success", "out_of_scope"]

    def test_buttons_become_steps_named_like_the_actions(self, tmp_path: Path) -> None:
        buttons = ["Pull up Account", "Notify Internal Team", "Boots", "N/A", "Log Out/In", "N/A"]
        subflow = {
            "subflow_id": "mend_boots",
            "subflow": "Mend Boots",
            "instructions": ["Be kind."],
            "actions": [{"button": button, "text": "t", "subtext": ["d"]} for button in buttons],
            "kb_actions": ["pull-up-account", "notify-team", "search-boots", "log-out-in"],
        }
        flow = {"flow_id": "f", "flow": "F", "description": "d", "subflows": [subflow]}

        steps = self._read(tmp_path / "g.json", tasks=[], flows=[flow])["mend_boots"]

        assert [(step.key, step.kind) for step in steps] == [
            ("pull-up-account", "action"),
            ("notify-team", "action"),
            ("search-boots", "action"),
            ("respond", "reply"),
            ("log-out-in", "action"),
            ("respond-2", "reply"),
        ]
        assert [step.next_keys for step in steps[:-1]] == [(step.key,) for step in steps[1:]]
        assert [step.is_terminal for step in steps] == [False] * 5 + [True]
        assert {step.details for step in steps} == {("d",)}

    def test_a_graph_that_leads_nowhere_is_refused(self, tmp_path: Path) -> None:
        task = _TASK | {"graph": {"hello": "lost"}}

        with pytest.raises(ValidationError, match=r"g\.json: star\.tasks\.0: .* not in replies: lost"):
            self._read(tmp_path / "g.json", tasks=[task], flows=[])

    def test_two_guidelines_of_one_name_are_refused(self, tmp_path: Path) -> None:
        with pytest.raises(ValidationError, match="two guidelines have the key post_parcel"):
            self._read(tmp_path / "g.json", tasks=[_TASK, _TASK], flows=[])

    def test_another_document_is_refused(self, tmp_path: Path) -> None:
        path = _write(tmp_path / "g.json", "{", '"star": nothing}')

        with pytest.raises(ValidationError, match=r"g\.json: Invalid JSON: .* at line 2 column"):
            read_guidelines(path)
        with pytest.raises(ValidationError, match=r"g\.json: star\.tasks: Field required"):
            read_guidelines(_write(path, "{}"))


@needs_real_data
class TestRealData:
    def test_all_conversations_parse_and_no_turn_is_lost(self) -> None:
        sources: Counter[str] = Counter()
        roles: Counter[str] = Counter()
        for conversation in read_conversations(_REAL_CONVERSATIONS):
            sources[conversation.source] += 1
            roles.update(turn.role for turn in conversation.turns)
            exchanges = conversation.exchanges()
            assert tuple(turn for exchange in exchanges for turn in exchange.turns) == conversation.turns
            assert all(exchange.turns for exchange in exchanges)

        assert sources == {"star": 2000, "abcd": 3}
        assert roles == {"customer": 18_765, "agent": 18_766, "action": 20_908}
        assert count_conversations(_REAL_CONVERSATIONS) == 2003

    def test_people_come_back(self) -> None:
        people = Counter(each.customer_key for each in read_conversations(_REAL_CONVERSATIONS))

        # 89 workers of STAR and the three customers of ABCD.
        assert len(people) == 92
        assert None not in people
        assert sum(count > 1 for count in people.values()) == 78

    def test_all_guidelines_parse_and_every_conversation_has_its_own(self) -> None:
        guidelines = read_guidelines(_REAL_GUIDELINES)

        assert Counter(each.source for each in guidelines.values()) == {"star": 24, "abcd": 55}
        assert sum(len(each.steps) for each in guidelines.values() if each.source == "abcd") == 255
        for guideline in guidelines.values():
            keys = [step.key for step in guideline.steps]
            assert len(set(keys)) == len(keys)
            assert {key for step in guideline.steps for key in step.next_keys} <= set(keys)
        wanted = {key for each in read_conversations(_REAL_CONVERSATIONS) for key in each.guideline_keys}
        assert wanted <= guidelines.keys()

    def test_actions_of_abcd_are_steps_of_their_guideline(self) -> None:
        timing = read_guidelines(_REAL_GUIDELINES)["timing"]
        conversation = next(c for c in read_conversations(_REAL_CONVERSATIONS) if c.subflow == "timing_4")
        taken = [turn.step_key for turn in conversation.turns if turn.role == "action"]

        assert taken == ["search-faq", "search-timing", "select-faq"]
        assert all(timing.step(key) for key in taken)
