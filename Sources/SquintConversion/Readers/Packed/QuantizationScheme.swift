import SquintFile

/// How the weights of a Hugging Face checkpoint are quantized, where they are.
///
/// The tensors decide whether they are: a configuration that speaks of a scheme beside plain numbers is left over from the
/// checkpoint that these were made from. Which scheme it is `quantization_config` says, and without it the names.
package enum QuantizationScheme: Equatable, Sendable {
  /// Four bits, packed along the output: `qweight [in, out / 8]`, `qzeros`, `scales`.
  case awq
  /// Two to eight bits, packed along the input: `qweight [in · bits / 32, out]`, `qzeros`, `scales`, `g_idx`.
  case gptq
  /// MLX's: `weight` in U32 beside `scales` and `biases`.
  case mlx
  /// Weights of a byte (F8_E4M3) with a scale for the tensor, for each row or for each block.
  case fp8
  /// Another one, by its name for people.
  case other(String)

  package var name: String {
    switch self {
    case .awq: "AWQ"
    case .gptq: "GPTQ"
    case .mlx: "MLX"
    case .fp8: "FP8"
    case .other(let name): name
    }
  }

  /// The tensors of a checkpoint as numbers.
  ///
  /// - Parameters:
  ///   - source: the checkpoint's tensors as they are stored; those that `PackedCheckpoint` reads become matrices of numbers.
  ///   - config: its config.json.
  ///   - place: the folder, for messages.
  ///   - notes: takes what the user should know.
  /// - Throws: `SquintError.badData` where they are quantized in a way that is not read.
  package static func dequantized(
    _ source: any TensorSource, config: JSONValue, place: String, notes: inout [String]
  ) throws(SquintError) -> any TensorSource {
    let settings = try PackedSettings(config: config, folder: CheckpointFolder(path: place))
    let packed = try PackedCheckpoint(source, settings: settings, notes: &notes)
    let said = said(by: config)
    guard let scheme = stored(in: packed, said: said) else {
      if packed.isPlain, let said {
        notes.append(
          "config.json says that the weights are quantized (\(said.name)), but they are stored as plain numbers")
      }
      return packed.isPlain ? source : packed
    }
    throw .badData(
      place,
      "the weights are quantized with \(printable(scheme.name)), which is not supported; take the checkpoint that it was made "
        + "from, a GGUF file of the model, or dequantize it with transformers (model.dequantize(), save_pretrained)")
  }

  // MARK: What is said

  /// `quant_method` of transformers (utils/quantization_config.py, `QuantizationMethod`) and of programs beside it.
  private static let methods: [String: QuantizationScheme] = [
    "awq": .awq, "gptq": .gptq, "fp8": .fp8, "fbgemm_fp8": .fp8,
    "bitsandbytes": .other("bitsandbytes"), "bitsandbytes_4bit": .other("bitsandbytes (4 bits)"),
    "bitsandbytes_8bit": .other("bitsandbytes (8 bits)"), "compressed-tensors": .other("compressed-tensors"),
    "hqq": .other("HQQ"), "aqlm": .other("AQLM"), "exl2": .other("EXL2"), "exl3": .other("EXL3"),
    "mxfp4": .other("MXFP4"), "torchao": .other("torchao"), "eetq": .other("EETQ"), "quanto": .other("quanto"),
    "higgs": .other("HIGGS"), "bitnet": .other("BitNet"), "vptq": .other("VPTQ"), "spqr": .other("SpQR"),
    "auto-round": .other("AutoRound"), "intel/auto-round": .other("AutoRound"), "modelopt": .other("ModelOpt"),
    "quark": .other("Quark"), "fp_quant": .other("FP-Quant"),
  ]

  /// The scheme that config.json names; nil: none.
  static func said(by config: JSONValue) -> QuantizationScheme? {
    let inner = config["text_config"]
    let keys = ["quantization_config", "compression_config", "quantization"]
    for settings in [config, inner ?? .null].flatMap({ config in keys.compactMap { config[$0] } }) {
      guard let method = settings["quant_method"]?.string else {
        // MLX writes what it needs and no name; its numbers have a group and bits.
        if settings["group_size"] != nil, settings["bits"] != nil { return .mlx }
        continue
      }
      if method == "bitsandbytes" {
        let bits = settings["load_in_4bit"]?.bool == true ? 4 : settings["load_in_8bit"]?.bool == true ? 8 : nil
        return bits.map { .other("bitsandbytes (\($0) bits)") } ?? methods[method]
      }
      if method == "compressed-tensors", settings["format"]?.string == "float-quantized" { return .fp8 }
      return methods[method.lowercased()] ?? .other(method)
    }
    return nil
  }

  // MARK: What is stored

  /// How names end that only a quantized checkpoint has, and the scheme that they tell; nil: several have them.
  private static let marks: [(ending: String, scheme: QuantizationScheme?)] = [
    (".absmax", .other("bitsandbytes (4 bits)")), (".quant_map", .other("bitsandbytes (4 bits)")),
    (".SCB", .other("bitsandbytes (8 bits)")), (".W_q", .other("HQQ")), (".codebooks", .other("AQLM")),
    (".q_invperm", .other("EXL2")), (".trellis", .other("EXL3")), (".weight._data", .other("quanto")),
    (".weight_packed", .other("compressed-tensors")), (".weight_scale_2", .other("NVFP4")),
    ("_blocks", .other("MXFP4")), (".qweight", nil),
  ]

  /// The scheme in which the tensors are stored; nil: they are plain numbers.
  private static func stored(in source: any TensorSource, said: QuantizationScheme?) -> QuantizationScheme? {
    for tensor in source.tensors {
      for (ending, scheme) in marks where tensor.name.hasSuffix(ending) {
        return scheme ?? said ?? packing(of: tensor, in: source)
      }
    }
    for tensor in source.tensors {
      guard tensor.name.hasSuffix(".weight"), !tensor.type.isReadable else { continue }
      let stem = String(tensor.name.dropLast(".weight".count))
      switch tensor.type {
      case .u32 where source.tensor(named: stem + ".scales") != nil: return .mlx
      // Both kinds of eight-bit floats with a scale are one scheme, whichever program wrote them.
      case .f8e4m3, .f8e5m2: return .fp8
      default: return said ?? .other("\(tensor.type.name) numbers")
      }
    }
    // Packed under names of its own.
    let isPacked = source.tensors.contains { tensor in
      !tensor.type.isReadable && tensor.elementCount > 1 && !tensor.name.hasSuffix("position_ids")
    }
    return isPacked ? said : nil
  }

  /// AWQ or GPTQ: whether `qweight` is packed along the output.
  private static func packing(of tensor: SourceTensor, in source: any TensorSource) -> QuantizationScheme {
    let stem = tensor.name.dropLast(".qweight".count)
    let outputs = source.tensor(named: stem + ".scales")?.columns
    return outputs == tensor.columns ? .gptq : .awq
  }
}
