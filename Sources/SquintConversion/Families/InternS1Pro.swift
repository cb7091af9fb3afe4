import SquintFile

// Intern-S1-Pro's encoder of series. The model around it has a trillion parameters; the encoder goes with any decoder. The reference is
// lmdeploy's interns1_pro_time_series.py.

extension OtherEncoderFamily {
  /// A folder with the tensors of `time_series`, and a config.json that is the model's, or its `ts_config` alone.
  static let internS1ProSeries = OtherEncoderFamily(
    modelTypes: [
      "intern_s1_pro_time_series", "interns1_pro_time_series", "intern_time_series_encoder", "interns1_pro",
      "intern_s1_pro",
      "interns1_1",
    ]
  ) { (folder, config) throws(SquintError) in
    let inner = config["ts_config"]
    let place = folder.file("config.json") + (inner == nil ? "" : ": ts_config")
    let reader = ConfigurationReader(json: inner ?? config, place: place)
    var notes: [String] = []
    let source = try folder.tensors(config: config, spelling: .tower, notes: &notes)

    let module = "encoder.series"
    let names = NameMap.internS1ProSeries(module)
    let mapped = MappedTensors(source: source, maps: [names], place: folder.path)
    let stored = StoredTensors(mapped, module: module)
    func shape(_ name: String, axes: Int) throws(SquintError) -> [Int] {
      guard let shape = stored[name]?.shape, shape.count == axes,
        shape.allSatisfy({ (1...1 << 20).contains($0) })
      else {
        throw .badData(
          folder.path, "tensor \(names.source(of: "\(module).\(name)")) is missing, or not of \(axes) axes")
      }
      return shape
    }
    var blueprint = InternSeriesBlueprint(module: module)
    blueprint.architecture = "interns1_pro"
    blueprint.layers = try reader.size("encoder_layers", atMost: DecoderConfiguration.mostLayers) ?? 17
    blueprint.heads = try reader.size("encoder_attention_heads") ?? 8
    blueprint.width = try reader.size("d_model") ?? 768
    blueprint.ffnWidth = try reader.size("encoder_ffn_dim") ?? 3072
    blueprint.positions = try reader.size("max_source_positions", atMost: 1 << 20) ?? 1500
    blueprint.outputWidth = try reader.size("ts_adapt_out_dim") ?? 1024
    // These are written into the class.
    blueprint.patchHeads = 8
    blueprint.patchWidth = try shape("patch.convolution", axes: 3)[0]
    blueprint.patchFFNWidth = try shape("patch.ffn.up", axes: 2)[0]
    blueprint.inputWidth = try shape("input", axes: 2)[0]
    // PyTorch's default.
    blueprint.normEpsilon = 1e-5
    let activation = try reader.text("activation_function") ?? "gelu"
    guard let known = Activation(huggingFace: activation) else {
      throw .badData(place, "activation_function \"\(printable(activation))\" is not supported")
    }
    blueprint.activation = known
    do throws(SquintError) {
      try blueprint.check()
    } catch {
      throw .badData(place, error.message)
    }

    var expected = blueprint.tensors.map { ExpectedTensor($0, $0.isOptional ? .ifPresent : .required) }
    for index in expected.indices { expected[index].setInternForms(module, blueprint) }
    var encoder = OtherEncoder(
      blueprint: blueprint, featureWidth: blueprint.outputWidth, expected: expected, tensors: mapped,
      processor: SeriesConfiguration(normalization: .zScore, rounding: .bf16, mostPoints: 240_000))
    encoder.notes = notes
    return encoder
  }
}

extension ExpectedTensor {
  /// Sets the other shapes in which the checkpoint has a tensor.
  fileprivate mutating func setInternForms(_ module: String, _ c: InternSeriesBlueprint) {
    let inside = name.dropFirst(module.count + 1)
    switch inside {
    case "convolution.0": otherShapes = [[c.width, c.inputWidth, InternSeriesBlueprint.taps]]
    case "convolution.1": otherShapes = [[c.width, c.width, InternSeriesBlueprint.taps]]
    default:
      for (index, part) in ["q", "k", "v"].enumerated() {
        for ending in ["", ".bias"] where inside == "patch.attention.\(part)\(ending)" {
          fused = FusedRows(
            name: "\(module).patch.attention.qkv\(ending)", firstRow: index * c.patchWidth, rows: 3 * c.patchWidth)
        }
      }
    }
  }
}

extension NameMap {
  fileprivate static func internS1ProSeries(_ module: String) -> NameMap {
    let layer = "encoder_embed.transformer_encoder.layers.0"
    return NameMap(
      module: module,
      stems: [
        ("encoder_embed.conv", "patch.convolution"), ("\(layer).self_attn.out_proj", "patch.attention.o"),
        ("\(layer).linear1", "patch.ffn.up"), ("\(layer).linear2", "patch.ffn.down"),
        ("\(layer).norm1", "patch.attention.norm"), ("\(layer).norm2", "patch.ffn.norm"),
        ("encoder.adapt_in", "input"), ("encoder.conv1", "convolution.0"), ("encoder.conv2", "convolution.1"),
        ("encoder.embed_positions", "positions"), ("encoder.layers.*.self_attn_layer_norm", "*.attention.norm"),
        ("encoder.layers.*.self_attn.q_proj", "*.attention.q"), ("encoder.layers.*.self_attn.k_proj", "*.attention.k"),
        ("encoder.layers.*.self_attn.v_proj", "*.attention.v"),
        ("encoder.layers.*.self_attn.out_proj", "*.attention.o"),
        ("encoder.layers.*.final_layer_norm", "*.ffn.norm"), ("encoder.layers.*.fc1", "*.ffn.up"),
        ("encoder.layers.*.fc2", "*.ffn.down"), ("encoder.layer_norm", "norm"), ("encoder.adapt_out", "output"),
      ],
      names: [
        ("\(layer).self_attn.in_proj_weight", "patch.attention.qkv"),
        ("\(layer).self_attn.in_proj_bias", "patch.attention.qkv.bias"),
      ],
      // Sines are computed; the projector is a part of its own.
      ignored: ["encoder_embed.pos_encoder.pe"],
      ignoredPrefixes: ["projector.", "language_model.", "visual.", "lm_head."],
      prefixes: ["model.time_series.", "time_series.", "model.", "vision_tower."])
  }
}
