"""Attention patterns over the codes of an image, with loops over its places."""

import numpy as np


def slow(pattern, text, rows, columns, kernel):
    """[L, L] bool, with loops over the places of the image, as figure 11 of the paper has them."""
    length = text + rows * columns
    found = np.zeros((length, length), bool)
    for i in range(length):
        found[i, : min(i + 1, text)] = True  # the text before it
        if i < text:
            continue
        row, column = divmod(i - text, columns)
        for other_row in range(rows):
            for other_column in range(columns):
                j = text + other_row * columns + other_column
                if j > i:
                    continue
                if pattern == "full":
                    found[i, j] = True
                if pattern == "column":
                    found[i, j] = other_column == column
                if pattern == "row":  # what is left of it in its row, and from above it on
                    above = other_row == row - 1 and other_column >= column
                    found[i, j] = other_row == row or above
        if pattern == "convolution":
            reach = kernel // 2
            for up in range(reach + 1):
                for right in range(-reach, reach + 1):
                    j = i - up * columns + right  # beyond the end of a row: in the next one
                    if text <= j <= i:
                        found[i, j] = True
    return found
