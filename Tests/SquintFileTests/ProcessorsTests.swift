import SquintFile
import Testing

/// How many threads are of use: affinity, and the quota of both versions of control groups.
@Suite struct ProcessorsTests {
  private let folder: TemporaryPlace

  init() throws { folder = try TemporaryPlace() }

  private func groups(_ membership: String) -> ControlGroups {
    ControlGroups(membership: membership, mount: folder.path)
  }

  @Test func version2() throws {
    try folder.write("cpu.max", "max 100000\n")
    try folder.write("outer/cpu.max", "350000 100000\n")
    try folder.write("outer/inner/cpu.max", "max 100000\n")
    #expect(groups("0::/\n").processorQuota == nil)
    #expect(groups("0::/outer\n").processorQuota == 4)
    // That of a group above counts, too; and where the group is not to be seen from here, the mount is ours.
    #expect(groups("0::/outer/inner\n").processorQuota == 4)
    #expect(groups("0::/docker/0123\n").processorQuota == nil)
    try folder.write("cpu.max", "50000 100000\n")
    #expect(groups("0::/docker/0123\n").processorQuota == 1)
    #expect(groups("0::/outer/inner\n").processorQuota == 1)
    #expect(usableProcessors(groups("0::/outer/inner\n")) == 1)
  }

  @Test func version1() throws {
    try folder.write("cpu/box/cpu.cfs_quota_us", "150000\n")
    try folder.write("cpu/box/cpu.cfs_period_us", "100000\n")
    try folder.write("cpu/cpu.cfs_quota_us", "-1\n")
    try folder.write("cpu/cpu.cfs_period_us", "100000\n")
    let membership = "5:memory:/box\n4:cpu,cpuacct:/box\n1:name=systemd:/x\n0::/\n"
    #expect(groups(membership).processorQuota == 2)
    #expect(groups("4:cpuacct,cpu:/\n").processorQuota == nil)
    #expect(groups("5:memory:/box\n").processorQuota == nil)
  }

  /// Without /proc nothing says which group it is: the mount is asked, in both versions.
  @Test func withoutMembership() throws {
    #expect(groups("").processorQuota == nil)
    try folder.write("cpu/cpu.cfs_quota_us", "200000")
    try folder.write("cpu/cpu.cfs_period_us", "100000")
    #expect(groups("").processorQuota == 2)
    try folder.write("cpu.max", "100000 100000")
    #expect(groups("").processorQuota == 1)
  }

  @Test(arguments: ["", "nonsense", "1 2 3", "-5 100000", "100000 0", "9223372036854775807 1", "1 9223372036854775807"])
  func strangeFiles(_ text: String) throws {
    try folder.write("cpu.max", text)
    #expect(usableProcessors(groups("0::/\n")) >= 1)
  }
}
