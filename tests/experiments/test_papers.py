"""The ledger: its file, its counts, and what it says of bad input."""

from pathlib import Path

import pytest

from experiments import papers
from experiments.ledger import claims, page
from experiments.ledger.outcome import FAIL, NOT_RUN, PASS, outcome

ROOT = Path(__file__).parents[2]
MODEL = """
name = "vit"
width = 16
depth = 1
heads = 2
mlp_dim = 32
patch_size = 8
image_size = 8
"""
ROW = f"""
[[paper]]
name = "vit"
paper = "Dosovitskiy et al. 2021"
source = "a table"
kind = "counted"
metric = "parameters"
[[paper.claim]]
name = "tiny"
published = "12K"
tolerance = "rounding"
exact = 12001
counted_by = "their code"
[paper.claim.model]{MODEL}"""


@pytest.fixture(autouse=True)
def in_repository(monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.syspath_prepend(str(ROOT))


@pytest.fixture
def ledger(tmp_path):
    """A function that writes a ledger of one claim, with parts of its text replaced."""

    def write(*changes, more=""):
        text = ROW
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        path = tmp_path / "papers.toml"
        path.write_text(text + more)
        return path

    return write


@pytest.fixture(scope="module")
def every():
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        return claims.read(ROOT / "experiments/papers.toml")


def test_every_claim_is_complete_and_of_every_kind(every):
    assert {claim.kind for claim in every} == set(claims.KINDS)
    assert sum(claim.kind == "counted" for claim in every) > 100


# All that differ as printed; the exact counts of the original code are equal without exception.
AS_PRINTED = {
    *("coca/base", "coca/large", "coca/2.1B", "lit/our text tower", "flamingo/3B resampler"),
    *("sam/mask decoder", "glide/3.5B", "dalle2/decoder", "efficientnet/Lite0, forward"),
    *("dit/L/2, forward", "dit/XL/2, forward", "dit/XL/2 at 512, forward"),  # 0.016 % at most
    *(f"whisper/{size}" for size in ("tiny", "tiny.en", "base", "small", "medium")),
    *(f"whisper/{size}" for size in ("large-v2", "large-v3", "turbo")),
}
QUICK = ("cct", "vit", "dit", "kwt", "lit", "bert", "gpt2")


@pytest.mark.parametrize("group", QUICK)
def test_counts_are_those_of_the_original_code_and_as_printed(every, group):
    for claim in claims.choose(every, "counted", [group]):
        found = outcome(claim)
        assert found.exact in (None, True), claim.name
        assert (found.printed is False) == (claim.name in AS_PRINTED), (claim.name, found.ours)


def test_the_other_counts_too(every):
    for claim in claims.choose(every, "counted", []):
        if claim.name.split("/")[0] not in QUICK:
            found = outcome(claim)
            assert found.exact in (None, True), claim.name
            assert (found.printed is False) == (claim.name in AS_PRINTED), (claim.name, found.ours)


# By hand: one patch, a class token and two positions, a block of one width, a norm.
BLOCK = 4 * (16 * 16 + 16) + 2 * 16 * 32 + 32 + 16 + 2 * 2 * 16
OURS = (8 * 8 * 3 * 16 + 16) + 16 + 2 * 16 + BLOCK + 2 * 16


@pytest.mark.parametrize(
    ("changes", "status", "said"),
    [
        ([("12001", str(OURS)), ("12K", f"{OURS / 1000:.1f}K")], PASS, "pass"),
        ([("12001", str(OURS))], FAIL, "exact: pass, as printed: fail (-55 %)"),
        ([("12K", f"{OURS / 1000:.1f}K")], FAIL, "exact: fail, as printed: pass"),
        ([("12001", str(OURS)), ('"rounding"', '"60 %"')], PASS, "pass"),
        ([("12001", str(OURS)), ('"rounding"', '"at most"')], PASS, "pass"),
        ([("12001", str(OURS)), ('"rounding"', "100")], FAIL, "as printed: fail"),
    ],
)
def test_exact_and_printed_values_are_judged_apart(ledger, changes, status, said):
    (claim,) = claims.read(ledger(*changes))
    found = outcome(claim)
    assert found.ours == OURS and found.status == status
    assert said in page.verdict(found)


def test_a_printed_value_rounds_to_its_digits():
    assert claims.limits("5.72M", "rounding") == pytest.approx((5_715_000, 5_725_000))
    assert claims.limits("0.205G", "rounding") == pytest.approx((204.5e6, 205.5e6))
    assert claims.limits("7B", "rounding") == pytest.approx((6.5e9, 7.5e9))
    assert claims.limits(89.17, 0.5) == pytest.approx((88.67, 89.67))
    assert claims.limits("88,224,232", "exact") == (88_224_232, 88_224_232)


MEASURED = """
[[paper.claim]]
name = "trained"
kind = "reproduced"
scale = "ours"
metric = "top-1, %"
published = 90.0
tolerance = 1
command = "python -m mmjax.train --config=configs/vit_cifar10.py"
"""


def test_the_command_prints_and_writes_all(ledger, tmp_path, capsys):
    measured = MEASURED + 'ours = 88.0\ndate = "2026-11-30"\ncommit = "abc"\n'
    later = MEASURED.replace("trained", "later") + 'missing = "no time"\n'
    path = ledger(("12001", str(OURS)), more=measured + later)
    assert papers.main([f"--ledger={path}"]) == 0
    printed = capsys.readouterr().out
    assert "counted: 0 pass, 1 fail, 0 not run; equal to the original code 1 of 1" in printed
    assert "reproduced: 0 pass, 1 fail, 1 not run" in printed
    text = (tmp_path / "papers.md").read_text()
    row = f"| vit/tiny | exact: pass, as printed: fail (-55 %) | 12K | {OURS:,} | {OURS:,} |"
    assert row in text
    assert "| vit/trained | fail (-2.2 %) | 90 (± 1) | 88 | – | top-1, % | our scale |" in text
    assert "- vit: Dosovitskiy et al. 2021. a table (exact: their code); a table." in text
    assert "(not run; no time)" in text and "(2026-11-30, revision abc)" in text
    written = (tmp_path / "papers.html").read_text()
    assert "data:image/svg" in written and 'class="wrong"' in written
    # Part of the ledger is printed and not written.
    (tmp_path / "papers.md").unlink()
    assert papers.main([f"--ledger={path}", "--kind=reproduced", "vit/later"]) == 0
    assert NOT_RUN in capsys.readouterr().out and not (tmp_path / "papers.md").exists()
    assert papers.main([f"--ledger={path}", "vit/later", f"--out={tmp_path / 'a.md'}"]) == 2
    assert "--out takes the whole ledger" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (('source = "a table"\n', ""), "The claim 'vit/tiny' of papers.toml has no source"),
        (('tolerance = "rounding"\n', ""), "has no tolerance: add one for its published value"),
        (('"rounding"', "-5"), "has the tolerance -5: use a number from 0 on, or text"),
        (('"rounding"', "[1]"), r"has the tolerance \[1\]: use a number"),
        (('"12K"', "[12]"), r"prints '\[12\]'; write it as '5.72M'"),
        (("12001", '"12001"'), "has exact = '12001': write a number"),
        (
            ('kind = "counted"', 'kind = "counted"\nours = 12001'),
            "is counted now, and has `ours` too",
        ),
        (('name = "tiny"\n', ""), "A claim of the paper 'vit' of .* has no name"),
        (("[[paper.claim]]", "[paper.claim]"), r"has no tables \[\[paper.claim\]\]"),
        (("[[paper]]", "[paper]"), r"has no tables \[\[paper\]\]: write each paper as one"),
        (('"rounding"', '"about"'), "has the tolerance 'about'; use 'exact', 'rounding'"),
        (('"12K"', '"12 thousand"'), "prints '12 thousand'; write it as '5.72M'"),
        (('kind = "counted"', 'kind = "guessed"'), "of the kind 'guessed'; use one of counted,"),
        (('kind = "counted"', 'kind = "planned"'), "is planned and has no command"),
        (("counted_by", "counted_bi"), "unknown key 'counted_bi'. Did you mean 'counted_by'"),
        (('counted_by = "their code"\n', ""), "has no counted_by: name the code"),
        (("parameters", "bytes"), "counts 'bytes'; what can be counted is parameters, macs"),
        (("exact =", 'config = "configs/vit_cifar10.py"\nexact ='), "it has config, model"),
        (
            (f"[paper.claim.model]{MODEL}", 'config = "gone.py"\n'),
            "'gone.py', which does not exist",
        ),
        (("paper.claim.model", "paper.claim.settings"), "needs one of config, model, config_json"),
        (("depth = 1", "depht = 1"), "'vit/tiny' cannot be counted: .*Did you mean 'depth'"),
        (("exact =", 'part = "text/.*"\nexact ='), "No parameter of the model matches 'text/.*'"),
    ],
)
def test_bad_rows_are_one_sentence(ledger, change, message, capsys):
    assert papers.main([f"--ledger={ledger(change)}"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and said.count("\n") == 1
    with pytest.raises(ValueError, match=message):
        raise ValueError(said)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--kind=guessed"], "There is no kind 'guessed'; use one of counted, planned, reproduced"),
        (["vit/tinny"], "no claim or paper 'vit/tinny'. Did you mean 'vit/tiny'"),
        (["--ledger=gone.toml"], "There is no ledger 'gone.toml'"),
    ],
)
def test_unknown_names_are_one_sentence(ledger, arguments, message, capsys):
    arguments = [f"--ledger={ledger()}", *arguments]
    assert papers.main(arguments) == 2
    assert message in capsys.readouterr().err


def test_a_measured_claim_whose_config_is_gone_or_that_says_no_date(ledger):
    with pytest.raises(ValueError, match="value without date and commit"):
        claims.read(ledger(more=MEASURED + "ours = 88.0\n"))
    dated = 'ours = 88.0\ndate = "x"\ncommit = "y"\n'
    gone = MEASURED.replace("vit_cifar10", "gone")
    for more in (dated, 'missing = "no time"\n'):
        with pytest.raises(ValueError, match="'configs/gone.py', which does not exist"):
            claims.read(ledger(more=gone + more))
    with pytest.raises(ValueError, match="scale 'both'; use 'full'"):
        claims.read(ledger(more=MEASURED.replace('"ours"', '"both"') + dated))
    with pytest.raises(ValueError, match="neither `ours` nor `missing`"):
        claims.read(ledger(more=MEASURED))
    with pytest.raises(ValueError, match="has the claim 'vit/tiny' twice"):
        claims.read(ledger(more=ROW))
