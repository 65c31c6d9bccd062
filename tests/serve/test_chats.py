"""The chat's endpoint: events of an answer, one answer at a time, and clients that leave."""

import asyncio
import base64
import http.client
import itertools
import json
import threading
import time
import urllib.parse

import pytest
from parity import GOLDEN
from png import png

pytest.importorskip("fastapi", reason="needs fastapi: pip install -e '.[demo]'")

from fastapi.testclient import TestClient
from served import served

from mmjax.chat import NO_ROOM, Result
from mmjax.data.text.calls import Call
from mmjax.serve import chats
from mmjax.serve.app import make_app
from mmjax.serve.chats import Chats, open_chats
from mmjax.serve.decoders import Lanes

IMAGE = png(8, 8)


class Scripted:
    """A chat whose answers are given: pieces, and what is said in the end."""

    def __init__(self, *pieces, said=(), images=()):
        self.pieces, self.said, self.images = pieces, said, images
        self.asked, self.free, self.closed = [], threading.Event(), threading.Event()
        self.free.set()

    def answer(self, messages, images):
        self.asked.append([dict(m) for m in messages])
        try:
            for piece in self.pieces:
                self.free.wait(20)
                yield piece
            messages += self.said
            images += self.images
        finally:
            self.closed.set()


def scripted(*args, **kwargs):
    chat = Scripted(*args, **kwargs)
    return chat, Chats(chat, "model", ["crop"], Lanes())


def user(text, images=0):
    return {"role": "user", "text": text, "images": images}


def form(messages, *images):
    files = [("files", ("image", image)) for image in images]
    return {"data": {"messages": json.dumps(messages)}, "files": files or None}


def events(answer):
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("application/x-ndjson")
    return [json.loads(line) for line in answer.text.splitlines()]


def test_the_page_says_what_the_command_says():
    found = open_chats(str(GOLDEN / "llava"), "", Lanes())
    with TestClient(make_app(["testserver"], chats=found)) as client:
        assert client.get("/api/about").json()["chat"] == {"model": "llava", "tools": []}
        first = [user("what?", 1)]
        *pieces, last = events(client.post("/api/chat", **form(first, IMAGE)))
        said = last["said"]
        back = [*first, *({**one, "images": 0} for one in said), user("why?")]
        again = events(client.post("/api/chat", **form(back, IMAGE)))
    messages = [{"role": "user", "content": "<image>\nwhat?"}]
    want = "".join(found._chat.answer(messages, [IMAGE]))
    assert "".join(piece["text"] for piece in pieces) == want
    assert said == [{"role": "assistant", "text": messages[-1]["content"], "images": []}]
    assert "said" in again[-1] or "window" in again[-1]["error"]  # of 64 tokens


def test_a_tool_that_cannot_be_loaded_is_refused_at_the_start():
    with pytest.raises(ValueError, match="'clip'"):
        open_chats(str(GOLDEN / "llava"), f"calculator,detector={GOLDEN / 'clip'}", Lanes())


def test_a_tool_of_recordings_is_none_of_the_page():
    with pytest.raises(ValueError, match="'speech' reads a recording, which nobody can send on"):
        open_chats(str(GOLDEN / "llava"), f"crop,speech={GOLDEN / 'whisper'}", Lanes())


def test_calls_and_results_are_events_and_come_back_with_the_next_question():
    call, other = Call("crop", "0, 0, 1, 1"), Call("calculator", "1 + 1")
    said = [
        {"role": "assistant", "content": str(call)},
        {"role": "tool", "content": "<image>"},
        {"role": "assistant", "content": f"so {other}"},
        {"role": "tool", "content": "2"},
        {"role": "assistant", "content": "two"},
    ]
    pieces = (str(call), call, Result(call, b"PNG"), "so ", str(other), other, Result(other, "2"))
    chat, found = scripted(*pieces, "two", said=said, images=[b"PNG"])
    with TestClient(make_app(["testserver"], chats=found)) as client:
        asked = [user("a<image>b", 1)]
        got = events(client.post("/api/chat", **form(asked, IMAGE)))
        assert got[:3] == [
            {"text": str(call)},
            {"call": {"name": "crop", "arguments": "0, 0, 1, 1"}},
            {"result": {"image": base64.b64encode(b"PNG").decode()}},
        ]
        assert {"result": {"text": "2"}} in got and NO_ROOM not in str(got)
        back = got[-1]["said"]
        assert [m["role"] for m in back] == [m["role"] for m in said]
        back = [{**one, "images": len(one["images"])} for one in back]
        events(client.post("/api/chat", **form([*asked, *back, user("and?")], IMAGE, IMAGE)))
    assert chat.asked[0] == [{"role": "user", "content": "<image>\na b"}]
    assert chat.asked[1][1:-1] == said


