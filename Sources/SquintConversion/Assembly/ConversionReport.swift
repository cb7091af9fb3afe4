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
    /// The rank of the adapter that is merged into it; nil where there is none.
    public let adapterRank: Int?
  }

  /// Where the time went, in seconds; reading and quantizing are sums over all threads.
  public struct Timings: Sendable {
    public var seconds = 0.0
    public var threads = 1
    public var reading = 0.0
    public var quantizing = 0.0
    public var writing = 0.0

    /// How busy each kind of work was: reading and quantizing as shares of the time of all threads, writing, which one
    /// thread does at a time, of the time.
    public var shares: (reading: Double, quantizing: Double, writing: Double) {
      guard seconds > 0 else { return (0, 0, 0) }
      let all = seconds * Double(threads)
      return (reading / all, quantizing / all, writing / seconds)
    }

    /// The work that was busiest, and so bounded the speed.
    public var bound: String {
      let (reading, quantizing, writing) = shares
      return reading >= max(quantizing, writing) ? "reading" : quantizing >= writing ? "quantizing" : "writing"
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
