"""Interleaved images and text: each row becomes a sequence of several (image, text) pairs."""

from collections.abc import Sequence

import numpy as np


def interleave(images, length, image_token, *, tokenizer):
    """Prepends other rows to each row: `<begin> <image> text <end> <image> text <end> ...`.

    Takes `image [B, H, W, 3]` and tokenized `text [B, L]` with its mask; there is no begin token if
    the tokenizer has none. Gives `image [B, images, H, W, 3]`, `image_mask [B, images]`, `text` and
    `text_mask [B, length]`, and `text_loss_mask`, true on the texts and their end tokens.
    A row's own image and text come last; those before it are other rows of its block. The block
    size is the next power of two of `images`; blocks are random, since the epoch is shuffled, and
    do not depend on the number of processes. If not all texts fit, the first ones are left out.

    Args:
      images: images per row; length: tokens per row; image_token: id of the token before each text.
    """
    block = 1 << (images - 1).bit_length()

    def f(batch, rng):
        rows = np.arange(len(batch["image"]))
        if len(rows) % block:
            raise ValueError(
                f"interleave takes {images} images from blocks of {block} rows and a process has "
                f"{len(rows)} rows of the batch: set config.batch_size to a multiple of {block} "
                "times the number of processes."
            )
        steps = np.append(rng.permutation(np.arange(1, block))[: images - 1], 0)
        order = (rows // block * block)[:, None] + (rows[:, None] + steps) % block
        lines = [row[mask] for row, mask in zip(batch["text"], batch["text_mask"])]
        made = [
            join([lines[i] for i in others], tokenizer.bos_id, length, image_token)
            for others in order
        ]
        text, mask, loss_mask, kept = (np.stack(part) for part in zip(*made))
        # Images that are left out go to the end: the k-th image token reads the k-th image.
        first = images - kept
        place = (np.arange(images)[None] + first[:, None]) % images
        return {
            **batch,
            "image": batch["image"][np.take_along_axis(order, place, axis=1)],
            "image_mask": np.arange(images)[None] < kept[:, None],
            "text": text,
            "text_mask": mask,
            "text_loss_mask": loss_mask,
        }

    return f


def join(
    lines: Sequence[np.ndarray],
    begin: int | None,
    length: int,
    image_token: int,
    open_end: bool = False,
):
    """Lines of tokens joined to one row, with an image token before each.

    Args:
      begin: the begin token of each line, kept only at the start of the row; None: there is none.
      open_end: end the row with one more image token, as a prompt to generate from.

    Returns:
      text [length] int32, mask and loss mask [length] bool, and the number of lines kept (the last
      ones).

    Raises:
      ValueError: not even the last line fits.
    """
    bare = [line if begin is None else line[1:] for line in lines]
    kept, used = [], (begin is not None) + open_end
    for line in reversed(bare):
        if used + 1 + len(line) > length:
            break
        kept.insert(0, line)
        used += 1 + len(line)
    if lines and not kept and not open_end:
        raise ValueError(
            f"A text of {len(lines[-1])} tokens does not fit into interleave's length {length}: "
            "raise it."
        )
    row = [] if begin is None else [(begin, False)]
    for line in kept:
        row += [(image_token, False), *((token, True) for token in line)]
    row += [(image_token, False)] * open_end
    text = np.zeros(length, np.int32)
    mask, loss_mask = np.zeros(length, bool), np.zeros(length, bool)
    text[: len(row)], loss_mask[: len(row)] = zip(*row)
    mask[: len(row)] = True
    return text, mask, loss_mask, len(kept)
