/// File names are bytes on Linux, and need not be UTF-8: a disk from another system has Latin-1 or Shift JIS. A String that
/// stands for one has a scalar of its own for each byte that is part of no character, so that no byte is lost on the way from
/// the command line, or a folder, to the file.
///
/// The scalars are U+10FF80 to U+10FFFF, the last of a plane that is for private use; the lower 8 bits are the byte. A name that
/// really has one of them has its four bytes each as a scalar.
extension String {
  private static let byteScalars: ClosedRange<UInt32> = 0x10FF80...0x10FFFF

  /// The name whose bytes are `bytes`, without a zero at their end.
  package init(fileName bytes: some Sequence<UInt8>) {
    let bytes = Array(bytes)
    if let text = String(validating: bytes, as: UTF8.self),
      !text.unicodeScalars.contains(where: { Self.byteScalars.contains($0.value) })
    {
      self = text
      return
    }
    var scalars = String.UnicodeScalarView()
    var position = 0
    while position < bytes.count {
      var parser = Unicode.UTF8.ForwardParser()
      var rest = bytes[position...].makeIterator()
      if case .valid(let encoded) = parser.parseScalar(from: &rest),
        case let scalar = Unicode.UTF8.decode(encoded), !Self.byteScalars.contains(scalar.value)
      {
        scalars.append(scalar)
        position += encoded.count
      } else {
        scalars.append(Unicode.Scalar(Self.byteScalars.lowerBound - 0x80 + UInt32(bytes[position]))!)
        position += 1
      }
    }
    self.init(scalars)
  }

  /// The name in the zero-terminated string at `bytes`.
  package init(fileName bytes: UnsafePointer<CChar>) {
    self.init(fileName: UnsafeRawBufferPointer(start: bytes, count: strlen(bytes)))
  }

  /// The bytes of this name.
  package var fileNameBytes: [UInt8] {
    var bytes: [UInt8] = []
    bytes.reserveCapacity(utf8.count)
    for scalar in unicodeScalars {
      if Self.byteScalars.contains(scalar.value) {
        bytes.append(UInt8(truncatingIfNeeded: scalar.value))
      } else {
        bytes += UTF8.encode(scalar)!
      }
    }
    return bytes
  }

  /// What a name, or an argument, says as a text: what is not UTF-8 in it becomes U+FFFD.
  package var repaired: String { String(decoding: fileNameBytes, as: UTF8.self) }

  /// This text with the bytes in names as a shell takes them: \xE9.
  package var withVisibleBytes: String {
    guard unicodeScalars.contains(where: { Self.byteScalars.contains($0.value) }) else { return self }
    var text = String.UnicodeScalarView()
    for scalar in unicodeScalars {
      if Self.byteScalars.contains(scalar.value) {
        text += "\\x\(String(scalar.value & 0xFF, radix: 16, uppercase: true))".unicodeScalars
      } else {
        text.append(scalar)
      }
    }
    return String(text)
  }

  /// Calls `body` with the bytes of this name and a zero behind them.
  func withFileName<Result>(_ body: (UnsafePointer<CChar>) -> Result) -> Result {
    var bytes = fileNameBytes
    bytes.append(0)
    return bytes.withUnsafeBytes { body($0.bindMemory(to: CChar.self).baseAddress!) }
  }
}

// MARK: The C library's functions for names

// Swift would hand them the String's own UTF-8. These, which are preferred where a String is given, hand them the bytes.

package func open(_ path: String, _ flags: Int32, _ mode: mode_t = 0) -> Int32 {
  path.withFileName { open($0, flags, mode) }
}

package func stat(_ path: String, _ status: UnsafeMutablePointer<stat>) -> Int32 {
  path.withFileName { stat($0, status) }
}

package func access(_ path: String, _ mode: Int32) -> Int32 { path.withFileName { access($0, mode) } }

@discardableResult
package func unlink(_ path: String) -> Int32 { path.withFileName { unlink($0) } }

package func rename(_ old: String, _ new: String) -> Int32 {
  old.withFileName { old in new.withFileName { rename(old, $0) } }
}

package func realpath(_ path: String, _ resolved: UnsafeMutablePointer<CChar>?) -> UnsafeMutablePointer<CChar>? {
  path.withFileName { realpath($0, resolved) }
}

/// The names of everything in the folder at `path`, sorted.
///
/// - Throws: `SquintError.noInput` where it cannot be read.
package func fileNames(inFolder path: String) throws(SquintError) -> [String] {
  guard let folder = path.withFileName({ opendir($0) }) else { throw .cannotOpen(path, errno) }
  defer { closedir(folder) }
  var names: [String] = []
  while let entry = readdir(folder) {
    let name = withUnsafeBytes(of: &entry.pointee.d_name) { bytes in String(fileName: bytes.prefix { $0 != 0 }) }
    if name != ".", name != ".." { names.append(name) }
  }
  return names.sorted()
}
