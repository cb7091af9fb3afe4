import SquintFile

/// What a text decoder is (formats/decoder.md), read from a checkpoint's own words for it.
package struct DecoderConfiguration: Equatable, Sendable {
  package var architecture: String
  package var vocabulary: Int
  package var context: Int
  package var layers: Int
  package var width: Int
  package var ffnWidth: Int
  package var heads: Int
  package var keyValueHeads: Int
  package var headWidth: Int
  package var normEpsilon: Double
  /// 0: a position attends to all before it.
  package var window = 0
  /// The layers that have the window; nil: all.
  package var windowLayers: [Int]?
  package var rotary: RotaryFrequencies
  package var isTied: Bool
  package var optionals = Optionals()

  /// The tensors that some checkpoints have and others do not.
  package struct Optionals: Equatable, Sendable {
    package var queryKeyValueBias = TensorPresence.absent
    package var outputBias = TensorPresence.absent
    package var ffnBias = TensorPresence.absent
    package var headNorm = TensorPresence.absent

    package init() {}
  }

  /// Bounds that no model comes near, so that products of two of them fit an Int and lists of layers fit memory.
  package static let largestDimension = 1 << 26
  package static let mostLayers = 4096

  /// Checks what the readers of the configuration cannot see one by one.
  ///
  /// - Parameter place: the file that the configuration is from, for messages.
  package func check(place: String) throws(SquintError) {
    guard heads % keyValueHeads == 0 else {
      throw .badData(place, "\(heads) query heads are no multiple of \(keyValueHeads) key/value heads")
    }
    guard rotary.frequencies.count * 2 <= headWidth else {
      throw .badData(
        place, "the rotary embedding is \(rotary.frequencies.count * 2) wide, but a head is only \(headWidth)")
    }
    guard rotary.frequencies.allSatisfy(\.isFinite), rotary.magnitude.isFinite else {
      throw .badData(place, "the rotary embedding's settings give frequencies that are not finite")
    }
    guard normEpsilon.isFinite, normEpsilon >= 0 else {
      throw .badData(place, "the norm's epsilon is \(normEpsilon)")
    }
  }

  /// Writes the `decoder.*` keys.
  package func write(to metadata: inout Metadata) {
    metadata["decoder.architecture"] = .string(architecture)
    for (key, value) in [
      ("vocabulary", vocabulary), ("context", context), ("layers", layers), ("width", width), ("ffn_width", ffnWidth),
      ("heads", heads), ("kv_heads", keyValueHeads), ("head_width", headWidth),
    ] { metadata["decoder.\(key)"] = .int(Int64(value)) }
    metadata["decoder.norm_epsilon"] = .float(normEpsilon)
    if window > 0 && windowLayers?.isEmpty != true {
      metadata["decoder.window"] = .int(Int64(window))
      if let windowLayers { metadata["decoder.window_layers"] = .ints(windowLayers.map { Int64($0) }) }
    }
    metadata["decoder.rope_frequencies"] = .floats(rotary.frequencies.map { Double($0) })
    if rotary.magnitude != 1 { metadata["decoder.rope_magnitude"] = .float(rotary.magnitude) }
    metadata["decoder.rope_scaling"] = .string(rotary.description)
  }

  // MARK: Tensors

  /// All tensors that this decoder has or may have (formats/decoder.md, "Tensors").
  package var tensors: [ExpectedTensor] {
    var tensors: [ExpectedTensor] = []
    func add(
      _ name: String, _ shape: [Int], _ role: TensorRole = .weight, _ presence: TensorPresence = .required
    ) {
      guard presence != .absent else { return }
      tensors.append(ExpectedTensor("decoder.\(name)", shape, role, presence))
    }
    func addMatrix(_ name: String, rows: Int, columns: Int, bias: TensorPresence) {
      add(name, [rows, columns])
      add(name + ".bias", [rows], .vector, bias)
    }
    add("embedding", [vocabulary, width], .embedding)
    for layer in 0..<layers {
      add("\(layer).attention.norm", [width])
      let bias = optionals.queryKeyValueBias
      addMatrix("\(layer).attention.q", rows: heads * headWidth, columns: width, bias: bias)
      addMatrix("\(layer).attention.k", rows: keyValueHeads * headWidth, columns: width, bias: bias)
      addMatrix("\(layer).attention.v", rows: keyValueHeads * headWidth, columns: width, bias: bias)
      add("\(layer).attention.q_norm", [headWidth], .vector, optionals.headNorm)
      add("\(layer).attention.k_norm", [headWidth], .vector, optionals.headNorm)
      addMatrix("\(layer).attention.o", rows: width, columns: heads * headWidth, bias: optionals.outputBias)
      add("\(layer).ffn.norm", [width])
      addMatrix("\(layer).ffn.gate", rows: ffnWidth, columns: width, bias: optionals.ffnBias)
      addMatrix("\(layer).ffn.up", rows: ffnWidth, columns: width, bias: optionals.ffnBias)
      addMatrix("\(layer).ffn.down", rows: width, columns: ffnWidth, bias: optionals.ffnBias)
    }
    add("norm", [width])
    // Where the checkpoint says that the embedding serves as the head, transformers uses that, whatever is there.
    add("head", [vocabulary, width], .head, isTied ? .unused : .required)
    return tensors
  }
}