@pytest.mark.parametrize(
    "messages, images, said",
    [
        ([], [], "it has no messages"),
        ([user(" ")], [], "turn 0, by the user, is empty"),
        ([user("a"), {"role": "assistant", "text": "b"}], [], "The last message is not yours"),
        ([{"role": "assistant", "text": "b"}, user("a")], [], "it starts with assistant"),
        ([user("a", 1)], [b"text"], "are no image"),
        ([user("a", 1)], [], "The messages have 1 images, and 0 files came"),
        ([user("a")], [IMAGE], "The messages have 0 images, and 1 files came"),
        ([user("a", 8), user("a", 1)], [IMAGE] * 9, "has 9 images, and at most 8"),
        ([user("a", -1)], [], "messages/0/images: Input should be greater"),
        ([user("a")] * 101, [], "messages: List should have at most 100 items"),
        ([user("a" * 20_001)], [], "has 20,001 characters"),
        ([{"role": "root", "text": "a"}], [], "messages/0/role: Input should be"),
        ([{"role": "assistant", "text": "b", "images": 1}], [IMAGE], "by the assistant, has"),
        ("hello", [], "messages: Input should be a valid"),
    ],
)
def test_conversations_that_are_none_get_one_sentence(messages, images, said):
    chat, found = scripted("a")
    with TestClient(make_app(["testserver"], chats=found)) as client:
        answer = client.post("/api/chat", **form(messages, *images))
        assert answer.status_code == 400 and said in answer.json()["error"]
        assert not chat.asked
        assert client.post("/api/search", data={"image": "0"}).status_code in (404, 405)


def ask(address):
    """A connection that has asked, and its response, which is not read yet."""
    client = http.client.HTTPConnection(*address, timeout=20)
    body = urllib.parse.urlencode({"messages": json.dumps([user("what?")])})
    kind = {"Content-Type": "application/x-www-form-urlencoded"}
    client.request("POST", "/api/chat", body, kind)
    return client, client.getresponse()


def test_one_answers_while_others_wait_and_one_that_leaves_is_stopped(monkeypatch):
    monkeypatch.setattr(chats, "WAITING", 1)
    chat, found = scripted()
    chat.pieces = (time.sleep(0.001) or "a" for _ in itertools.count())
    server, address = served(make_app(["127.0.0.1"], chats=found))
    chat.free.clear()
    first, answer = ask(address)
    while not chat.asked:
        time.sleep(0.01)
    second, waits = ask(address)
    assert json.loads(waits.readline()) == {"waiting": 1}
    third, refused = ask(address)
    assert refused.status == 503 and "overloaded" in refused.read().decode()
    answer.close()
    first.close()  # in the middle of its answer
    chat.free.set()
    assert chat.closed.wait(20) and found._inside <= 2
    assert json.loads(waits.readline()) == {"text": "a"}
    waits.close()
    second.close()
    end = time.monotonic() + 20
    while found._inside:
        assert time.monotonic() < end
        time.sleep(0.01)
    assert len(chat.asked) == 2
    server.should_exit = True


def test_an_answer_that_takes_too_long_or_fails_ends_with_a_sentence(monkeypatch):
    chat, found = scripted("a", "b")
    monkeypatch.setattr(chats, "SECONDS", 0.2)

    async def collect():
        return [e async for e in await found.answer([chats.Said("user", "a")])]

    chat.free.clear()
    assert "longer than 0.2 seconds" in asyncio.run(collect())[-1]["error"]
    chat.free.set()

    def failing(messages, images):
        yield "a"
        raise ValueError("The prompt is too long.")

    chat.answer = failing
    found = Chats(chat, "model", [], Lanes())
    monkeypatch.setattr(chats, "SECONDS", 20.0)
    assert asyncio.run(collect()) == [{"text": "a"}, {"error": "The prompt is too long."}]
