"""Attention is what the papers say, and the memory keeps its three rules: a band, no clock, no empty slots."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from musicgen.decoders import Transformer
from musicgen.decoders.transformer import attend, attention_weights, band, rotate, rotations

D, HEADS, B = 16, 4, 2
CHUNKINGS = [[40], [16, 16, 8], [1] * 40, [3, 30, 7], [39, 1], [9, 9, 9, 13]]
each_chunking = pytest.mark.parametrize("lengths", CHUNKINGS, ids=lambda lengths: f"{len(lengths)} chunks")


def noise(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def make(*, layers=1, memory=8, **options):
    torch.manual_seed(1)
    decoder = Transformer(dim=D, layers=layers, heads=HEADS, memory=memory, **options).double().eval()
    with torch.no_grad():
        for parameter in decoder.parameters():
            if parameter.dim() == 2:
                parameter.mul_(15)  # far from uniform attention
    return decoder


def read(decoder, inputs, lengths, state=None):
    state = decoder.initial_state(len(inputs)) if state is None else state
    outputs = []
    for chunk in inputs.split(lengths, 1):
        output, state = decoder(chunk, state)
        outputs.append(output)
    return torch.cat(outputs, 1), state


def assert_same(left, right):
    torch.testing.assert_close(left, right, rtol=1e-11, atol=1e-11)


# Attention


def test_attend_equals_attention_written_with_loops():
    query, key, value = noise(B, HEADS, 5, 4), noise(B, HEADS, 9, 4, seed=1), noise(B, HEADS, 9, 4, seed=2)
    seen = noise(B, 1, 5, 9, seed=3) > 0
    seen[..., 0] = True
    expected = torch.zeros(B, HEADS, 5, 4, dtype=torch.float64)
    for row in range(B):
        for head in range(HEADS):
            for t in range(5):
                weights = {
                    s: math.exp(sum(query[row, head, t, i] * key[row, head, s, i] for i in range(4)) / math.sqrt(4))
                    for s in range(9)
                    if seen[row, 0, t, s]
                }
                for s, weight in weights.items():
                    expected[row, head, t] += weight / sum(weights.values()) * value[row, head, s]
    assert_same(attend(query, key, value, seen), expected)


def test_attend_equals_pytorchs_own_in_values_and_gradients():
    parts = [noise(B, HEADS, 7, 4, seed=seed).requires_grad_() for seed in range(3)]
    seen = band(torch.ones(B, 7), 0)
    ours, theirs = attend(*parts, seen), F.scaled_dot_product_attention(*parts, attn_mask=seen)
    assert_same(ours, theirs)
    assert_same(torch.autograd.grad(ours.pow(2).sum(), parts), torch.autograd.grad(theirs.pow(2).sum(), parts))


def test_several_heads_equal_pytorchs_multihead_attention():
    """One layer of ours, without rotation, holding the weights of nn.MultiheadAttention."""
    attention = make(memory=12).blocks[0].attention
    theirs = nn.MultiheadAttention(D, HEADS, bias=False, batch_first=True).double()
    with torch.no_grad():
        theirs.in_proj_weight.copy_(attention.query_key_value.weight)
        theirs.out_proj.weight.copy_(attention.project.weight)
    inputs, empty = noise(B, 12, D), noise(B, 0, D)
    still = torch.ones(12, D // HEADS // 2, dtype=torch.complex128)
    ours, _ = attention(inputs, (empty, empty), torch.ones(12, 12).tril().bool(), still)
    expected, _ = theirs(inputs, inputs, inputs, attn_mask=torch.ones(12, 12).triu(1).bool(), need_weights=False)
    assert_same(ours, expected)


def test_the_weights_of_a_query_sum_to_one_and_are_zero_where_it_may_not_look():
    seen = band(torch.ones(B, 9), 3)  # 3 in memory, 6 come in
    weights = attention_weights(noise(B, HEADS, 6, 4), noise(B, HEADS, 9, 4, seed=1), seen)
    assert_same(weights.sum(-1), torch.ones(B, HEADS, 6, dtype=torch.float64))
    assert not weights.masked_select(~seen).any()


@pytest.mark.parametrize("memory", [1, 8, 64])
def test_written_out_attention_equals_the_kernel_in_values_and_gradients(memory):
    inputs = noise(B, 40, D)
    results = []
    for written_out in (False, True):
        decoder = make(layers=2, memory=memory, written_out=written_out)
        outputs, state = read(decoder, inputs, [25, 15])
        results.append((outputs, state, torch.autograd.grad(outputs.pow(2).sum(), list(decoder.parameters()))))
    torch.testing.assert_close(results[0], results[1], rtol=1e-9, atol=1e-9)


# Positions


def test_rotation_keeps_lengths_and_position_zero():
    vectors = noise(B, HEADS, 30, 8)
    turned = rotate(vectors, rotations(30, 8, vectors))
    assert_same(turned.norm(dim=-1), vectors.norm(dim=-1))
    assert_same(turned[:, :, 0], vectors[:, :, 0])


def test_a_rotated_product_depends_on_the_distance_alone():
    query, key = noise(1, 1, 1, 8).expand(1, 1, 600, 8), noise(1, 1, 1, 8, seed=1).expand(1, 1, 600, 8)
    turns = rotations(600, 8, query)
    match = (rotate(query, turns) @ rotate(key, turns).transpose(-1, -2))[0, 0]  # (600, 600)
    for distance in (0, 1, 7, 512):
        diagonal = match.diagonal(-distance)
        assert_same(diagonal, diagonal[0].expand_as(diagonal))
    assert match[0, 0] != match[1, 0]


def test_half_precision_is_rotated_by_exact_angles():
    vectors = noise(1, 1, 600, 8)
    half = rotate(vectors.bfloat16(), rotations(600, 8, vectors.bfloat16()))
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.double(), rotate(vectors, rotations(600, 8, vectors)), rtol=0.02, atol=0.02)


def test_order_matters():
    decoder, inputs = make(memory=20), noise(1, 10, D)
    shuffled = inputs[:, [1, 0, *range(2, 10)]]
    assert not torch.allclose(
        decoder(inputs, decoder.initial_state(1))[0][:, -1], decoder(shuffled, decoder.initial_state(1))[0][:, -1]
    )


# The three rules of the memory


@each_chunking
def test_a_position_sees_itself_and_exactly_its_predecessors_in_memory(lengths):
    """One layer, W = 8: of the inputs, output t has a gradient with respect to t - 8 ... t and no other."""
    decoder, inputs = make(memory=8), noise(1, 40, D).requires_grad_()
    outputs, _ = read(decoder, inputs, lengths)
    for t in (0, 1, 7, 8, 9, 20, 39):
        (gradient,) = torch.autograd.grad(outputs[0, t].pow(3).sum(), inputs, retain_graph=True)
        assert gradient[0].abs().sum(-1).nonzero().flatten().tolist() == list(range(max(t - 8, 0), t + 1))


@each_chunking
def test_two_layers_reach_back_twice_the_memory(lengths):
    decoder, inputs = make(layers=2, memory=8), noise(1, 40, D).requires_grad_()
    outputs, _ = read(decoder, inputs, lengths)
    (gradient,) = torch.autograd.grad(outputs[0, 39].pow(3).sum(), inputs)
    assert gradient[0].abs().sum(-1).nonzero().flatten().tolist() == list(range(39 - 16, 40))


@each_chunking
def test_two_memories_longer_than_the_past_give_the_same_outputs(lengths):
    """Only this catches empty memory that is looked at: zero keys match with weight exp(0), and differ in number."""
    inputs = noise(B, 40, D)
    short, long = make(layers=2, memory=40), make(layers=2, memory=100)
    long.load_state_dict(short.state_dict())
    assert_same(read(short, inputs, lengths)[0], read(long, inputs, lengths)[0])


def test_what_lies_in_a_dead_slot_is_never_seen():
    decoder, inputs = make(layers=2, memory=8), noise(B, 5, D)
    keys, values, live = decoder.initial_state(B)
    rubbish = noise(*keys.shape, seed=4) * 100, noise(*values.shape, seed=5) * 100, live
    assert torch.equal(decoder(inputs, rubbish)[0], decoder(inputs, decoder.initial_state(B))[0])


def test_a_first_position_sees_only_itself():
    """So the softmax has one term, and what is taken is its own value, whatever the key."""
    decoder, inputs = make(), noise(B, 1, D)
    outputs, _ = decoder(inputs, decoder.initial_state(B))
    with torch.no_grad():
        decoder.blocks[0].attention.query_key_value.weight[: 2 * D] = 0  # queries and keys
    assert_same(decoder(inputs, decoder.initial_state(B))[0], outputs)


def test_the_state_carries_no_clock():
    """The same last W inputs leave the same state, early or late, however much went before."""
    decoder, last = make(memory=8), noise(1, 8, D)
    states = [read(decoder, torch.cat([noise(1, before, D, seed=6), last], 1), 16)[1] for before in (0, 3, 500)]
    assert_same(states[0], states[1])
    assert_same(states[0], states[2])


def test_live_counts_the_positions_in_memory():
    decoder = make(memory=8)
    _, state = decoder(noise(B, 5, D), decoder.initial_state(B))
    assert state[2].tolist() == [[0, 0, 0, 1, 1, 1, 1, 1]] * B
    assert decoder(noise(B, 5, D), state)[1][2].tolist() == [[1] * 8] * B


def test_memory_holds_the_keys_before_rotation():
    decoder, inputs = make(memory=8), noise(B, 5, D)
    block = decoder.blocks[0]
    _, key, value = block.attention.query_key_value(block.attention_norm(inputs)).chunk(3, -1)
    keys, values, _ = decoder(inputs, decoder.initial_state(B))[1]
    assert_same(keys[:, 0, -5:], key)
    assert_same(values[:, 0, -5:], value)


# The rest


def test_attention_maps_show_where_each_head_looked():
    decoder, inputs = make(layers=3, memory=8), noise(B, 12, D)
    _, state = decoder(noise(B, 5, D, seed=7), decoder.initial_state(B))
    maps = decoder.attention_maps(inputs, state)
    assert [tuple(weights.shape) for weights in maps] == [(B, HEADS, 12, 20)] * 3
    for weights in maps:
        assert_same(weights.sum(-1), torch.ones(B, HEADS, 12, dtype=torch.float64))
        assert not weights[..., :3].any()  # the memory holds 5 positions of 8
        assert not weights[:, :, 0, 9:].any()


def test_the_stream_keeps_its_size_however_deep_the_stack():
    torch.manual_seed(0)
    inputs = torch.randn(2, 32, 64)
    for layers in (1, 12):
        decoder = Transformer(dim=64, layers=layers, heads=4, memory=32)
        stream = inputs
        turns, seen = rotations(32, 16, inputs), band(torch.ones(2, 32), 0)
        for block in decoder.blocks:
            stream, _ = block(stream, (inputs[:, :0], inputs[:, :0]), seen, turns)
        assert stream.std().item() == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize(("dim", "heads"), [(16, 3), (12, 4)])
def test_heads_must_divide_the_width_evenly(dim, heads):
    with pytest.raises(ValueError, match=f"dim {dim} does not divide into {heads} heads"):
        Transformer(dim=dim, layers=1, heads=heads)


def test_a_memory_of_nothing_is_refused():
    with pytest.raises(ValueError, match="memory is 0 positions"):
        Transformer(dim=D, layers=1, heads=HEADS, memory=0)


def test_half_precision_stays_finite_and_half():
    decoder = Transformer(dim=D, layers=2, heads=HEADS, memory=8).bfloat16().eval()
    outputs, state = read(decoder, noise(B, 20, D).bfloat16(), [1] * 20, decoder.initial_state(B))
    assert outputs.isfinite().all()
    assert {outputs.dtype, *(part.dtype for part in state)} == {torch.bfloat16}
