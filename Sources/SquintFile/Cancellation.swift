import Synchronization

/// A switch that stops an answer from anywhere: another thread, a signal handler.
public final class Cancellation: Sendable {
  private let flag = Atomic<Bool>(false)

  public init() {}

  /// Stops the answer that is being generated at its next token, or the prompt at its next chunk.
  public func cancel() { flag.store(true, ordering: .releasing) }

  public var isCancelled: Bool { flag.load(ordering: .acquiring) }

  /// Makes the switch ready for the next answer.
  public func reset() { flag.store(false, ordering: .releasing) }
}
