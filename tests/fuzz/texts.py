"""Fuzzed readers of what turns texts into tokens: chat templates, vocabularies, spellings."""

import json
import shutil

from mmjax.data.text import chat, sentencepiece
from mmjax.data.text.tokenizer import load_tokenizer
from mmjax.data.text.train_words import train_words
from mmjax.evals.metrics.transcripts import english, read_spellings
from tests.fuzz.reader import GOLDEN, Reader, Seed

MESSAGES = [
    {"role": "system", "content": "be brief"},
    {"role": "user", "content": "what is<image>this?"},
    {"role": "assistant", "content": "a bus"},
]
# What published templates do, in few words.
TEMPLATES = (
    "{%- if messages[0]['role'] == 'system' -%}{% set s = messages[0].content %}"
    "{% set loop_messages = messages[1:] %}{% else %}{% set loop_messages = messages %}{% endif %}"
    "{% for message in loop_messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) "
    "%}{{ raise_exception('roles must alternate') }}{% endif %}{% if loop.first and s is defined %}"
    "{{ '<<SYS>>' + s + '<</SYS>>' }}{% endif %}{{ bos_token ~ message.content.strip() | trim }}"
    "{% if not loop.last %}{{ eos_token }}{% endif %}{% endfor %}",
    "{% macro part(x, deep=1) %}{% if x is string %}{{ x }}{% elif x is mapping %}"
    "{% for k, v in x.items() | sort %}{{ k | upper }}={{ part(v, deep + 1) }};{% endfor %}"
    "{% else %}{% for y in x %}{{ part(y) }}{% endfor %}{% endif %}{% endmacro %}"
    "{% set ns = namespace(count=0, text='') %}{% for m in messages recursive %}"
    "{% set ns.count = ns.count + 1 %}{% set ns.text = ns.text ~ part(m) %}{% endfor %}"
    "{{ ns.text | replace('a', 'bb') }}{{ messages | selectattr('role', 'equalto', 'user') | "
    "map(attribute='content') | join(', ') }}{{ messages | tojson(indent=2) }}",
    "{% generation %}{% for m in messages %}{% if m.role in ['user', 'tool'] %}{% continue %}"
    "{% endif %}{{ m['content'].split('<image>')[-1] or '' }}{% endfor %}{% endgeneration %}"
    "{% block end %}{{ messages | length > 1 and 'x' * 3 }}{% endblock %}{{ self.end() }}"
    "{% macro wrapped() %}{{ caller() }}{% endmacro %}{% filter lower %}{% call wrapped() %}A"
    "{% endcall %}{% endfilter %}",
)
# What a template might be made costly or odd with.
PIECES = (
    *("range(99999) | list", "'a' * 99999", "[0] * 99999", "'a'.encode() * 99999999", "9 ** 9999"),
    *("messages * 9999", "x ~ x", "x + x", "x[1:]", "x[::-1]", "x == x", "x in x", "x // 7"),
    *("x is in(x)", "x is eq(x)", "'a'.ljust(99999999)", "x.replace('', x)", "x | list | sort"),
    *("x | map('upper') | map('list') | list", "x | tojson(indent=99999)", "x | batch(3)"),
    *("x | groupby(0)", "x | unique | list", "x | urlize", "x | striptags", "x | xmlattr"),
    *("x | pprint", "x | wordcount", "x | truncate(9)", "x | round(99)", "x | dictsort"),
    *(
        "x | random",
        "x | sum(start=x)",
        "x.join(x)",
        "dict(x=x)",
        "cycler(x).next()",
        "joiner(x)()",
    ),
    *("x.__class__", "messages.append(x)", "loop(x)", "caller()", "self.end()", "varargs"),
    *("'\\ud800'", "1e999", "9" * 99, "(" * 60 + "1" + ")" * 60, "x.y.z", "x[x]", "-x", "not x"),
)
STATEMENTS = (
    *(
        "{% set x = X %}",
        "{% for x in X %}",
        "{% endfor %}",
        "{{ X }}",
        "{% if X %}",
        "{% endif %}",
    ),
    *("{% set ns.x = X %}", "{% macro x(a=X) %}", "{% endmacro %}", "{% break %}", "{% raw %}"),
    *("{% for i in range(300) %}{% set ns.x = X %}{% endfor %}", "{% include 'x' %}", "{# "),
    *("{% set x %}", "{% endset %}", "{% extends 'x' %}", "{% import 'x' as x %}", "{% block x %}"),
    "{% for i in range(99999) %}{% set y = X %}{% endfor %}",
)


def _templates(folder) -> list[Seed]:
    pieces = tuple(s.replace("X", p) for s in STATEMENTS for p in PIECES) + PIECES
    pieces = tuple(piece.encode() for piece in pieces)
    sources = (*TEMPLATES, *chat.TEMPLATES.values())
    return [Seed(source.encode(), pieces=pieces) for source in sources]


def _read_template(data: bytes, seed: Seed, folder) -> None:
    try:
        source = data.decode()
    except UnicodeDecodeError:  # which the reader of its file refuses
        return
    special = {"bos_token": "<s>", "eos_token": "</s>"}
    template, refused = chat.ChatTemplate(source, special), None
    for generate in (False, True):
        try:
            template.render(MESSAGES, generate).encode()
        except ValueError as error:
            refused = error
    if refused is not None:
        raise refused


def _vocabularies(folder) -> list[Seed]:
    train_words(["a photo of a dog", "a cat and a dog"], 30).save(folder)
    seeds = [Seed((GOLDEN / "spiece" / "spiece.model").read_bytes(), "spiece.model")]
    for path in sorted(folder.glob("*.json")):
        seeds.append(Seed(path.read_bytes(), path.name, True))
    shutil.copytree(folder, folder / "whole")
    return [*seeds, Seed(b'{"colour": "color", "grey": "gray"}', "normalizer.json", True)]


def _read_vocabulary(data: bytes, seed: Seed, folder) -> None:
    path = folder / seed.about
    path.write_bytes(data)
    text = "a photo of a colour, café 12 \U0001f600"
    try:
        if seed.about == "spiece.model":
            sentencepiece.read(path).encode(text)
        elif seed.about == "normalizer.json":
            english(text, read_spellings(folder))
        else:
            words = load_tokenizer(folder)
            words.encode([text], 8)
            json.loads(words.json())
    finally:
        path.write_bytes(seed.data)


READERS = {
    "chat": Reader(_templates, _read_template, 80),
    "vocabulary": Reader(_vocabularies, _read_vocabulary, 150),
}
