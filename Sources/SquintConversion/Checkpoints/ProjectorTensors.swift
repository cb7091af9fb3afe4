import SquintFile

/// The matrices of a projector, found among a source's tensors by their shapes and put in order by the numbers in their
/// names: `linear_1` before `linear_2`, `0` before `2`.
struct ProjectorTensors {
  /// Leads to `norm`, `0`, `1`, …
  let map: NameMap
  /// What goes in, between the layers, and comes out.
  let widths: [Int]
  let hasNorm: Bool

  /// - Parameters:
  ///   - prefixes: what the names begin with, a dot or the end behind it; nil: all tensors are the projector's.
  ///   - module: `projector.NAME`.
  ///   - place: for messages.
  /// - Throws: `SquintError.badData` where the shapes do not make a chain, or there are none.
  init(in source: any TensorSource, prefixes: [String]?, module: String, place: String) throws(SquintError) {
    var layers: [(key: [Int], stem: String, tensor: SourceTensor)] = []
    var norm: (key: [Int], stem: String, tensor: SourceTensor)?
    for tensor in source.tensors where tensor.name.hasSuffix(".weight") {
      let stem = String(tensor.name.dropLast(".weight".count))
      if let prefixes, !prefixes.contains(where: { stem == $0 || stem.hasPrefix($0 + ".") }) { continue }
      let found = (key: Self.numbers(in: stem), stem: stem, tensor: tensor)
      guard tensor.shape.allSatisfy({ (1...DecoderConfiguration.largestDimension).contains($0) }) else {
        throw .badData(place, "tensor \(printable(tensor.name)) has shape \(tensor.shape)")
      }
      switch tensor.shape.count {
      case 2: layers.append(found)
      case 1:
        if let norm {
          throw .badData(
            place,
            "a projector with two norms, \(printable(norm.stem)) and \(printable(stem)), is not supported; one in front is"
          )
        }
        norm = found
      default:
        throw .badData(
          place, "tensor \(printable(tensor.name)) has shape \(tensor.shape); a projector's are matrices and vectors")
      }
    }
    layers.sort { Self.precedes($0.key, $1.key) }
    guard let first = layers.first else {
      throw .badData(place, "there is no matrix of a projector; its tensors are named like 0.weight, 2.weight")
    }
    guard layers.count <= ProjectorConfiguration.mostLayers else {
      throw .badData(place, "\(layers.count) matrices are more than a projector may have")
    }
    var widths = [first.tensor.shape[1]]
    for (index, layer) in layers.enumerated() {
      if index > 0, layer.key == layers[index - 1].key {
        throw .badData(
          place,
          "nothing in their names says which of the projector's matrices \(printable(layers[index - 1].stem)) and "
            + "\(printable(layer.stem)) comes first; number them")
      }
      guard layer.tensor.shape[1] == widths[index] else {
        throw .badData(
          place,
          "tensor \(printable(layer.tensor.name)) takes \(grouped(layer.tensor.shape[1])) numbers, but "
            + "\(printable(layers[index - 1].tensor.name)) gives \(grouped(widths[index]))")
      }
      widths.append(layer.tensor.shape[0])
    }
    if let norm {
      guard norm.tensor.shape[0] == widths[0], norm.key.isEmpty || Self.precedes(norm.key, first.key) else {
        throw .badData(
          place,
          "tensor \(printable(norm.tensor.name)) with shape \(norm.tensor.shape) is no norm in front of a projector that "
            + "takes \(grouped(widths[0])) numbers; others are not supported")
      }
    }
    self.widths = widths
    hasNorm = norm != nil
    map = NameMap(
      module: module,
      stems: (norm.map { [($0.stem, "norm")] } ?? [])
        + layers.enumerated().map { ($1.stem, String($0)) })
  }

  /// The numbers that are written in `name`, in order.
  private static func numbers(in name: String) -> [Int] {
    name.split { !($0.isASCII && $0.isWholeNumber) }.map { Int($0) ?? .max }
  }

  private static func precedes(_ left: [Int], _ right: [Int]) -> Bool { left.lexicographicallyPrecedes(right) }
}
