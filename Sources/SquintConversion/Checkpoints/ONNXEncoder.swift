import SquintFile

extension EncoderPart {
  /// Opens an encoder in an ONNX file.
  ///
  /// - Parameter name: the modality.
  /// - Throws: `SquintError.noInput` where the file does not exist, `.badData` where it is broken or no vision transformer.
  package init(onnx path: String, name: String) throws(SquintError) {
    let source = try ONNXSource(path: path)
    let transformer = try ONNXVisionTransformer(source: source, place: path)
    let rows = transformer.positions.reduce(0) { $0 + $1.elementCount / transformer.width }
    let patches = rows - (transformer.classToken == nil ? 0 : 1)
    let grid = Int(Double(max(patches, 0)).squareRoot())
    guard grid > 0, grid * grid == patches else {
      throw .badData(path, "\(grouped(patches)) positions of patches are no square grid; this is not supported")
    }
    // What else would tell them apart is not in the file: SigLIP has no class token, CLIP a norm before the layers.
    let family: EncoderFamily =
      transformer.classToken == nil ? .siglip : transformer.preNorm == nil ? .dinov2 : .clip
    var configuration = EncoderConfiguration(
      architecture: family.architecture, layers: transformer.layers.count, width: transformer.width,
      ffnWidth: transformer.layers[0].up.rows, heads: transformer.heads, patch: transformer.patch.shape[2], grid: grid,
      positions: family.positions, normEpsilon: transformer.layers[0].ffnNorm.epsilon,
      activation: transformer.activation, hasClass: transformer.classToken != nil)
    configuration.optionals.preNorm = transformer.preNorm == nil ? .absent : .required
    configuration.optionals.norm = transformer.norm == nil ? .absent : .required
    configuration.optionals.queryKeyValueBias = .ifPresent
    configuration.optionals.outputBias = .ifPresent
    configuration.optionals.ffnBias = .ifPresent
    try configuration.check(place: path)

    let side = transformer.inputSide ?? grid * configuration.patch
    guard (1...ImageConfiguration.largestSide).contains(side) else {
      throw .badData(path, "images of \(grouped(side)) × \(grouped(side)) pixels are not supported")
    }
    self.init(
      configuration: configuration,
      tensors: MappedTensors(
        source: try ONNXEncoderTensors(source: source, transformer: transformer, place: path),
        maps: [.onnxEncoder("encoder.\(name)")], place: path),
      images: nil, usualImages: family.usualImages(side: side))
    guard !transformer.leftOut.isEmpty else { return }
    let names = transformer.leftOut.prefix(3).map { printable($0.name) }.joined(separator: ", ")
    let others = transformer.leftOut.count > 3 ? " and \(transformer.leftOut.count - 3) more" : ""
    notes.append("\(path) has more than the encoder; left out are the tensors \(names)\(others)")
  }
}

/// The tensors of a vision transformer in an ONNX file under our names, matrices as [rows, columns].
struct ONNXEncoderTensors: TensorSource {
  let tensors: [SourceTensor]
  private let source: ONNXSource
  private let parts: [String: (tensor: SourceTensor, part: Part)]

  /// What a tensor is made of.
  private enum Part {
    case same(SourceTensor)
    /// A matrix whose columns are the rows.
    case transposed(SourceTensor)
    /// One below the other.
    case stacked([SourceTensor])

    var all: [SourceTensor] {
      switch self {
      case .same(let tensor), .transposed(let tensor): [tensor]
      case .stacked(let tensors): tensors
      }
    }
  }

