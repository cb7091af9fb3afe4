import Foundation
import SquintConversion
import SquintFile
import Testing

/// The models of Tests/Fixtures/vision.
enum VisionFixture {
  static let folder = ConverterFixture.folder.appendingPathComponent("vision").path

  static let models = [
    "llava-clip", "llava-clip-layers", "llava-siglip", "llava-dinov2", "idefics3", "idefics3-whole", "smolvlm",
    "smolvlm-single", "original-linear", "original-mlp3x", "parts", "nanovlm",
  ]

  /// What cases.json says to convert.
  static func sources(_ model: String) throws -> ConversionSources {
    let convert = try #require(try JSONValue.read(path: "\(folder)/\(model)/cases.json")["convert"])
    func path(_ key: String) -> String? { convert[key]?.string.map { "\(folder)/\(model)/\($0)" } }
    func part(_ key: String) -> [String: String] { path(key).map { ["image": $0] } ?? [:] }
    return ConversionSources(
      path("source"), decoder: path("decoder"), encoders: part("encoder"), projectors: part("projector"))
  }

  /// All tensors of all sources.
  static func tensors(_ sources: ConversionSources) throws -> [(source: SafetensorsSource, tensor: SourceTensor)] {
    let paths =
      [sources.source, sources.decoder].compactMap { $0 } + sources.encoders.values + sources.projectors.values
    return try paths.flatMap { path in
      let source = try SafetensorsSource(path: path)
      return source.tensors.map { (source, $0) }
    }
  }

  static func f32() -> ConversionOptions {
    var options = ConversionOptions()
    options.type = .f32
    return options
  }
}

/// How the name of the checkpoint's tensor ends that becomes ours, written out by hand so that it can disagree with the
/// converter's tables.
func visionSourceEnding(_ name: String, model: String) -> String {
  if model == "nanovlm" { return nanoVLMSourceEnding(name) }
  if name.hasPrefix("decoder.") {
    let name = transformersName(name)
    return name.hasPrefix("model.") ? "." + name.dropFirst("model.".count) : name
  }
  let parts = name.split(separator: ".").map(String.init)
  let kind = parts.last == "bias" ? "bias" : "weight"
  if parts[0] == "projector" {
    let layer = parts[2]
    return switch model {
    case "original-linear": "mm_projector.\(kind)"
    case "original-mlp3x": "mm_projector.\(2 * (Int(layer) ?? 0)).\(kind)"
    case "parts": layer == "norm" ? "projector.0.\(kind)" : "projector.\(2 * (Int(layer) ?? 0) + 1).\(kind)"
    case _ where model.hasPrefix("llava"): "multi_modal_projector.linear_\((Int(layer) ?? 0) + 1).\(kind)"
    default: "connector.modality_projection.proj.\(kind)"
    }
  }
  let isDINO = model == "llava-dinov2"
  switch parts[2] {
  case "class": return isDINO ? "embeddings.cls_token" : "embeddings.class_embedding"
  case "positions": return isDINO ? "embeddings.position_embeddings" : "embeddings.position_embedding.weight"
  case "patch": return isDINO ? "patch_embeddings.projection.\(kind)" : "embeddings.patch_embedding.\(kind)"
  case "pre_norm": return "pre_layrnorm.\(kind)"
  case "norm": return isDINO ? "vision_tower.layernorm.\(kind)" : "post_layernorm.\(kind)"
  default: break
  }
  let clip = [
    "attention.norm": "layer_norm1", "attention.q": "self_attn.q_proj", "attention.k": "self_attn.k_proj",
    "attention.v": "self_attn.v_proj", "attention.o": "self_attn.out_proj", "ffn.norm": "layer_norm2",
    "ffn.up": "mlp.fc1", "ffn.down": "mlp.fc2",
  ]
  let dino = [
    "attention.norm": "norm1", "attention.q": "attention.attention.query", "attention.k": "attention.attention.key",
    "attention.v": "attention.attention.value", "attention.o": "attention.output.dense", "ffn.norm": "norm2",
    "ffn.up": "mlp.fc1", "ffn.down": "mlp.fc2",
  ]
  let stem = (isDINO ? dino : clip)["\(parts[3]).\(parts[4])"] ?? "?"
  return "encoder.layer\(isDINO ? "" : "s").\(parts[2]).\(stem).\(kind)"
}

