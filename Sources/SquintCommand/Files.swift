import Squint
import SquintFile

/// Writes `text` to the file `path`, whole or not at all.
func writeFile(_ path: String, _ text: String) throws(SquintError) {
  let file = try OutputFile(path: path)
  try Array(text.utf8).withBytes { (bytes) throws(SquintError) in try file.write(bytes) }
  try file.finish()
}

/// More than any context holds; an endless file or stdin must not fill the memory.
let longestText = 16 << 20

/// The text of the file `path`; bytes that are no UTF-8 become U+FFFD.
func readFile(_ path: String) throws(SquintError) -> String {
  let file = try MappedFile(path: path)
  guard file.bytes.count <= longestText else {
    throw .badData(path, "it is longer than \(grouped(longestText)) bytes; make it shorter")
  }
  return String(decoding: file.bytes, as: UTF8.self)
}

extension OutputFile {
  func write(_ bytes: [UInt8]) throws(SquintError) {
    try bytes.withBytes { (bytes) throws(SquintError) in try write(bytes) }
  }
}

/// The header of a NumPy file (format 1.0) with little-endian f32 of `shape`.
///
/// - Parameter byteCount: its size, a multiple of 64; nil: as small as it can be.
func numpyHeader(_ shape: [Int], byteCount: Int? = nil) -> [UInt8] {
  let axes = shape.map(String.init).joined(separator: ", ")
  var text = "{'descr': '<f4', 'fortran_order': False, 'shape': (\(axes)), }"
  // Magic, version, length and text together are a multiple of 64 bytes, and the text ends with a newline.
  while (10 + text.utf8.count + 1) % 64 != 0 || 10 + text.utf8.count + 1 < byteCount ?? 0 { text += " " }
  text += "\n"
  let count = UInt16(text.utf8.count)
  return [0x93] + Array("NUMPY".utf8) + [1, 0, UInt8(count & 0xFF), UInt8(count >> 8)] + Array(text.utf8)
}
