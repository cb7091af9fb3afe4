import Foundation

/// A value of a GGUF file that a test writes.
enum WrittenGGUFValue {
  case int(Int)
  case float(Float)
  case bool(Bool)
  case text(String)
  case ints([Int])
  case floats([Float])
  case bools([Bool])
  case texts([String])

  var bytes: [UInt8] {
    func text(_ value: String) -> [UInt8] { littleEndian(UInt64(value.utf8.count)) + Array(value.utf8) }
    func list(_ type: UInt32, _ count: Int, _ items: [UInt8]) -> [UInt8] {
      littleEndian(UInt32(9)) + littleEndian(type) + littleEndian(UInt64(count)) + items
    }
    switch self {
    case .int(let value): return littleEndian(UInt32(4)) + littleEndian(UInt32(value))
    case .float(let value): return littleEndian(UInt32(6)) + littleEndian(value.bitPattern)
    case .bool(let value): return littleEndian(UInt32(7)) + [value ? 1 : 0]
    case .text(let value): return littleEndian(UInt32(8)) + text(value)
    case .ints(let values): return list(5, values.count, values.flatMap { littleEndian(Int32($0)) })
    case .floats(let values): return list(6, values.count, values.flatMap { littleEndian($0.bitPattern) })
    case .bools(let values): return list(7, values.count, values.map { $0 ? 1 : 0 })
    case .texts(let values): return list(8, values.count, values.flatMap(text))
    }
  }
}

/// A GGUF text model made on the spot: tensors in f32, which a test then spoils.
struct SyntheticGGUF {
  var metadata: [String: WrittenGGUFValue]
  /// The outermost axis first.
  var shapes: [String: [Int]]

  func write(to path: String) throws {
    func text(_ value: String) -> [UInt8] { littleEndian(UInt64(value.utf8.count)) + Array(value.utf8) }
    var head = Array("GGUF".utf8) + littleEndian(UInt32(3))
    head += littleEndian(UInt64(shapes.count)) + littleEndian(UInt64(metadata.count))
    for (key, value) in metadata.sorted(by: { $0.key < $1.key }) { head += text(key) + value.bytes }
    var data: [UInt8] = []
    for (name, shape) in shapes.sorted(by: { $0.key < $1.key }) {
      head += text(name) + littleEndian(UInt32(shape.count)) + shape.reversed().flatMap { littleEndian(UInt64($0)) }
      head += littleEndian(UInt32(0)) + littleEndian(UInt64(data.count))
      for index in 0..<shape.reduce(1, *) { data += littleEndian(Float(index % 97 - 48).bitPattern) }
      data += [UInt8](repeating: 0, count: -data.count & 31)
    }
    head += [UInt8](repeating: 0, count: -head.count & 31)
    try Data(head + data).write(to: URL(fileURLWithPath: path))
  }
}
