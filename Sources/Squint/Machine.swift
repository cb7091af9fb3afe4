import SquintCompute
import SquintFile

extension MemoryLimit {
  /// `memory` bytes, or what is free.
  package init(memory: Int?) { self = memory.map { .allowed($0) } ?? .free(Machine().availableBytes) }
}

/// What this machine, and the control group that this process is in, have.
package struct Machine: Sendable {
  /// The processors that this process may use.
  package let processors: Int
  /// What this process may still take without being swapped or killed, plus what it holds already, in bytes.
  package let availableBytes: Int
  /// What this process holds now, in bytes: the program itself and what it has loaded.
  package let processBytes: Int

  /// What the process itself will still take, in bytes: the pages of its code that it has not run yet, the text of prompt
  /// and answer. (Measured with models of no size: 1.4 MB.) Libraries that decode sounds are large: those of a conversation that
  /// begins without one took 0.7 MB more.
  static func growthBytes(_ kinds: [MediaKind]) -> Int { kinds.contains(.audio) ? 3 << 20 : 2 << 20 }

  package init() {
    let groups = ControlGroups()
    processBytes = Self.residentBytes()
    processors = min(usableProcessors(groups), Workers.counts.upperBound)
    var available = Self.memAvailable() ?? Int.max
    if let group = Self.remaining(of: groups) { available = min(available, group) }
    // The file pages that this process has mapped are part of what is available, since the kernel can drop them.
    let (sum, overflow) = available.addingReportingOverflow(Self.anonymousBytes())
    // A sixteenth stays free, for the kernel's page tables and for what else runs.
    let free = overflow ? Int.max : sum - sum / 16
    // What is mapped already counts in full there, however little of it has been read: this may be less than there is.
    let held = processBytes
    availableBytes = Self.addressSpaceRemaining().map { min(free, held + $0) } ?? free
  }

  /// What this process has held at most, in bytes.
  package static func peakResidentBytes() -> Int {
    for line in systemText("/proc/self/status").split(separator: "\n") where line.hasPrefix("VmHWM:") {
      return (Int(line.filter(\.isNumber)) ?? 0) << 10
    }
    return mostResidentBytes
  }

  static func residentBytes() -> Int {
    let bytes = SquintFile.residentBytes()
    return bytes > 0 ? bytes : mostResidentBytes
  }

  #if canImport(Glibc)
    private static let ownUsage = __rusage_who_t(RUSAGE_SELF.rawValue)
  #else
    private static let ownUsage = RUSAGE_SELF
  #endif

  /// What this process has held at most, as the system counts it also without /proc.
  private static var mostResidentBytes: Int {
    var usage = rusage()
    getrusage(ownUsage, &usage)
    #if os(Linux)
      return usage.ru_maxrss << 10
    #else
      return usage.ru_maxrss
    #endif
  }

  private static func anonymousBytes() -> Int {
    let pages = residentPages()
    return (pages.all - pages.ofFiles) * Int(sysconf(Int32(_SC_PAGESIZE)))
  }

  private static func residentPages() -> (all: Int, ofFiles: Int) {
    let fields = systemText("/proc/self/statm").split(separator: " ").map { Int($0) ?? 0 }
    return fields.count > 2 ? (fields[1], min(fields[2], fields[1])) : (0, 0)
  }

  private static func memAvailable() -> Int? {
    for line in systemText("/proc/meminfo").split(separator: "\n") where line.hasPrefix("MemAvailable:") {
      return Int(line.filter(\.isNumber)).map { $0 << 10 }
    }
    return freeMemory()  // without /proc
  }

  /// What is left of the address space that `ulimit -v` allows, in bytes; nil where there is no limit.
  private static func addressSpaceRemaining() -> Int? {
    for line in systemText("/proc/self/limits").split(separator: "\n") where line.hasPrefix("Max address space") {
      let pages = systemText("/proc/self/statm").split(separator: " ").first.flatMap { Int($0) }
      guard let limit = line.split(separator: " ").compactMap({ Int($0) }).first, let pages else { continue }
      return max(limit - pages * Int(sysconf(Int32(_SC_PAGESIZE))), 0)
    }
    return nil
  }

  /// What is left of the smallest memory limit of this process's control group and those above it.
  private static func remaining(of groups: ControlGroups) -> Int? {
    var least: Int?
    for group in groups.folders(controller: "memory") {
      let (limitFile, usageFile) =
        group.isV2 ? ("memory.max", "memory.current") : ("memory.limit_in_bytes", "memory.usage_in_bytes")
      let cacheKeys: Set<Substring> =
        group.isV2 ? ["active_file", "inactive_file"] : ["total_active_file", "total_inactive_file"]
      guard let limit = systemNumber(group.path + "/" + limitFile),
        let usage = systemNumber(group.path + "/" + usageFile)
      else { continue }
      // Usage counts the page cache, which the kernel drops before the group runs out: without this, a model that was
      // just converted or run would leave no room for itself.
      let cache = sum(in: group.path + "/memory.stat", cacheKeys)
      least = min(least ?? Int.max, max(limit - max(usage - cache, 0), 0))
    }
    return least
  }

  /// The sum of the numbers behind `keys` in a file of lines "key number".
  private static func sum(in path: String, _ keys: Set<Substring>) -> Int {
    systemText(path).split(separator: "\n").reduce(0) { sum, line in
      let fields = line.split(separator: " ")
      return fields.count == 2 && keys.contains(fields[0]) ? sum + (Int(fields[1]) ?? 0) : sum
    }
  }
}
