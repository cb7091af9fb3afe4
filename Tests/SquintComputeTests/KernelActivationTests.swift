import SquintCompute
import Testing

@Suite struct KernelActivationTests {
  @Test(arguments: Kernels.available.map(\.name))
  func conversionsNormsAndActivationsEqualReference(name: String) throws {
    let kernels = try #require(Kernels.named(name))
    #expect(complaints(activationCases(), kernels) == [])
  }

  @Test(arguments: Kernels.available.map(\.name))
  func attentionEqualsReference(name: String) throws {
    let kernels = try #require(Kernels.named(name))
    #expect(complaints(attentionCases(), kernels) == [])
  }
}
