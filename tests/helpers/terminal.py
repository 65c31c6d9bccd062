"""A terminal that records its output, and what is visible on it."""

import io
import re


class Terminal(io.StringIO):
    def isatty(self):
        return True


def shown(stream):
    """The non-blank lines on the screen, without colors, after cursor moves and erasures."""
    lines, row, column = [""], 0, 0
    for part in re.findall(r"\x1b\[[\d;?]*[A-Za-z]|\r|\n|[^\x1b\r\n]+", stream.getvalue()):
        if part == "\r":
            column = 0
        elif part == "\n":
            row, column = row + 1, 0
            lines += [""] * (row + 1 - len(lines))
        elif part.startswith("\x1b["):
            number, kind = part[2:-1], part[-1]
            if kind == "A":
                row -= int(number or 1)
            elif kind == "K":
                lines[row] = "" if number == "2" else lines[row][:column]
            else:
                assert kind == "m", part
        else:
            lines[row] = lines[row].ljust(column)[:column] + part + lines[row][column + len(part) :]
            column += len(part)
    return [line.rstrip() for line in lines if line.strip()]
