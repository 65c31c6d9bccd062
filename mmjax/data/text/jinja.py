"""Jinja templates of conversations, in a sandbox, with what `transformers` adds to them.

A template comes with a tokenizer that others wrote, so its work is bounded: what it reads, writes
and repeats is counted in characters, and beyond `WORK` it is refused.
"""

import functools
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.runtime import LoopContext, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

WORK = 20_000_000  # characters of one rendering
STEP = 200  # what a call or a repetition costs at least
# What makes long texts or lists of a number, and has no use in a conversation.
NO_FILTERS = ("batch", "center", "format", "indent", "slice", "wordwrap")
NO_METHODS = ("expandtabs", "format", "format_map", "translate")

_local = threading.local()  # the work that is left, and what a repetition costs; of a thread


def compiled(source: str) -> Callable[..., str]:
    """The template as a function of its variables.

    Raises:
      ValueError: a template with a mistake; when called, one that refuses its variables, or that
        does more than `WORK`.
    """
    try:
        template = _environment().from_string(source)
    except (jinja2.TemplateError, RecursionError) as error:
        raise ValueError(f"The chat template has a mistake: {error}") from None

    def render(**variables: object) -> str:
        _local.work, _local.size = WORK, STEP + len(source) // 10
        try:
            return template.render(**variables)
        except Exception as error:  # its expressions may raise any
            raise ValueError(f"The chat template refuses the messages: {error}") from None

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
        _spend(50 + (len(x) if isinstance(x, str) else 0))
        if isinstance(x, int):
            _spend(STEP * (x.bit_length() // 64))
        elif isinstance(x, list | tuple | set):
            left += x
        elif isinstance(x, dict):
            left += [*x.keys(), *x.values()]
        elif isinstance(x, Namespace):
            left.append(x._Namespace__attrs)
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
        if name in ("join", "list", "sum"):
            args = [list(_charge_items(x)) if isinstance(x, Iterator) else x for x in args]
        _charge_call(name, *args, *kwargs.values())
        return _charge(function(*args, **kwargs))

    return call


def _charge_items(items: Iterator) -> Iterator:
    return map(_charge, items)


class _Generation(Extension):
    """`{% generation %}` ... `{% endgeneration %}`, by which some templates mark responses."""

    tags = {"generation"}

    def parse(self, parser):
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Environment(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset(("+", "*", "**", "%"))

    def _parse(self, source, name, filename):
        tree = super()._parse(source, name, filename)
        for loop in tree.find_all(nodes.For):
            loop.iter = nodes.Filter(loop.iter, "_counted", [], [], None, None)
        for joined in tree.find_all(nodes.Concat):
            joined.nodes = [nodes.Filter(x, "_charge", [], [], None, None) for x in joined.nodes]
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
                if isinstance(x, str | list | tuple) and isinstance(n, int):
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
    environment.globals["raise_exception"] = refuse
    del environment.globals["lipsum"]
    filters = {k: _charged(k, f) for k, f in environment.filters.items() if k not in NO_FILTERS}
    environment.filters = filters | {"_counted": _counted, "_charge": _charge}
    return environment
