"""Collectives of an HLO text, counted by hand."""

import textwrap

import pytest

from ssu_jax.profiling import hlo

PROGRAM = textwrap.dedent("""\
    HloModule jit_f, is_scheduled=true, num_partitions=8

    %add.1 (a: f32[], b: f32[]) -> f32[] {
      %a = f32[] parameter(0)
      %b = f32[] parameter(1)
      ROOT %sum = f32[] add(%a, %b)
    }

    %body.2 (carry: (s32[], f32[16,4])) -> (s32[], f32[16,4]) {
      %carry = (s32[], f32[16,4]{1,0}) parameter(0)
      %x = f32[16,4]{1,0} get-tuple-element(%carry), index=1
      %reduced = f32[16,4]{1,0} all-reduce(%x), replica_groups=[1,8]<=[8], to_apply=%add.1
      ROOT %out = (s32[], f32[16,4]{1,0}) tuple(%reduced, %reduced)
    }

    %never.3 (p: f32[2]) -> f32[2] {
      %p = f32[2]{0} parameter(0)
      ROOT %g = f32[16]{0} all-gather(%p), dimensions={0}
    }

    ENTRY %main.4 (p0: bf16[8,128], p1: f32[16,4]) -> f32[16,4] {
      %p0 = bf16[8,128]{1,0:T(8,128)(2,1)} parameter(0)
      %start = (bf16[8,128]{1,0:T(8,128)(2,1)}, bf16[64,128]{1,0:T(8,128)(2,1)}) all-gather-start(%p0), dimensions={0}
      %done = bf16[64,128]{1,0:T(8,128)(2,1)} all-gather-done(%start)
      %many = (f32[2]{0}, f32[3]{0}, /*index=2*/f32[5]{0}) all-to-all(%u, %v, %w), replica_groups={{0,1}}
      %loop = (s32[], f32[16,4]{1,0}) while(%t), condition=%cond.9, body=%body.2, TRIPS
      ROOT %r = f32[16,4]{1,0} get-tuple-element(%loop), index=1
    }
    """).replace("TRIPS", 'backend_config={"known_trip_count":{"n":"5"}}')


def test_collectives_count_as_often_as_they_run_and_by_their_results():
    found = hlo.collectives(PROGRAM)
    assert found == {
        "all-gather": (1, 64 * 128 * 2),  # not the operand that a start returns too
        "all-reduce": (5, 5 * 16 * 4 * 4),  # five times round the loop
        "all-to-all": (1, (2 + 3 + 5) * 4),
    }
    assert list(found) == ["all-gather", "all-reduce", "all-to-all"]  # the most bytes first


@pytest.mark.parametrize(
    ("shape", "size"),
    [("f32[]", 4), ("pred[7]", 7), ("bf16[3,5]{1,0}", 30), ("(s32[2], f8e4m3fn[8])", 16), ("u4[4]", 2)],
)
def test_sizes_of_shapes(shape, size):
    assert hlo.size_of(shape) == size


def test_a_program_that_sends_nothing():
    assert hlo.collectives("ENTRY %main (p: f32[2]) -> f32[2] {\n  ROOT %p = f32[2] parameter(0)\n}\n") == {}
