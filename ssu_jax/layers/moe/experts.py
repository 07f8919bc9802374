"""The expert layer's parameters: a feed-forward network and a prompt for each expert, and the router's query.

Our design (the authors published MoHE's name and purpose): an expert's prompt is added to its input and is
at the same time the key that the router compares a token with.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ssu_jax.config.model import MoEConfig
from ssu_jax.layers.moe import dispatch, losses, router

# One expert starts as a dense layer of the same widths does.
_kernel_init = nn.initializers.lecun_normal(in_axis=-2, out_axis=-1, batch_axis=(0,))


class MixtureOfExperts(nn.Module):
    """Feed-forward experts in the place of one feed-forward block (the residual stays outside).

    config: number of experts, top-k, capacity and groups.  width: d.  dtype: of the computation; parameters,
    router and the weighted sum are float32.
    """

    config: MoEConfig
    width: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "s d"],
        router_input: Float[Array, "s r"],
        mask: Bool[Array, " s"],
        scene: Float[Array, "s r2"] | None = None,
        train: bool = False,
    ) -> tuple[Float[Array, "s d"], dict[str, Array]]:
        """The experts' answer and `losses.statistics`. Tokens with mask False cost nothing and give 0.

        In training an expert has a limited number of slots, and what overflows is dropped and counted. Else no
        token is dropped: every expert sees every token, so a token's result cannot depend on its neighbours.
        """
        config, num_experts = self.config, self.config.num_experts
        prompts = self.param("prompts", nn.initializers.normal(0.02), (num_experts, self.width))
        group_logits = self._group_logits(scene) if config.two_step and num_experts > 1 else None
        routing = router.route(self._logits(router_input, prompts), mask, config.top_k, group_logits)
        self.sow("intermediates", "experts", routing.ids)  # for a look inside; free where nobody asks
        # A single expert takes all tokens whatever the capacity factor: it is the dense model.
        kind = config.dispatch if train and num_experts > 1 else "dense"
        capacity = dispatch.capacity_of(x.shape[0], num_experts, config.top_k, config.capacity_factor)
        expert_fn = self._expert_fn(prompts)
        y, dropped = dispatch.DISPATCHES[kind](x.astype(self.dtype), routing, expert_fn, capacity)
        return y.astype(self.dtype), losses.statistics(routing, dropped)

    def _logits(self, router_input, prompts):
        """scale * query . key: the query is linear in the RMS-normalized input, a key is a prompt at unit length."""
        num_experts = self.config.num_experts
        if num_experts == 1:
            return jnp.zeros((router_input.shape[0], 1), jnp.float32)
        query = self.param("query", nn.initializers.lecun_normal(), (router_input.shape[1], self.width))
        scale = self.param("scale", nn.initializers.ones, ())
        keys = prompts * jax.lax.rsqrt(jnp.sum(prompts**2, axis=-1, keepdims=True) + 1e-12)
        # Keys times query first: [e, r] instead of queries [s, d].
        return _unit_rms_product(router_input, scale * (keys @ query.T))

    def _group_logits(self, scene):
        if scene is None:
            raise ValueError("the two-step choice wants `scene` [s, r2], the features that pick the group; got None")
        kernel = self.param("group", nn.initializers.lecun_normal(1, 0), (self.config.num_groups, scene.shape[1]))
        return _unit_rms_product(scene, kernel)

    def _expert_fn(self, prompts):
        """[e, p, d] -> [e, p, d]: contract(gelu(expand(x + prompt)))."""
        num_experts, width, hidden = self.config.num_experts, self.width, self.config.hidden
        expand = self.param("expand_kernel", _kernel_init, (num_experts, width, hidden))
        expand_bias = self.param("expand_bias", nn.initializers.zeros, (num_experts, hidden))
        contract = self.param("contract_kernel", _kernel_init, (num_experts, hidden, width))
        contract_bias = self.param("contract_bias", nn.initializers.zeros, (num_experts, width))
        # (x + prompt) W + b = x W + (prompt W + b): one small product instead of a pass over all slots.
        expand_bias = expand_bias + jnp.einsum("ed,edh->eh", prompts, expand)
        weights = [w.astype(self.dtype) for w in (expand, expand_bias[:, None], contract, contract_bias[:, None])]
        return lambda x: apply_experts(x, *weights)


def apply_experts(
    x: Float[Array, "e p d"],
    expand: Float[Array, "e d h"],
    expand_bias: Float[Array, "e 1 h"],
    contract: Float[Array, "e h d"],
    contract_bias: Float[Array, "e 1 d"],
) -> Float[Array, "e p d"]:
    """Expert i on row block i."""
    hidden = jax.nn.gelu(jnp.einsum("epd,edh->eph", x, expand) + expand_bias)
    return jnp.einsum("eph,ehd->epd", hidden, contract) + contract_bias


def _unit_rms_product(x: Float[Array, "s r"], rows: Float[Array, "n r"]) -> Float[Array, "s n"]:
    """(x / rms(x)) @ rows.T in float32: logits whose size does not grow with the features.

    With one row for each output the derivative is ten times as fast on CPU as with a column (measured, r 512, n 4).
    The norm scales n numbers of a token instead of r.
    """
    x = x.astype(jnp.float32)
    return jnp.einsum("sr,nr->sn", x, rows) * jax.lax.rsqrt(jnp.mean(x**2, axis=-1, keepdims=True) + 1e-6)
