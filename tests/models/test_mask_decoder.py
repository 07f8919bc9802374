"""The mask decoder's two forms: what they draw, what the union is, and that queries learn to part sources."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ssu_jax import losses, models
from ssu_jax.config import LossConfig, ModelConfig, sizes
from ssu_jax.models.ssuformer.mask_decoder import MaskHead, PixelDecoder, QueryMaskHead, union_of
from ssu_jax.types import Outputs

CONFIG = ModelConfig(width=16, num_heads=2, pixel_width=8, mask_form="multi")
CLASSES = 5


def logit(probability):
    return np.log(probability) - np.log1p(-probability)


def test_single_form_is_the_union_of_its_queries():
    """One query on the left half and one on the right: their smooth maximum covers both and nothing else."""
    config = ModelConfig(width=4)
    pixels = jnp.zeros((1, 4, 6, 2)).at[:, :, :2, 0].set(1.0).at[:, :, 4:, 1].set(1.0)
    head = MaskHead(config)
    queries = jnp.eye(2, 4)[None]
    shapes = jax.eval_shape(lambda: head.init(jax.random.key(0), pixels, queries)["params"])
    params = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), shapes)
    params["hidden"]["kernel"] = jnp.eye(4)
    # [hidden, sub-pixel, channel]: query 0 reads channel 0, query 1 channel 1, in the first sub-pixel column only.
    kernel = jnp.zeros((4, 4, 4, 3)).at[0, :, 0, 0].set(20.0).at[1, :, 0, 1].set(20.0)
    params["embedding"]["kernel"] = kernel.reshape(4, 48)
    drawn = head.apply({"params": params}, pixels, queries)
    assert drawn.class_logits is None
    assert drawn.mask_logits is None
    union = np.asarray(drawn.union)
    assert union.shape == (1, 16, 24)
    assert (union[0, :, [0, 4, 16, 20]] > 0).all()
    assert (union[0, :, [8, 12]] < 0).all()
    assert (union[0, :, 1::4] < 0).all()


@pytest.mark.parametrize("stem", [True, False])
def test_pixel_decoder_is_at_stride_4_with_and_without_a_stem(stem):
    features = {f"stage_{i + 1}": jnp.ones((2, 8 >> i, 8 >> i, 4)) for i in range(4)}
    if stem:
        features |= {"stem": jnp.ones((2, 16, 16, 4))}
    fused = jnp.ones((2, 1, 16))
    decoder = PixelDecoder(CONFIG)
    out, params = jax.eval_shape(lambda: decoder.init_with_output(jax.random.key(0), features, fused))
    assert out.shape == (2, 8, 8, 8)
    assert ("outlines" in params["params"]) == stem


def test_union_by_hand():
    """The best of p(object) p(pixel), as a logit; a query that finds no object draws nothing."""
    # p(object): 3 / 4, and next to none.
    classes = jnp.array([[[0.0, np.log(2.0), 0.0], [0.0, 0.0, 30.0]]])
    masks = jnp.array([[[[0.0, 30.0, -30.0]], [[30.0, 30.0, 30.0]]]])
    union = np.asarray(union_of(classes, masks))[0, 0]
    assert union[:2] == pytest.approx([logit(0.75 / 2), logit(0.75)], abs=1e-4)
    assert union[2] < -25


def test_union_stays_finite_and_so_does_its_gradient():
    both = jax.jit(jax.value_and_grad(lambda c, m: union_of(c, m).sum(), (0, 1)))
    for classes, masks in ((200.0, 200.0), (200.0, -200.0), (-200.0, 200.0), (-200.0, -200.0)):
        sure = np.array([[[classes, -classes]]], np.float32)
        value, gradient = both(sure, np.full((1, 1, 1, 1), masks, np.float32))
        assert np.isfinite(value)
        assert all(np.isfinite(part).all() for part in gradient)
        assert (float(value) > 10) == (classes > 0 and masks > 0)


def test_multi_form_inside_the_model():
    """Both forms give the same outputs to the rest; multi adds its queries and its loss terms. Traced only."""
    config = sizes.tiny()
    config.model.mask_form = "multi"
    model, batch = models.build(config), models.example_batch(config, 2)

    def run():
        outputs = model.init_with_output({"params": jax.random.key(0)}, batch)[0]
        return outputs, losses.total_loss(outputs, batch, config.losses)

    outputs, (total, terms) = jax.eval_shape(run)
    b, t, size = *batch.frames.shape[:2], batch.frames.shape[2]
    q, u = config.model.num_queries, len(config.data.classes)
    assert outputs.mask_logits.shape == batch.masks.shape
    assert outputs.query_class_logits.shape == (b, t, q, u + 1)
    assert outputs.query_mask_logits.shape == (b, t, q, size // 4, size // 4)
    assert outputs.text_logits is not None
    assert {"query_class", "query_mask", "query_dice", "mask", "dice"} <= set(terms)
    assert total.shape == ()


def two_frames_of_two_sources():
    """[1, 2] frames of 16 x 16: classes 3 and 1 side by side, then 0 above 3."""
    semantic = np.zeros((1, 2, 16, 16), np.int8)
    semantic[0, 0, 4:12, :8], semantic[0, 0, :8, 12:] = 4, 2
    semantic[0, 1, :4, 4:], semantic[0, 1, 8:, :] = 1, 4
    labels = np.zeros((1, 2, CLASSES), np.uint8)
    labels[0, 0, [3, 1]] = labels[0, 1, [0, 3]] = 1
    batch = models.example_batch(sizes.tiny())
    known = dict.fromkeys(("frame_valid", "mask_known", "text_known", "source_known"), np.ones((1, 2), bool))
    return batch._replace(masks=np.uint8(semantic > 0), semantic=semantic, source_labels=labels, **known)


def overfitted(batch, steps=300):
    """Outputs of a head, free pixel features and free queries after training on the frames of one clip."""
    batch = jax.tree.map(jnp.asarray, batch)
    head, config, rng = QueryMaskHead(CONFIG, CLASSES), LossConfig(), np.random.default_rng(0)
    draw = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)  # noqa: E731
    pixels, queries = draw(2, 4, 4, 8), draw(2, 4, 16)
    shapes = jax.eval_shape(lambda: head.init(jax.random.key(0), pixels, queries))
    weights = jax.tree.map(lambda leaf: 0.3 * draw(*leaf.shape), shapes)
    optimizer = optax.adam(0.02)

    def outputs_of(params):
        weights, pixels, queries = params
        drawn = jax.tree.map(lambda x: x[None], head.apply(weights, jax.nn.relu(pixels), queries))
        return Outputs(drawn.union, None, query_class_logits=drawn.class_logits, query_mask_logits=drawn.mask_logits)

    def loss_of(params):
        outputs = outputs_of(params)
        terms = losses.mask_terms(outputs.mask_logits, batch, config)
        terms |= losses.set_terms(outputs.query_class_logits, outputs.query_mask_logits, batch, config)
        return sum(getattr(config, name) * value for name, value in terms.items())

    def step(carry, _):
        params, state = carry
        loss, gradient = jax.value_and_grad(loss_of)(params)
        change, state = optimizer.update(gradient, state)
        return (optax.apply_updates(params, change), state), loss

    @jax.jit
    def train(params):
        (params, _), history = jax.lax.scan(step, (params, optimizer.init(params)), None, steps)
        return outputs_of(params), history

    return train((weights, pixels, queries))


def test_queries_learn_to_part_the_sources():
    batch = two_frames_of_two_sources()
    outputs, history = overfitted(batch)
    assert float(history[-1]) < 0.05 * float(history[0])
    classes = np.asarray(outputs.query_class_logits)[0].argmax(axis=-1)
    drawn = np.asarray(outputs.query_mask_logits)[0] > 0
    small = batch.semantic[0, :, ::4, ::4]
    for frame, wanted in enumerate(([1, 3], [0, 3])):
        assert sorted(classes[frame]) == [*wanted, CLASSES, CLASSES]
        for kind in wanted:
            query = list(classes[frame]).index(kind)
            np.testing.assert_array_equal(drawn[frame, query], small[frame] == kind + 1)
    union = np.asarray(outputs.mask_logits)[0] > 0
    assert (union & batch.masks[0]).sum() > 0.85 * (union | batch.masks[0]).sum()
    # The reverse: names exchanged, the same masks cost dear.
    exchanged = batch._replace(semantic=batch.semantic.copy())
    exchanged.semantic[0, 0] = np.select([batch.semantic[0, 0] == 4, batch.semantic[0, 0] == 2], [2, 4], 0)
    terms = jax.jit(lambda o, b: losses.set_terms(o.query_class_logits, o.query_mask_logits, b, LossConfig()))
    right, wrong = terms(outputs, batch), terms(outputs, exchanged)
    assert float(right["query_class"]) < 0.1
    assert float(wrong["query_class"]) > 1.0
