"""The deterministic form of a training chain, for held-out examples."""

import ast

from mmjax.data.transforms.chain import read

# Random steps, and what takes their place; a size is kept, all other arguments are dropped.
FORMS = {
    "random_resized_crop": "resize",
    "random_crop": "center_crop",
    "choose_caption": "first_caption",
    "choose_features": "first_features",
    "flip": None,
    "random_affine": None,
    "color_jitter": None,
    "random_grayscale": None,
    "rand_augment": None,
    "auto_augment": None,
    "random_erasing": None,
    "add_noise": None,
    "speed": None,
    "time_shift": None,
    "spec_augment": None,
    "swap_images": None,
    "random_frames": "uniform_frames",
    "join_next": None,
}
KEEPING = {"dense_frames": "middle_frames"}  # these keep all arguments


def evaluation_form(spec: str) -> str:
    """The chain without randomness: crops as resizing, the first caption, no augmentation, and all
    merges of a tokenizer.

    Raises:
      ValueError: bad syntax.
    """
    steps = []
    for name, args, kwargs, node in read(spec):
        if name in KEEPING:
            steps.append(ast.unparse(node).replace(name, KEEPING[name], 1))
            continue
        if name == "each_frame":
            steps.append(f"each_frame({evaluation_form([*args, *kwargs.values()][0])!r})")
            continue
        if name == "tokenize" and isinstance(node, ast.Call):  # without dropout
            kept = [keyword for keyword in node.keywords if keyword.arg != "dropout"]
            node = ast.Call(node.func, node.args[:2], kept)
        if name not in FORMS:
            steps.append(ast.unparse(node))
            continue
        form = FORMS[name]
        sizes = [kwargs[k] for k in ("size", "count") if k in kwargs] or args[:1]
        if form is not None:
            steps.append(f"{form}({sizes[0]!r})" if form[:6] != "first_" else form)
    return " | ".join(steps)
