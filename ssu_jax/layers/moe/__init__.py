"""Mixture of experts: router, dispatch, experts, losses. All but `experts` are pure functions of arrays."""
