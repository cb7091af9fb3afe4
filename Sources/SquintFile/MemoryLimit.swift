/// The bytes that this process may hold, asked before it takes more: what a file can make a reader hold must not depend on what the
/// file says alone.
package struct MemoryLimit: Sendable {
  /// nil: as many as it takes.
  package let bytes: Int?
  /// Whether that is what is free, and not what someone asked for.
  private let isFree: Bool

  package static let none = MemoryLimit(bytes: nil, isFree: false)

  /// What someone allows.
  package static func allowed(_ bytes: Int) -> MemoryLimit { MemoryLimit(bytes: bytes, isFree: false) }

  /// What the machine leaves.
  package static func free(_ bytes: Int) -> MemoryLimit { MemoryLimit(bytes: bytes, isFree: true) }

  /// Below this much nobody asks: what it costs to find out is more than what it is about.
  private static let least = 1 << 20

  /// Checks that the process may take `more` bytes beside what it holds.
  ///
  /// - Parameter what: what takes them, and where: "model.squint: reading its tables".
  /// - Throws: `doesNotFit` where it may not.
  package func check(_ more: Int, for what: String) throws(SquintError) {
    guard let bytes, more >= Self.least else { return }
    let (needed, overflow) = residentBytes().addingReportingOverflow(more)
    guard overflow || needed > bytes else { return }
    throw SquintError(
      .doesNotFit,
      "\(what) takes \(grouped(more)) bytes, which with the program is \(overflow ? "too much" : grouped(needed)), and "
        + "\(grouped(bytes)) are \(isFree ? "free" : "allowed")",
      needed: needed, available: bytes, remedies: [isFree ? .closePrograms : .memoryForStep(needed)])
  }
}

/// What this process holds now, in bytes; 0 where the system does not say.
package func residentBytes() -> Int {
  let descriptor = open("/proc/self/statm", O_RDONLY | O_CLOEXEC)
  guard descriptor >= 0 else { return 0 }
  defer { close(descriptor) }
  var digits = [UInt8](repeating: 0, count: 128)
  let count = digits.withUnsafeMutableBytes { pread(descriptor, $0.baseAddress, $0.count, 0) }
  let fields = digits.prefix(max(count, 0)).split(separator: UInt8(ascii: " "))
  guard fields.count > 1, let pages = Int(String(decoding: fields[1], as: UTF8.self)) else { return 0 }
  return pages * Int(sysconf(Int32(_SC_PAGESIZE)))
}
