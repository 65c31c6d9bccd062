"""Conversations as text and tokens: templates, responses, expanded images, packed rows."""

import datetime
import json

import numpy as np
import pytest
from parity import GOLDEN

from mmjax.data.open_source import open_source
from mmjax.data.sources.packed import first_fit
from mmjax.data.text.chat import ChatTemplate, parts
from mmjax.data.text.image_places import ImagePlaces
from mmjax.data.text.tokenizer import load_tokenizer
from mmjax.data.transforms.parse import parse
from mmjax.pack import measure
from mmjax.run.tokenizer import make_tokenizer
from mmjax.weights import tokenizer as published

TOKENIZER = published.read_for_generation(GOLDEN / "llava")  # <image> is token 3, </s> 2
RNG = np.random.default_rng(0)
LLAVA_15 = (  # as the published llava-1.5-7b-hf/chat_template.json is built
    "{% for message in messages %}{% if message['role'] != 'system' %}"
    "{{ message['role'].upper() + ': '}}{% endif %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'image') %}"
    "{{ '<image>\n' }}{% endfor %}{% if message['role'] != 'assistant' %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}"
    "{{ content['text'] + ' '}}{% endfor %}{% else %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}"
    "{% generation %}{{ content['text'] + ' '}}{% endgeneration %}{% endfor %}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)


def turns(*contents):
    roles = ("user", "assistant")
    return [{"role": roles[i % 2], "content": x} for i, x in enumerate(contents)]


def image(side=4):
    return RNG.integers(0, 256, (side, side, 3)).astype(np.uint8)


def test_a_template_of_lists_and_one_of_texts():
    messages = turns("what is<image>this?", "a bus", "red?", "yes")
    found = ChatTemplate(LLAVA_15, {}).rendered(messages)
    assert found.text == (
        "USER: <image>\nwhat is this? ASSISTANT: a bus USER: red? ASSISTANT: yes "
    )
    assert [found.text[a:b] for a, b in found.responses] == [" a bus ", " yes "]
    plain = ChatTemplate(
        "{% for m in messages %}[{{ m.role }}|{{ m.content }}]{% endfor %}"
        "{% if add_generation_prompt %}[assistant|{% endif %}",
        {},
    )
    assert plain.render(messages[:1]) == "[user|what is<image>this?]"
    spans = plain.rendered(messages)
    assert [spans.text[a:b] for a, b in spans.responses] == ["a bus]", "yes]"]
    assert parts("<image>a<image>") == [
        {"type": "image"},
        {"type": "text", "text": "a"},
        {"type": "image"},
    ]


def test_what_a_template_cannot_do():
    with pytest.raises(ValueError, match="The chat template has a mistake: .*endfor"):
        ChatTemplate("{% for m in messages %}", {})
    refuses = ChatTemplate("{{ raise_exception('roles must alternate') }}", {})
    with pytest.raises(ValueError, match="refuses the messages: roles must alternate"):
        refuses.render(turns("a"))
    outside = ChatTemplate("{{ messages.__class__.__mro__ }}", {})  # it is a sandbox
    with pytest.raises(ValueError, match="refuses the messages: access to attribute '__class__'"):
        outside.render(turns("a"))
    later = ChatTemplate(
        "{{ messages | length }}{% for m in messages %}{{ m.content }}{% endfor %}", {}
    )
    with pytest.raises(ValueError, match="writes messages otherwise once there are later ones"):
        later.rendered(turns("a", "b", "c", "d"))


W = "works on more than"
GROWS = "{% set ns = namespace(x='ab') %}{% for i in range(60) %}{% set ns.x = GROWN %}{% endfor %}"


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{% for i in range(999) %}{% for j in range(999) %}{% endfor %}{% endfor %}", "works on"),
        ("{{ 'a' * 30000000 }}", "works on more than 20,000,000 characters"),
        ("{{ 'a'.ljust(30000000) }}", "works on more than"),
        ("{% set x = 'a' * 9000 %}{{ x | replace('a', x) }}", "works on more than"),
        ("{% set x = 'a' * 9000 %}{{ range(9000) | map('string') | join(x) }}", "works on more"),
        (GROWS.replace("GROWN", "ns.x ~ ns.x"), "works on more than"),
        (GROWS.replace("GROWN", "ns.x + ns.x"), "works on more than"),
        (
            "{% set l = range(99999) | list %}{% for i in l %}{{ -1 in l }}{% endfor %}",
            W,
        ),
        ("{% set l = range(99999) | list %}{{ l | select('in', l) | list }}", W),
        ("{% set s = 'a' * 999999 %}{% for i in range(999) %}{% set t = s[1:] %}{% endfor %}", W),
        ("{{ 'a'.encode() * 999999999 }}", W),
        ("{{ [range(2000) | list] | tojson(indent=99999) }}", W),
        (
            GROWS.replace("'ab'", "9").replace("GROWN", "ns.x * ns.x"),
            "an integer of more than 4,096",
        ),
        ("{{ '%d' % 3 }}", r"it uses %, which has no bound"),
        ("{{ '{}'.format(3) }}", "it uses format, which has no bound"),
        ("{{ 1 / 0 }}", "division by zero"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "recursion"),
    ],
)
def test_the_work_of_a_template_is_bounded(template, message):
    with pytest.raises(ValueError, match=f"The chat template refuses the messages: .*{message}"):
        ChatTemplate(template, {}).render(turns("a"))


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (
            "{% for m in messages %}" * 30 + "{% endfor %}" * 30,
            "has a mistake: too many statically",
        ),
        ("{% break %}", "has a mistake: 'break' outside loop"),
        ("{{ " + "9" * 5000 + " }}", "has a mistake: Exceeds the limit"),
        ("a" * 200_001, "has 200,001 characters; the maximum is 200,000"),
    ],
)
def test_what_python_refuses_of_a_template_is_a_mistake(template, message):
    with pytest.raises(ValueError, match=f"The chat template {message}"):
        ChatTemplate(template, {})


