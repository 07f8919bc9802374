"""The text decoder computed again in the backward pass: the same words, statistics and gradients."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from ssu_jax.config.model import ModelConfig
from ssu_jax.models.ssuformer.prompted_experts import Prompts
from ssu_jax.models.ssuformer.text_decoder import Context, TextDecoder
from ssu_jax.tokenizer import BOS


def test_blocks_computed_again_give_the_same_gradients():
    config = ModelConfig(width=16, num_heads=2, text_layers=2, vocab_size=12)
    config.moe.num_experts, config.moe.hidden, config.moe.router_noise = 4, 8, 1.0
    config.language_model.enabled = False
    rng = np.random.default_rng(0)
    draw = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)  # noqa: E731
    context = Context(draw(3, 5, 16), jnp.zeros((3, 5)), Prompts(draw(3, 6, 16), draw(3, 3, 16), draw(1, 3)))
    ids, mask = jnp.full((3, 6), BOS), jnp.ones((3, 6), bool)

    def module(text_remat: bool) -> TextDecoder:
        return TextDecoder(dataclasses.replace(config, text_remat=text_remat), 7)

    shapes = jax.eval_shape(lambda: module(False).init(jax.random.key(0), ids, context, mask, False))
    params = jax.tree.map(lambda leaf: 0.5 * draw(*leaf.shape), shapes)
    assert jax.tree.structure(params) == jax.tree.structure(
        jax.eval_shape(lambda: module(True).init(jax.random.key(0), ids, context, mask, False))
    )

    def answer(module):
        def loss(params, context):
            words = module.apply(params, ids, context, mask, True, rngs={"mask": jax.random.key(1)})
            return jnp.mean(jnp.sin(words.logits)) + sum(stat["balance"] for stat in words.stats), words

        return jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))(params, context)

    plain, again = answer(module(False)), answer(module(True))
    assert jax.tree.structure(plain) == jax.tree.structure(again)
    for a, b in zip(jax.tree.leaves(plain), jax.tree.leaves(again), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    routed = plain[1][0]["params"]["experts_1"]["experts"]["query"]
    assert float(jnp.abs(routed).max()) > 0
