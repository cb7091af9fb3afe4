/// How the numbers of a tensor are stored.
///
/// Raw values are those of the file (formats/squint.md, "Element types").
public enum ElementType: UInt8, Sendable, CaseIterable {
  /// IEEE 754 binary32, plain rows.
  case f32 = 0
  /// IEEE 754 binary16, plain rows.
  case f16 = 1
  /// The upper half of a binary32, plain rows.
  case bf16 = 2
  /// 8.5 bits: panels; a byte a weight, an f16 scale per row and group. Holds GGUF's Q8_0 exactly.
  case int8 = 16
  /// 4.5 bits: panels; a nibble a weight, a 6-bit scale and minimum per row and group under an f16 pair per row
  /// and block. Holds GGUF's Q4_K exactly.
  case int4 = 17
  /// 5 bits: panels; a nibble a weight, an f16 scale and an f16 minimum per row and group. Holds GGUF's Q4_0 and
  /// Q4_1 exactly.
  case int4F16 = 18

  /// The name that the command line and `squint inspect` use.
  public var name: String {
    switch self {
    case .f32: "f32"
    case .f16: "f16"
    case .bf16: "bf16"
    case .int8: "int8"
    case .int4: "int4"
    case .int4F16: "int4_f16"
    }
  }

  public init?(name: String) {
    guard let type = Self.allCases.first(where: { $0.name == name }) else { return nil }
    self = type
  }

  /// The type's panels; nil for types of plain rows.
  package var panelType: PanelType? {
    switch self {
    case .f32, .f16, .bf16: nil
    case .int8: .int8
    case .int4: .int4
    case .int4F16: .int4F16
    }
  }

  /// Whether matrices of this type are stored in panels.
  public var isQuantized: Bool { panelType != nil }

  /// The size of one number of a plain type, in bytes; nil for types stored in panels.
  public var bytesPerPlainElement: Int? {
    switch self {
    case .f32: 4
    case .f16, .bf16: 2
    case .int8, .int4, .int4F16: nil
    }
  }
}