def test_json_is_that_of_transformers():
    """Not escaped for HTML, as jinja's own filter does; a template cannot make half a character."""
    messages = turns("a < 'b' & ü \U0001f600")
    found = ChatTemplate("{{ messages | tojson }}{{ messages[0] | tojson(indent=2) }}", {})
    want = json.dumps(messages, ensure_ascii=False)
    assert found.render(messages) == want + json.dumps(messages[0], ensure_ascii=False, indent=2)
    with pytest.raises(ValueError, match="makes half of a surrogate pair"):
        ChatTemplate("{{ '\\ud800' }}", {}).render(messages)


def test_a_template_that_writes_the_date_writes_the_same_one_every_day():
    llama = (  # as Llama 3.1 and later ask for it
        "{% if strftime_now is defined %}{% set day = strftime_now('%d %b %Y') %}"
        "{% else %}{% set day = '26 Jul 2024' %}{% endif %}{{ day }}"
    )
    assert ChatTemplate(llama, {}).render(turns("a")) == "26 Jul 2024"
    for form in ("%Y-%m-%d", "%d %B %Y", "%B %-d, %Y", "%A %H:%M:%S %j 100%%"):
        found = ChatTemplate("{{ strftime_now(" + repr(form) + ") }}", {}).render(turns("a"))
        assert found == datetime.datetime(2024, 7, 26).strftime(form)
    for form in ("%99999999d", "%c", "%", "%_d"):  # of any length; of the machine's language
        refused = ChatTemplate("{{ strftime_now(" + repr(form) + ") }}", {})
        with pytest.raises(ValueError, match="refuses the messages: it writes the date as"):
            refused.render(turns("a"))


