import Synchronization

/// How far some work is, as a status line: where stderr is a terminal, and the work takes longer than a moment.
package final class Progress: Sendable {
  private let begin: ContinuousClock.Instant
  private let next: Mutex<ContinuousClock.Instant>

  private static let moment = Duration.milliseconds(500)
  /// A line that changes faster cannot be read, and takes time to write.
  private static let interval = Duration.milliseconds(100)

  /// Work that begins now.
  ///
  /// - Parameter isLong: whether it is known to take long, so that its first status is shown at once.
  package init(isLong: Bool = false) {
    begin = .now
    next = Mutex(isLong ? begin : begin + Self.moment)
  }

  deinit { Terminal.clearStatus() }

  /// What has passed since the work began, in seconds.
  package var seconds: Double { (ContinuousClock.now - begin) / .seconds(1) }

  /// Shows the first of `texts` that fits the window, or the last, cut; at most ten times a second. From any thread.
  package func show(_ texts: @autoclosure () -> [String]) {
    guard Terminal.isRewritable else { return }
    let isDue = next.withLock { next in
      let now = ContinuousClock.now
      guard now >= next else { return false }
      next = now + Self.interval
      return true
    }
    guard isDue else { return }
    let texts = texts()
    let width = Terminal.statusColumns
    guard let text = texts.first(where: { columns(of: printable($0)) <= width }) ?? texts.last else { return }
    Terminal.showStatus(text)
  }

  package func show(_ text: @autoclosure () -> String) { show([text()]) }
}
