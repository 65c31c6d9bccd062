"""Tools: exact arithmetic, parts of images, and that nothing that goes wrong is an exception."""

import io
import random
import threading
from fractions import Fraction

import numpy as np
import pytest
from PIL import Image

from mmjax.data.text.calls import Call, read_call, until_call
from mmjax.data.text.image_places import PLACE
from mmjax.tools.calculator import calculate
from mmjax.tools.crop import SIDE
from mmjax.tools.run import LONGEST, run
from mmjax.tools.table import TOOLS, named


def test_sums_and_products_of_random_numbers():
    rng = random.Random(0)
    for _ in range(200):
        a, b, c = (rng.randint(-99, 99) for _ in range(3))
        assert calculate(f"{a} + {b} * ({c})") == str(a + b * c)
        if b:
            assert calculate(f"({a}) // ({b})") == str(a // b)
            value = Fraction(a, b)
            want = str(value) if value.denominator == 1 else f"{a / b:.12g}"
            assert calculate(f"({a}) / ({b})") == want
    assert calculate("0.1 + 0.2") == "0.3" and calculate("2^10 ÷ 4") == "256"
    assert calculate("10 ** 20 + 1") == "100000000000000000001"


@pytest.mark.parametrize(
    "text, words",
    [
        ("", "no arithmetic"),
        ("(1", "no arithmetic"),
        ("abs(1)", "something else than numbers"),
        ("x + 1", "something else than numbers"),
        ("True", "something else than numbers"),
        ("'a' * 3", "something else than numbers"),
        ("1 / (2 - 2)", "divides by zero"),
        ("9 ** 9 ** 9", "an exponent is a whole number of at most 64"),
        ("2 ** 0.5", "an exponent is a whole number"),
        ("(9 ** 60) * (9 ** 60)", "more than 100 digits"),
        ("1e999", "too large"),
        ("1 + " * 100 + "1", "has 401 characters"),
    ],
)
def test_what_is_no_arithmetic_is_said_in_words(text, words):
    with pytest.raises(ValueError, match=words.replace("*", r"\*")):
        calculate(text)
    assert run(Call("calculator", text), TOOLS).startswith("error: ")


def test_a_part_of_an_image():
    pixels = np.zeros((40, 60, 3), np.uint8)
    pixels[20:, 30:] = 200  # the last quarter
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    images = [file.getvalue()]
    found = Image.open(io.BytesIO(run(Call("crop", "0.5, 0.5, 1, 1"), TOOLS, images)))
    assert found.size == (SIDE, round(SIDE * 2 / 3)) and np.asarray(found).min() == 200
    for wrong in ("1, 2", "0, 0, 0, 1", "0, 0, 2, 1", "a, b, c, d", "nan, 0, 1, 1"):
        assert run(Call("crop", wrong), TOOLS, images).startswith(f"error: '{wrong}'")
    assert run(Call("crop", "0,0,1,1"), TOOLS) == "error: there is no image."
    latest = run(Call("crop", "0,0,1,1"), TOOLS, [b"an earlier image", *images])
    assert isinstance(latest, bytes)


def test_a_tool_that_fails_or_hangs_is_a_text_for_the_model():
    over = threading.Event()
    tools = {
        "fails": lambda arguments, images: 1 / 0,
        "hangs": lambda arguments, images: over.wait(30),
        "talks": lambda arguments, images: arguments * 999,
    }
    assert run(Call("fails", ""), tools) == "error: division by zero."
    assert run(Call("hangs", ""), tools, seconds=0.05) == "error: hangs took longer than 0.05 s."
    over.set()
    assert len(run(Call("talks", "a"), tools)) == LONGEST
    assert run(Call("talk", ""), tools).startswith("error: there is no tool 'talk' (there are: ")
    assert len(run(Call("t" * 999, ""), tools)) == LONGEST
    assert [*named("crop, calculator")] == ["crop", "calculator"] and not named("")
    with pytest.raises(ValueError, match="There is no tool 'calc': use calculator, crop"):
        named("calc")


def test_a_result_is_text_without_the_place_of_an_image_or_an_image():
    tools = {
        "says": lambda arguments, images: f"a<im{arguments}age>",
        "draws": lambda arguments, images: b"no image",
        "waits": lambda arguments, images: open_late(),
    }

    def open_late():
        raise TimeoutError("no answer")

    for arguments in ("", PLACE):
        assert PLACE not in run(Call("says", arguments), tools)
        assert PLACE not in run(Call("calculator", f"1 + <im{arguments}age>"), TOOLS)
    assert run(Call("draws", ""), tools).startswith("error: ")
    assert run(Call("waits", ""), tools) == "error: no answer."


def test_calls_are_read_from_a_text():
    call = Call("calculator", "3 + 5")
    assert read_call(f"3 5. {call} and more {call}") == call
    assert until_call(f"3 5. {call} and more") == f"3 5. {call}"
    for text in ("", "<tool calculator>3 + 5", "tool calculator>3</tool>", "<tool a<b>3</tool>"):
        assert read_call(text) is None and until_call(text) == text
    assert read_call("<tool a>3 < 5</tool>") == Call("a", "3 < 5")
