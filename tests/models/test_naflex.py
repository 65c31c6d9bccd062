"""Images that share a row of patches have the embeddings and the loss of those that do not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from parity import GOLDEN, close

from mmjax import pack as packing
from mmjax.batch import check, to_device_dtypes
from mmjax.data.pipeline import train_batches
from mmjax.data.source import Source
from mmjax.data.sources.packed import Packed, first_fit
from mmjax.data.transforms import parse as transforms
from mmjax.layers.patch_rows import read_grids, same_image
from mmjax.layers.position import LearnedGrid, resize_at, resize_grid
from mmjax.models.clip import contrastive, spec
from mmjax.pretrained import load
from mmjax.system import average

SIZES = ((13, 30), (31, 9), (5, 5), (64, 50), (6, 47), (20, 20))
GROUPS = [[0, 3], [1, 2, 4], [5]]
CHAIN = "decode | patches(16, 4) | first_caption | tokenize(10)"
RNG = np.random.default_rng(0)


class Drawings(Source):
    """Random images of odd sizes, the last two with one caption."""

    name = "drawings"
    words = ("a red bus", "a blue car", "two small dogs", "run over the grass", "tea", "tea")

    def __len__(self):
        return len(SIZES)

    def __getitem__(self, i):
        image = np.random.default_rng(i).integers(0, 256, (*SIZES[i], 3), np.uint8)
        return {"image": image, **self.meta(i)}

    def meta(self, i):
        return {"key": str(i), "captions": [self.words[i]]}


@pytest.fixture(scope="module")
def loaded():
    return load(GOLDEN / "siglip2_naflex")


def rows(source, chain, words):
    """The batch of all examples of a source."""
    prepare = transforms.parse(chain, tokenizer=words)
    made = [prepare(source[i], np.random.default_rng(0)) for i in range(len(source))]
    names = ("image", "image_grid", "text", "text_mask")
    batch = {name: np.stack([row[name] for row in made]) for name in names}
    return batch | {"example_id": np.arange(len(made), dtype=np.int32)}


@pytest.fixture(scope="module")
def both(loaded):
    """Outputs, loss and gradients of the examples one to a row, and packed."""

    def of(batch, settings):
        def total(params, batch):
            outputs = loaded.model.apply({"params": params}, batch)
            terms = contrastive(**settings)(outputs, batch, None)
            means = {k: average(term)[0] for k, term in terms.items()}
            return means["contrastive"], (outputs, means)

        return jax.jit(jax.value_and_grad(total, has_aux=True))(loaded.params, batch)

    settings = {"kind": "sigmoid", "mask_duplicates": True, "alignment": True}
    alone = rows(Drawings(), CHAIN, loaded.tokenizer)
    packed = rows(Packed(Drawings(), GROUPS), f"{CHAIN} | pack(48, 4)", loaded.tokenizer)
    return alone, packed, of(alone, settings), of(packed, settings)


def test_images_of_a_row_do_not_see_each_other(both):
    _, packed, ((_, (alone, _)), _), ((_, (together, _)), _) = both
    assert packed["image"].shape == (3, 48, 48) and packed["text"].shape == (3, 4, 10)
    for name in ("image_embed", "text_embed", "image_features"):
        for row, group in enumerate(GROUPS):
            close(np.asarray(together[name])[row, : len(group)], np.asarray(alone[name])[group])
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(together))


def test_the_loss_and_its_gradient_are_those_without_packing(both):
    *_, ((loss, (_, means)), grads), ((packed_loss, (_, packed_means)), packed_grads) = both
    close(np.asarray(packed_loss), np.asarray(loss))
    assert means["masked_pairs"] == 2  # both pairs of the caption that two images have
    for name in means:
        close(np.asarray(packed_means[name]), np.asarray(means[name]))
    for one, other in zip(jax.tree.leaves(grads), jax.tree.leaves(packed_grads), strict=True):
        close(np.asarray(other), np.asarray(one))


def test_cells_and_masks_are_those_of_a_loop():
    grids = np.array([[[2, 3], [0, 0], [1, 4]], [[3, 1], [2, 2], [5, 1]]], np.int32)
    length = 12
    cells = jax.tree.map(np.asarray, read_grids(jnp.asarray(grids), length))
    for row, images in enumerate(grids):
        want = [
            (m, r, c, h, w)
            for m, (h, w) in enumerate(images.tolist())
            for r in range(h)
            for c in range(w)
        ]
        want += [(3, 0, 0, 1, 1)] * (length - len(want))
        found = np.concatenate(
            [cells.image[row][:, None], cells.place[row], cells.grid[row]], axis=1
        )
        assert found.tolist() == [list(one) for one in want]
        seen = np.asarray(same_image(read_grids(jnp.asarray(grids), length), 3))[row]
        for i, one in enumerate(want):
            assert seen[i].tolist() == [one[0] == other[0] < 3 for other in want]


def test_positions_at_patches_are_those_of_the_resized_table():
    table = jnp.asarray(RNG.normal(size=(4, 6, 8)).astype(np.float32))
    for grid in ((4, 6), (1, 13), (9, 2), (3, 5)):
        cells = read_grids(jnp.asarray([[grid]], jnp.int32), 26)
        count = grid[0] * grid[1]
        want = np.asarray(resize_grid(table, grid, "linear")).reshape(count, 8)
        found = np.asarray(resize_at(table, cells))
        close(found[0, :count], want)
        assert np.isfinite(found).all()
    with pytest.raises(ValueError, match="rows of patches are resized by 'linear', not 'bicubic'"):
        LearnedGrid((4, 6), 8, "bicubic").init(jax.random.key(0), cells)


def test_packs_of_images_are_arranged_by_their_patches(loaded):
    chain = f"{CHAIN} | pack(37, 3)"
    counts, images, length, most = packing.measure(Drawings(), chain, None)
    alone = rows(Drawings(), CHAIN, loaded.tokenizer)
    assert counts.tolist() == alone["image_grid"].prod(1).tolist() and (images == 1).all()
    groups = first_fit(counts, images, length, most)
    assert len(groups) < len(SIZES) / 2 + 1
    source = Packed(Drawings(), groups)
    assert sorted(t for i in range(len(source)) for t in source.meta(i)["captions"]) == sorted(
        Drawings.words
    )
    assert rows(source, chain, loaded.tokenizer)["image_grid"].prod(-1).sum() == counts.sum()
    with pytest.raises(ValueError, match="random_crop: only images whose patches are the same"):
        packing.measure(Drawings(), f"decode | random_crop(4) | {chain}", None)
    with pytest.raises(ValueError, match="no patches.*only images whose patches are the same"):
        packing.measure(Drawings(), "decode | pack(37, 3)", None)
    with pytest.raises(ValueError, match="of up to 16 patches, and pack.* rows of 12: lower the"):
        packing.measure(Drawings(), f"{CHAIN} | pack(12, 3)", None)
    square = CHAIN.replace("decode", "decode | resize_smoothed((8, 8))")
    assert packing.patches_of(Drawings(), square).tolist() == [16] * len(SIZES)
    tight = f"{CHAIN} | pack(20, 3)"
    with pytest.raises(ValueError, match="2 images of .* room for 3 and 20: write the file of"):
        rows(Packed(Drawings(), GROUPS), tight, loaded.tokenizer)
    with pytest.raises(ValueError, match="pack comes after patches"):
        rows(Drawings(), "decode | pack(20, 3)", loaded.tokenizer)


def test_rows_of_more_texts_than_images_are_named(both, loaded):
    _, packed, *_ = both
    wrong = packed | {k: packed[k][:, :2] for k in ("text", "text_mask")}
    outputs = jax.eval_shape(loaded.model.apply, loaded.variables, wrong)
    with pytest.raises(ValueError, match=r"\(4,\) images and \(2,\) texts"):
        contrastive()(outputs, wrong, None)


def test_packed_rows_are_what_the_system_asks_for(loaded):
    image = {**loaded.model.image, "max_patches": 48, "row_images": 4}
    wanted = spec(loaded.model.clone(image=image), True)
    chain = transforms.parse(f"{CHAIN} | pack(48, 4)", tokenizer=loaded.tokenizer)
    packed = Packed(Drawings(), GROUPS)
    stream = train_batches(packed, chain, batch_size=3, seed=0, spec=wanted)
    for _ in range(2):
        batch = to_device_dtypes(next(stream))
        check(batch, wanted)
        assert sorted(batch["example_id"]) == [0, 1, 2]
    stream.close()
    with pytest.raises(ValueError, match=r"'image' is uint8\[48, 48\].*at most uint8\[16, 48\]"):
        check(batch, spec(loaded.model, True))  # a budget below that of the transform