private func nanoVLMSourceEnding(_ name: String) -> String {
  let parts = name.split(separator: ".").map(String.init)
  let kind = parts.last == "bias" ? "bias" : "weight"
  guard parts[0] != "projector" else { return "MP.proj.weight" }
  let isDecoder = parts[0] == "decoder"
  let rest = Array(parts.dropFirst(isDecoder ? 1 : 2))
  let module = isDecoder ? "decoder." : "vision_encoder."
  switch rest[0] {
  case "embedding": return "decoder.head.weight"
  case "norm": return module + (isDecoder ? "norm" : "layer_norm") + "." + kind
  case "patch": return "vision_encoder.patch_embedding.conv.\(kind)"
  case "positions": return "vision_encoder.patch_embedding.position_embedding"
  default: break
  }
  let stems = [
    "attention.norm": isDecoder ? "norm1" : "ln1", "ffn.norm": isDecoder ? "norm2" : "ln2",
    "attention.q": isDecoder ? "attn.q_proj" : "attn.qkv_proj",
    "attention.k": isDecoder ? "attn.k_proj" : "attn.qkv_proj",
    "attention.v": isDecoder ? "attn.v_proj" : "attn.qkv_proj", "attention.o": "attn.out_proj",
    "ffn.gate": "mlp.gate_proj", "ffn.up": isDecoder ? "mlp.up_proj" : "mlp.fc1",
    "ffn.down": isDecoder ? "mlp.down_proj" : "mlp.fc2",
  ]
  return "\(module)blocks.\(rest[0]).\(stems["\(rest[1]).\(rest[2])"] ?? "?").\(kind)"
}

/// A LLaVA over CLIP made on the spot, which a test then spoils.
struct SyntheticVision {
  var checkpoint = SyntheticCheckpoint()

  init() {
    checkpoint.config = [
      "model_type": "llava", "image_token_index": 3, "text_config": checkpoint.config,
      "vision_config": [
        "model_type": "clip_vision_model", "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
        "num_attention_heads": 2, "image_size": 28, "patch_size": 14,
      ] as [String: Any],
    ]
    var shapes: [String: [Int]] = [:]
    for (name, shape) in checkpoint.shapes { shapes["language_model.\(name)"] = shape }
    let tower = "vision_tower.vision_model."
    shapes["\(tower)embeddings.class_embedding"] = [16]
    shapes["\(tower)embeddings.patch_embedding.weight"] = [16, 3, 14, 14]
    shapes["\(tower)embeddings.position_embedding.weight"] = [5, 16]
    for norm in ["pre_layrnorm", "post_layernorm"]
      + (0..<2).flatMap({ layer in
        ["layer_norm1", "layer_norm2"].map { "encoder.layers.\(layer).\($0)" }
      })
    {
      shapes["\(tower)\(norm).weight"] = [16]
      shapes["\(tower)\(norm).bias"] = [16]
    }
    for layer in 0..<2 {
      for (name, rows, columns) in [
        ("self_attn.q_proj", 16, 16), ("self_attn.k_proj", 16, 16), ("self_attn.v_proj", 16, 16),
        ("self_attn.out_proj", 16, 16), ("mlp.fc1", 24, 16), ("mlp.fc2", 16, 24),
      ] {
        shapes["\(tower)encoder.layers.\(layer).\(name).weight"] = [rows, columns]
        shapes["\(tower)encoder.layers.\(layer).\(name).bias"] = [rows]
      }
    }
    for (name, columns) in [("linear_1", 16), ("linear_2", 32)] {
      shapes["multi_modal_projector.\(name).weight"] = [32, columns]
      shapes["multi_modal_projector.\(name).bias"] = [32]
    }
    checkpoint.shapes = shapes
    checkpoint.files["preprocessor_config.json"] =
      #"{"image_processor_type": "CLIPImageProcessor", "size": 28, "crop_size": 28}"#
  }

  /// Sets a key of vision_config; nil removes it.
  mutating func vision(_ key: String, _ value: Any?) { set(key, value, in: "vision_config") }

  mutating func text(_ key: String, _ value: Any?) { set(key, value, in: "text_config") }

  private mutating func set(_ key: String, _ value: Any?, in object: String) {
    var values = checkpoint.config[object] as? [String: Any] ?? [:]
    values[key] = value
    checkpoint.config[object] = values
  }
}
