import CSystem

/// The control groups that this process is in (man 7 cgroups), of both versions.
package struct ControlGroups: Sendable {
  private let membership: String
  private let mount: String

  /// - Parameters:
  ///   - membership: as /proc/self/cgroup has it. Without /proc, the mount itself is taken, which in a container is right.
  ///   - mount: where they are mounted.
  package init(membership: String = systemText("/proc/self/cgroup"), mount: String = "/sys/fs/cgroup") {
    self.membership = membership
    self.mount = mount
  }

  /// The folders of this process's group and of those above it, in version 2 and in version 1 for `controller`.
  package func folders(controller: Substring) -> [(path: String, isV2: Bool)] {
    var folders: [(String, Bool)] = []
    func add(_ root: String, _ group: Substring, isV2: Bool) {
      var group = group
      while true {
        folders.append((root + group, isV2))
        guard let slash = group.lastIndex(of: "/"), group.count > 1 else { return }
        group = slash == group.startIndex ? group[...slash] : group[..<slash]
      }
    }
    guard !membership.isEmpty else {
      add(mount, "/", isV2: true)
      add("\(mount)/\(controller)", "/", isV2: false)
      return folders
    }
    for line in membership.split(separator: "\n") {
      let fields = line.split(separator: ":", maxSplits: 2, omittingEmptySubsequences: false)
      guard fields.count == 3 else { continue }
      let isV2 = fields[0] == "0" && fields[1].isEmpty
      guard isV2 || fields[1].split(separator: ",").contains(controller) else { continue }
      add(isV2 ? mount : "\(mount)/\(controller)", fields[2], isV2: isV2)
    }
    return folders
  }

  /// The processors whose time this process may use up, rounded up: a container may see all processors and yet be given the
  /// time of a few. nil where there is no limit.
  package var processorQuota: Int? {
    var least: Int?
    for group in folders(controller: "cpu") {
      let quota: Int?
      let period: Int?
      if group.isV2 {
        // "QUOTA PERIOD", or "max PERIOD".
        let fields = systemText(group.path + "/cpu.max").split { $0.isWhitespace }
        (quota, period) = fields.count == 2 ? (Int(fields[0]), Int(fields[1])) : (nil, nil)
      } else {
        // -1 is no limit.
        quota = systemNumber(group.path + "/cpu.cfs_quota_us")
        period = systemNumber(group.path + "/cpu.cfs_period_us")
      }
      guard let quota, let period, quota > 0, period > 0 else { continue }
      least = min(least ?? Int.max, (quota - 1) / period + 1)
    }
    return least
  }
}

/// The processors that this process may use: those that its affinity allows, and no more than its control group gives it the
/// time of. At least 1.
package func usableProcessors(_ groups: ControlGroups = ControlGroups()) -> Int {
  let allowed = Int(squint_allowed_processors())
  let online = Int(sysconf(Int32(_SC_NPROCESSORS_ONLN)))
  return max(1, min(allowed > 0 ? allowed : online, groups.processorQuota ?? Int.max))
}

/// A small file of /proc or /sys; empty where it cannot be read.
package func systemText(_ path: String) -> String {
  let descriptor = open(path, O_RDONLY | O_CLOEXEC)
  guard descriptor >= 0 else { return "" }
  defer { close(descriptor) }
  var bytes = [UInt8](repeating: 0, count: 16384)
  let count = bytes.withUnsafeMutableBytes { read(descriptor, $0.baseAddress, $0.count) }
  return count > 0 ? String(decoding: bytes[..<count], as: UTF8.self) : ""
}

/// The number in a small file of /proc or /sys; nil where there is none.
package func systemNumber(_ path: String) -> Int? { Int(systemText(path).filter { !$0.isWhitespace }) }

/// The memory that nobody uses, without what the page cache would give back, in bytes; nil where the system does not say.
package func freeMemory() -> Int? { Int(exactly: squint_free_memory()).flatMap { $0 > 0 ? $0 : nil } }
