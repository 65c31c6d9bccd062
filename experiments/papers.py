"""What papers publish beside our numbers: counted, planned for their hardware, or reproduced.

    python -m experiments.papers                       # all; writes papers.md and papers.html
    python -m experiments.papers --kind=counted        # one kind
    python -m experiments.papers clip dit/XL/2         # papers or rows by name

Each row of papers.toml is a claim: pass, fail or not run. Counted rows are counted now, from the
shapes of our models, and compared with what is printed and with the original code apart. Only the
whole ledger is written, to --out (experiments/papers.md, and papers.html beside it).
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from experiments.ledger import claims, page
from experiments.ledger.outcome import Outcome, outcome
from mmjax import storage
from mmjax.process.progress import Line
from mmjax.workdir.manifest import git_revision

LEDGER = Path("experiments/papers.toml")


def outcomes(chosen: Sequence[claims.Claim]) -> list[Outcome]:
    """Of every claim, with a line of progress on a terminal."""
    found: list[Outcome] = []
    line = Line(lambda task: [f"{len(found)}/{len(chosen)}"], len(chosen), 0)
    try:
        for claim in chosen:
            found.append(outcome(claim))
            line.update(len(found))
    finally:
        line.stop()
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; exits with 2 for bad input."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="papers or claims; default: all")
    parser.add_argument("--kind", help=" | ".join(claims.KINDS))
    parser.add_argument("--ledger", type=Path, default=LEDGER, help=f"default: {LEDGER}")
    parser.add_argument("--out", type=Path, help="Markdown file; default: beside the ledger")
    args = parser.parse_args(arguments)
    began = time.monotonic()
    try:
        every = claims.read(args.ledger)
        chosen = claims.choose(every, args.kind, args.names)
        whole = len(chosen) == len(every)
        if args.out and not whole:
            raise ValueError("--out takes the whole ledger: give it without --kind and names.")
        found = outcomes(chosen)
        print(page.text(found))
        print(f"\n{page.headline(found)}")
        if whole:
            out = args.out or args.ledger.with_suffix(".md")
            about = _about(found, time.monotonic() - began)
            counted = f"{about['Date']}, revision {about['Revision']}"
            storage.write(out, page.markdown(found, counted))
            page.write_html(out.with_suffix(".html"), found, about)
            print(f"report: {out.with_suffix('.html')}", file=sys.stderr)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _about(found: Sequence[Outcome], seconds: float) -> dict[str, str]:
    revision = git_revision() or {"revision": "unknown", "dirty": False}
    return {
        "Claims": str(len(found)),
        "Date": time.strftime("%Y-%m-%d"),
        "Revision": revision["revision"][:12] + " with changes" * revision["dirty"],
        "Counted in": f"{seconds:.0f} s",
    }


if __name__ == "__main__":
    sys.exit(main())
