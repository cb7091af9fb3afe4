import FoundationEssentials
import Squint

/// Prints `value` to stdout as one JSON object.
func printJSON(_ value: some Encodable) throws(SquintError) {
  let encoder = JSONEncoder()
  encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
  do {
    Terminal.write(String(decoding: try encoder.encode(value), as: UTF8.self) + "\n")
  } catch { throw SquintError(.internalError, "cannot write JSON: \(error)") }
}
