import SquintFile

/// What a conversion made, or would make: sizes, types, errors, times.
public struct ConversionReport: Sendable {
  public struct Module: Sendable {
    public let name: String
    public var parameters = 0
    public var bytes = 0

    public var bitsPerWeight: Double { parameters == 0 ? 0 : 8 * Double(bytes) / Double(parameters) }
  }

  public struct TypeShare: Sendable {
    public let type: ElementType
    public var parameters = 0
    /// How many of them were taken over bit for bit.
    public var keptParameters = 0
    public var bytes = 0
    /// √(Σ(stored − source)² / Σ source²) of those that were not taken over; nil where there are none, and before the
    /// conversion.
    public var relativeRMSE: Double?
  }

  public struct Tensor: Sendable {
    public let name: String
    public let type: ElementType
    /// The outermost axis first.
    public let shape: [Int]
    public let bytes: Int
    public let sourceName: String
    public let sourceType: String
    /// Whether the source's blocks are taken over bit for bit.
    public let isKept: Bool
  }

  /// Where the time went, in seconds; reading and quantizing are sums over all threads.
  public struct Timings: Sendable {
    public var seconds = 0.0
    public var threads = 1
    public var reading = 0.0
    public var quantizing = 0.0
    public var writing = 0.0

    /// What took most of the time that it could have had: writing has one thread, the others have all.
    public var bound: (work: String, share: Double) {
      guard seconds > 0 else { return ("nothing", 0) }
      let available = seconds * Double(threads)
      // Whoever writes is one of the threads, so all three are shares of the same time, except that a writer that is
      // always busy holds up the others.
      let shares = [
        ("reading", reading / available), ("quantizing", quantizing / available),
        ("writing", max(writing / available, writing / seconds > 0.9 ? writing / seconds : 0)),
      ]
      return shares.max { $0.1 < $1.1 } ?? ("nothing", 0)
    }
  }

  public let modules: [Module]
  public let types: [TypeShare]
  public let tensors: [Tensor]
  /// Tensors of the source that no rule maps and that were left out.
  public let unmapped: [String]
  /// What the user should know, a line each.
  public let notes: [String]
  /// The size of the file; nil before the conversion.
  public let fileBytes: Int?
  public let timings: Timings
}