def test_long_conversations_are_within_the_bound():
    template = ChatTemplate(
        "{% for m in messages %}{{ loop.index }} {{ m.role | upper }}: {{ m['content'].strip() }}"
        "{{ m | tojson(indent=2) }}{% endfor %}{{ messages | map(attribute='role') | join(', ') }}",
        {},
    )
    text = template.render(turns(*["word " * 200] * 600))
    assert text.count("USER") == 300 and text.endswith("user, assistant")
    with pytest.raises(ValueError, match="The chat template has a mistake: .*recursion"):
        ChatTemplate("{{" + "(" * 3000 + "1" + ")" * 3000 + "}}", {})


def converse(settings, example):
    step = parse(f"converse({settings})", tokenizer=TOKENIZER)
    return step(example, np.random.default_rng(0))


def words(row, mask):
    return TOKENIZER._backend.decode(row["text"][mask].tolist(), skip_special_tokens=False)


def test_a_row_has_its_images_where_they_are_written_and_learns_the_responses():
    first, second = image(), image()
    example = {
        "key": "x",
        "image": (first, second),
        "messages": turns("a red bus<image>", "two dogs", "<image>and a cup", "of tea"),
    }
    row = converse("80, 3, 5, images=3, template='vicuna'", example)
    ids, mask = row["text"], row["text_mask"]
    assert (ids == 3).sum() == 10 and mask.sum() < 80 and not mask[mask.sum() :].any()
    # As the tokenizer's own encoding of the whole text.
    whole = (
        "USER: a red bus<image> ASSISTANT: two dogs</s>USER: <image>and a cup ASSISTANT: of tea</s>"
    )
    whole = whole.replace("<image>", "<image>" * 5)
    begins = [] if TOKENIZER.bos_id is None else [TOKENIZER.bos_id]
    assert ids[mask].tolist() == [*begins, *TOKENIZER._backend.encode(whole).ids]
    learned = row["text_loss_mask"]
    assert words(row, learned) == " two dogs</s> of tea</s>"
    np.testing.assert_array_equal(row["image"][:2], [first, second])
    np.testing.assert_array_equal(row["image_mask"], [True, True, False])
    assert not ({"messages", "text_pack"} & row.keys())
    prompt = converse("80, 3, 5, images=3, template='vicuna', prompt=True", example)
    assert words(prompt, prompt["text_mask"]).endswith("and a cup ASSISTANT:")
    assert not prompt["text_loss_mask"].any()


def test_a_prompt_has_neither_the_references_call_of_a_tool_nor_its_result():
    called = [*turns("sum?", "<tool add>1 + 2</tool>"), {"role": "tool", "content": "3"}]
    prompt = "80, 3, 5, size=4, template='vicuna', prompt=True"
    row = converse(prompt, {"messages": [*called, {"role": "assistant", "content": "it is 3"}]})
    assert words(row, row["text_mask"]).removeprefix("<s>") == "USER: sum? ASSISTANT:"
    row = converse(prompt, {"messages": called})  # what the model called itself is kept
    assert words(row, row["text_mask"]).endswith("</tool></s>TOOL: 3 ASSISTANT:")
    row = converse("80, 3, 5, size=4, template='vicuna'", {"messages": called})
    assert words(row, row["text_loss_mask"]) == " <tool add>1 + 2</tool></s>"


def test_the_tokenizers_own_template_and_tokens_around_an_image(tmp_path):
    example = {"image": (image(),), "messages": turns("<image>bus?", "a bus")}
    row = converse("40, 3, 2, places={'start': '[', 'end': ']'}", example)
    assert words(row, row["text_mask"]).removeprefix("<s>") == (
        "USER: [<image><image>]\nbus? ASSISTANT: a bus</s>"
    )
    TOKENIZER.save(tmp_path)
    assert load_tokenizer(tmp_path).chat_template == TOKENIZER.chat_template
    grid = ImagePlaces("x", 1, "<", ">", "({row},{column})").text((2, 1))
    assert grid == "(1,1)x\n(2,1)x\n\n<x>"


