import FoundationEssentials
import Squint
import SquintFile
import SquintTerminal

/// Prints `value` to stdout as one JSON object.
func printJSON(_ value: some Encodable) throws(SquintError) {
  let encoder = JSONEncoder()
  encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
  do {
    Terminal.write(escaped(String(decoding: try encoder.encode(value), as: UTF8.self)) + "\n")
  } catch { throw SquintError(.internalError, "cannot write JSON: \(error)") }
}

/// `json` with the control characters that JSON lets stand as they are (DEL, C1, those of direction) escaped, so that it says
/// the same on a terminal as in a pipe.
private func escaped(_ json: String) -> String {
  guard json.unicodeScalars.contains(where: { $0.value > 0x20 && $0.isControl }) else { return json }
  var text = String.UnicodeScalarView()
  for scalar in json.unicodeScalars {
    guard scalar.value > 0x20, scalar.isControl else {
      text.append(scalar)
      continue
    }
    let digits = String(scalar.value, radix: 16)
    text.append(contentsOf: "\\u\(String(repeating: "0", count: 4 - digits.count))\(digits)".unicodeScalars)
  }
  return String(text)
}
