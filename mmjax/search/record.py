"""Records a function of arrays as a program that NumPy runs; see `array_program.py`."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.extend import core

from mmjax.search.array_program import OPERATIONS

# Settings of a primitive that its operation takes; of all others: none.
_SETTINGS = {
    "argmax": lambda p: {"axis": p["axes"][0], "index_dtype": np.dtype(p["index_dtype"]).name},
    "broadcast_in_dim": ("shape", "broadcast_dimensions"),
    "concatenate": ("dimension",),
    "convert_element_type": lambda p: {"new_dtype": np.dtype(p["new_dtype"]).name},
    "cumsum": ("axis", "reverse"),
    "dot_general": ("dimension_numbers",),
    "dynamic_slice": ("slice_sizes",),
    "expand_dims": ("dimensions",),
    "gather": lambda p: {
        "slice_sizes": p["slice_sizes"],
        "offset_dims": p["dimension_numbers"].offset_dims,
        "collapsed": p["dimension_numbers"].collapsed_slice_dims,
        "index_map": p["dimension_numbers"].start_index_map,
        "batching": p["dimension_numbers"].operand_batching_dims,
        "index_batching": p["dimension_numbers"].start_indices_batching_dims,
    },
    "integer_pow": ("y",),
    "iota": lambda p: {
        "dtype": np.dtype(p["dtype"]).name,
        "shape": p["shape"],
        "dimension": p["dimension"],
    },
    "reshape": ("new_sizes",),
    "rev": ("dimensions",),
    "slice": lambda p: {
        "start_indices": p["start_indices"],
        "limit_indices": p["limit_indices"],
        "strides": p["strides"] or [1] * len(p["start_indices"]),
    },
    "split": ("sizes", "axis"),
    "squeeze": ("dimensions",),
    "transpose": ("permutation",),
    **dict.fromkeys(
        ("reduce_sum", "reduce_max", "reduce_min", "reduce_and", "reduce_or"), ("axes",)
    ),
}

_PROGRAMS = (core.Jaxpr, core.ClosedJaxpr)
_DTYPES = {"bool", "int8", "uint8", "int32", "uint32", "float16", "float32"}
_LOOPS = ("while", "cond")  # whose programs are no plain calls


class NotRecordableError(ValueError):
    """A function with an operation that NumPy does not have here."""


def record(
    function: Callable[..., jax.Array], given: Any, **inputs: np.ndarray
) -> tuple[dict[str, Any], list[np.ndarray]]:
    """The program of `function(given, inputs)`, and its arrays: those of `given` that it uses.

    Args:
      given: a tree of arrays, which become part of the program.
      inputs: arrays of the shapes and dtypes that the program will take.

    Raises:
      NotRecordableError: names a primitive that NumPy does not have here, or not in its dtype.
    """
    traced = jax.make_jaxpr(function)(given, inputs)
    recorder = _Recorder()
    leaves, names = jax.tree.leaves(given), sorted(inputs)  # dicts are flattened in this order
    places = [recorder.constant(leaf) for leaf in leaves] + [recorder.new() for _ in names]
    (output,) = recorder.run(traced.jaxpr, traced.consts, places)
    return recorder.finish(dict(zip(names, places[len(leaves) :])), output)


class _Recorder:
    """Values are numbered as they are made."""

    def __init__(self):
        self.constants: dict[int, Any] = {}
        self.operations: list[list] = []
        self._count = 0

    def new(self) -> int:
        self._count += 1
        return self._count - 1

    def constant(self, value: Any) -> int:
        self.constants[number := self.new()] = value
        return number

    def run(self, jaxpr: core.Jaxpr, consts: Sequence[Any], inputs: Sequence[int]) -> list[int]:
        """Add a program's operations, those of its calls in place; the numbers of its outputs."""
        known = dict(zip(jaxpr.invars, inputs, strict=True))
        known |= {var: self.constant(x) for var, x in zip(jaxpr.constvars, consts, strict=True)}

        def number(atom: Any) -> int:
            if isinstance(atom, core.Literal):
                return self.constant(np.asarray(atom.val, atom.aval.dtype))
            return known[atom]

        for eqn in jaxpr.eqns:
            name, ins = eqn.primitive.name, [number(atom) for atom in eqn.invars]
            programs = [x for x in eqn.params.values() if isinstance(x, _PROGRAMS)]
            if name in OPERATIONS:
                outs = self.add(name, _settings(eqn), ins, len(eqn.outvars))
            elif name == "scan":
                outs = self.unrolled(eqn.params, ins)
            elif len(programs) == 1 and name not in _LOOPS:
                called = programs[0]
                body, its = getattr(called, "jaxpr", called), getattr(called, "consts", ())
                outs = self.run(body, its, ins)
            else:
                raise NotRecordableError(f"The primitive '{name}' is not among NumPy's here.")
            dtypes = {str(v.aval.dtype) for v in eqn.outvars}
            if not dtypes <= _DTYPES:
                raise NotRecordableError(f"The primitive '{name}' gives {', '.join(dtypes)}.")
            known.update(zip(eqn.outvars, outs, strict=True))
        return [number(atom) for atom in jaxpr.outvars]

    def add(self, name: str, settings: dict, ins: Sequence[int], count: int = 1) -> list[int]:
        """Add an operation; the numbers of its results."""
        outs = [self.new() for _ in range(count)]
        self.operations.append([name, settings, list(ins), outs])
        return outs

    def unrolled(self, params: Mapping[str, Any], ins: Sequence[int]) -> list[int]:
        """Add a scan, such as one over layers, step by step."""
        body, consts = params["jaxpr"], ins[: params["num_consts"]]
        ends = params["num_consts"] + params["num_carry"]
        carry, rows, made = ins[params["num_consts"] : ends], ins[ends:], {}
        steps = range(params["length"])
        for step in reversed(steps) if params["reverse"] else steps:
            row = [self.add("row", {"index": step}, [x])[0] for x in rows]
            outs = self.run(body.jaxpr, body.consts, [*consts, *carry, *row])
            carry, made[step] = outs[: len(carry)], outs[len(carry) :]
        stacked = zip(*(made[step] for step in steps))
        return [*carry, *(self.add("stack", {}, parts)[0] for parts in stacked)]

    def finish(self, inputs: Mapping[str, int], output: int) -> tuple[dict, list[np.ndarray]]:
        """The program without what the output does not need, numbered anew: arrays first."""
        needed, kept = {output}, []
        for operation in reversed(self.operations):
            _, _, ins, outs = operation
            if needed & set(outs):
                # Nothing later needs these: they are freed once the operation is done.
                last = sorted({*ins, *outs} - needed - set(self.constants))
                needed |= set(ins)
                kept.append([*operation, [n for n in last if n in ins]])
        kept.reverse()
        constants = [n for n in self.constants if n in needed]
        numbers = {n: i for i, n in enumerate(constants)}

        def anew(some: Sequence[int]) -> list[int]:
            return [numbers.setdefault(n, len(numbers)) for n in some]

        names = {name: anew([n])[0] for name, n in inputs.items()}
        operations = [[*o[:2], anew(o[2]), anew(o[3]), anew(o[4])] for o in kept]
        program = {"operations": operations, "inputs": names, "output": anew([output])[0]}
        return program, [np.asarray(self.constants[n]) for n in constants]


def _settings(eqn: core.JaxprEqn) -> dict[str, Any]:
    wanted = _SETTINGS.get(eqn.primitive.name, ())
    if callable(wanted):
        return wanted(eqn.params)
    return {name: eqn.params[name] for name in wanted}
