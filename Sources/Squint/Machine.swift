import SquintCompute
import SquintFile

extension MemoryLimit {
  /// `memory` bytes, or what is free.
  public init(memory: Int?) { self = memory.map { .allowed($0) } ?? .free(Machine().availableBytes) }
}

/// What this machine, and the control group that this process is in, have.
public struct Machine: Sendable {
  /// The processors that this process may use.
  public let processors: Int
  /// What this process may still take without being swapped or killed, plus what it holds already, in bytes.
  public let availableBytes: Int
  /// What this process holds now, in bytes: the program itself and what it has loaded.
  public let processBytes: Int

  /// What the process itself will still take, in bytes: the pages of its code that it has not run yet, the text of prompt
  /// and answer. (Measured with models of no size: 1.4 MB.)
  static let growthBytes = 2 << 20

  public init() {
    processBytes = Self.residentBytes()
    processors = Self.usableProcessors()
    var available = Self.memAvailable() ?? Int.max
    if let group = Self.groupRemaining() { available = min(available, group) }
    // The file pages that this process has mapped are part of what is available, since the kernel can drop them.
    let (sum, overflow) = available.addingReportingOverflow(Self.anonymousBytes())
    // A sixteenth stays free, for the kernel's page tables and for what else runs.
    availableBytes = overflow ? Int.max : sum - sum / 16
  }

  /// What this process has held at most, in bytes.
  public static func peakResidentBytes() -> Int {
    for line in text("/proc/self/status").split(separator: "\n") where line.hasPrefix("VmHWM:") {
      return (Int(line.filter(\.isNumber)) ?? 0) << 10
    }
    return residentBytes()
  }

  static func residentBytes() -> Int { SquintFile.residentBytes() }

  private static func anonymousBytes() -> Int {
    let pages = residentPages()
    return (pages.all - pages.ofFiles) * Int(sysconf(Int32(_SC_PAGESIZE)))
  }

  private static func residentPages() -> (all: Int, ofFiles: Int) {
    let fields = text("/proc/self/statm").split(separator: " ").map { Int($0) ?? 0 }
    return fields.count > 2 ? (fields[1], min(fields[2], fields[1])) : (0, 0)
  }

  private static func usableProcessors() -> Int {
    var count = Int(sysconf(Int32(_SC_NPROCESSORS_ONLN)))
    for line in text("/proc/self/status").split(separator: "\n") where line.hasPrefix("Cpus_allowed:") {
      // A mask in hexadecimal, in words divided by commas.
      let allowed = line.dropFirst("Cpus_allowed:".count).reduce(0) { $0 + ($1.hexDigitValue?.nonzeroBitCount ?? 0) }
      if allowed > 0 { count = allowed }
    }
    // A container may see all processors and yet be given the time of a few: "QUOTA PERIOD", or "max PERIOD".
    for group in groups(controller: "cpu") where group.isV2 {
      let fields = text(group.folder + "/cpu.max").split { $0.isWhitespace }
      guard fields.count == 2, let quota = Int(fields[0]), let period = Int(fields[1]), period > 0 else { continue }
      count = min(count, max((quota - 1) / period + 1, 1))
    }
    return min(max(count, 1), Workers.counts.upperBound)
  }

  private static func memAvailable() -> Int? {
    for line in text("/proc/meminfo").split(separator: "\n") where line.hasPrefix("MemAvailable:") {
      return Int(line.filter(\.isNumber)).map { $0 << 10 }
    }
    return nil
  }

  /// What is left of the smallest memory limit of this process's control group and those above it.
  private static func groupRemaining() -> Int? {
    var least: Int?
    for group in groups(controller: "memory") {
      let (limitFile, usageFile) =
        group.isV2 ? ("memory.max", "memory.current") : ("memory.limit_in_bytes", "memory.usage_in_bytes")
      let cacheKeys: Set<Substring> =
        group.isV2 ? ["active_file", "inactive_file"] : ["total_active_file", "total_inactive_file"]
      guard let limit = number(group.folder + "/" + limitFile), let usage = number(group.folder + "/" + usageFile)
      else { continue }
      // Usage counts the page cache, which the kernel drops before the group runs out: without this, a model that was
      // just converted or run would leave no room for itself.
      let cache = sum(in: group.folder + "/memory.stat", cacheKeys)
      least = min(least ?? Int.max, max(limit - max(usage - cache, 0), 0))
    }
    return least
  }

  /// The folders of this process's control group and of those above it, in version 2 and in version 1 for `controller`.
  private static func groups(controller: Substring) -> [(folder: String, isV2: Bool)] {
    var folders: [(String, Bool)] = []
    for line in text("/proc/self/cgroup").split(separator: "\n") {
      let fields = line.split(separator: ":", maxSplits: 2, omittingEmptySubsequences: false)
      guard fields.count == 3 else { continue }
      let isV2 = fields[0] == "0" && fields[1].isEmpty
      guard isV2 || fields[1].split(separator: ",").contains(controller) else { continue }
      let root = isV2 ? "/sys/fs/cgroup" : "/sys/fs/cgroup/\(controller)"
      var group = fields[2]
      while true {
        folders.append((root + group, isV2))
        guard let slash = group.lastIndex(of: "/"), group.count > 1 else { break }
        group = slash == group.startIndex ? group[...slash] : group[..<slash]
      }
    }
    return folders
  }

  /// The sum of the numbers behind `keys` in a file of lines "key number".
  private static func sum(in path: String, _ keys: Set<Substring>) -> Int {
    text(path).split(separator: "\n").reduce(0) { sum, line in
      let fields = line.split(separator: " ")
      return fields.count == 2 && keys.contains(fields[0]) ? sum + (Int(fields[1]) ?? 0) : sum
    }
  }

  private static func number(_ path: String) -> Int? { Int(text(path).filter { !$0.isWhitespace }) }

  /// A small file of /proc or /sys; empty where it cannot be read.
  static func text(_ path: String) -> String {
    let descriptor = open(path, O_RDONLY | O_CLOEXEC)
    guard descriptor >= 0 else { return "" }
    defer { close(descriptor) }
    var bytes = [UInt8](repeating: 0, count: 16384)
    let count = bytes.withUnsafeMutableBytes { read(descriptor, $0.baseAddress, $0.count) }
    return count > 0 ? String(decoding: bytes[..<count], as: UTF8.self) : ""
  }
}
