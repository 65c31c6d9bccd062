"""Record anew what Stanford's tokenizer and COCO's evaluation make of the captions in ptb.json.

    pip install pycocoevalcap==1.2
    python tests/evals/metrics/make_ptb.py

Needs Java; the recorded file is of Stanford CoreNLP 3.4.1, the jar inside pycocoevalcap 1.2. After
each caption comes one that begins with "A", as most do: the program looks at the next line.
"""

import json
import subprocess
import tempfile
from pathlib import Path

import pycocoevalcap
from pycocoevalcap.tokenizer.ptbtokenizer import PUNCTUATIONS

FILE = Path(__file__).with_name("ptb.json")
JAR = Path(pycocoevalcap.__path__[0], "tokenizer", "stanford-corenlp-3.4.1.jar")


def main():
    """To add a caption, add it as a key, with any value."""
    captions = list(json.loads(FILE.read_text(encoding="utf-8")))
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", suffix=".txt") as file:
        file.write("".join(f"{caption}\nA\n" for caption in captions))
        file.flush()
        program = "edu.stanford.nlp.process.PTBTokenizer"
        command = ["java", "-Dfile.encoding=UTF-8", "-cp", str(JAR), program]
        options = ["-preserveLines", "-lowerCase", file.name]
        done = subprocess.run([*command, *options], capture_output=True, check=True)
    lines = done.stdout.decode().split("\n")[: 2 * len(captions) : 2]
    found = {
        caption: " ".join(w for w in line.rstrip().split(" ") if w and w not in PUNCTUATIONS)
        for caption, line in zip(captions, lines, strict=True)
    }
    text = json.dumps(found, ensure_ascii=False, indent=0)
    FILE.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