  init(source: ONNXSource, transformer: ONNXVisionTransformer, place: String) throws(SquintError) {
    var named: [(name: String, shape: [Int], part: Part)] = []
    func add(_ name: String, _ tensor: SourceTensor?) {
      // A vector may be stored with axes of one in front, which exporters leave from broadcasting.
      guard let tensor else { return }
      let isVector = tensor.shape.last == tensor.elementCount
      named.append((name, isVector ? [tensor.elementCount] : tensor.shape, .same(tensor)))
    }
    func add(_ name: String, _ linear: ONNXVisionTransformer.Linear) {
      named.append(
        (
          name + ".weight", [linear.rows, linear.columns],
          linear.isTransposed ? .transposed(linear.weight) : .same(linear.weight)
        ))
      add(name + ".bias", linear.bias)
    }
    func add(_ name: String, _ norm: ONNXVisionTransformer.Norm?) {
      add(name + ".weight", norm?.weight)
      add(name + ".bias", norm?.bias)
    }
    add("patch.weight", transformer.patch)
    add("patch.bias", transformer.patchBias)
    add("class", transformer.classToken)
    let rows = transformer.positions.reduce(0) { $0 + $1.elementCount / transformer.width }
    named.append(("positions", [rows, transformer.width], .stacked(transformer.positions)))
    add("pre_norm", transformer.preNorm)
    for (index, layer) in transformer.layers.enumerated() {
      add("\(index).attention.norm", layer.attentionNorm)
      let names = layer.projections.count == 1 ? ["qkv"] : ["q", "k", "v"]
      for (name, linear) in zip(names, layer.projections) { add("\(index).attention.\(name)", linear) }
      add("\(index).attention.o", layer.output)
      add("\(index).attention.scale", layer.attentionScale)
      add("\(index).ffn.norm", layer.ffnNorm)
      add("\(index).ffn.up", layer.up)
      add("\(index).ffn.down", layer.down)
      add("\(index).ffn.scale", layer.ffnScale)
    }
    add("norm", transformer.norm)

    var tensors: [SourceTensor] = []
    var parts: [String: (tensor: SourceTensor, part: Part)] = [:]
    for (name, shape, part) in named {
      let type = part.all[0].type
      guard part.all.allSatisfy({ $0.type == type }),
        let tensor = SourceTensor(
          name: name, shape: shape, type: type, part: part.all[0].part, offset: part.all[0].offset)
      else {
        throw .badData(place, "tensor \(printable(part.all[0].name)): its shape \(shape) is too large")
      }
      tensors.append(tensor)
      parts[name] = (tensor, part)
    }
    self.source = source
    self.tensors = tensors
    self.parts = parts
  }

  func tensor(named name: String) -> SourceTensor? { parts[name]?.tensor }

  func path(of tensor: SourceTensor) -> String { source.path(of: tensor) }

  func readBlocks(
    of tensor: SourceTensor, blocks: Range<Int>, into buffer: UnsafeMutableRawBufferPointer
  ) throws(SquintError) {
    switch parts[tensor.name]?.part {
    case .same(let part): try source.readBlocks(of: part, blocks: blocks, into: buffer)
    case .transposed(let part): try readTransposed(part, elements: blocks, into: buffer)
    case .stacked(let parts):
      let size = tensor.type.bytesPerBlock
      var first = 0
      for part in parts {
        let overlap = blocks.clamped(to: first..<first + part.elementCount)
        if !overlap.isEmpty {
          let place = overlap.lowerBound - blocks.lowerBound
          try source.readBlocks(
            of: part, blocks: overlap.lowerBound - first..<overlap.upperBound - first,
            into: UnsafeMutableRawBufferPointer(rebasing: buffer[place * size..<(place + overlap.count) * size]))
        }
        first += part.elementCount
      }
    case nil: throw SquintError(.internalError, "tensor \(tensor.name) does not exist")
    }
  }

  /// Reads `elements` of the matrix [rows, columns] that is stored as [columns, rows]: a run of each stored row.
  private func readTransposed(
    _ stored: SourceTensor, elements: Range<Int>, into buffer: UnsafeMutableRawBufferPointer
  ) throws(SquintError) {
    let size = stored.type.bytesPerBlock
    let (columns, rows) = (stored.shape[0], stored.shape[1])
    guard !elements.isEmpty else { return }
    let firstRow = elements.lowerBound / columns
    let endRow = (elements.upperBound - 1) / columns + 1
    let run = UnsafeMutableRawBufferPointer.allocate(byteCount: (endRow - firstRow) * size, alignment: 8)
    defer { run.deallocate() }
    for column in 0..<columns {
      try source.readBlocks(of: stored, blocks: column * rows + firstRow..<column * rows + endRow, into: run)
      for row in firstRow..<endRow {
        let element = row * columns + column
        guard elements.contains(element) else { continue }
        let place = buffer.baseAddress! + (element - elements.lowerBound) * size
        place.copyMemory(from: run.baseAddress! + (row - firstRow) * size, byteCount: size)
      }
    }
  }
}

extension NameMap {
  /// What `ONNXEncoderTensors` calls the tensors of an encoder.
  ///
  /// - Parameter module: `encoder.NAME`.
  static func onnxEncoder(_ module: String) -> NameMap {
    let stems = [
      "patch", "pre_norm", "*.attention.norm", "*.attention.q", "*.attention.k", "*.attention.v", "*.attention.qkv",
      "*.attention.o", "*.ffn.norm", "*.ffn.up", "*.ffn.down", "norm",
    ]
    let names = ["class", "positions", "*.attention.scale", "*.ffn.scale"]
    return NameMap(module: module, stems: stems.map { ($0, $0) }, names: names.map { ($0, $0) })
  }
}
