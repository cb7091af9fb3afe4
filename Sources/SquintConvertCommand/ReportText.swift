import SquintConversion
import SquintFile
import SquintTerminal

extension ConversionReport {
  // MARK: For people

  /// The table at the end of a conversion.
  var table: String {
    var rows = [["module", "parameters", "bytes", "bits/weight"]]
    for module in modules {
      rows.append([
        module.name, grouped(module.parameters), grouped(module.bytes), decimal(module.bitsPerWeight, digits: 2),
      ])
    }
    if let fileBytes { rows.append(["file", "", grouped(fileBytes), ""]) }
    var errors = [["type", "parameters", "bytes", "kept", "relative RMSE"]]
    for share in types {
      errors.append([
        share.type.name, grouped(share.parameters), grouped(share.bytes),
        share.keptParameters == 0
          ? "" : "\(Int((100 * Double(share.keptParameters) / Double(share.parameters)).rounded()))%",
        share.relativeRMSE.map { percent($0) } ?? (share.keptParameters == share.parameters ? "exact" : ""),
      ])
    }
    var text = aligned(rows) + "\n\n" + aligned(errors)
    if fileBytes != nil { text += "\n\n" + speed }
    return text
  }

  /// What `--dry-run` prints.
  var plan: String {
    var rows = [["tensor", "shape", "type", "bytes", "from", ""]]
    for tensor in tensors {
      let merged = tensor.adapterRank.map { "adapter of rank \($0) merged" }
      rows.append([
        tensor.name, tensor.shape.map(String.init).joined(separator: "×"), tensor.type.name, grouped(tensor.bytes),
        "\(tensor.sourceName) \(tensor.sourceType)", tensor.isKept ? "kept" : merged ?? "",
      ])
    }
    var text = aligned(rows)
    for name in unmapped { text += "\nunmapped: \(name)" }
    return text + "\n\n" + table
  }

  /// What bounded the speed.
  private var speed: String {
    let megabytes = Double(modules.reduce(0) { $0 + $1.bytes }) / 1e6
    let shares = timings.shares
    return
      "\(decimal(timings.seconds, digits: 1)) s, \(decimal(megabytes / max(timings.seconds, 1e-9), digits: 1)) MB/s "
      + "written, bounded by \(timings.bound): \(timings.threads) threads spent \(percent(shares.reading, digits: 0)) of "
      + "their time reading and \(percent(shares.quantizing, digits: 0)) quantizing; writing was busy "
      + "\(percent(shares.writing, digits: 0)) of the time"
  }

  private func aligned(_ rows: [[String]]) -> String {
    let columns = rows[0].indices
    let widths = columns.map { column in rows.map { $0[column].count }.max() ?? 0 }
    return rows.map { row in
      var line = ""
      for column in columns {
        let pad = String(repeating: " ", count: widths[column] - row[column].count)
        // Words to the left, numbers to the right.
        let isNumber = ["parameters", "bytes", "bits/weight", "kept", "relative RMSE"].contains(rows[0][column])
        line += (column == 0 ? "" : "  ") + (isNumber ? pad + row[column] : row[column] + pad)
      }
      while line.last == " " { line.removeLast() }
      return line
    }.joined(separator: "\n")
  }

  private func percent(_ value: Double, digits: Int = 3) -> String { decimal(100 * value, digits: digits) + "%" }

  private func decimal(_ value: Double, digits: Int) -> String {
    var scale = 1
    for _ in 0..<digits { scale *= 10 }
    guard value.isFinite, abs(value) < 1e12 else { return String(value) }
    let scaled = Int((value * Double(scale)).rounded())
    guard digits > 0 else { return String(scaled) }
    let fraction = String(abs(scaled) % scale)
    return "\(scaled < 0 ? "-" : "")\(abs(scaled) / scale)."
      + String(repeating: "0", count: digits - fraction.count) + fraction
  }

  // MARK: For programs

  /// The same as one JSON object.
  var json: String {
    let modules = modules.map { module in
      object([
        ("name", text(module.name)), ("parameters", String(module.parameters)), ("bytes", String(module.bytes)),
        ("bits_per_weight", String(module.bitsPerWeight)),
      ])
    }
    let types = types.map { share in
      object([
        ("type", text(share.type.name)), ("parameters", String(share.parameters)), ("bytes", String(share.bytes)),
        ("kept_parameters", String(share.keptParameters)),
        ("relative_rmse", share.relativeRMSE.map { String($0) } ?? "null"),
      ])
    }
    let tensors = tensors.map { tensor in
      object([
        ("name", text(tensor.name)), ("type", text(tensor.type.name)), ("shape", array(tensor.shape.map(String.init))),
        ("bytes", String(tensor.bytes)), ("source", text(tensor.sourceName)),
        ("source_type", text(tensor.sourceType)), ("kept", String(tensor.isKept)),
        ("adapter_rank", tensor.adapterRank.map { String($0) } ?? "null"),
      ])
    }
    var members = [("modules", array(modules)), ("types", array(types))]
    if let fileBytes {
      members.append(("bytes", String(fileBytes)))
      members.append(
        (
          "timings",
          object([
            ("seconds", String(timings.seconds)), ("threads", String(timings.threads)),
            ("reading", String(timings.reading)), ("quantizing", String(timings.quantizing)),
            ("writing", String(timings.writing)), ("bounded_by", text(timings.bound)),
          ])
        ))
    } else {
      members.append(("tensors", array(tensors)))
    }
    members.append(("unmapped", array(unmapped.map(text))))
    members.append(("notes", array(notes.map(text))))
    return object(members)
  }

  private func object(_ members: [(String, String)]) -> String {
    "{" + members.map { "\"\($0)\": \($1)" }.joined(separator: ", ") + "}"
  }

  private func array(_ elements: [String]) -> String { "[" + elements.joined(separator: ", ") + "]" }

  private func text(_ value: String) -> String {
    var out = "\""
    for scalar in value.unicodeScalars {
      switch scalar {
      case "\"": out += "\\\""
      case "\\": out += "\\\\"
      case _ where scalar.value < 0x20:
        let digits = String(scalar.value, radix: 16)
        out += "\\u" + String(repeating: "0", count: 4 - digits.count) + digits
      default: out.unicodeScalars.append(scalar)
      }
    }
    return out + "\""
  }
}

extension ConversionProgress {
  /// How far it is, for windows of less and less width.
  func lines(name: String, seconds: Double) -> [String] {
    let fraction = totalBytes == 0 ? 1 : Double(writtenBytes) / Double(totalBytes)
    let rate = Double(writtenBytes) / max(seconds, 0.001)
    let left = rate > 0 ? Double(totalBytes - writtenBytes) / rate : 0
    func bar(_ width: Int) -> String {
      let filled = Int(fraction * Double(width))
      return String(repeating: "█", count: filled) + String(repeating: "░", count: width - filled)
    }
    func megabytes(_ bytes: Int) -> String { grouped(bytes / 1_000_000) }
    let share = "\(Int(fraction * 100)) %"
    let time = "\(duration(left)) left"
    return [
      "\(name) \(bar(30)) \(share), \(megabytes(writtenBytes)) of \(megabytes(totalBytes)) MB at \(Int(rate / 1e6)) MB/s, \(time)",
      "\(name) \(bar(20)) \(share), \(time)",
      "\(bar(12)) \(share), \(time)",
      "\(share), \(time)",
      share,
    ]
  }

  private func duration(_ seconds: Double) -> String {
    let total = Int(min(seconds, 360_000).rounded(.up))
    return total < 60 ? "\(total) s" : "\(total / 60) min \(total % 60) s"
  }
}
