"""What a program costs, against XLA's own count of it and against arithmetic."""

import jax
import jax.numpy as jnp
import pytest
from jax import lax
from jax.sharding import PartitionSpec

from labelfx.hardware.costs import Collective, collectives, hbm_bytes, product_flops
from labelfx.loop.mesh import make_mesh, on_every_device, split_rows


def both(function, *arguments):
    """The count of the jaxpr, and XLA's, which has all other operations too."""
    traced = jax.jit(function).trace(*arguments)
    return product_flops(traced.jaxpr.jaxpr), traced.lower().compile().cost_analysis()["flops"]


def convolve(**how):
    return lambda x, w: lax.conv_general_dilated(x, w, dimension_numbers=("NHWC", "HWIO", "NHWC"), **how)


@pytest.mark.parametrize(
    "size, how",
    [
        (3, {"window_strides": (1, 1), "padding": "SAME"}),
        (3, {"window_strides": (2, 2), "padding": [(1, 1), (1, 1)]}),
        (1, {"window_strides": (2, 2), "padding": "VALID"}),
        (3, {"window_strides": (1, 1), "padding": "SAME", "feature_group_count": 4}),
        (3, {"window_strides": (1, 1), "padding": [(2, 1), (0, 3)], "lhs_dilation": (2, 1), "rhs_dilation": (1, 2)}),
        (3, {"window_strides": (1, 2), "padding": [(-1, 0), (0, -2)]}),
    ],
)
def test_flops_of_a_convolution_and_its_gradients(size, how):
    x, w = jnp.ones((2, 9, 9, 8)), jnp.ones((size, size, 8 // how.get("feature_group_count", 1), 16))
    forward, compiler = both(convolve(**how), x, w)
    assert forward == compiler

    def loss(x, w):
        return jnp.sum(convolve(**how)(x, w) ** 2)

    found, compiler = both(jax.grad(loss, argnums=(0, 1)), x, w)
    assert found == 3 * forward
    assert found < compiler < 1.2 * found  # and squares


def test_flops_of_a_scan_and_of_what_is_computed_again():
    x, w = jnp.ones((4, 8)), jnp.ones((8, 8))

    def loss(w):
        turn = jax.checkpoint(lambda x, _: (jnp.tanh(x @ w), None))
        return jnp.sum(lax.scan(turn, x, None, length=5)[0])

    product = 2 * 4 * 8 * 8
    found, compiler = both(jax.grad(loss), w)
    assert found == 5 * product + 5 * 3 * product  # forward; again forward, for x and for w
    assert compiler < 6 * product  # each body once


def test_flops_of_branches_batches_and_unknown_lengths():
    x = jnp.ones((3, 4, 5))
    assert both(lambda x: jnp.einsum("bij,bkj->bik", x, x), x)[0] == 2 * 3 * 4 * 4 * 5
    assert both(lambda x: lax.cond(x[0, 0, 0] > 0, lambda y: y @ y.T @ y, lambda y: y @ y.T @ -y, x[0]), x)[0] == 320
    assert both(lambda x: lax.while_loop(lambda y: y[0, 0] < 9, lambda y: y @ y, x[0, :, :4]), x)[0] == 2 * 4**3


def test_a_product_of_float32_at_full_precision_is_six_of_bfloat16():
    x, w, image, kernel = jnp.ones((4, 8)), jnp.ones((8, 8)), jnp.ones((1, 4, 4, 2)), jnp.ones((1, 1, 2, 8))

    def work(x, w, image, kernel):
        ours = jnp.matmul(x, w, precision="highest"), jnp.matmul(x, w, precision=lax.Precision.HIGH), x @ w
        halves = jnp.matmul(x.astype(jnp.bfloat16), w.astype(jnp.bfloat16), precision="highest")
        each = lax.map(lambda row: jnp.matmul(row, w, precision="highest"), x)
        one = convolve(window_strides=(1, 1), padding="SAME", precision="highest")(image, kernel)
        return *ours, halves, each, one

    counted = jax.make_jaxpr(work)(x, w, image, kernel).jaxpr
    assert product_flops(counted) == 6 * 512  # each is 8 products and sums, 32 times
    assert product_flops(counted, as_bfloat16=True) == (6 + 3 + 1 + 1 + 6 + 6) * 512


def test_bytes_of_a_small_program():
    """Compiled for eight devices: 96 float32 are summed over groups of two."""
    mesh = make_mesh(8, 2)
    summed = jax.jit(
        jax.shard_map(
            lambda x: jax.lax.psum(x, "fsdp"),
            mesh=mesh,
            in_specs=PartitionSpec(("data", "fsdp")),
            out_specs=PartitionSpec("data"),
        )
    )
    program = summed.lower(jax.ShapeDtypeStruct((768,), jnp.float32, sharding=split_rows(mesh))).compile()
    assert collectives(program.as_text(), 8) == [Collective("all-reduce", 4 * 96, 2)]
    gathered = jax.jit(lambda x: x * 2, out_shardings=on_every_device(mesh))
    program = gathered.lower(jax.ShapeDtypeStruct((768,), jnp.bfloat16, sharding=split_rows(mesh))).compile()
    assert [(each.kind, each.group) for each in collectives(program.as_text(), 8)] == [("all-gather", 8)]


HLO = """\
%all-reduce-scatter.3 (input: f32[512,256]) -> f32[256,256] {
  %all-reduce.2 = f32[512,256]{1,0:T(8,128)} all-reduce(%input), channel_id=3, replica_groups={{0,1},{2,3}}
}

%region_0.1 (a: f32[], b: f32[]) -> f32[] {
  ROOT %add.1 = f32[]{:T(128)} add(%a, %b)
}

ENTRY %main.10_spmd (param: f32[8]) -> f32[8] {
  %ag = (bf16[4,8]{1,0:T(8,128)(2,1)}, bf16[16,8]{1,0:T(8,128)(2,1)S(1)}) all-gather-start(%x), replica_groups=[1,4]
  %agd = bf16[16,8]{1,0} all-gather-done(%ag)
  %again = bf16[512,9]{1,0} all-reduce(%input), channel_id=3, replica_groups={{0,1},{2,3}}
  %both = (f32[10]{0}, (s32[3]{0}, pred[8]{0})) all-reduce(%a, %b, %c), replica_groups={}, to_apply=%region_0.1
  %cp = (f32[6]{0}, f32[6]{0}, u32[], u32[]) collective-permute-start(%y), source_target_pairs={{0,1},{1,0}}
  %rs = f32[5]{0} reduce-scatter(%z), replica_groups=[2,2]<=[2,2]T(1,0), dimensions={0}, to_apply=%region_0.1
  %f = f32[256,256]{1,0} fusion(%w), kind=kCustom, calls=%all-reduce-scatter.3, metadata={op_name="all-reduce(x)"}
  %part = f32[9]{0} all-reduce(%u), replica_groups=mesh['axis_0'=2,'axis_1'=2] {'axis_1'}, to_apply=%region_0.1
  %t = f32[9]{0} all-gather(%s), replica_groups=mesh['a'=2,'b'=2], device_ids=([2,2]T(1,0)) {'b'}, dimensions={0}
  ROOT %a2a = f32[4,7]{1,0} all-to-all(%v), replica_groups={{0,1,2,3}}, dimensions={0}
}
"""


def test_bytes_of_every_kind():
    found = collectives(HLO, 4)
    assert [tuple(each) for each in found] == [
        ("reduce-scatter", 4 * 512 * 256, 2),
        ("all-gather", 2 * 16 * 8, 4),
        ("all-reduce", 40 + 12 + 8, 4),
        ("collective-permute", 24, 4),
        ("reduce-scatter", 4 * 5 * 2, 2),
        ("all-reduce", 36, 2),
        ("all-gather", 36, 2),
        ("all-to-all", 4 * 4 * 7, 4),
    ]
    assert [each.sent for each in found] == [4 * 512 * 256 / 2, 192, 90, 24, 20, 36, 18, 84]


SCHEDULED = """\
%fused (p: f32[8,128]) -> f32[8,128] {
  %p = f32[8,128]{1,0:T(8,128)} parameter(0)
  ROOT %negate = f32[8,128]{1,0:T(8,128)} negate(%p)
}

%body.1 (turn: (f32[2,2])) -> (f32[2,2]) {
  %turn = (f32[2,2]{1,0:T(2,128)}) parameter(0)
  %held = f32[2,2]{1,0:T(2,128)} get-tuple-element(%turn), index=0
  %twice = f32[2,2]{1,0:T(2,128)} add(%held, %held)
  ROOT %next = (f32[2,2]{1,0:T(2,128)}) tuple(%twice)
}

ENTRY %main (x: f32[8,128], w: bf16[4,128]) -> f32[8,128] {
  %x = f32[8,128]{1,0:T(8,128)} parameter(0), metadata={op_name="x"}
  %w = bf16[4,128]{1,0:T(8,128)(2,1)} parameter(1)
  %copy-start.1 = (f32[8,128]{1,0:T(8,128)S(1)}, f32[8,128]{1,0:T(8,128)}, u32[]{:S(2)}) copy-start(%x)
  %copy-done.1 = f32[8,128]{1,0:T(8,128)S(1)} copy-done(%copy-start.1)
  %slice-start.1 = ((bf16[4,128]{1,0:T(8,128)(2,1)}), bf16[1,128]{1,0:T(2,128)S(1)}, s32[]{:S(2)}) slice-start(%w), slice={[0:1], [0:128]}
  %slice-done.1 = bf16[1,128]{1,0:T(2,128)S(1)} slice-done(%slice-start.1)
  %fusion.1 = (f32[8,128]{1,0:T(8,128)}, f32[8]{0:T(128)S(1)}) fusion(%copy-done.1, %slice-done.1), kind=kLoop, calls=%fused
  %get.1 = f32[8,128]{1,0:T(8,128)} get-tuple-element(%fusion.1), index=0
  ROOT %fusion.2 = f32[8,128]{1,0:T(8,128)} fusion(%get.1, %x), kind=kLoop, calls=%fused, metadata={op_name="(%w), "}
}
"""  # noqa: E501


def test_bytes_to_and_from_hbm():
    x, row_of_w, turn = 4 * 8 * 128, 2 * 128, 3 * 4 * 2 * 2
    assert hbm_bytes(SCHEDULED) == turn + x + row_of_w + x + (2 * x + x)
