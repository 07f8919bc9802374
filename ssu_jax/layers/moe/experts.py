"""The expert layer's parameters: a feed-forward network and a prompt for each expert, and the router's query.

Our design (the authors published MoHE's name and purpose): an expert's prompt is added to its input and is
at the same time the key that the router compares a token with.
"""

import re
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ssu_jax import sharding
from ssu_jax.config.model import MoEConfig
from ssu_jax.layers.moe import dispatch, losses, router, transport
from ssu_jax.layers.moe.network import Network

# A parameter by place alone: steps move it by `losses.updated_bias`, no gradient and no optimizer does.
BALANCING_BIAS = "balancing_bias"

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

        In training an expert has a limited number of slots, and what overflows is dropped and counted (unless
        `dropless`). Else no token is dropped: every expert sees every token, so a token's result cannot depend on its
        neighbours. With a transport and a current mesh tokens travel to the devices of their experts (transport.py).
        """
        config, num_experts = self.config, self.config.num_experts
        prompts = self.param("prompts", nn.initializers.normal(0.02), (num_experts, self.width))
        group_logits = self._group_logits(scene) if config.two_step and num_experts > 1 else None
        logits, network = self._logits(router_input, prompts), self._network(prompts)
        # The bias is its last parameter: with one and without, the others are the same random ones.
        routing = self._routing(logits, mask, group_logits, train and num_experts > 1)
        self.sow("intermediates", "experts", routing.ids)  # for a look inside; free where nobody asks
        # A single expert takes all tokens whatever the capacity factor: it is the dense model.
        kind = config.dispatch if train and num_experts > 1 else "dense"
        plan = transport.Plan(config.transport, kind, config.capacity_factor, config.dropless)
        mesh = sharding.current_mesh()
        if mesh is None or kind == "dense" or config.transport == "none":
            y, dropped = transport.local(x.astype(self.dtype), routing, network, plan)
        else:  # what fsdp has cut is joined before the model is called
            placement = transport.Placement(mesh, sharding.BATCH_AXES, sharding.EXPERT, tensor=sharding.TENSOR)
            y, dropped = transport.across(x.astype(self.dtype), routing, network, plan, placement)
        return y.astype(self.dtype), losses.statistics(routing, dropped)

    def _routing(self, logits, mask, group_logits, train) -> router.Routing:
        """Each token's experts; noise, the experts' own choice, forced choices and priority are for training alone."""
        config, num_experts = self.config, self.config.num_experts
        if train and config.choice == "experts":
            capacity = dispatch.capacity_of(mask.shape[0], num_experts, config.top_k, config.capacity_factor)
            return router.expert_choice(logits, mask, capacity, min(num_experts, 4 * config.top_k))
        noise = None
        if train and config.router_noise:  # "mask" is the one random stream of a training step
            noise = jax.random.normal(self.make_rng("mask"), logits.shape) * (config.router_noise / num_experts)
        bias = None
        if config.balancing_rate and num_experts > 1:
            bias = jax.lax.stop_gradient(self.param(BALANCING_BIAS, nn.initializers.zeros, (num_experts,)))
        groups = 1 if group_logits is None else config.groups_per_token
        routing = router.route(logits, mask, config.top_k, group_logits, groups, bias=bias, noise=noise)
        if train and config.forced_routing != "none":
            routing = router.forced(routing, config.forced_routing, jax.random.key(0))
        return routing._replace(priority=routing.weights) if train and config.priority else routing

    def _logits(self, router_input, prompts):
        """scale * query . key: the query is linear in the RMS-normalized input, a key is a prompt at unit length."""
        num_experts = self.config.num_experts
        if num_experts == 1:
            return jnp.zeros((router_input.shape[0], 1), jnp.float32)
        query = self.param("query", nn.initializers.lecun_normal(), (router_input.shape[1], self.width))
        scale = self.param("scale", nn.initializers.ones, ())
        keys = prompts * jax.lax.rsqrt(jnp.sum(prompts**2, axis=-1, keepdims=True) + 1e-12)
        # Keys times query first: [e, r] instead of queries [s, d].
        rows = scale * (keys @ query.T)
        self.sow("intermediates", "router_input", router_input)
        self.sow("intermediates", "router_rows", rows)
        return unit_rms_product(router_input, rows)

    def _group_logits(self, scene):
        if scene is None:
            raise ValueError("the two-step choice wants `scene` [s, r2], the features that pick the group; got None")
        kernel = self.param("group", nn.initializers.lecun_normal(1, 0), (self.config.num_groups, scene.shape[1]))
        return unit_rms_product(scene, kernel)

    def _network(self, prompts) -> Network:
        """contract(gelu(expand(x + prompt)))."""
        num_experts, width, hidden = self.config.num_experts, self.width, self.config.hidden
        expand = self.param("expand_kernel", _kernel_init, (num_experts, width, hidden))
        expand_bias = self.param("expand_bias", nn.initializers.zeros, (num_experts, hidden))
        contract = self.param("contract_kernel", _kernel_init, (num_experts, hidden, width))
        contract_bias = self.param("contract_bias", nn.initializers.zeros, (num_experts, width))
        weights = expand, expand_bias, contract, contract_bias, prompts
        return Network(*(each.astype(self.dtype) for each in weights))


def in_order(name: str) -> list:
    """A key that sorts the names of layers as people count: experts_2 before experts_10."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)]


def unit_rms_product(x: Float[Array, "s r"], rows: Float[Array, "n r"]) -> Float[Array, "s n"]:
    """(x / rms(x)) @ rows.T in float32: logits whose size does not grow with the features.

    With one row for each output the derivative is ten times as fast on CPU as with a column (measured, r 512, n 4).
    The norm scales n numbers of a token instead of r.
    """
    x = x.astype(jnp.float32)
    return jnp.einsum("sr,nr->sn", x, rows) * jax.lax.rsqrt(jnp.mean(x**2, axis=-1, keepdims=True) + 1e-6)