def test_captions_and_questions_become_conversations():
    ask = parse("ask(('what is it?',), before=False)")
    made = ask({"image": image(), "captions": ["a bus"]}, np.random.default_rng(0))
    assert made["messages"] == turns("what is it?\n<image>", "a bus")
    made = parse("ask")({"captions": ["how many?"], "answers": ["two"]}, np.random.default_rng(0))
    assert made["messages"] == turns("how many?", "two")
    row = converse("20, 3, 2, size=4, template='plain'", {"key": "y", **made})
    assert words(row, row["text_mask"]) == "two</s>"
    assert words(row, row["text_loss_mask"]) == "wo</s>"  # nothing predicts the first token
    assert row["image"].shape == (1, 4, 4, 3) and not row["image_mask"].any()


def test_a_tokenizer_of_the_runs_own_corpus_has_a_token_for_images(tmp_path):
    config = {"kind": "train_bpe", "vocab_size": 300, "specials": ("<image>",)}
    words = make_tokenizer(config, corpus=["a red bus"] * 3)
    words.save(tmp_path)
    assert make_tokenizer(config, saved=tmp_path).fingerprint == words.fingerprint  # a resumed run
    assert words.token_id("<image>") == 3
    example = {"image": (image(),), "messages": turns("<image>\na bus?", "red")}
    row = parse("converse(40, 3, 2, template='vicuna')", tokenizer=words)(example, RNG)
    assert (row["text"] == 3).sum() == 2 and row["text"][0] == words.bos_id
    learned = row["text"][row["text_loss_mask"]]
    assert learned[-1] == words.eos_id and words.decode(learned) == "red"
    assert 3 not in words.prompts(["<image>"])[0]  # in captions it is text
    asked = {"captions": ["how?"], "answers": ["so"], "image": image()}
    assert "image" not in parse("ask(image=False)")(asked, np.random.default_rng(0))


@pytest.mark.parametrize(
    ("messages", "images", "message"),
    [
        (turns("<image>a", "b"), 0, "its text has 1 <image> and it comes with 0 images"),
        (turns("a", "b"), 1, "its text has 0 <image> and it comes with 1 images"),
        (turns("<image>a", "<image>"), 2, "turn 1, by the assistant, has <image>: images belong"),
        (turns("a", " "), 0, "turn 1, by the assistant, is empty"),
        (turns("a", "b")[1:], 0, "it starts with assistant: the user has the first turn"),
        ([], 0, "it has no messages"),
        ([{"role": "tool", "content": "a"}], 0, "it starts with tool: the user has the first turn"),
        ([{"role": "critic", "content": "a"}], 0, "turn 0 is by 'critic': use one of system, user"),
    ],
)
def test_conversations_that_cannot_be_learned_from_are_named(messages, images, message):
    example = {"key": "17", "messages": messages, "image": (image(),) * images}
    with pytest.raises(ValueError, match=rf"the conversation of example '?17'?: {message}"):
        converse("40, 3, 2, images=2", example)


def test_rows_that_are_too_long_say_how_long():
    example = {"key": "z", "messages": turns("<image>a", "b"), "image": (image(),)}
    with pytest.raises(
        ValueError, match=r"example '?z'? has 6\d\d tokens with those of its images"
    ):
        converse("40, 3, 600", example)
    with pytest.raises(ValueError, match=r"example '?z'? has 1 images, and a row 0"):
        converse("40, 3, 2, images=0", example)
    with pytest.raises(ValueError, match="has no chat template: give the template"):
        bare = published.read_for_generation(GOLDEN / "llama")
        parse("converse(40)", tokenizer=bare)
    with pytest.raises(ValueError, match="no chat template 'vicunna': .* Did you mean 'vicuna'"):
        converse("40, template='vicunna'", example)


