"""Jinja templates of conversations, in a sandbox, with what `transformers` adds to them."""

import functools
from collections.abc import Callable

import jinja2
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment


def compiled(source: str) -> Callable[..., str]:
    """The template as a function of its variables.

    Raises:
      ValueError: a template with a mistake; when called, one that refuses its variables.
    """
    try:
        template = _environment().from_string(source)
    except jinja2.TemplateError as error:
        raise ValueError(f"The chat template has a mistake: {error}") from None

    def render(**variables: object) -> str:
        try:
            return template.render(**variables)
        except (jinja2.TemplateError, TypeError) as error:
            raise ValueError(f"The chat template refuses the messages: {error}") from None

    return render


class _Generation(Extension):
    """`{% generation %}` ... `{% endgeneration %}`, by which some templates mark responses."""

    tags = {"generation"}

    def parse(self, parser):
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


@functools.cache
def _environment() -> ImmutableSandboxedEnvironment:
    def refuse(message):
        raise jinja2.TemplateError(message)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
    )
    environment.globals["raise_exception"] = refuse
    return environment
