import Foundation
import SquintConversion
import SquintFile

enum ConverterFixture {
  static let folder = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
    .appendingPathComponent("Fixtures")

  static func model(_ name: String) -> String { folder.appendingPathComponent("models/\(name)").path }

  static func file(_ name: String) -> String { folder.appendingPathComponent("conversion/\(name)").path }

  /// The checkpoints of transformers, every one.
  static let models = [
    "llama-biases", "llama-gqa", "llama-head-dim", "llama-linear", "llama-llama3", "llama-llama3-old",
    "llama-one-kv-head", "llama-yarn", "mistral-full", "mistral-sliding", "qwen2-sliding", "qwen2-tied",
    "qwen2-window-unused", "qwen3", "qwen3-yarn",
  ]
}

/// A folder that is removed with its contents at the end of `body`.
func withFolder<Result>(_ body: (String) throws -> Result) throws -> Result {
  let folder = FileManager.default.temporaryDirectory.appendingPathComponent("squint-converter-\(UUID().uuidString)")
  try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
  defer { try? FileManager.default.removeItem(at: folder) }
  return try body(folder.path)
}

func contents(of folder: String) throws -> [String] {
  try FileManager.default.contentsOfDirectory(atPath: folder).sorted()
}

extension ModelFile {
  /// The numbers of a tensor, whatever its type.
  func numbers(_ name: String) throws -> [Float] {
    guard let tensor = tensor(name) else { throw SquintError(.internalError, "\(name) is missing") }
    let bytes = bytes(of: tensor)
    switch tensor.type {
    case .f32: return (0..<tensor.elementCount).map { bytes.loadUnaligned(fromByteOffset: 4 * $0, as: Float.self) }
    case .f16:
      return (0..<tensor.elementCount).map {
        HalfPrecision.float(bytes.loadUnaligned(fromByteOffset: 2 * $0, as: UInt16.self))
      }
    case .bf16:
      return (0..<tensor.elementCount).map {
        Float(bitPattern: UInt32(bytes.loadUnaligned(fromByteOffset: 2 * $0, as: UInt16.self)) << 16)
      }
    case .int8, .int4, .int4F16:
      guard let layout = PanelLayout(type: tensor.type, rows: tensor.shape[0], columns: tensor.shape[1]) else {
        throw SquintError(.internalError, "\(name) has no layout")
      }
      let codec = PanelCodec(layout)
      var numbers = [Float](repeating: 0, count: tensor.elementCount)
      numbers.withUnsafeMutableBufferPointer { numbers in
        for row in 0..<layout.rows {
          codec.dequantizeRow(
            row, of: bytes,
            into: UnsafeMutableBufferPointer(rebasing: numbers[row * layout.columns..<(row + 1) * layout.columns]))
        }
      }
      return numbers
    }
  }
}

/// The name of transformers for a tensor of ours, written out by hand so that it can disagree with the converter's table.
func transformersName(_ name: String) -> String {
  let whole = [
    "decoder.embedding": "model.embed_tokens.weight", "decoder.norm": "model.norm.weight",
    "decoder.head": "lm_head.weight",
  ]
  if let name = whole[name] { return name }
  let parts = name.split(separator: ".").map(String.init)
  let isBias = parts.last == "bias"
  let stems = [
    "attention.norm": "input_layernorm", "attention.q": "self_attn.q_proj", "attention.k": "self_attn.k_proj",
    "attention.v": "self_attn.v_proj", "attention.q_norm": "self_attn.q_norm", "attention.k_norm": "self_attn.k_norm",
    "attention.o": "self_attn.o_proj", "ffn.norm": "post_attention_layernorm", "ffn.gate": "mlp.gate_proj",
    "ffn.up": "mlp.up_proj", "ffn.down": "mlp.down_proj",
  ]
  return "model.layers.\(parts[1]).\(stems["\(parts[2]).\(parts[3])"] ?? "?").\(isBias ? "bias" : "weight")"
}

/// A checkpoint folder made on the spot: f32 tensors of a llama of one layer, which a test then spoils.
struct SyntheticCheckpoint {
  var config: [String: Any] = [
    "model_type": "llama", "vocab_size": 40, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64, "rms_norm_eps": 1e-5,
  ]
  var shapes: [String: [Int]] = [
    "model.embed_tokens.weight": [40, 32], "model.norm.weight": [32], "lm_head.weight": [40, 32],
    "model.layers.0.input_layernorm.weight": [32], "model.layers.0.post_attention_layernorm.weight": [32],
    "model.layers.0.self_attn.q_proj.weight": [32, 32], "model.layers.0.self_attn.k_proj.weight": [16, 32],
    "model.layers.0.self_attn.v_proj.weight": [16, 32], "model.layers.0.self_attn.o_proj.weight": [32, 32],
    "model.layers.0.mlp.gate_proj.weight": [48, 32], "model.layers.0.mlp.up_proj.weight": [48, 32],
    "model.layers.0.mlp.down_proj.weight": [32, 48],
  ]
  /// Numbers that replace the first of a tensor.
  var firstNumbers: [String: Float] = [:]
  var files: [String: String] = [:]

  func write(to folder: String) throws {
    try JSONSerialization.data(withJSONObject: config).write(to: URL(fileURLWithPath: "\(folder)/config.json"))
    for (name, text) in files { try Data(text.utf8).write(to: URL(fileURLWithPath: "\(folder)/\(name)")) }
    var state: UInt64 = 1
    var tensors: [String: (shape: [Int], numbers: [Float])] = [:]
    for (name, shape) in shapes.sorted(by: { $0.key < $1.key }) {
      var numbers = (0..<shape.reduce(1, *)).map { _ in
        state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
        return (Float(state >> 40) / 0x1p24 - 0.5) / 10
      }
      if let first = firstNumbers[name] { numbers[0] = first }
      tensors[name] = (shape, numbers)
    }
    try writeSafetensors(tensors, to: "\(folder)/model.safetensors")
  }
}

/// Writes F32 tensors, in the order of their names.
func writeSafetensors(_ tensors: [String: (shape: [Int], numbers: [Float])], to path: String) throws {
  var header: [String: Any] = [:]
  var data = Data()
  for (name, tensor) in tensors.sorted(by: { $0.key < $1.key }) {
    let start = data.count
    tensor.numbers.withUnsafeBytes { data.append(contentsOf: $0) }
    header[name] = ["dtype": "F32", "shape": tensor.shape, "data_offsets": [start, data.count]] as [String: Any]
  }
  let json = try JSONSerialization.data(withJSONObject: header)
  try (withUnsafeBytes(of: UInt64(json.count).littleEndian) { Data($0) } + json + data)
    .write(to: URL(fileURLWithPath: path))
}