RECORDS = [
    {
        "id": "a",
        "image": "one.png",
        "conversations": [
            {"from": "human", "value": "<image>\nwhat?"},
            {"from": "gpt", "value": "a bus"},
        ],
    },
    {"conversations": [{"from": "user", "text": "hi"}, {"from": "chatgpt", "text": "hello"}]},
    {
        "key": 7,
        "messages": [
            {"role": "system", "content": "be brief"},
            {
                "role": "user",
                "content": [
                    {"type": "image", "image": "one.png"},
                    {"type": "text", "text": " and "},
                    {"type": "image", "path": "two.png"},
                ],
            },
            {"role": "assistant", "content": [{"type": "text", "text": "two"}]},
        ],
        "audio": "one.png",
    },
]
BAD = [
    ({"id": "b"}, r"record 0 \('b'\) of .*: it has no list of turns: name it one of"),
    ([1], "record 0 of .*: it is a list, and must be an object"),
    ({**RECORDS[0], "image": ["one.png", "two.png"]}, "1 <image> and it comes with 2 images"),
    ({**RECORDS[0], "image": "three.png"}, "there is no file .*three.png"),
    ({**RECORDS[0], "image": "../x.png"}, "'../x.png' leads out of the folder"),
    ({"messages": [{"role": "critic", "content": "a"}]}, "turn 0 is by 'critic': use one of user"),
    ({"messages": [{"role": "user", "content": [{"type": "video"}]}]}, "turn 0 has the part"),
    ({"messages": [{"role": ["user"], "content": "a"}]}, r"turn 0 is by \['user'\]: use one of"),
    (
        {"messages": [{"role": "user", "content": [{"type": "image", "image": 3}]}]},
        "turn 0 has the image 3: it must name a file",
    ),
    ({"messages": turns("a \ud83d", "b")}, "turn 0 has half of a surrogate pair"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("chat")
    for name in ("one", "two"):
        (root / f"{name}.png").write_bytes(name.encode())
    (root / "list.json").write_text(json.dumps(RECORDS))
    (root / "lines.jsonl").write_text("\n".join(map(json.dumps, RECORDS)))
    return root


@pytest.mark.parametrize("file", ["list.json", "lines.jsonl"])
def test_llavas_file_sharegpts_and_lines_of_messages(folder, file):
    source = open_source({"kind": "conversations", "path": str(folder / file)})
    assert [source.meta(i)["key"] for i in range(3)] == ["a", "1", "7"]
    assert source[0]["image"] == (b"one",) and source[1]["image"] == ()
    assert source[1]["messages"] == turns("hi", "hello")
    assert source[2]["messages"][1] == {"role": "user", "content": "<image> and <image>"}
    assert source[2]["image"] == (b"one", b"two") and source[2]["audio"] == b"one"
    assert "image" not in source.meta(2) and source.meta(2)["images"] == 2


@pytest.mark.parametrize(("record", "message"), BAD)
def test_bad_records_are_named(folder, record, message, tmp_path):
    (folder / "bad.json").write_text(json.dumps([record, RECORDS[1]]))
    settings = {"kind": "conversations", "path": str(folder / "bad.json")}
    with pytest.raises(ValueError, match=message):
        open_source(settings, workdir=tmp_path)
    assert len(open_source({**settings, "max_bad_records": 1}, workdir=tmp_path)) == 1


def test_a_line_may_hold_other_line_separators(folder):
    said = turns("one\u2028two", "three\x85four")
    line = json.dumps({"messages": said}, ensure_ascii=False)
    (folder / "separators.jsonl").write_text(f"\ufeff{line}\r\n{line}\n", encoding="utf-8")
    source = open_source({"kind": "conversations", "path": str(folder / "separators.jsonl")})
    assert [source.meta(i)["messages"] for i in range(len(source))] == [said, said]


def test_files_that_are_none_are_refused(folder):
    for text, message in (
        ("hello", "Line 1 of '.*text.json' cannot be read: a file of conversations is a JSON list"),
        (json.dumps(RECORDS[1]) + "\n\n{", "Line 3 of '.*text.json' cannot be read"),
        ("[" * 5000, "'.*text.json' cannot be read: .*nested"),
    ):
        (folder / "text.json").write_text(text)
        with pytest.raises(ValueError, match=message):
            open_source({"kind": "conversations", "path": str(folder / "text.json")})
    with pytest.raises(ValueError, match="There is no file '.*none.json' of conversations"):
        open_source({"kind": "conversations", "path": str(folder / "none.json")})


def test_packed_conversations_are_those_of_rows_of_their_own(folder):
    inner = {"kind": "conversations", "path": str(folder / "list.json")}
    step = "converse(60, 3, 5, images=3, size=1, template='vicuna')"
    tokens, images, length, most = measure(open_source(inner), step, TOKENIZER)
    assert (length, most) == (60, 3) and images.tolist() == [1, 0, 2]
    groups = first_fit(tokens, images, length, most)
    (folder / "packs.json").write_text(json.dumps({"groups": groups}))
    packed = open_source({"kind": "packed", "source": inner, "file": str(folder / "packs.json")})
    assert sorted(i for group in groups for i in group) == [0, 1, 2] and len(packed) < 3
    alone = {}
    for i, group in enumerate(groups):
        assert packed[i]["image"] == tuple(x for j in group for x in open_source(inner)[j]["image"])
        pixels = {"image": (image(1),) * len(packed[i]["image"])}
        row = converse("60, 3, 5, images=3, size=1, template='vicuna'", {**packed[i], **pixels})
        for number, j in enumerate(group):
            mine = (row["text_pack"] == number) & row["text_mask"]
            example = {**open_source(inner).meta(j), "image": (image(1),) * int(images[j])}
            alone = converse("60, 3, 5, images=3, size=1, template='vicuna'", example)
            for name in ("text", "text_loss_mask"):
                np.testing.assert_array_equal(row[name][mine], alone[name][alone["text_mask"]])
    with pytest.raises(ValueError, match="arranges 2 examples and .* has 3: write it again"):
        (folder / "packs.json").write_text(json.dumps({"groups": [[0, 1]]}))
        open_source({"kind": "packed", "source": inner, "file": str(folder / "packs.json")})


def test_the_first_token_of_a_packed_conversation_is_not_learned():
    """Without a begin token, and with a template that leaves the question out."""
    words = published.read_for_generation(GOLDEN / "llava")
    words.bos_id = None
    two = [{"messages": turns("a", "two dogs"), "images": 0}] * 2
    step = parse("converse(40, 3, 2, template='plain')", tokenizer=words)
    row = step({"conversations": two}, RNG)
    for number in (0, 1):
        learned = row["text_loss_mask"][row["text_pack"] == number]
        assert not learned[0] and learned[1:].any()


def test_the_models_token_of_an_image_is_no_text():
    example = {"key": "k", "messages": turns("what is <unk>?", "b")}
    message = "example 'k': its text has <unk>, which the model reads as an image"
    with pytest.raises(ValueError, match=message):
        converse(f"40, {TOKENIZER.token_id('<unk>')}, 2, template='vicuna'", example)


def test_first_fit_fills_rows_and_loses_none():
    lengths, images = RNG.integers(1, 60, 200), RNG.integers(0, 3, 200)
    groups = first_fit(lengths, images, 100, 4)
    assert sorted(i for group in groups for i in group) == list(range(200))
    assert all(lengths[g].sum() <= 100 and images[g].sum() <= 4 for g in map(np.array, groups))
    fewest = max(lengths.sum() / 100, images.sum() / 4)
    assert len(groups) <= 11 / 9 * fewest + 6
    with pytest.raises(ValueError, match="Example 1 has 101 tokens and 0 images, and a row"):
        first_fit([3, 101], [0, 0], 100, 1)
