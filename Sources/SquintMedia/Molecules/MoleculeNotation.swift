/// Other ways to write molecules in a line, which are recognized to say what they are. They are not read.
enum MoleculeNotation: Sendable {
  case inchi, inchiKey, selfies

  /// The notation of the text up to its first blank; nil where it is none of these. Of SELFIES some are SMILES, too.
  init?(_ line: [UInt8]) {
    let text = line.drop { $0 <= 0x20 }.prefix { $0 > 0x20 }
    if text.starts(with: "InChI=".utf8) {
      self = .inchi
    } else if Self.isKey(text) {
      self = .inchiKey
    } else if Self.isSELFIES(text) {
      self = .selfies
    } else {
      return nil
    }
  }

  /// What it is, and what to do.
  var remedy: String {
    switch self {
    case .inchi: "this is an InChI, which is not read; convert it to SMILES"
    case .inchiKey: "this is an InChIKey, from which no molecule can be made; look up its SMILES"
    case .selfies: "this looks like SELFIES, which is not read; convert it to SMILES"
    }
  }

  /// 14 letters, 10 and 1, parted by hyphens.
  private static func isKey(_ text: ArraySlice<UInt8>) -> Bool {
    let parts = text.split(separator: UInt8(ascii: "-"), omittingEmptySubsequences: false)
    return parts.map(\.count) == [14, 10, 1] && parts.allSatisfy { $0.allSatisfy { (65...90).contains($0) } }
  }

  private static let elements = ["B", "C", "N", "O", "P", "S", "F", "Cl", "Br", "I"]

  /// Two symbols or more in brackets and nothing outside, half of them atoms alone, perhaps behind a bond, such as [C] or [=C]; others are
  /// words such as [Branch1].
  private static func isSELFIES(_ text: ArraySlice<UInt8>) -> Bool {
    guard text.first == UInt8(ascii: "["), text.last == UInt8(ascii: "]") else { return false }
    let symbols = text.dropFirst().dropLast().split(separator: UInt8(ascii: "]"), omittingEmptySubsequences: false)
    guard symbols.count > 1 else { return false }
    var plain = 0
    for (index, part) in symbols.enumerated() {
      // Each but the first begins with its bracket.
      guard index == 0 || part.first == UInt8(ascii: "[") else { return false }
      let symbol = index == 0 ? part : part.dropFirst()
      guard !symbol.isEmpty, !symbol.contains(UInt8(ascii: "[")) else { return false }
      let name = symbol.drop { "=#/\\-".utf8.contains($0) }
      if Self.elements.contains(where: { name.elementsEqual($0.utf8) }) { plain += 1 }
    }
    return 2 * plain >= symbols.count
  }
}
