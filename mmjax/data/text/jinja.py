"""Jinja templates of conversations, in a sandbox, with what `transformers` adds to them.

A template comes with a tokenizer that others wrote, so its work is bounded: what it reads, writes
and repeats is counted in characters, and beyond `WORK` it is refused.
"""

import datetime
import functools
import json
import re
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.runtime import LoopContext, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

from mmjax.data import text_file

WORK = 20_000_000  # characters of one rendering
STEP = 200  # what a call or a repetition costs at least
MAX_SOURCE = 200_000  # characters of a template
MAX_BITS = 4096  # of an integer
# What makes long texts or lists of a number, and has no use in a conversation.
NO_FILTERS = ("batch", "center", "format", "indent", "slice", "wordwrap")
NO_METHODS = ("expandtabs", "format", "format_map", "translate")

# What `strftime_now` says is always this day, which templates of Llama 3 fall back on: the same
# conversation is the same text on every day, in a resumed run too.
NOW = datetime.datetime(2024, 7, 26)
_DATE = re.compile(r"(%-?[aAbBdefFHIjmMpSTuwyY%]|[^%])*")

_local = threading.local()  # the work that is left, and what a repetition costs; of a thread


def compiled(source: str) -> Callable[..., str]:
    """The template as a function of its variables.

    Raises:
      ValueError: a template with a mistake, or a long one; when called, one that refuses its
        variables, or that does more than `WORK`.
    """
    if len(source) > MAX_SOURCE:
        raise ValueError(
            f"The chat template has {len(source):,} characters; the maximum is {MAX_SOURCE:,}: is "
            "this the right file?"
        )
    _local.work, _local.size = WORK, STEP  # constants are computed now
    try:
        template = _environment().from_string(source)
    except Exception as error:  # of jinja, or of Python, to which it is translated
        raise ValueError(f"The chat template has a mistake: {error}") from None

    def render(**variables: object) -> str:
        _local.work, _local.size = WORK, STEP + len(source) // 10
        try:
            text = template.render(**variables)
        except Exception as error:  # its expressions may raise any
            raise ValueError(f"The chat template refuses the messages: {error}") from None
        if not text_file.is_text(text):
            raise ValueError(
                "The chat template makes half of a surrogate pair, which is no character."
            )
        return text

    return render


def _spend(work: int) -> None:
    _local.work -= work
    if _local.work < 0:
        raise jinja2.TemplateError(f"it works on more than {WORK:,} characters")


def _charge(value: Any) -> Any:
    """Count the characters of a value and of all in it; gives the value."""
    left = [value]
    while left:
        x = left.pop()
        _spend(50 + (len(x) if isinstance(x, str | bytes | range) else 0))
        if isinstance(x, int) and x.bit_length() > MAX_BITS:
            raise jinja2.TemplateError(f"it uses an integer of more than {MAX_BITS:,} bits")
        if isinstance(x, dict):
            left += [*x.keys(), *x.values()]
        elif isinstance(x, Namespace):
            left.append(x._Namespace__attrs)
        elif isinstance(x, Collection) and not isinstance(x, str | bytes | range | Mapping):
            left += x  # no other mapping but jinja's own context
    return value


def _charge_call(name: str, *given: Any) -> None:
    """Count what a method or filter gets and, where that may be longer, what it makes."""
    _spend(STEP)
    for x in given:
        _charge(x)
        if isinstance(x, int):  # such as a width
            _spend(abs(x))
    texts = [x for x in given if isinstance(x, str)]
    if name == "replace" and len(texts) > 2:
        text, old, new = texts[:3]
        _spend(text.count(old) * len(new))
    if name == "join":
        items = [len(x) for x in given if isinstance(x, str | list | tuple | dict)]
        _spend(max(map(len, texts), default=0) * max(items, default=0))


def _counted(items: Iterable) -> Iterator:
    """The items of a loop, each for the work of its body."""
    for item in items:
        _spend(_local.size)
        yield item


def _charged(name: str, function: Callable) -> Callable:
    """A filter whose work is counted."""

    @functools.wraps(function)  # with the marks of what jinja passes to it
    def call(*args, **kwargs):
        args = [list(map(_charge, x)) if isinstance(x, Iterator) else x for x in args]
        _charge_call(name, *args, *kwargs.values())
        return _charge(function(*args, **kwargs))

    return call


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """The filter of `transformers`, which escapes nothing for HTML as jinja's own does."""
    encoder = json.JSONEncoder(
        ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )
    parts = []
    for part in encoder.iterencode(value):
        _spend(STEP // 10 + len(part))
        parts.append(part)
    return "".join(parts)


def _strftime_now(form: str) -> str:
    """`NOW` in a form of `strftime`, without what depends on the machine or gives long texts."""
    if not _DATE.fullmatch(form):
        raise jinja2.TemplateError(f"it writes the date as {form!r:.80}, which has another code")
    return NOW.strftime(form)


class _Generation(Extension):
    """`{% generation %}` ... `{% endgeneration %}`, by which some templates mark responses."""

    tags = {"generation"}

    def parse(self, parser):
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _as_charged(expression: nodes.Expr) -> nodes.Filter:
    """An expression of a template whose value is counted."""
    return nodes.Filter(expression, "_charge", [], [], None, None)


class _Environment(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset(("+", "*", "**", "%"))

    def _parse(self, source, name, filename):
        tree = super()._parse(source, name, filename)
        for loop in tree.find_all(nodes.For):
            loop.iter = nodes.Filter(loop.iter, "_counted", [], [], None, None)
        for joined in tree.find_all(nodes.Concat):
            joined.nodes = [_as_charged(x) for x in joined.nodes]
        for compared in tree.find_all(nodes.Compare):
            compared.expr = _as_charged(compared.expr)
            for one in compared.ops:
                one.expr = _as_charged(one.expr)
        for part in tree.find_all(nodes.Getitem):
            if isinstance(part.arg, nodes.Slice):
                part.node = _as_charged(part.node)
        return tree

    def call(self, context, function, *args, **kwargs):
        """A call in an expression: of a method, a macro or a loop."""
        if isinstance(function, Macro | LoopContext):
            _spend(4 * _local.size)
        name, own = (getattr(function, x, "") for x in ("__name__", "__self__"))
        if name in NO_METHODS:
            raise jinja2.TemplateError(f"it uses {name}, which has no bound")
        _charge_call(name, own, *args, *kwargs.values())
        return _charge(super().call(context, function, *args, **kwargs))

    def call_binop(self, context, operator, left, right):
        """An operation of `intercepted_binops`."""
        if operator == "**" or (operator == "%" and isinstance(left, str)):
            raise jinja2.TemplateError(f"it uses {operator}, which has no bound")
        _charge((left, right))
        if operator == "*":
            for x, n in ((left, right), (right, left)):
                if isinstance(x, Collection) and isinstance(n, int):
                    _spend(len(x) * max(n, 0))
        return super().call_binop(context, operator, left, right)


@functools.cache
def _environment() -> ImmutableSandboxedEnvironment:
    def refuse(message):
        raise jinja2.TemplateError(message)

    environment = _Environment(
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=[_Generation, loopcontrols],
        finalize=_charge,
    )
    environment.globals |= {"raise_exception": refuse, "strftime_now": _strftime_now}
    del environment.globals["lipsum"]
    filters = {k: _charged(k, f) for k, f in environment.filters.items() if k not in NO_FILTERS}
    filters["tojson"] = _tojson
    environment.filters = filters | {"_counted": _counted, "_charge": _charge}
    environment.tests = {k: _charged(k, f) for k, f in environment.tests.items()}
    return environment
