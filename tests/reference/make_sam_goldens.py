"""Makes small random segmenters of every family, and what they say about pictures.

    python tests/reference/make_sam_goldens.py

Writes checkpoints/sam-*/, checkpoints/sam2*/ and goldens of the same names. SAM's ViT, prompt encoder and mask decoder
and all of SAM 2 are those of transformers; the encoders of EfficientViT-SAM and MobileSAM are defined here after arXiv 2402.05008, 2205.14756 and
2207.10666, with the names of their authors' files. Needs torch, transformers, safetensors, numpy and pillow.
"""

import re

import numpy as np
import PIL.Image
import torch
import torch.nn.functional as F
from make_goldens import HERE, fresh, picture, randomise, write
from safetensors.torch import save_file
from torch import nn
from transformers import (
    Sam2Config,
    Sam2HieraDetConfig,
    Sam2MaskDecoderConfig,
    Sam2Model,
    Sam2PromptEncoderConfig,
    Sam2VideoConfig,
    Sam2VideoMaskDecoderConfig,
    Sam2VideoModel,
    Sam2VideoPromptEncoderConfig,
    Sam2VisionConfig,
    SamConfig,
    SamMaskDecoderConfig,
    SamModel,
    SamPromptEncoderConfig,
    SamVisionConfig,
)

CHANNELS = 32
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def sam(grid: int, patch: int, **vision) -> SamModel:
    """SamModel with that many cells a side; `vision` sets the rest of its encoder."""
    side = grid * patch
    config = SamConfig(
        vision_config=SamVisionConfig(
            hidden_size=32, output_channels=CHANNELS, num_attention_heads=2, image_size=side, patch_size=patch,
            mlp_dim=48, num_pos_feats=CHANNELS // 2, **vision,
        ),
        prompt_encoder_config=SamPromptEncoderConfig(hidden_size=CHANNELS, image_size=side, patch_size=patch),
        mask_decoder_config=SamMaskDecoderConfig(hidden_size=CHANNELS, mlp_dim=40, iou_head_hidden_dim=24),
    )
    return SamModel(config).eval().float()


def authors_name(name: str) -> str:
    """The name that SAM's authors gave a tensor of SamModel."""
    rules = [
        (r"^shared_image_embedding\.positional_embedding$", "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"),
        (r"^vision_encoder\.patch_embed\.projection", "image_encoder.patch_embed.proj"),
        (r"^vision_encoder\.neck\.conv1", "image_encoder.neck.0"),
        (r"^vision_encoder\.neck\.layer_norm1", "image_encoder.neck.1"),
        (r"^vision_encoder\.neck\.conv2", "image_encoder.neck.2"),
        (r"^vision_encoder\.neck\.layer_norm2", "image_encoder.neck.3"),
        (r"^vision_encoder\.layers", "image_encoder.blocks"),
        (r"^vision_encoder", "image_encoder"),
        (r"\.point_embed\.", ".point_embeddings."),
        (r"mask_embed\.conv1", "mask_downscaling.0"),
        (r"mask_embed\.layer_norm1", "mask_downscaling.1"),
        (r"mask_embed\.conv2", "mask_downscaling.3"),
        (r"mask_embed\.layer_norm2", "mask_downscaling.4"),
        (r"mask_embed\.conv3", "mask_downscaling.6"),
        (r"upscale_conv1", "output_upscaling.0"),
        (r"upscale_layer_norm", "output_upscaling.1"),
        (r"upscale_conv2", "output_upscaling.3"),
        (r"layer_norm_final_attn", "norm_final_attn"),
        (r"(mlps\.\d+|prediction_head)\.layers\.0", r"\1.layers.1"),
        (r"\.proj_in\.", ".layers.0."),
        (r"\.proj_out\.", ".layers.2."),
        (r"\.layer_norm(\d)\.", r".norm\1."),
    ]
    for pattern, to in rules:
        name = re.sub(pattern, to, name)
    return name


def authors(model: SamModel) -> dict:
    """The state dict with the authors' names, which have the projection of points once."""
    return {authors_name(k): v.clone() for k, v in model.state_dict().items() if "shared_embedding" not in k}


def letterbox(image: np.ndarray, side: int) -> tuple[int, int]:
    height, width = image.shape[:2]
    scale = side / max(height, width)
    return int(width * scale + 0.5), int(height * scale + 0.5)


