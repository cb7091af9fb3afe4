import Squint

/// Writes `text` to the file `path`, whole or not at all.
func writeFile(_ path: String, _ text: String) throws(SquintError) {
  let file = try OutputFile(path: path)
  try Array(text.utf8).withBytes { (bytes) throws(SquintError) in try file.write(bytes) }
  try file.finish()
}
