import ArgumentParser
import Squint
import SquintFile
import SquintTerminal

struct Inspect: ParsableCommand {
  static let configuration = CommandConfiguration(abstract: "Shows what is in the model's file.")

  @OptionGroup var model: ModelArgument

  @Flag(help: "List every tensor.")
  var tensors = false

  @Flag(help: "Print one JSON object.")
  var json = false

  struct Output: Encodable {
    struct Module: Encodable {
      let name: String
      /// In the checkpoint's words, and the graph that computes it.
      let family: String?
      let graph: String
      let offset: Int
      let bytes: Int
      let parameters: Int
      let types: [String: Int]

      enum CodingKeys: String, CodingKey {
        case name, family, graph, offset, bytes, parameters
        case types = "tensors_by_type"
      }
    }

    struct Tensor: Encodable {
      let name: String
      let type: String
      let shape: [Int]
      let offset: Int
      let bytes: Int
    }

    let file: String
    let bytes: Int
    let metadata: [String: JSONMetadata]
    let modules: [Module]
    var tensors: [Tensor]?
  }

  func run() throws {
    let file = try model.open()
    let tensorsByModule = Dictionary(grouping: file.tensors, by: \.module)
    let modules = file.modules.enumerated().map { index, module in
      let tensors = tensorsByModule[index] ?? []
      return Output.Module(
        name: module.name, family: try? file.metadata.string("\(module.name).architecture"),
        graph: graphName(of: module.name, in: file), offset: module.range.lowerBound, bytes: module.range.count,
        parameters: tensors.reduce(0) { $0 + $1.elementCount },
        types: tensors.reduce(into: [:]) { $0[$1.type.name, default: 0] += 1 })
    }
    if json {
      try printJSON(
        Output(
          file: file.path.withVisibleBytes, bytes: file.byteCount,
          metadata: Dictionary(uniqueKeysWithValues: file.metadata.entries.map { ($0.key, JSONMetadata($0.value)) }),
          modules: modules,
          tensors: tensors
            ? file.tensors.map {
              Output.Tensor(
                name: $0.name, type: $0.type.name, shape: $0.shape, offset: $0.range.lowerBound, bytes: $0.range.count)
            } : nil))
      return
    }
    Terminal.write("\(printable(file.path)): \(grouped(file.byteCount)) bytes\n\n")
    for (key, value) in file.metadata.entries { Terminal.write("\(key) = \(JSONMetadata(value).summary)\n") }
    Terminal.write("\n")
    var table = TextTable(["module", "family", "graph", "parameters", "bytes", "bits per weight", "types"])
    for module in modules {
      table.add([
        module.name, printable(module.family ?? "", limit: 40), module.graph, grouped(module.parameters),
        grouped(module.bytes),
        fixed(Double(module.bytes) * 8 / Double(max(module.parameters, 1)), 2),
        module.types.sorted { $0.key < $1.key }.map { "\($0.key) × \($0.value)" }.joined(separator: ", "),
      ])
    }
    Terminal.write(table.text)
    guard tensors else { return }
    Terminal.write("\n")
    var list = TextTable(["tensor", "type", "shape", "bytes", "offset"])
    for tensor in file.tensors {
      list.add([
        tensor.name, tensor.type.name, tensor.shape.map(String.init).joined(separator: " × "),
        grouped(tensor.range.count), grouped(tensor.range.lowerBound),
      ])
    }
    Terminal.write(list.text)
  }
}

/// The graph that computes `module`; files from before there was another name none.
private func graphName(of module: String, in file: ModelFile) -> String {
  let usual =
    module == "decoder"
    ? DecoderGraph.usual.rawValue
    : module.hasPrefix("projector.") ? ProjectorGraph.usual.rawValue : EncoderGraph.usual.rawValue
  return printable((try? file.metadata.string("\(module).graph", default: usual)) ?? "", limit: 40)
}

/// A value of the metadata, for JSON and for people.
struct JSONMetadata: Encodable {
  let value: MetadataValue

  init(_ value: MetadataValue) { self.value = value }

  func encode(to encoder: any Encoder) throws {
    var container = encoder.singleValueContainer()
    switch value {
    case .bool(let value): try container.encode(value)
    case .int(let value): try container.encode(value)
    case .float(let value): try container.encode(value.isFinite ? value : 0)
    case .string(let value): try container.encode(value)
    case .bytes(let value): try container.encode(value.map { Int($0) })
    case .ints(let value): try container.encode(value)
    case .floats(let value): try container.encode(value.map { $0.isFinite ? $0 : 0 })
    case .strings(let value): try container.encode(value)
    }
  }

  /// The value on one line, cut where it is long.
  var summary: String {
    // There may be half a million, of which the line has room for a few.
    func list<Item>(_ items: [Item], _ text: (Item) -> String = { "\($0)" }) -> String {
      let shown = items.prefix(6).map(text).joined(separator: ", ")
      return items.count > 6 ? "[\(shown), … \(items.count) in all]" : "[\(shown)]"
    }
    switch value {
    case .bool(let value): return value ? "true" : "false"
    case .int(let value): return "\(value)"
    case .float(let value): return "\(value)"
    case .string(let value):
      let count = value.unicodeScalars.count
      return printable(value, limit: 80) + (count > 80 ? " (\(grouped(count)) characters)" : "")
    case .bytes(let value): return "\(value.count) bytes"
    case .ints(let value): return list(value)
    case .floats(let value): return list(value)
    case .strings(let value): return list(value) { printable($0, limit: 40) }
    }
  }
}

/// Columns of text under a heading; columns of numbers are flush right.
struct TextTable {
  private var rows: [[String]]

  init(_ heading: [String]) { rows = [heading] }

  mutating func add(_ row: [String]) { rows.append(row) }

  var text: String {
    let columns = rows[0].indices
    let widths = columns.map { column in rows.map { SquintTerminal.columns(of: $0[column]) }.max() ?? 0 }
    let isNumeric = columns.map { column in
      rows.count > 1 && rows.dropFirst().allSatisfy { $0[column].first?.isNumber ?? false && !$0[column].contains("×") }
    }
    var text = ""
    for row in rows {
      var line = ""
      for column in columns {
        let padding = String(repeating: " ", count: widths[column] - SquintTerminal.columns(of: row[column]))
        line += (isNumeric[column] ? padding + row[column] : row[column] + padding) + "  "
      }
      while line.last == " " { line.removeLast() }
      text += line + "\n"
    }
    return text
  }
}