def pixels_of(image: np.ndarray, side: int) -> torch.Tensor:
    """The longer side scaled to `side`, normalised, padded with zeros: f32[1, 3, side, side]."""
    size = letterbox(image, side)
    small = np.asarray(PIL.Image.fromarray(image).resize(size, PIL.Image.BILINEAR), np.float32) / 255
    normal = torch.from_numpy((small - np.float32(MEAN)) / np.float32(STD)).permute(2, 0, 1)
    return F.pad(normal, (0, side - size[0], 0, side - size[1]))[None].float()


def drawn(logits: torch.Tensor, image: np.ndarray, side: int) -> torch.Tensor:
    """Masks in the picture's own pixels, as SamImageProcessor makes them: u8[B, height, width]."""
    size = letterbox(image, side)
    large = F.interpolate(logits, (side, side), mode="bilinear", align_corners=False)[..., : size[1], : size[0]]
    return (F.interpolate(large, image.shape[:2], mode="bilinear", align_corners=False)[:, 0] > 0).to(torch.uint8)


def pixels_of_second(image: np.ndarray, side: int) -> torch.Tensor:
    """As Sam2ImageProcessor: both axes scaled to `side` by what torchvision calls, normalised: f32[1, 3, side, side]."""
    bytes_ = torch.from_numpy(image.copy()).permute(2, 0, 1)[None].contiguous()
    small = F.interpolate(bytes_, (side, side), mode="bilinear", antialias=True)[0].permute(1, 2, 0).numpy()
    normal = (small.astype(np.float32) / 255 - np.float32(MEAN)) / np.float32(STD)
    return torch.from_numpy(normal).permute(2, 0, 1)[None].contiguous()


def drawn_second(logits: torch.Tensor, image: np.ndarray, side: int) -> torch.Tensor:
    """The same as Sam2ImageProcessor makes them: at once."""
    return (F.interpolate(logits, image.shape[:2], mode="bilinear", align_corners=False)[:, 0] > 0).to(torch.uint8)


@torch.no_grad()
def goldens(name: str, seed: int, side: int, encode, decoder, scale: float = 1.0, see=pixels_of, draw=drawn) -> None:
    """Two pictures, one wide and one more than twice as tall as wide, each with boxes, points and both; coordinates are in
    pixels of the encoder's input, and `scale` times that for the decoder."""
    tensors = {}
    for which, (width, height) in enumerate([(90, 61), (37, 83)]):
        image = picture(width, height, seed + which)
        pixels = see(image, side)
        embedding = encode(pixels)
        levels = dict(zip(("high_res_features_0", "high_res_features_1", "image_embedding"), embedding)) \
            if isinstance(embedding, list) else {"image_embedding": embedding}
        fraction = lambda rows: torch.tensor(rows) * side
        box = fraction([[[0.15, 0.12, 0.6, 0.5], [0.05, 0.3, 0.55, 0.65]]])
        points = fraction([[[[0.23, 0.19], [0.47, 0.4], [0.5, 0.6]], [[0.3, 0.47], [0.08, 0.08], [0.5, 0.55]]]])
        labels = torch.tensor([[[1, 1, 0], [1, 0, 1]]])
        cases = {
            "box": dict(input_boxes=box * scale),
            "box_points": dict(input_boxes=box * scale, input_points=points * scale, input_labels=labels),
            "points": dict(input_points=points * scale, input_labels=labels),
        }
        given = {"image": image, "pixel_values": pixels, "boxes": box[0], "points": points[0], "labels": labels[0]} | levels
        for case, prompts in cases.items():
            for multimask, kind in ((False, "single"), (True, "multi")):
                out = decoder(image_embeddings=embedding, multimask_output=multimask, **prompts)
                given |= {f"{case}.{kind}.masks": out.pred_masks[0], f"{case}.{kind}.scores": out.iou_scores[0]}
            best = out.iou_scores[0].argmax(-1)
            given[f"{case}.drawn"] = draw(out.pred_masks[0][torch.arange(2), best][:, None], image, side)
        tensors |= {f"{which}.{key}": value for key, value in given.items()}
    write(name, tensors, seed)


def randomise_all(model: nn.Module, seed: int) -> None:
    randomise(model, seed)
    generator = torch.Generator().manual_seed(seed + 1)
    for key, buffer in model.named_buffers():
        if key.endswith("running_mean"):
            buffer.copy_(0.2 * torch.randn(buffer.shape, generator=generator))
        if key.endswith("running_var"):
            buffer.copy_(0.5 + torch.rand(buffer.shape, generator=generator))
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.data.copy_(1 + 0.2 * torch.randn(module.weight.shape, generator=generator))


