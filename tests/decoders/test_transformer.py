"""Attention is what the papers say, and the memory keeps its three rules: a band, no clock, no empty slots."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from musicgen.decoders import Transformer
from musicgen.decoders.attention import attend, attention_weights, band, plan_blocks, rotate, rotations
from musicgen.decoders.decoder import Dropout
from musicgen.decoders.transformer import View

D, HEADS, B = 16, 4, 2
CHUNKINGS = [[40], [16, 16, 8], [1] * 40, [3, 30, 7], [39, 1], [9, 9, 9, 13]]
each_chunking = pytest.mark.parametrize("lengths", CHUNKINGS, ids=lambda lengths: f"{len(lengths)} chunks")


def noise(*shape, seed=0):
    drawn = torch.randn(*shape, dtype=torch.float64, generator=torch.Generator("cpu").manual_seed(seed), device="cpu")
    return drawn.to(torch.get_default_device())


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
    seen = band(torch.ones(B, 0), 7, 7)
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
    still = torch.tensor([1.0, 0.0], dtype=torch.float64).expand(12, D // HEADS // 2, 2)
    seen = band(torch.ones(B, 0), 12, 12)
    ours, _ = attention(inputs, (empty, empty), View(still, seen, False))
    expected, _ = theirs(inputs, inputs, inputs, attn_mask=torch.ones(12, 12).triu(1).bool(), need_weights=False)
    assert_same(ours, expected)


def test_the_weights_of_a_query_sum_to_one_and_are_zero_where_it_may_not_look():
    seen = band(torch.ones(B, 3), 3, 6)
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


def beginnings(*places, length):
    fresh = torch.zeros(B, length, dtype=torch.bool)
    for row, step in places:
        fresh[row, step] = True
    return fresh


@pytest.mark.parametrize("memory", [30, 140, 350])
@pytest.mark.parametrize("places", [None, [(0, 60), (0, 149), (1, 0), (1, 131)]], ids=["one piece", "packed"])
def test_attention_in_blocks_equals_attention_written_out_in_values_and_gradients(memory, places):
    """Over several blocks of queries, from an empty memory, one filled in part, and one that is full."""
    fresh = None if places is None else beginnings(*places, length=150)
    results = []
    for written_out in (False, True):
        decoder = make(layers=2, memory=memory, written_out=written_out)
        inputs, state, outputs = noise(B, 300, D).requires_grad_(), decoder.initial_state(B), []
        for chunk in inputs.split([150, 150], 1):
            output, state = decoder(chunk, state, fresh)
            outputs.append(output)
        outputs = torch.cat(outputs, 1)
        loss = outputs.pow(2).sum() + sum(part.pow(3).sum() for part in state)
        results.append((outputs, state, torch.autograd.grad(loss, [inputs, *decoder.parameters()])))
    torch.testing.assert_close(results[0], results[1], rtol=1e-9, atol=1e-9)


def test_rows_of_short_calls_share_blocks_and_equal_attention_written_out():
    """Many rows of few steps, each with a memory of another length."""
    rows, inputs, fresh = 70, noise(70, 9, D), torch.zeros(70, 9, dtype=torch.bool)
    fresh[torch.arange(70), torch.arange(70) % 9] = True
    results = []
    for written_out in (False, True):
        decoder = make(memory=12, written_out=written_out)
        _, state = decoder(noise(rows, 9, D, seed=4), decoder.initial_state(rows), fresh)
        results.append((decoder(inputs, state), decoder(inputs, state, fresh.flip(1))))
    assert_same(results[0], results[1])


@pytest.mark.parametrize("rows", [1, 3, 40])
def test_blocks_cover_what_is_seen_and_each_query_once(rows):
    live = (torch.arange(100) >= torch.arange(rows)[:, None] % 100).double()
    seen = band(live, 80, 300)
    blocks = plan_blocks(seen, rows, HEADS, torch.float64)
    covered = torch.zeros(rows, 300, 400)
    for *block, hidden in blocks.plan:
        covered[tuple(block)] += 1
        part = seen.expand(rows, -1, -1, -1)[:, 0][tuple(block)].clone()
        for stretch in hidden:
            part[..., stretch] = True
        assert part.all()  # what no stretch names, each of its queries sees
    assert covered.max() == 1
    assert covered[seen[:, 0]].all()
    assert covered.mean() < 0.75  # the rest of what there is, it leaves out


def test_memory_slots_that_are_left_out_are_as_good_as_empty_ones():
    decoder, inputs = make(layers=2, memory=8), noise(B, 5, D)
    keys, values, live = decoder.initial_state(B)
    few = (keys[:, :, :3], values[:, :, :3], live[:, :3])
    assert_same(decoder(inputs, few), decoder(inputs, (keys, values, live)))


def test_under_autocast_outputs_and_gradients_are_those_of_single_precision_within_its_rounding(device):
    torch.manual_seed(0)
    decoder = Transformer(dim=64, layers=3, heads=4, memory=150)
    inputs, fresh = noise(B, 300, 64).float(), beginnings((0, 60), (1, 201), length=300)
    results = []
    for half in (False, True):
        with torch.autocast(device.type, torch.bfloat16, enabled=half):
            outputs, state = decoder(inputs, decoder.initial_state(B), fresh)
        assert {outputs.dtype, *(part.dtype for part in state)} == {torch.float32}
        gradients = torch.autograd.grad(outputs[:, :, 0].sum(), list(decoder.parameters()))
        results.append([outputs, *gradients])
    for single, rounded in zip(*results, strict=True):
        assert (single - rounded).norm() < 0.02 * single.norm()


# Dropout


def test_dropout_drops_its_share_and_keeps_the_mean():
    torch.manual_seed(0)
    for share, rounded in ((0.1, 0.0986), (0.25, 0.2515), (0.5, 0.5)):
        dropped = Dropout(share)(torch.ones(1000, 1000))
        assert (dropped == 0).float().mean().item() == pytest.approx(rounded, abs=0.002)
        assert dropped.mean().item() == pytest.approx(1, abs=0.005)
        assert len(dropped.unique()) == 2


def test_dropout_drops_the_same_values_again_from_the_same_random_state():
    torch.manual_seed(0)
    dropout, inputs, state = Dropout(0.3), noise(7, 13), torch.get_rng_state()
    first = dropout(inputs)
    torch.set_rng_state(state)
    assert torch.equal(dropout(inputs), first)
    assert not torch.equal(dropout(inputs), first)


def test_the_gradient_is_dropped_with_the_value():
    inputs = noise(40, 40).requires_grad_()
    outputs = Dropout(0.3)(inputs)
    (gradient,) = torch.autograd.grad(outputs.sum(), inputs)
    assert_same(outputs, inputs * gradient)
    assert (gradient == 0).any()


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
        view = View(rotations(32, 16, inputs), band(torch.ones(2, 0), 0, 32), False)
        for block in decoder.blocks:
            stream, _ = block(stream, (inputs[:, :0], inputs[:, :0]), view)
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
