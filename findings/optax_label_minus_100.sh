#!/usr/bin/env bash
# optax: the label -100 of "no token here" is a class like any other, as soon as there are 100 classes.
#
# Versions: optax 0.2.8, jax 0.10.2, jaxlib 0.10.2, numpy 2.4.6, Python 3.11.
#
# Collators for language models and captions mark tokens without a loss by -100, PyTorch's ignore_index. JAX does not
# know it, so one expects an error or NaN in the first step.
#
# Seen: softmax_cross_entropy_with_integer_labels takes the logit by an index, and a negative index counts from the
# end: of 1,000 classes -100 is class 900, and its gradient is that of label 900. The loss of every padded or masked
# token is finite and falls while the model learns to write one certain token there. With fewer than 100 classes, as in
# a small test, the same label gives NaN. -1 is the last class always.
#
# What to do: a mask beside the labels, jnp.where(labels < 0, 0, labels) inside, and the mean over the mask.
#
# Exits with 0 if this is what happens, with 1 if it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    optax==0.2.8 jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax


def loss(logits, label):
    return optax.softmax_cross_entropy_with_integer_labels(logits, jnp.array([label])).sum()


logits = jnp.asarray(np.random.default_rng(0).normal(size=(1, 1000)), jnp.float32)
same = []
for label in (-100, -1):
    found, gradient = jax.value_and_grad(loss)(logits, label)
    trained = int(gradient.argmin())
    print(f"of 1,000 classes, label {label}: loss {found:.4f}, the gradient raises class {trained}")
    expected, of_class = jax.value_and_grad(loss)(logits, 1000 + label)
    same.append(trained == 1000 + label and found == expected and np.array_equal(gradient, of_class))
small = float(loss(logits[:, :50], -100))
print(f"of 50 classes, label -100: loss {small}")
sys.exit(0 if all(same) and np.isnan(small) else 1)
PY
