import SquintFile

/// How a family of checkpoints calls the tensors of a module: a table of stems, in which `*` stands for the number of a layer, and a
/// second one for that of an expert.
///
/// A stem is a name without `.weight`; `STEM.bias` maps to `TARGET.bias`.
package struct NameMap: Sendable {
  /// What the module's tensors begin with: `decoder`.
  package let module: String
  /// From the checkpoint's stems to those of the module.
  package let stems: [(source: String, target: String)]
  /// From the checkpoint's names that end in neither `.weight` nor `.bias` to those of the module.
  package let names: [(source: String, target: String)]
  /// Names of tensors that hold nothing the model needs, such as tables that are computed anew.
  package let ignored: [String]
  /// What the names of such tensors begin with, where there are many.
  package let ignoredPrefixes: [String]
  /// Prefixes that wrap the same names in checkpoints of several parts, without which the table has them.
  package let prefixes: [String]
  /// Tensors of the layers from this one on are ignored.
  private var layerLimit = Int.max

  package init(
    module: String, stems: [(source: String, target: String)], names: [(source: String, target: String)] = [],
    ignored: [String] = [], ignoredPrefixes: [String] = [], prefixes: [String] = []
  ) {
    self.module = module
    self.stems = stems
    self.names = names
    self.ignored = ignored
    self.ignoredPrefixes = ignoredPrefixes
    self.prefixes = prefixes
  }

  /// The same names without the layers from `count` on, whatever is in them.
  package func ignoringLayers(from count: Int) -> NameMap {
    var map = self
    map.layerLimit = count
    return map
  }

  /// The same names, but for these stems.
  func replacing(_ stems: [(source: String, target: String)]) -> NameMap {
    guard !stems.isEmpty else { return self }
    var map = NameMap(
      module: module, stems: stems + self.stems, names: names, ignored: ignored, ignoredPrefixes: ignoredPrefixes,
      prefixes: prefixes)
    map.layerLimit = layerLimit
    return map
  }

  /// What the names of layers begin with, up to the number.
  private var layerPrefix: Substring? {
    stems.lazy.compactMap { stem in stem.source.firstIndex(of: "*").map { stem.source[..<$0] } }.first
  }

  /// Whether `name` is of a layer that is ignored.
  private func isBeyond(_ name: String) -> Bool {
    guard layerLimit < Int.max, let layers = layerPrefix,
      name.hasPrefix(layers)
    else { return false }
    let digits = name.dropFirst(layers.count).prefix { $0.isASCII && $0.isWholeNumber }
    return !digits.isEmpty && Int(digits) ?? .max >= layerLimit
  }

  /// What `NameSpelling` puts in front of a vision tower's names.
  static let towerPrefixes = ["vision_tower."]

  package enum Target: Equatable, Sendable {
    case tensor(String)
    case ignored
  }

  /// What the tensor `name` of the checkpoint is in the module; nil where no rule maps it.
  package func target(of name: String) -> Target? {
    for stripped in [name] + prefixes.compactMap({ name.hasPrefix($0) ? String(name.dropFirst($0.count)) : nil }) {
      if ignored.contains(where: { Self.match(stripped, $0) != nil })
        || ignoredPrefixes.contains(where: stripped.hasPrefix) || isBeyond(stripped)
      {
        return .ignored
      }
      for (source, target) in names {
        guard let layer = Self.match(stripped, source) else { continue }
        return .tensor("\(module).\(Self.fill(target, layer))")
      }
      for (suffix, ending) in [(".weight", ""), (".bias", ".bias")] where stripped.hasSuffix(suffix) {
        let stem = String(stripped.dropLast(suffix.count))
        for (source, target) in stems {
          guard let layer = Self.match(stem, source) else { continue }
          return .tensor("\(module).\(Self.fill(target, layer))\(ending)")
        }
      }
    }
    return nil
  }

  /// What the checkpoint calls the module's tensor `name`, for messages.
  package func source(of name: String) -> String {
    let whole = String(name.dropFirst(module.count + 1))
    for (source, target) in names {
      if let layer = Self.match(whole, target) { return Self.fill(source, layer) }
    }
    let isBias = name.hasSuffix(".bias")
    let stem = whole.dropLast(isBias ? 5 : 0)
    for (source, target) in stems {
      guard let layer = Self.match(String(stem), target) else { continue }
      return Self.fill(source, layer) + (isBias ? ".bias" : ".weight")
    }
    return name
  }

  /// The numbers that the `*`s of `pattern` stand for in `name`; nil where it does not match.
  private static func match(_ name: String, _ pattern: String) -> [Substring]? {
    var (rest, pattern) = (name[...], pattern[...])
    var numbers: [Substring] = []
    while let star = pattern.utf8.firstIndex(of: UInt8(ascii: "*")) {
      let head = pattern[..<star]
      guard rest.hasPrefix(head) else { return nil }
      rest = rest.dropFirst(head.count)
      let digits = rest.prefix { $0.isASCII && $0.isWholeNumber }
      // A leading zero would give one layer two names.
      guard !digits.isEmpty, digits == "0" || !digits.hasPrefix("0") else { return nil }
      numbers.append(digits)
      rest = rest.dropFirst(digits.count)
      pattern = pattern[pattern.index(after: star)...]
    }
    return rest == pattern ? numbers : nil
  }

  /// `pattern` with `numbers` in the place of its `*`s.
  private static func fill(_ pattern: String, _ numbers: [Substring]) -> String {
    var filled = ""
    var rest = pattern[...]
    for number in numbers {
      guard let star = rest.firstIndex(of: "*") else { break }
      filled += rest[..<star] + number
      rest = rest[rest.index(after: star)...]
    }
    return filled + rest
  }
}
