"""The one-line language of transforms, `"decode | resize(64) | flip(0.5)"`, parsed without eval."""

import ast
import difflib
import inspect

from mmjax.number import check_finite


def make_chain(spec, table, context):
    """The transform that a spec describes.

    Args:
      spec: steps joined by `|`; each a name, or a call whose arguments are Python literals.
      table: {name: factory}; a factory returns `step(example, rng) -> example`. An example of the
        source `packed` with `members` has each of them go through every step, up to one whose
        attribute `joins` is true.
      context: {name: value} for the factories' keyword-only arguments.

    Raises:
      ValueError: bad syntax, an unknown step, wrong arguments, or a missing context value.
    """
    calls = read(spec)
    steps = [_make_step(name, args, kwargs, table, context) for name, args, kwargs, _ in calls]
    _check_rates([name for name, *_ in calls], steps)

    def transform(example, rng):
        example = dict(example)
        for step in steps:
            if "members" in example and not getattr(step, "joins", False):
                example["members"] = [step(one, rng) for one in example["members"]]
            else:
                example = step(example, rng)
        return example

    return transform


def _check_rates(names, steps):
    """Raise ValueError where a step takes a waveform at another rate than it is made with: by the
    attributes `makes_rate` and `takes_rate`, in Hz."""
    maker = made = None
    for name, step in zip(names, steps):
        takes = getattr(step, "takes_rate", None)
        if takes is not None and made not in (None, takes):
            raise ValueError(
                f"{maker} makes a waveform at {made} Hz, and {name} takes one at {takes} Hz: give "
                "both the same rate"
            )
        if hasattr(step, "makes_rate"):
            maker, made = name, step.makes_rate


def only(spec, names):
    """The spec with only the steps named in `names`."""
    nodes = [(name, node) for name, _, _, node in read(spec)]
    return " | ".join(ast.unparse(node) for name, node in nodes if name in names)


def read(spec):
    """The steps of a spec: [(name, args, kwargs, syntax tree), ...].

    Raises:
      ValueError: bad syntax.
    """
    if not spec.strip():
        return []
    try:
        node = ast.parse(f"({spec.strip()}\n)", mode="eval").body  # brackets: lines may break
    except SyntaxError as error:
        raise ValueError(f"transforms {spec!r} cannot be read: {error.msg}") from None
    nodes = []
    while isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        nodes.append(node.right)
        node = node.left
    nodes.append(node)
    steps = []
    for node in reversed(nodes):
        call = node if isinstance(node, ast.Call) else ast.Call(node, [], [])
        if not isinstance(call.func, ast.Name):
            raise ValueError(
                f"transforms {spec!r}: {ast.unparse(node)!r} is no step; write name or name(...)"
            )
        try:
            args = [ast.literal_eval(arg) for arg in call.args]
            kwargs = {keyword.arg: ast.literal_eval(keyword.value) for keyword in call.keywords}
        except (ValueError, TypeError):
            raise ValueError(
                f"transforms {spec!r}: the arguments of {ast.unparse(node)!r} must be plain "
                "numbers, strings, tuples, lists, dicts, True, False or None"
            ) from None
        for value in (*args, *kwargs.values()):
            check_finite(value, f"transforms {spec!r}: an argument of {ast.unparse(node)!r}")
        if None in kwargs:
            raise ValueError(f"transforms {spec!r}: ** is not allowed in {ast.unparse(node)!r}")
        steps.append((call.func.id, args, kwargs, node))
    return steps


def _make_step(name, args, kwargs, table, context):
    if name not in table:
        near = difflib.get_close_matches(name, table, n=1, cutoff=0.0)[0]
        raise ValueError(
            f"no transform {name!r}; did you mean {near!r}? There are: {', '.join(sorted(table))}"
        )
    signature = inspect.signature(table[name])
    for parameter in signature.parameters.values():
        if parameter.kind is not parameter.KEYWORD_ONLY or parameter.name in kwargs:
            continue
        if parameter.name in context:
            kwargs[parameter.name] = context[parameter.name]
        elif parameter.default is parameter.empty:
            raise ValueError(
                f"transform {name!r} needs {parameter.name}, and this data set or task has none"
            )
    try:
        signature.bind(*args, **kwargs)
    except TypeError as error:
        raise ValueError(f"transform {name}{signature}: {error}") from None
    try:
        return table[name](*args, **kwargs)
    except (TypeError, ValueError) as error:
        raise ValueError(f"transform {name!r}: {error}") from None
