"""The language model: a `LlavaForConditionalGeneration` on the warm trunk, and its forward pass over token trees."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn
from transformers import LlamaConfig, LlavaConfig, LlavaForConditionalGeneration
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from .dialogue import SCALE
from .rows import Rows
from .trunk import GRID, Trunk, vision_config

DIM, LAYERS, HEADS = 192, 5, 3
# The layers that are taught where to look: with their first head, nouns at what they name, answers at those nouns and then
# at what they tell of; with all heads, numbers at the object that they measure.
LOOKUP, HOP, GAZE, READ = 1, 2, 3, 4


def build(tokenizer, trunk: Trunk | None) -> LlavaForConditionalGeneration:
    """Word rows of norm about 1; number rows are Fourier features of the value, so that near numbers are near."""
    text = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=DIM, intermediate_size=512, num_hidden_layers=LAYERS,
        num_attention_heads=HEADS, num_key_value_heads=HEADS, max_position_embeddings=2048, rope_theta=1e6,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6}, tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id, bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
        rms_norm_eps=1e-5)
    config = LlavaConfig(
        vision_config=vision_config().to_dict(), text_config=text.to_dict(), projector_hidden_act="gelu",
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"), vision_feature_layer=-1,
        vision_feature_select_strategy="full", image_seq_length=GRID * GRID, tie_word_embeddings=True)
    model = LlavaForConditionalGeneration(config)
    model.tie_weights()
    with torch.no_grad():
        table = model.get_input_embeddings().weight
        table.normal_(0, 1 / math.sqrt(DIM))
        values = torch.arange(SCALE + 1).float() / SCALE
        # Long waves weigh most: the nearest peak is then never far, and a coordinate is almost linear in the state.
        length = torch.logspace(math.log10(4.0), math.log10(0.1), 12)
        weight = length.pow(0.4) / length.pow(0.8).sum().sqrt()
        angle = values[:, None] * (2 * math.pi / length)
        phi = torch.cat([angle.sin() * weight, angle.cos() * weight], 1)
        basis = torch.linalg.qr(torch.randn(DIM, 24))[0]
        first = tokenizer.convert_tokens_to_ids("000")
        table[first:first + SCALE + 1] = phi @ basis.T
        for layer in model.model.language_model.layers:
            # Attention starts as looking up what is alike, sharply, and copying it as it is.
            a, turn = layer.self_attn, torch.linalg.qr(torch.randn(DIM, DIM))[0]
            a.k_proj.weight.copy_(a.q_proj.weight.normal_(0, 1.6 / math.sqrt(DIM)))
            a.v_proj.weight.copy_(turn)
            a.o_proj.weight.copy_(0.5 * turn.T)
            layer.mlp.down_proj.weight.mul_(0.5)
        model.model.multi_modal_projector.linear_2.weight.mul_(0.2)
        if trunk is not None:
            tower = tower_of(model)
            tower.embeddings.load_state_dict(trunk.embeddings.state_dict())
            tower.encoder.load_state_dict(trunk.encoder.state_dict())
            rescale(tower, 1 / FEATURE_SCALE)
    return model


# Size of the trunk's features a dimension, where its training ends.
FEATURE_SCALE = 18.0


def tower_of(model: LlavaForConditionalGeneration):
    """The module that holds the tower's `embeddings` and `encoder`."""
    return getattr(model.model.vision_tower, "vision_model", model.model.vision_tower)


def writers_of(tower) -> list[nn.Module]:
    """What writes into the residual stream of a tower or trunk."""
    blocks = [m for layer in tower.encoder.layers for m in (layer.self_attn.out_proj, layer.mlp.fc2)]
    return [tower.embeddings.patch_embedding, tower.embeddings.position_embedding, *blocks]


@torch.no_grad()
def rescale(tower, factor: float) -> None:
    """Scales the residual stream, and so the features, by `factor`: the pre-norm blocks compute the same.

    The trunk's features end at 18 a dimension; with them a step of the projector is 18 times as long as it looks,
    and dialogue training tears down in a minute what alignment has built.
    """
    for p in (p for module in writers_of(tower) for p in module.parameters()):
        p.mul_(factor)


def trunk_of(model: LlavaForConditionalGeneration) -> Trunk:
    """The tower's modules, seen as a trunk (shared, not copied)."""
    trunk = Trunk.__new__(Trunk)
    nn.Module.__init__(trunk)
    tower = tower_of(model)
    trunk.embeddings, trunk.encoder = tower.embeddings, tower.encoder
    return trunk


def prefix_of(model, z: torch.Tensor, first: int) -> torch.Tensor:
    """Image tokens f32[B, K, D] behind the token `first`, "<s>"."""
    start = model.get_input_embeddings()(torch.tensor([[first]], device=z.device)).expand(len(z), -1, -1)
    return torch.cat([start, z], 1)


def decoder(lm, prefix: torch.Tensor, x: torch.Tensor, rows: Rows, at: torch.Tensor):
    """The Llama decoder over image prefixes f32[B, P, D] at positions i64[B, P] and dialogue rows f32[N, R, D].

    Returns the rows' states f32[N, R, D] and, for the taught layers, the attention logits of the taught heads,
    f32[N, 1 or H, R, P + R] each. The same arithmetic as the model's own forward with one long masked sequence, without
    attending to what the mask hides: rows see their scene's prefix and themselves. The prefix ends in the last
    layer's keys.
    """
    heads = lambda t: t.view(*t.shape[:2], -1, lm.layers[0].self_attn.head_dim).transpose(1, 2)  # noqa: E731
    spin_p, spin_r = lm.rotary_emb(prefix, at), lm.rotary_emb(x, rows.positions)
    bias, gazes = rows.bias(prefix.shape[1]), {}
    for i, layer in enumerate(lm.layers):
        a, last = layer.self_attn, i == len(lm.layers) - 1
        hp, hr = layer.input_layernorm(prefix), layer.input_layernorm(x)
        qp, kp = apply_rotary_pos_emb(heads(a.q_proj(hp)) if not last else heads(a.k_proj(hp)), heads(a.k_proj(hp)), *spin_p)
        qr, kr = apply_rotary_pos_emb(heads(a.q_proj(hr)), heads(a.k_proj(hr)), *spin_r)
        vp, vr = heads(a.v_proj(hp)), heads(a.v_proj(hr))
        k, v = torch.cat([kp[rows.scene], kr], 2), torch.cat([vp[rows.scene], vr], 2)
        out = F.scaled_dot_product_attention(qr, k, v, attn_mask=bias)
        if i in (LOOKUP, HOP, GAZE, READ):
            n = HEADS if i == READ else 1
            gazes[i] = qr[:, :n] @ k[:, :n].mT * a.scaling + bias
        x = x + a.o_proj(out.transpose(1, 2).flatten(2))
        x = x + layer.mlp(layer.post_attention_layernorm(x))
        if not last:
            out = F.scaled_dot_product_attention(qp, kp, vp, is_causal=True)
            prefix = prefix + a.o_proj(out.transpose(1, 2).flatten(2))
            prefix = prefix + layer.mlp(layer.post_attention_layernorm(prefix))
    return lm.norm(x), gazes
