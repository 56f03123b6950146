"""Learning-rate schedules `(peak, steps, ...)`: the rate of an update, by its number from 0 to `steps` - 1."""

import jax.numpy as jnp
import optax

from labelfx.config.annotations import Fraction, NonNegativeInt


def constant(peak, steps, *, warmup_steps: NonNegativeInt):
    """`peak` after a linear warm-up from 0."""
    return _warm_up(optax.constant_schedule(peak), peak, warmup_steps)


def cosine(peak, steps, *, warmup_steps: NonNegativeInt):
    """A linear warm-up from 0, then half a cosine period down to 0 at `steps` (Loshchilov & Hutter 2017, no restarts).

    Raises:
      ValueError: the warm-up does not end before `steps`.
    """
    if warmup_steps >= steps:
        raise ValueError(f"cosine: warmup_steps = {warmup_steps} must be less than the {steps} updates of the run")
    return _warm_up(optax.cosine_decay_schedule(peak, steps - warmup_steps), peak, warmup_steps)


def step_decay(peak, steps, *, at: tuple[Fraction, ...], factor: Fraction):
    """`peak`, multiplied by `factor` once each of these fractions of the updates is done: (0.6, 0.8) of 100 epochs is
    after 60 and 80."""
    return optax.piecewise_constant_schedule(peak, {round(each * steps): factor for each in at})


def fixmatch_cosine(peak, steps):
    """`peak cos(7 pi t / (16 steps))` (FixMatch, Sohn et al. 2020, section 2.3): ends at 0.195 peak."""
    return lambda step: peak * jnp.cos(7 * jnp.pi / 16 * step / steps)


def _warm_up(schedule, peak, warmup_steps):
    if warmup_steps == 0:
        return schedule
    return optax.join_schedules([optax.linear_schedule(0.0, peak, warmup_steps), schedule], [warmup_steps])