# EfficientViT.


class Conv(nn.Module):
    def __init__(self, inside, outside, kernel=1, stride=1, groups=1, bias=False, norm=True, act=None):
        super().__init__()
        self.conv = nn.Conv2d(inside, outside, kernel, stride, kernel // 2, groups=groups, bias=bias)
        self.norm = nn.BatchNorm2d(outside, eps=1e-6) if norm else None
        self.act = act

    def forward(self, x):
        x = self.conv(x)
        x = x if self.norm is None else self.norm(x)
        return x if self.act is None else self.act(x)


def gelu(x):
    return F.gelu(x, approximate="tanh")


class Block(nn.Module):
    """`res`, `fmb` or `mb`; with `few`, only the last convolution is normalised and the others have biases."""

    def __init__(self, kind, inside, outside, stride, expand, few):
        super().__init__()
        inner = dict(bias=few, norm=not few, act=gelu)
        wide = inside * expand
        if kind == "res":
            self.conv1 = Conv(inside, inside, 3, stride, **inner)
            self.conv2 = Conv(inside, outside, 3)
        elif kind == "fmb":
            self.spatial_conv = Conv(inside, wide, 3, stride, **inner)
            self.point_conv = Conv(wide, outside)
        else:
            self.inverted_conv = Conv(inside, wide, **inner)
            self.depth_conv = Conv(wide, wide, 3, stride, groups=wide, **inner)
            self.point_conv = Conv(wide, outside)

    def forward(self, x):
        for layer in self.children():
            x = layer(x)
        return x


class Main(nn.Module):
    def __init__(self, main, shortcut=True):
        super().__init__()
        self.main, self.shortcut = main, shortcut

    def forward(self, x):
        return self.main(x) + x if self.shortcut else self.main(x)


class LinearAttention(nn.Module):
    def __init__(self, width, dim, scale):
        super().__init__()
        self.dim, self.heads = dim, width // dim
        self.qkv = Conv(width, 3 * width, norm=False)
        near = nn.Conv2d(3 * width, 3 * width, scale, padding=scale // 2, groups=3 * width, bias=False)
        mix = nn.Conv2d(3 * width, 3 * width, 1, groups=3 * self.heads, bias=False)
        self.aggreg = nn.ModuleList([nn.Sequential(near, mix)])
        self.proj = Conv(2 * width, width)

    def forward(self, x):
        qkv = self.qkv(x)
        qkv = torch.cat([qkv, self.aggreg[0](qkv)], 1)
        batch, _, height, width = qkv.shape
        q, k, v = qkv.reshape(batch, -1, 3 * self.dim, height * width).chunk(3, dim=2)
        q, k = F.relu(q), F.relu(k)
        # Every query's weights over all keys, written out.
        weights = torch.einsum("bgdq,bgdk->bgqk", q, k)
        weights = weights / (weights.sum(-1, keepdim=True) + 1e-15)
        seen = torch.einsum("bgqk,bgdk->bgdq", weights, v)
        return self.proj(seen.reshape(batch, -1, height, width))


class Attends(nn.Module):
    def __init__(self, width, dim, scale, expand):
        super().__init__()
        self.context_module = Main(LinearAttention(width, dim, scale))
        self.local_module = Main(Block("mb", width, width, 1, expand, True))

    def forward(self, x):
        return self.local_module(self.context_module(x))


class Stack(nn.Module):
    def __init__(self, layers):
        super().__init__()
        self.op_list = nn.ModuleList(layers)

    def forward(self, x):
        for layer in self.op_list:
            x = layer(x)
        return x


class EfficientVit(nn.Module):
    def __init__(self, widths, depths, kinds, expands, few, dim, grid, neck_depth, neck_expand, neck_width=24):
        super().__init__()
        stem = [Conv(3, widths[0], 3, 2, act=gelu)]
        stem += [Main(Block(kinds[0], widths[0], widths[0], 1, expands[0], few[0])) for _ in range(depths[0])]
        stages = []
        for i in range(1, len(widths)):
            kind = kinds[i] if kinds[i] in ("mb", "fmb") else "mb"
            layers = [Main(Block(kind, widths[i - 1], widths[i], 2, 4 * expands[i], few[i]), shortcut=False)]
            for _ in range(depths[i]):
                if kinds[i].startswith("att"):
                    layers.append(Attends(widths[i], dim, 3 if kinds[i] == "att@3" else 5, expands[i]))
                else:
                    layers.append(Main(Block(kinds[i], widths[i], widths[i], 1, expands[i], few[i])))
            stages.append(Stack(layers))
        self.backbone = nn.Module()
        self.backbone.input_stem, self.backbone.stages = Stack(stem), nn.ModuleList(stages)
        self.neck = nn.Module()
        self.neck.input_ops = nn.ModuleList(Stack([Conv(w, neck_width)]) for w in widths[:-4:-1])
        middle = [Main(Block("fmb", neck_width, neck_width, 1, neck_expand, False)) for _ in range(neck_depth)]
        self.neck.middle = Stack(middle)
        self.neck.output_ops = nn.ModuleList([Stack([Conv(neck_width, CHANNELS, bias=True, norm=False)])])
        self.norm = nn.LayerNorm(CHANNELS, eps=1e-6)
        self.grid = grid

    def forward(self, x):
        x = self.backbone.input_stem(x)
        states = []
        for stage in self.backbone.stages:
            x = stage(x)
            states.append(x)
        total = 0
        for op, state in zip(self.neck.input_ops, reversed(states)):
            y = op(state)
            if y.shape[-1] != self.grid:
                y = F.interpolate(y, size=(self.grid, self.grid), mode="bicubic", align_corners=False)
            total = total + y
        y = self.neck.output_ops[0](self.neck.middle(total))
        return self.norm(y.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


# TinyViT.


class ConvBn(nn.Sequential):
    def __init__(self, inside, outside, kernel=1, stride=1, groups=1):
        super().__init__()
        self.add_module("c", nn.Conv2d(inside, outside, kernel, stride, kernel // 2, groups=groups, bias=False))
        self.add_module("bn", nn.BatchNorm2d(outside))


class Bottleneck(nn.Module):
    def __init__(self, width, expand=4):
        super().__init__()
        self.conv1 = ConvBn(width, width * expand)
        self.conv2 = ConvBn(width * expand, width * expand, 3, groups=width * expand)
        self.conv3 = ConvBn(width * expand, width)

    def forward(self, x):
        return F.gelu(x + self.conv3(F.gelu(self.conv2(F.gelu(self.conv1(x))))))


class Merge(nn.Module):
    def __init__(self, inside, outside):
        super().__init__()
        self.conv1 = ConvBn(inside, outside)
        self.conv2 = ConvBn(outside, outside, 3, 1 if outside in (320, 448, 576) else 2, groups=outside)
        self.conv3 = ConvBn(outside, outside)

    def forward(self, x):
        return self.conv3(F.gelu(self.conv2(F.gelu(self.conv1(x)))))


class WindowAttention(nn.Module):
    def __init__(self, width, heads, window):
        super().__init__()
        self.heads, self.window = heads, window
        self.norm, self.qkv, self.proj = nn.LayerNorm(width), nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.attention_biases = nn.Parameter(torch.zeros(heads, window * window))
        y, x = torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij")
        y, x = y.flatten(), x.flatten()
        self.distance = (y[:, None] - y).abs() * window + (x[:, None] - x).abs()

    def forward(self, x):
        batch, count, width = x.shape
        q, k, v = self.qkv(self.norm(x)).view(batch, count, self.heads, -1).transpose(1, 2).chunk(3, dim=-1)
        scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5 + self.attention_biases[:, self.distance]
        return self.proj((scores.softmax(-1) @ v).transpose(1, 2).reshape(batch, count, width))


class TinyBlock(nn.Module):
    def __init__(self, width, heads, window):
        super().__init__()
        self.attn = WindowAttention(width, heads, window)
        self.local_conv = ConvBn(width, width, 3, groups=width)
        self.mlp = nn.Module()
        self.mlp.norm, self.mlp.fc1, self.mlp.fc2 = nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x):
        _, width, side, _ = x.shape
        n, missing = self.attn.window, -side % self.attn.window
        seen = F.pad(x.permute(0, 2, 3, 1), (0, 0, 0, missing, 0, missing))
        across = seen.shape[1] // n
        seen = seen.view(across, n, across, n, width).transpose(1, 2).reshape(across * across, n * n, width)
        seen = self.attn(seen).view(across, across, n, n, width).transpose(1, 2)
        seen = seen.reshape(1, across * n, across * n, width)[:, :side, :side].permute(0, 3, 1, 2)
        x = self.local_conv(x + seen)
        y = x.permute(0, 2, 3, 1)
        y = y + self.mlp.fc2(F.gelu(self.mlp.fc1(self.mlp.norm(y))))
        return y.permute(0, 3, 1, 2)


class ChannelNorm(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))

    def forward(self, x):
        return F.layer_norm(x.permute(0, 2, 3, 1), self.weight.shape, self.weight, self.bias, 1e-6).permute(0, 3, 1, 2)


class TinyVit(nn.Module):
    def __init__(self, widths, depths, heads, windows):
        super().__init__()
        self.patch_embed = nn.Module()
        self.patch_embed.seq = nn.Sequential(ConvBn(3, widths[0] // 2, 3, 2), nn.GELU(), ConvBn(widths[0] // 2, widths[0], 3, 2))
        self.layers = nn.ModuleList()
        for i, width in enumerate(widths):
            layer = nn.Module()
            block = (lambda: Bottleneck(width)) if i == 0 else (lambda: TinyBlock(width, heads[i], windows[i]))
            layer.blocks = nn.ModuleList(block() for _ in range(depths[i]))
            if i + 1 < len(widths):
                layer.downsample = Merge(width, widths[i + 1])
            self.layers.append(layer)
        # The classifier of the pretraining, which stays in the file.
        self.norm_head, self.head = nn.LayerNorm(widths[-1]), nn.Linear(widths[-1], 3)
        self.neck = nn.Sequential(
            nn.Conv2d(widths[-1], CHANNELS, 1, bias=False), ChannelNorm(CHANNELS),
            nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1, bias=False), ChannelNorm(CHANNELS),
        )

    def forward(self, x):
        x = self.patch_embed.seq(x)
        for layer in self.layers:
            for block in layer.blocks:
                x = block(x)
            if hasattr(layer, "downsample"):
                x = layer.downsample(x)
        return self.neck(x)


def only_decoder(grid: int, seed: int) -> SamModel:
    model = sam(grid, 16, num_hidden_layers=1, global_attn_indexes=[0], window_size=0)
    randomise(model, seed)
    model.tie_weights()
    return model


def with_decoder(encoder: nn.Module, decoder: SamModel) -> dict:
    tensors = {k: v for k, v in authors(decoder).items() if not k.startswith("image_encoder.")}
    return tensors | {f"image_encoder.{k}": v.clone() for k, v in encoder.state_dict().items()}


def windows() -> None:
    """Windows that do not divide the grid, global layers between them, relative positions; safetensors."""
    model = sam(8, 8, num_hidden_layers=3, global_attn_indexes=[1], window_size=3)
    randomise(model, 31)
    model.tie_weights()
    model.save_pretrained(fresh("sam-windows"))
    goldens("sam-windows", 31, 64, lambda x: model.get_image_embeddings(x), model)


def authors_file() -> None:
    """The authors' names and nothing else: no config.json; one tensor is a transposed view, in a file of torch.save."""
    model = sam(6, 8, num_hidden_layers=2, global_attn_indexes=[1], window_size=4)
    randomise(model, 32)
    model.tie_weights()
    tensors = authors(model)
    key = "image_encoder.blocks.0.attn.proj.weight"
    tensors[key] = tensors[key].T.contiguous().T
    torch.save({"model": tensors, "epoch": 3}, fresh("sam-authors") / "sam.pth")
    goldens("sam-authors", 32, 48, lambda x: model.get_image_embeddings(x), model)


def efficient(name: str, seed: int, side: int, encoder: EfficientVit, nested: bool) -> None:
    randomise_all(encoder.eval(), seed)
    decoder = only_decoder(encoder.grid, seed)
    tensors = with_decoder(encoder, decoder)
    folder = fresh(name)
    if nested:
        torch.save({"state_dict": tensors}, folder / f"{name}.pt")
    else:
        save_file(tensors, folder / "model.safetensors")
    config = {"architectures": ["EfficientViTSam"], "image_size": side, "embedding_size": encoder.grid}
    (folder / "config.json").write_text(__import__("json").dumps(config, indent=2) + "\n")
    goldens(name, seed, side, encoder, decoder, scale=16 * encoder.grid / side)


def mobile() -> None:
    seed, side = 35, 128
    encoder = TinyVit([8, 12, 16, 24], [2, 1, 2, 1], [1, 2, 2, 3], [7, 7, 3, 7]).eval()
    randomise_all(encoder, seed)
    decoder = sam(4, 32, num_hidden_layers=1, global_attn_indexes=[0], window_size=0)
    randomise(decoder, seed)
    decoder.tie_weights()
    folder = fresh("sam-mobile")
    torch.save(with_decoder(encoder, decoder), folder / "mobile_sam.pt")
    config = {"architectures": ["MobileSam"], "image_size": side}
    (folder / "config.json").write_text(__import__("json").dumps(config, indent=2) + "\n")
    goldens("sam-mobile", seed, side, encoder, decoder)


def second(name: str, seed: int, video: bool, side: int, top_down: list, **backbone) -> None:
    """SAM 2, alone or inside a model for videos, which is what is published; both are read as the former."""
    widths = backbone["embed_dim_per_stage"]
    vision = Sam2VisionConfig(
        backbone_config=Sam2HieraDetConfig(hidden_size=widths[0], image_size=[side, side], **backbone),
        backbone_channel_list=widths[::-1], fpn_hidden_size=CHANNELS, fpn_top_down_levels=top_down,
        backbone_feature_sizes=[[side // n, side // n] for n in (4, 8, 16)],
    )
    prompt = dict(hidden_size=CHANNELS, image_size=side, mask_input_channels=8)
    mask = dict(hidden_size=CHANNELS, mlp_dim=40, iou_head_hidden_dim=24, num_attention_heads=4)
    if video:
        model = Sam2VideoModel(Sam2VideoConfig(
            vision_config=vision, prompt_encoder_config=Sam2VideoPromptEncoderConfig(**prompt),
            mask_decoder_config=Sam2VideoMaskDecoderConfig(**mask), image_size=side, num_maskmem=2,
            memory_attention_hidden_size=CHANNELS, memory_attention_num_layers=1, memory_encoder_output_channels=8,
            memory_attention_feed_forward_hidden_size=CHANNELS, memory_encoder_hidden_size=CHANNELS,
            mask_downsampler_embed_dim=CHANNELS, mask_downsampler_total_stride=4, memory_fuser_num_layers=1,
            memory_fuser_embed_dim=CHANNELS, memory_fuser_intermediate_dim=CHANNELS,
        ))
    else:
        model = Sam2Model(Sam2Config(vision_config=vision, prompt_encoder_config=Sam2PromptEncoderConfig(**prompt),
                                     mask_decoder_config=Sam2MaskDecoderConfig(**mask)))
    randomise(model.eval().float(), seed)
    generator = torch.Generator().manual_seed(seed + 1)
    for key, buffer in model.named_buffers():
        if key.endswith("positional_embedding"):
            buffer.copy_(0.5 * torch.randn(buffer.shape, generator=generator))
    folder = fresh(name)
    model.save_pretrained(folder)
    model = Sam2Model.from_pretrained(folder).eval()
    # The single mask is the single mask, not the best of all; which to take is not the graph's choice.
    model.mask_decoder.dynamic_multimask_via_stability = False
    goldens(name, seed, side, lambda x: model.get_image_embeddings(x), model, see=pixels_of_second, draw=drawn_second)


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    windows()
    authors_file()
    with torch.no_grad():
        small = EfficientVit([4, 8, 8, 12, 16], [1, 1, 1, 2, 2], ["res", "fmb", "fmb", "mb", "att"], [1, 2, 2, 2, 2],
                             [False, False, False, True, True], dim=8, grid=8, neck_depth=2, neck_expand=1)
        efficient("sam-efficient-l", 33, 64, small, nested=True)
        large = EfficientVit([4, 8, 8, 12, 16, 16], [0, 1, 1, 1, 1, 2], ["res", "fmb", "fmb", "fmb", "att@3", "att@3"],
                             [1, 2, 2, 2, 2, 2], [False, False, False, False, True, True], dim=8, grid=8, neck_depth=1,
                             neck_expand=4)
        efficient("sam-efficient-xl", 34, 128, large, nested=False)
        mobile()
        # Windows that do not divide the grid, before and after pooling; one layer sees everything.
        second("sam2", 36, video=False, side=96, top_down=[2, 3], blocks_per_stage=[1, 2, 2, 1],
               embed_dim_per_stage=[8, 16, 24, 32], num_attention_heads_per_stage=[1, 2, 2, 4],
               window_size_per_stage=[4, 8, 4, 3], global_attention_blocks=[4])
        # Positions are shrunk rather than stretched; every level is fed.
        second("sam2-video", 37, video=True, side=64, top_down=[0, 1, 2], blocks_per_stage=[2, 1, 2, 1],
               embed_dim_per_stage=[8, 16, 24, 32], num_attention_heads_per_stage=[2, 2, 4, 4],
               window_size_per_stage=[8, 4, 2, 2], global_attention_blocks=[4],
               window_positional_embedding_background_size=[20, 20])
