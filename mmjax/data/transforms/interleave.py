"""Images in text: the rows of a batch become runs of several images, each before its own text."""

from collections.abc import Sequence

import numpy as np


def interleave(images, length, image_token, *, tokenizer):
    """Puts other rows before each row: `<begin> <image> text <end> <image> text <end> ...`.

    Takes `image [B, H, W, 3]` and tokenized `text [B, L]` with its mask. A tokenizer without a
    begin token leaves it out here too. Gives `image [B, images, H, W, 3]`, `image_mask
    [B, images]`, `text` and `text_mask [B, length]`, and `text_loss_mask`, true on the texts and
    their ends.
    A row's own image and text come last; the ones before it are other rows of its block. Blocks are
    of the next power of two rows, which the order of the epoch has brought together at random: so
    they are the same however many processes share the batch. Where the texts do not all fit, the
    first ones are left out.

    Args:
      images: images a row; length: tokens a row; image_token: id of the token before each text.
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
        # The images that are left out go to the end, so that the k-th place has the k-th image.
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
    """Lines of tokens as one row, an image token before each.

    Args:
      begin: the token that each line begins with, and the row once; None: there is none.
      open_end: the row ends in one more image token, for a model to go on from.

    Returns:
      text [length] int32, mask and loss mask [length] bool, and how many lines there is room for:
      the last so many.

    Raises:
      ValueError: not even the last one fits.
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
